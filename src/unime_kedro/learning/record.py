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
#: shares that a validation may measure, in the order in which they are told
MAIN = (
    "validation_precision_at_1",
    "validation_listwise_accuracy",
    "validation_listwise_chance",
    "validation_pairwise_accuracy",
    "validation_pairwise_choice_accuracy",
)
#: how they begin
_VALIDATION = "validation_"


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
        "loss": _loss(p),
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
        "input": {key: p[key] for key in _INPUT if key in p},
        "validation": _validation(history),
        "versions": _versions(),
    }


def _loss(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return what the loss was made of."""
    if "loss" not in parameters:  # a reranker's
        return {"kind": "cross entropy of the answers", "listwise_weight": parameters["listwise_weight"]}
    loss = parameters["loss"]
    return {key: value for key, value in loss.items() if loss["kind"] in _READ_BY.get(key, _ALL)}


def _validation(history: list[dict[str, Any]]) -> dict[str, float]:
    """Return every share before the first and after the last step, and of each data set after the last.

    Counts and times that stand beside them are left out.
    """
    measured = [row for row in history if any(key in row for key in MAIN)]
    if not measured:
        return {}
    first, last = measured[0], measured[-1]
    found: dict[str, float] = {}
    for key in [key for key in MAIN if key in last]:
        name = key.removeprefix(_VALIDATION)
        found[name] = last[key]
        if first["step"] == 0:
            found[f"{name}_before_training"] = first[key]
        found |= {f"{name}/{k.removeprefix(f'{key}/')}": last[k] for k in sorted(last) if k.startswith(f"{key}/")}
    return found


def _versions() -> dict[str, str]:
    import accelerate
    import peft
    import torch
    import transformers

    from unime_kedro import __version__

    packages = {"torch": torch, "transformers": transformers, "accelerate": accelerate, "peft": peft}
    return {"unime-kedro": __version__, **{name: m.__version__.partition("+")[0] for name, m in packages.items()}}
