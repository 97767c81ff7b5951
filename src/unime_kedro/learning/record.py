"""What a trained model was trained from, how, and with what result: ``training.json`` and the model card."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unime_kedro.learning.events import EVENTS, history_of, read_events
from unime_kedro.learning.run_folder import Job

if TYPE_CHECKING:
    from unime_kedro.learning.trainable import TrainableReport

#: parameters by section of the record (see :mod:`.embedder_card`)
_TRAINING = (
    *("steps", "batch", "chunk", "learning_rate", "schedule", "warmup_steps", "weight_decay"),
    *("max_gradient_norm", "seed", "dtype", "arguments"),
)
#: keys of the loss that only some kinds read
_ALL = ("in_batch", "hard", "combined", "soft")
_READ_BY = {
    **dict.fromkeys(("judge_temperature", "probability_floor", "divergence"), ("soft",)),
    "in_batch_weight": ("hard", "soft"),
}
_INPUT = ["prompt", "max_tokens", "min_pixels", "max_pixels"]
#: how metrics of a validation begin
_VALIDATION = "validation_precision_at_1"


def run_record(job: Job, folder: Path, trainable: TrainableReport) -> dict[str, Any]:
    """Return the record of a training that has ended.

    Args:
        job: What was to be done, with what is known of base, data and judge.
        folder: Folder of the run, with its figures by step.
        trainable: Which parameters were trained.
    """
    p = job.train.model_dump(mode="json")
    history = history_of(read_events(folder / EVENTS))
    lora = {key: p["lora"][key] for key in ("rank", "alpha", "dropout", "targets")} if p["tuning"] == "lora" else {}
    return {
        "identity": job.identity,
        **job.record,
        "loss": {key: value for key, value in p["loss"].items() if p["loss"]["kind"] in _READ_BY.get(key, _ALL)},
        "training": {key: p[key] for key in _TRAINING}
        | {"processes": int(os.environ.get("WORLD_SIZE", "1")), "machine": platform.machine()},
        "tuning": {
            "kind": p["tuning"],
            **lora,
            "freeze_vision": p["freeze_vision"],
            "trainable": trainable.trainable,
            "total": trainable.total,
            **({"merged": p["merge"]} if p["tuning"] == "lora" else {}),
        },
        "input": {key: p[key] for key in _INPUT},
        "validation": _validation(history),
        "versions": _versions(),
    }


def _validation(history: list[dict[str, Any]]) -> dict[str, float]:
    """Return Precision@1 before the first and after the last step, and of each data set after the last."""
    measured = [row for row in history if _VALIDATION in row]
    if not measured:
        return {}
    found = {"precision_at_1": measured[-1][_VALIDATION]}
    if measured[0]["step"] == 0:
        found["precision_at_1_before_training"] = measured[0][_VALIDATION]
    prefix = f"{_VALIDATION}/"
    sets = {key.removeprefix(prefix): value for key, value in measured[-1].items() if key.startswith(prefix)}
    return found | {f"precision_at_1/{name}": sets[name] for name in sorted(sets)}


def _versions() -> dict[str, str]:
    import accelerate
    import peft
    import torch
    import transformers

    from unime_kedro import __version__

    packages = {"torch": torch, "transformers": transformers, "accelerate": accelerate, "peft": peft}
    return {"unime-kedro": __version__, **{name: m.__version__.partition("+")[0] for name, m in packages.items()}}
