"""Parameters of training the embedder."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from unime_kedro.parameters.arguments import OWN_ARGUMENTS, REFUSED_ARGUMENTS
from unime_kedro.parameters.base import ModelParameters, Parameters


class LossParameters(Parameters):
    """What the embedder is trained with (method section 3)."""

    kind: Literal["in_batch", "hard", "combined", "soft"]
    student_temperature: float = Field(gt=0, le=10, description="tau of the cosines")
    judge_temperature: float = Field(gt=0, le=10, description="tau of the judge's scores; kind soft only")
    probability_floor: float = Field(ge=0, lt=1, description="inside the logarithms of kind soft; 0 for none")
    divergence: Literal["symmetric", "forward", "reverse", "jensen_shannon"]
    in_batch_weight: float = Field(ge=0, description="adds so much of loss in_batch to kinds hard and soft")


class LoraParameters(Parameters):
    """Low-rank adapters, by peft; used when ``tuning`` is ``lora``."""

    rank: int = Field(ge=1)
    alpha: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)
    targets: list[str] = Field(min_length=1, description="names of linear layers")


class ValidationParameters(Parameters):
    """Precision@1 while training."""

    queries: int = Field(ge=0, description="held-out training queries; 0 trains on all")
    candidates: int = Field(ge=2, le=1000, description="per held-out query, the positive included")
    every: int = Field(ge=0, description="steps between validations; 0: after the last one only")
    root: str | None = Field(description="folder of validation sets in MMEB's evaluation layout")


class DistributedParameters(Parameters):
    """Processes of one training."""

    processes: int = Field(ge=1, description="on this machine")
    machines: int = Field(ge=1)
    address: str | None = Field(description="host:port of the machine that runs Kedro, for several machines")

    @model_validator(mode="after")
    def _machines_meet(self) -> DistributedParameters:
        """Refuse several machines that do not know where to meet."""
        if self.machines > 1 and not self.address:
            problem = "several machines need `address`: host:port of the machine that runs Kedro"
            raise PydanticCustomError("address", problem)  # type: ignore[arg-type]
        return self


class TrainingParameters(ModelParameters):
    """What trainings have in common: optimizer, tuning, checkpoints, processes.

    Attributes:
        section: Top-level key of these parameters, as messages name them.
    """

    section: ClassVar[str]

    max_tokens: int = Field(ge=16)
    seed: int = Field(ge=0)
    fallback: Literal["use", "drop"]
    steps: int = Field(ge=1)
    batch: int = Field(ge=1, description="queries per step, over all processes")
    chunk: int = Field(ge=1, description="inputs per forward pass")
    learning_rate: float = Field(gt=0)
    schedule: Literal["linear", "cosine", "constant_with_warmup", "constant"]
    warmup_steps: int = Field(ge=0)
    weight_decay: float = Field(ge=0)
    max_gradient_norm: float = Field(ge=0, description="gradients are clipped to this norm; 0: not clipped")
    stop_gradient_norm: float = Field(gt=0, description="a larger one, before clipping, stops the run")
    tuning: Literal["full", "lora"]
    lora: LoraParameters
    freeze_vision: bool
    merge: bool = Field(description="with lora: write the merged model, too")
    checkpoint_every: int = Field(ge=1)
    log_every: int = Field(ge=1)
    cache_gb: float = Field(ge=0, description="prepared contents kept in memory, per process, in GiB")
    resume_from: str | None = Field(description="checkpoint folder to go on from; null: this run's own last one")
    distributed: DistributedParameters
    arguments: dict[str, Any] = Field(description="further arguments of transformers.TrainingArguments")

    @field_validator("arguments")
    @classmethod
    def _not_ours(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        """Refuse arguments that have a key of their own: two places for one value contradict each other some day."""
        for name in arguments:
            if name in REFUSED_ARGUMENTS:
                problem = {"name": name, "what": REFUSED_ARGUMENTS[name].format(section=cls.section)}
                raise PydanticCustomError("arguments", "{name} is not supported: {what}", problem)
            if name in OWN_ARGUMENTS:
                instead = OWN_ARGUMENTS[name]
                what = f"set {cls.section}.{instead} instead" if instead else "it cannot be set"
                raise PydanticCustomError("arguments", "{name}: {what}", {"name": name, "what": what})
        return arguments


class TrainParameters(TrainingParameters):
    """Training the embedder on mined negatives (method section 3)."""

    section: ClassVar[str] = "train"

    prompt: Literal["plain", "chat"]
    negatives: int = Field(ge=1, le=2048, description="hard negatives used per query, the first of those mined")
    loss: LossParameters
    batch: int = Field(ge=2, description="queries per step, over all processes")
    validation: ValidationParameters
