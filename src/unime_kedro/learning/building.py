"""What trainings of all kinds are put together of: the model, loaded as it is trained."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from unime_kedro.errors import ConfigurationError
from unime_kedro.parameters import TrainingParameters

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from unime_kedro.learning.step_trainer import StepTrainer
    from unime_kedro.learning.trainable import TrainableReport
    from unime_kedro.mllm.adapters.base import BackboneAdapter

log = logging.getLogger(__name__)


class Training(NamedTuple):
    """A training that is ready to start.

    Attributes:
        trainer: Trains.
        save: Writes the model, when it is trained, into the folder that the job names.
    """

    trainer: StepTrainer[Any]
    save: Callable[[], None]


def model_precision(parameters: TrainingParameters, gpu: bool) -> tuple[str, bool]:
    """Return the type of the weights, and whether arithmetic is bfloat16 where that is safe (autocast).

    Weights that are trained stay float32: steps of 1e-4 vanish in bfloat16. With LoRA the base can be bfloat16, its
    adapters are float32.

    Raises:
        ConfigurationError: For float16, whose gradients would need scaling.
    """
    dtype, tuning = parameters.dtype, parameters.tuning
    if dtype == "float16":
        raise ConfigurationError(
            f"{parameters.section}.dtype = float16 is not supported; expected auto, bfloat16 or float32."
        )
    mixed = dtype == "bfloat16" or (dtype == "auto" and gpu)
    return ("bfloat16" if mixed and tuning == "lora" else "float32"), mixed


def load_trainable(parameters: TrainingParameters, *, head: bool = False) -> tuple[BackboneAdapter, TrainableReport]:
    """Load the model that a training starts from, and choose what of it is trained.

    Args:
        parameters: Which model, where, and what trains.
        head: Whether full tuning trains the output head, too.
    """
    import torch

    from unime_kedro.learning.trainable import make_trainable
    from unime_kedro.mllm.adapters import load_adapter
    from unime_kedro.mllm.content import ModelSpec

    p = parameters
    gpu = torch.cuda.is_available() and p.device != "cpu"
    dtype, _ = model_precision(p, gpu)
    spec = ModelSpec(
        p.model, p.revision, "cuda" if gpu else "cpu", dtype, p.min_pixels, p.max_pixels, threads=p.threads
    )
    adapter = load_adapter(spec)
    trainable = make_trainable(
        adapter,
        tuning=p.tuning,
        freeze_vision=p.freeze_vision,
        seed=p.seed,
        head=head,
        section=p.section,
        **p.lora.model_dump(),
    )
    log.info("%s of %s parameters are trained", f"{trainable.trainable:,}", f"{trainable.total:,}")
    return adapter, trainable


def seed_process(parameters: TrainingParameters, arguments: TrainingArguments) -> None:
    """Give every process random numbers of its own: transformers gives all one seed, but each is to drop others."""
    import torch

    torch.manual_seed(parameters.seed + arguments.process_index)
