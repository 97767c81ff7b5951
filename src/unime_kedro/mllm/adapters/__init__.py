"""One adapter per backbone family; :func:`load_adapter` picks it by the architecture in the model's own config.

To add a family: write one file with a subclass of ``BackboneAdapter`` and list it in ``FAMILIES``.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from unime_kedro.errors import ModelError
from unime_kedro.mllm.content import ModelSpec
from unime_kedro.paths import resolve

if TYPE_CHECKING:
    from unime_kedro.mllm.adapters.base import BackboneAdapter

#: architecture (as in config.json) -> module and class of its adapter
FAMILIES: dict[str, tuple[str, str]] = {
    "Qwen2VLForConditionalGeneration": ("unime_kedro.mllm.adapters.qwen_vl", "QwenVLAdapter"),
    "Qwen2_5_VLForConditionalGeneration": ("unime_kedro.mllm.adapters.qwen_vl", "QwenVLAdapter"),
}

#: below this number of parameters more than one CPU thread makes a model slower
SMALL_MODEL = 30_000_000


def local_or_hub(model: str) -> str | Path:
    """Return the folder ``model`` means, or ``model`` itself when it can only be a hub id.

    Raises:
        ModelError: If it looks like a path but there is no such folder.
    """
    folder = resolve(model)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(f"{folder} has no config.json: it is not a model folder (save_pretrained writes one).")
        return folder
    if model.startswith((".", "/", "~")) or model.count("/") != 1 or folder.parent.is_dir():
        raise ModelError(
            f"there is no model folder {folder}. Give a folder that save_pretrained wrote (relative to the project "
            "root) or a hub id such as Qwen/Qwen2-VL-2B-Instruct."
        )
    return model


def load_adapter(spec: ModelSpec) -> BackboneAdapter:
    """Load a model with the adapter of its family.

    Args:
        spec: Which model, revision, device and precision.

    Returns:
        The adapter, with the model in evaluation mode.

    Raises:
        ModelError: If the folder does not exist, the hub cannot be reached, or the architecture has no adapter.
    """
    import transformers

    source = local_or_hub(spec.model)
    try:
        config = transformers.AutoConfig.from_pretrained(source, revision=spec.revision)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"cannot read the configuration of model '{spec.model}' (revision {spec.revision}): {error}"
        ) from error
    architecture = (config.architectures or ["(none)"])[0]
    if architecture not in FAMILIES:
        raise ModelError(
            f"model '{spec.model}' is a {architecture}; adapters exist for {', '.join(sorted(FAMILIES))}. "
            "A new family is one file in src/unime_kedro/mllm/adapters/ and one line in its FAMILIES table."
        )
    module, name = FAMILIES[architecture]
    adapter = getattr(importlib.import_module(module), name).load(source, spec, config)
    _set_threads(adapter, spec.threads)
    return adapter


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
