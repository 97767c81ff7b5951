"""LoRA adapter folders, as peft writes them: found, followed to their base model, and merged into it in memory.

Such a folder holds ``adapter_config.json``, which names the base model, and ``adapter_model.safetensors``; ours also
have the tokenizer and image processor. (What the rest of this package calls an adapter is the code of a backbone.)
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from unime_kedro.errors import ModelError
from unime_kedro.mllm.fingerprint import folder_fingerprint

if TYPE_CHECKING:
    from unime_kedro.mllm.adapters.base import BackboneAdapter
    from unime_kedro.mllm.content import ModelSpec

CONFIG = "adapter_config.json"

_FULL_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
#: what is fetched of an adapter on the hub
_HUB_FILES = ["adapter_*", "tokenizer*", "vocab.json", "merges.txt", "chat_template.*", "preprocessor_config.json"]


def is_lora(folder: Path) -> bool:
    """Whether a folder holds a LoRA adapter instead of a model.

    Raises:
        ModelError: If it holds both: transformers would take the one or the other, depending on whether peft is there.
    """
    if not (folder / CONFIG).is_file():
        return False
    if full := [name for name in _FULL_WEIGHTS if (folder / name).is_file()]:
        raise ModelError(
            f"{folder} holds the weights of a full model ({full[0]}) and a LoRA adapter ({CONFIG}); it is not clear "
            "which is meant. Move the adapter's files into a folder of their own."
        )
    return True


def lora_folder(source: str | Path, revision: str | None) -> tuple[Path, str] | None:
    """Find a LoRA adapter.

    Args:
        source: A folder, or a hub id; of the latter the adapter's files are fetched.
        revision: Hub revision.

    Returns:
        The adapter's folder and its fingerprint, None if ``source`` is a full model.
    """
    if isinstance(source, Path):
        return (source, folder_fingerprint(source)) if is_lora(source) else None
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        hf_hub_download(source, CONFIG, revision=revision)
    except (HfHubHTTPError, OSError, ValueError):
        return None  # no adapter, or nothing can be fetched: then loading the full model says why
    try:
        folder = Path(snapshot_download(source, revision=revision, allow_patterns=_HUB_FILES))
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ModelError(f"cannot fetch the LoRA adapter '{source}' (revision {revision}): {error}") from error
    return folder, f"{source}@{folder.name}"


def base_of(folder: Path) -> tuple[str, str | None]:
    """Return the base model of an adapter folder, and its revision.

    Raises:
        ModelError: If ``adapter_config.json`` cannot be read, is of another method than LoRA, or names no base model.
    """
    file = folder / CONFIG
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read the LoRA adapter's {file}: {error}") from error
    config = config if isinstance(config, dict) else {}
    if config.get("peft_type") != "LORA":
        raise ModelError(f"{file}: peft_type is {config.get('peft_type')}; only LORA can be merged into a base.")
    base = config.get("base_model_name_or_path")
    if not base or not isinstance(base, str):
        raise ModelError(f"{file} has no base_model_name_or_path: write there which model the LoRA adapter is for.")
    return base, config.get("revision")


def need_peft(what: str | Path) -> None:
    """Make sure that peft is installed.

    Raises:
        ModelError: If it is not.
    """
    try:
        import peft  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModelError(
            f"{what} is a LoRA adapter; loading it needs peft, which is not installed: pip install peft."
        ) from error


def merge_lora(base: BackboneAdapter, folder: Path, fingerprint: str, spec: ModelSpec) -> None:
    """Add a LoRA adapter's matrices to the weights of its loaded base model, in place.

    Tokenizer and image processor are replaced by the adapter folder's where it has them.

    Args:
        base: The base model; its fingerprint becomes one of both.
        folder: The adapter's folder.
        fingerprint: Of the adapter.
        spec: Its limits of a picture's area hold for the adapter's image processor, too.

    Raises:
        ModelError: If the adapter's weights are missing, or it does not fit the model.
    """
    import warnings

    import peft
    import transformers

    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing. is deprecated")  # peft asks transformers
    try:
        config = peft.PeftConfig.from_pretrained(str(folder))
        config.inference_mode = True
        wrapped = peft.PeftModel(base.model, config)
        result = wrapped.load_adapter(str(folder), "default", is_trainable=False)
        _check_complete(folder, result)
        base.model = wrapped.merge_and_unload().eval()  # type: ignore[operator]
        if (folder / "tokenizer_config.json").is_file():
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
            tokenizer.chat_template = tokenizer.chat_template or base.tokenizer.chat_template
            base.tokenizer = tokenizer
        if (folder / "preprocessor_config.json").is_file():
            base.use_image_processor(base.read_image_processor(folder, replace(spec, revision=None)))
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise ModelError(f"cannot put the LoRA adapter {folder} on its base model: {error}") from error
    base.fingerprint = f"{fingerprint}+{base.fingerprint}"


def _check_complete(folder: Path, result: object) -> None:
    """Refuse what peft only warns of: matrices that are not there stay random or zero."""
    missing, unexpected = (list(getattr(result, name, [])) for name in ("missing_keys", "unexpected_keys"))
    for names, what in ((missing, "lacks"), (unexpected, "has, unknown to its base model,")):
        if names:
            raise ModelError(f"the LoRA adapter {folder} {what} {len(names)} of the weights, the first is {names[0]}.")
