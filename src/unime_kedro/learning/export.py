"""Save a trained model so that it loads everywhere.

| with | how |
|---|---|
| this project | the folder as ``model`` in any parameter file, or ``unime_kedro.mllm.adapters.load_adapter`` |
| transformers, peft | ``from_pretrained``; a LoRA adapter by ``PeftModel.from_pretrained(base, folder)`` |
| sentence-transformers >= 6 | embedders: ``SentenceTransformer(folder, trust_remote_code=True).encode(...)`` |

sentence-transformers needs ``trust_remote_code=True`` because the folder brings a module file along (also for local
folders, since its version 6); its own module would need torchvision and knows only chat prompts.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unime_kedro.atomic import flush
from unime_kedro.errors import ConfigurationError
from unime_kedro.paths import resolve

if TYPE_CHECKING:
    from unime_kedro.mllm.adapters.base import BackboneAdapter

#: the run's record, in the model's folder
RECORD = "training.json"
#: of a merged model: the subfolder with the LoRA adapter alone
ADAPTER = "adapter"

_SETTINGS = "unime_embedding.json"
#: file here -> its name in a model's folder
_FILES = {"sentence_module": "unime_embedding", "sentence_module_tiles": "unime_embedding_tiles"}


def save_embedder(
    folder: Path,
    adapter: BackboneAdapter,
    *,
    base: str,
    revision: str | None = None,
    peft: Any = None,
    merge: bool = False,
    prompt: str,
    max_tokens: int,
    card: str,
    record: Mapping[str, Any],
) -> None:
    """Save a trained embedder, with what sentence-transformers needs; see :func:`save_model`.

    Args:
        folder: As of :func:`save_model`, like ``adapter``, ``base``, ``revision``, ``peft``, ``merge``, ``card`` and
            ``record``.
        adapter: The trained model.
        base: The model that training started from.
        revision: Hub revision of ``base``.
        peft: The ``PeftModel``; None after full tuning.
        merge: Save a full model with the LoRA adapter added to its weights.
        prompt: ``plain`` or ``chat``, as in training.
        max_tokens: Longest input, as in training.
        card: ``README.md``.
        record: ``training.json``.

    Raises:
        ConfigurationError: If a LoRA adapter would take the place of its own base model.
    """

    def add(unfinished: Path) -> None:
        _save_sentence_transformers(unfinished, adapter, prompt, max_tokens, needs_peft=peft is not None and not merge)

    save_model(folder, adapter, base=base, revision=revision, peft=peft, merge=merge, card=card, record=record, add=add)


def save_model(
    folder: Path,
    adapter: BackboneAdapter,
    *,
    base: str,
    revision: str | None = None,
    peft: Any = None,
    merge: bool = False,
    card: str,
    record: Mapping[str, Any],
    add: Callable[[Path], None] | None = None,
    section: str = "train",
) -> None:
    """Save a trained model, whole or not at all: an older one stays until the new one is complete.

    Nothing is taken over from the base model's folder; a judge's calibration belongs to the base's weights.

    Args:
        folder: Receives the model; everything that was in it goes.
        adapter: The trained model.
        base: The model that training started from, as in the parameters (hub id, or a folder; a relative one starts at
            the project root). A LoRA adapter is nothing without it.
        revision: Hub revision of ``base``.
        peft: The ``PeftModel`` of :class:`.trainable.TrainableReport`; None after full tuning.
        merge: Save a full model with the LoRA adapter added to its weights, and the adapter in the subfolder
            ``adapter``. ``adapter.model`` is merged by this, too: it embeds as before, but cannot train on.
        card: ``README.md``.
        record: ``training.json``.
        add: Adds further files to the folder that is given to it, before the model takes its place.
        section: Top-level key of the parameters, for messages.

    Raises:
        ConfigurationError: If a LoRA adapter would take the place of its own base model.
    """
    if peft is not None and not merge and resolve(base).resolve() == folder.resolve():
        raise ConfigurationError(
            f"the LoRA adapter would be saved in {folder}, in place of its base model. Set {section}.merge: true, or "
            "start from a copy of that model."
        )
    finish_swap(folder)
    unfinished = _partial(folder)
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    _save_weights(unfinished, adapter, base, revision, peft, merge)
    # how it was read here (HF_HUB_OFFLINE), and nothing of the model: it would make equal models unequal files
    adapter.tokenizer.init_kwargs.pop("local_files_only", None)
    adapter.tokenizer.save_pretrained(unfinished)
    adapter.image_processor.save_pretrained(unfinished)
    if add is not None:
        add(unfinished)
    _write_json(unfinished / RECORD, record)
    (unfinished / "README.md").write_text(card, encoding="utf-8")
    for file in unfinished.rglob("*"):
        flush(file)
    flush(unfinished)
    _swap(folder)


def _save_weights(
    folder: Path, adapter: BackboneAdapter, base: str, revision: str | None, peft: Any, merge: bool
) -> None:
    if peft is None:
        adapter.model.save_pretrained(folder)
        return
    lora = folder / ADAPTER if merge else folder
    config = peft.peft_config["default"]
    config.base_model_name_or_path, config.revision = base, revision
    # By default peft would look up the base model's vocabulary on the network; it never changes here.
    peft.save_pretrained(lora, save_embedding_layers=False)
    (lora / "README.md").unlink(missing_ok=True)
    _sort_targets(lora / "adapter_config.json")
    if merge:
        adapter.model = peft.merge_and_unload()
        adapter.model.save_pretrained(folder)


def _sort_targets(file: Path) -> None:
    """Put lists that peft keeps as sets into one order, so that equal adapters are equal files."""
    config = json.loads(file.read_text(encoding="utf-8"))
    for name in ("target_modules", "exclude_modules"):
        if isinstance(config.get(name), list):
            config[name].sort()
    _write_json(file, config)


def _save_sentence_transformers(
    folder: Path, adapter: BackboneAdapter, prompt: str, max_tokens: int, *, needs_peft: bool
) -> None:
    tiles = adapter.reads_tiles
    settings: dict[str, object] = {"prompt": prompt, "max_tokens": max_tokens}
    if not tiles:  # of tiles the image processor's own file has the limits
        size = adapter.image_processor.size
        settings |= {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]}
    requirements = {"sentence-transformers": ">=6", "transformers": ">=5.19"} | (
        {"peft": ">=0.18"} if needs_peft else {}
    )
    _write_json(folder / _SETTINGS, settings)
    module = "unime_embedding_tiles.UnimeTileEmbedding" if tiles else "unime_embedding.UnimeEmbedding"
    _write_json(folder / "modules.json", [{"idx": 0, "name": "0", "path": "", "type": module}])
    _write_json(
        folder / "config_sentence_transformers.json",
        {
            "model_type": "SentenceTransformer",
            "prompts": {},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
            "requirements": requirements,
        },
    )
    for ours, theirs in _FILES.items() if tiles else [("sentence_module", "unime_embedding")]:
        text = Path(__file__).with_name(f"{ours}.py").read_text(encoding="utf-8")
        # in the folder one file lies beside the other, and this project need not be installed
        text = text.replace("from unime_kedro.learning.sentence_module import", "from .unime_embedding import")
        (folder / f"{theirs}.py").write_text(text, encoding="utf-8")


def _write_json(file: Path, value: object) -> None:
    file.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _partial(folder: Path) -> Path:
    return folder.with_name(folder.name + ".partial")


def _replaced(folder: Path) -> Path:
    return folder.with_name(folder.name + ".replaced")


def _swap(folder: Path) -> None:
    """Put the complete ``.partial`` folder in place."""
    if folder.exists():
        folder.rename(_replaced(folder))
    _partial(folder).rename(folder)
    flush(folder.parent)
    shutil.rmtree(_replaced(folder), ignore_errors=True)


def finish_swap(folder: Path) -> None:
    """Finish what a process was killed in: between two renames ``folder`` is away, complete, under two other names.

    Does nothing else, and may be called before a trained model is read.
    """
    if not _replaced(folder).exists():
        return
    if not folder.exists():
        # An old model is put away only when the new one is complete.
        (_partial(folder) if _partial(folder).exists() else _replaced(folder)).rename(folder)
    shutil.rmtree(_replaced(folder), ignore_errors=True)
