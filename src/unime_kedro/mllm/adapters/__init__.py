"""One adapter per backbone family; :func:`load_adapter` picks it by the ``model_type`` in the model's own config.

To add a family: write one file in this folder with a subclass of ``BackboneAdapter``; see docs/backbones.md.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from unime_kedro.errors import ModelError
from unime_kedro.mllm.adapters.lora import CONFIG, base_of, is_lora, lora_folder, merge_lora, need_peft
from unime_kedro.mllm.adapters.meta import META
from unime_kedro.mllm.adapters.registry import families, known, why_unknown
from unime_kedro.mllm.content import ModelSpec
from unime_kedro.mllm.fingerprint import model_fingerprint
from unime_kedro.paths import resolve

if TYPE_CHECKING:
    from unime_kedro.mllm.adapters.base import BackboneAdapter

#: below this number of parameters more than one CPU thread makes a model slower
SMALL_MODEL = 30_000_000


def local_or_hub(model: str) -> str | Path:
    """Return the folder ``model`` means, or ``model`` itself when it can only be a hub id.

    Args:
        model: A folder (a relative one starts at the project root) with a full model or a LoRA adapter, or a hub id.

    Raises:
        ModelError: If it looks like a path but there is no such folder, it holds neither, or the same is true of the
            base model of an adapter.
    """
    folder = resolve(model)
    if folder.is_dir():
        if is_lora(folder):
            _check_base(folder)
        elif not (folder / "config.json").is_file():
            raise ModelError(
                f"{folder} has no config.json (and no {CONFIG} of a LoRA adapter): it is not a model folder "
                "(save_pretrained writes one)."
            )
        return folder
    if model.startswith((".", "/", "~")) or model.count("/") != 1 or folder.parent.is_dir():
        raise ModelError(
            f"there is no model folder {folder}. Give a folder that save_pretrained wrote (relative to the project "
            "root) or a hub id such as Qwen/Qwen2-VL-2B-Instruct."
        )
    return model


def _check_base(folder: Path) -> None:
    """Follow a LoRA adapter to its base model, which may be one, too."""
    seen = [folder.resolve()]
    while is_lora(seen[-1]):
        base, _ = base_of(seen[-1])
        if (found := resolve(base)).resolve() in seen:
            raise ModelError(f"{seen[-1] / CONFIG}: the base model {base} is an adapter on top of this one.")
        try:
            if not found.is_dir():
                local_or_hub(base)
                return
        except ModelError as error:
            raise ModelError(f"the base model that {seen[-1] / CONFIG} names: {error}") from error
        seen.append(found.resolve())
    if not (seen[-1] / "config.json").is_file():
        raise ModelError(f"the base model that {seen[-2] / CONFIG} names, {seen[-1]}, has no config.json.")


def pixel_limits(spec: ModelSpec) -> dict[str, int]:
    """Return the limits of a picture's area that were asked for, as an image processor takes them."""
    limits = (("min_pixels", spec.min_pixels), ("max_pixels", spec.max_pixels))
    return {name: value for name, value in limits if value is not None}


def load_adapter(spec: ModelSpec) -> BackboneAdapter:
    """Load a model with the adapter of its family; a LoRA adapter is merged into its base model in memory.

    Args:
        spec: Which model, revision, device and precision. Of a LoRA adapter on the hub the revision is the adapter's
            own; that of the base model stands in ``adapter_config.json``.

    Returns:
        The adapter, with the model in evaluation mode.

    Raises:
        ModelError: If the folder does not exist, the hub cannot be reached, the architecture has no adapter, or a LoRA
            adapter does not fit its base model.
    """
    adapter = _load(spec)
    if spec.device != META:
        _set_threads(adapter, spec.threads)
    return adapter


def fingerprint_of(model: str, revision: str | None = None) -> str:
    """Return the fingerprint that a model's adapter would have, without loading it.

    Args:
        model: Hub id or folder, of a full model or of a LoRA adapter, whose base counts as well.
        revision: Hub revision.

    Raises:
        ModelError: If there is no such model.
    """
    source = local_or_hub(model)
    found = lora_folder(source, revision)
    if found is not None:
        folder, fingerprint = found
        return f"{fingerprint}+{fingerprint_of(*base_of(folder))}"
    try:
        return model_fingerprint(source, revision)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"cannot find out which commit of '{model}' (revision {revision}) is meant: {error}"
        ) from error


def _load(spec: ModelSpec) -> BackboneAdapter:
    source = local_or_hub(spec.model)
    found = lora_folder(source, spec.revision)
    if found is None:
        return _load_full(spec, source)
    folder, fingerprint = found
    need_peft(source)
    base, revision = base_of(folder)
    try:
        adapter = _load(replace(spec, model=base, revision=revision))
    except ModelError as error:
        raise ModelError(f"the base model of the LoRA adapter '{spec.model}': {error}") from error
    merge_lora(adapter, folder, fingerprint, spec)
    return adapter


def _load_full(spec: ModelSpec, source: str | Path) -> BackboneAdapter:
    import transformers

    try:
        # code from a model's repository is not run
        config = transformers.AutoConfig.from_pretrained(source, revision=spec.revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"cannot read the configuration of model '{spec.model}' (revision {spec.revision}): {error} "
            f"(Adapters exist for {known()}.)"
        ) from error
    if problem := why_unknown(config.model_type, config.architectures):
        raise ModelError(f"model '{spec.model}' is {problem}")
    return families()[config.model_type].load(source, spec, config)


def _set_threads(adapter: BackboneAdapter, threads: int) -> None:
    """Give torch as many CPU threads as the model can use.

    On two cores the tiny judge does 1,130 pairs per CPU second with one thread and 340 with two (each operation is
    shorter than handing it over); see docs/lab-notes.md.
    """
    import os

    import torch

    if threads == 0:
        small = sum(p.numel() for p in adapter.model.parameters()) < SMALL_MODEL
        threads = 1 if small else os.cpu_count() or 1
    torch.set_num_threads(threads)
