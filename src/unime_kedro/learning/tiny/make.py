"""Make one of the tiny models from nothing and save it like any other model, with a record of how it was made."""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unime_kedro.learning.tiny.batches import Encoder, TileBank
from unime_kedro.learning.tiny.model import image_processor, new_model
from unime_kedro.learning.tiny.tokenizer import train_tokenizer

if TYPE_CHECKING:
    from transformers import Qwen2VLForConditionalGeneration

#: how a model was made, in its folder
RECORD = "pretrain.json"

Report = Callable[[int, dict[str, float]], None]


def _save(
    model: Qwen2VLForConditionalGeneration,
    tokenizer: Any,
    folder: Path,
    record: dict[str, Any],
    finish: Callable[[Path], object] = lambda folder: None,
) -> None:
    """Save weights in half precision, whole or not at all; ``finish`` may add to the folder before it is in place."""
    import torch

    unfinished = folder.with_name(folder.name + ".partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.to(torch.float16).save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    image_processor().save_pretrained(unfinished)
    (unfinished / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    finish(unfinished)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    unfinished.rename(folder)


def _prepare(hidden: int, layers: int, seed: int) -> tuple[Any, Encoder, Qwen2VLForConditionalGeneration]:
    import torch

    # More threads than one make a model of this size slower, and would make its weights depend on the machine's cores.
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    tokenizer = train_tokenizer()
    encoder = Encoder(tokenizer, TileBank(seed))
    return tokenizer, encoder, new_model(tokenizer, hidden=hidden, layers=layers, seed=seed)


class _Clock:
    """Wall and CPU seconds since it was made."""

    def __init__(self) -> None:
        self._start, self._cpu = time.perf_counter(), sum(os.times()[:2])

    def read(self) -> dict[str, float]:
        return {"seconds": time.perf_counter() - self._start, "cpu_seconds": sum(os.times()[:2]) - self._cpu}


def _record(model: Any, recipe: dict[str, Any], clock: _Clock) -> dict[str, Any]:
    """Say how a model was made, and on what."""
    import torch
    import transformers

    return {
        "recipe": recipe,
        "parameters": sum(p.numel() for p in model.parameters()),
        **{key: round(value) for key, value in clock.read().items()},
        "machine": f"{_processor()}, one thread",
        "torch": torch.__version__.partition("+")[0],
        "transformers": transformers.__version__,
    }


def _processor() -> str:
    """Return the processor's name where Linux tells it, otherwise its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _recipe(align_steps: int, steps: int, batch: int, learning_rate: float, seed: int) -> dict[str, Any]:
    names = ("align_steps", "steps", "batch", "learning_rate", "seed")
    return dict(zip(names, (align_steps, steps, batch, learning_rate, seed), strict=True))


def make_judge(
    folder: Path,
    *,
    seed: int,
    hidden: int,
    layers: int,
    align_steps: int,
    steps: int,
    batch: int,
    learning_rate: float,
    report: Report,
    calibration_pairs: int = 1024,
    calibration_seed: int = 0,
) -> dict[str, Any]:
    """Train the tiny judge, fit its temperature, and save both.

    Args:
        folder: Receives the model.
        seed: Seed of initialisation and data.
        hidden: Width.
        layers: Layers of the language model.
        align_steps: Steps of alignment.
        steps: Steps of judging.
        batch: Queries per step, each with 8 candidates.
        learning_rate: Top learning rate.
        report: Called every 50 steps and after the last with the step and its figures.
        calibration_pairs: Pairs per data set that the temperature is fitted on.
        calibration_seed: Seed of these pairs.

    Returns:
        The record that is also in ``pretrain.json``: recipe, parameters, seconds, machine, versions.
    """
    from unime_kedro.learning.tiny.judge import train_judge
    from unime_kedro.learning.tiny.measure import calibrate_judge

    clock = _Clock()
    tokenizer, encoder, model = _prepare(hidden, layers, seed)
    recipe = _recipe(align_steps, steps, batch, learning_rate, seed)
    train_judge(model, encoder, **recipe, report=report)
    record = _record(model, {"hidden": hidden, "layers": layers, **recipe}, clock)
    calibrate = partial(calibrate_judge, pairs=calibration_pairs, seed=calibration_seed)
    _save(model, tokenizer, folder, record, calibrate)
    return record


def make_embedder(
    folder: Path,
    *,
    seed: int,
    hidden: int,
    layers: int,
    align_steps: int,
    steps: int,
    batch: int,
    learning_rate: float,
    report: Report,
) -> dict[str, Any]:
    """Train and save the tiny pool embedder; arguments and result as in :func:`make_judge`, ``batch`` in pairs."""
    from unime_kedro.learning.tiny.embedder import train_embedder

    clock = _Clock()
    tokenizer, encoder, model = _prepare(hidden, layers, seed)
    recipe = _recipe(align_steps, steps, batch, learning_rate, seed)
    train_embedder(model, encoder, **recipe, report=report)
    record = _record(model, {"hidden": hidden, "layers": layers, **recipe}, clock)
    _save(model, tokenizer, folder, record)
    return record
