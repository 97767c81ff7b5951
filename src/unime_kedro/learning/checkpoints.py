"""Checkpoints that are whole or do not count.

transformers writes a checkpoint file by file. A process that is killed meanwhile leaves a folder that looks like one;
and old ones are deleted file by file, too. So the last file written lists all others with their sizes: a folder in
which they are not all there is no checkpoint, and is removed.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unime_kedro.atomic import atomic_write
from unime_kedro.errors import ModelError

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

#: the weights that are trained, by name
WEIGHTS = "trained.safetensors"
COMPLETE = "complete.json"
_PREFIX = "checkpoint-"


def mark_complete(checkpoint: Path, step: int, **facts: str) -> None:
    """Write the list of a checkpoint's files, and what else is to be known of it, after all of them."""
    sizes = {f.relative_to(checkpoint).as_posix(): f.stat().st_size for f in _files(checkpoint)}
    with atomic_write(checkpoint / COMPLETE) as temporary:
        temporary.write_text(json.dumps({"step": step, **facts, "files": sizes}, indent=1) + "\n", encoding="utf-8")


def is_complete(checkpoint: Path) -> bool:
    """Whether all files of a checkpoint are there, with the sizes they were written with."""
    try:
        listed = json.loads((checkpoint / COMPLETE).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError):
        return False
    sizes = {f.relative_to(checkpoint).as_posix(): f.stat().st_size for f in _files(checkpoint)}
    return all(sizes.get(name) == size for name, size in listed.items())


def last_checkpoint(folder: Path) -> Path | None:
    """Return the complete checkpoint with the most steps, None if there is none; incomplete ones are removed."""
    found: list[tuple[int, Path]] = []
    for path in folder.glob(f"{_PREFIX}*"):
        if not is_complete(path):
            log.warning("%s is incomplete, its writer was killed; it is removed", path.name)
            shutil.rmtree(path, ignore_errors=True)
        elif (step := path.name.removeprefix(_PREFIX)).isdigit():
            found.append((int(step), path))
    return max(found)[1] if found else None


def facts_of(checkpoint: Path, section: str = "train") -> dict[str, Any]:
    """Return what :func:`mark_complete` wrote of a checkpoint: ``step``, ``files``, and further facts.

    Raises:
        ModelError: If the folder is no checkpoint of ours.
    """
    try:
        facts = dict(json.loads((checkpoint / COMPLETE).read_text(encoding="utf-8")))
        return facts | {"step": int(facts["step"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{checkpoint} is no complete checkpoint ({COMPLETE} is missing or not readable); expected a folder "
            f"checkpoint-<steps> of a training. Set {section}.resume_from to one, or to null."
        ) from error


def save_weights(model: torch.nn.Module, file: Path, state: dict[str, torch.Tensor] | None = None) -> None:
    """Write the trained parameters of a model; those that share their memory stand there once."""
    import safetensors.torch

    names = set(trained_names(model))
    values = state if state is not None else dict(model.named_parameters())
    safetensors.torch.save_file({k: v.detach().contiguous() for k, v in values.items() if k in names}, file)


def load_weights(model: torch.nn.Module, checkpoint: Path, section: str = "train") -> None:
    """Put the weights of a checkpoint into a model in place.

    Raises:
        ModelError: If it is of another architecture or was trained in other places; names the first difference.
    """
    import safetensors.torch
    import torch

    check_fits(model, checkpoint, section)
    found = safetensors.torch.load_file(checkpoint / WEIGHTS)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in found.items():
            parameters[name].copy_(value)


def check_fits(model: torch.nn.Module, checkpoint: Path, section: str = "train") -> None:
    """Compare names and shapes of a checkpoint's weights with those that a model trains.

    Raises:
        ModelError: If they differ; names the first difference and what to do.
    """
    from safetensors import SafetensorError, safe_open

    parameters = dict(model.named_parameters())
    wanted = {name: tuple(parameters[name].shape) for name in trained_names(model)}
    try:
        with safe_open(checkpoint / WEIGHTS, framework="pt") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{checkpoint / WEIGHTS} cannot be read: {error}") from error
    if problem := _difference(wanted, found):
        raise ModelError(
            f"the checkpoint {checkpoint} is of another model: {problem}. Set model, tuning, lora and "
            f"freeze_vision of {section} as they were when it was written, or {section}.resume_from to null."
        )


def _difference(wanted: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]]) -> str:
    for name, shape in wanted.items():
        if name not in found:
            return f"it has no {name} ({len(found)} weights, {len(wanted)} are trained)"
        if found[name] != shape:
            return f"{name} is {found[name]} there, expected {shape}"
    more = sorted(set(found) - set(wanted))
    return f"its {more[0]} is not trained here ({len(found)} weights, {len(wanted)} are trained)" if more else ""


def trained_names(model: torch.nn.Module) -> list[str]:
    """Return the names of the parameters that are trained, each tensor once."""
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def _files(folder: Path) -> list[Path]:
    return [f for f in folder.rglob("*") if f.is_file() and f.name != COMPLETE]
