"""Typed parameters of every pipeline.

One model per top-level key of ``conf/*/parameters/*.yml``. Unknown keys, wrong types and values out of range are
errors before anything runs (see :mod:`unime_kedro.config`).
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from unime_kedro.errors import ConfigurationError
from unime_kedro.mining.margins import DEFAULT_MARGINS, Rule, check_margin
from unime_kedro.training_arguments import OWN_ARGUMENTS, REFUSED_ARGUMENTS

Count = Annotated[int, Field(ge=0)]


def _model_or_number(value: Any) -> Any:
    """Refuse what is neither ``model`` nor a temperature, in one message instead of one per alternative."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value == "model" or (is_number and 0 < value < math.inf):
        return value
    raise PydanticCustomError("temperature", "expected `model` or a finite number above 0")


Temperature = Annotated[Literal["model"] | float, BeforeValidator(_model_or_number)]


class Parameters(BaseModel):
    """Base: no unknown keys, no silent conversions of type, immutable, ``model_*`` names allowed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())


class DemoParameters(Parameters):
    """How mini-MMEB, the embedded corpus, is made."""

    root: str = Field(description="folder that receives the corpus, relative to the project root")
    seed: int = Field(ge=0)
    train_pairs: dict[str, Count] = Field(description="data set -> number of training pairs")
    eval_queries: dict[str, Count] = Field(description="data set -> number of evaluation queries")
    validation_queries: dict[str, Count] = Field(description="data set with training pairs -> validation queries")
    eval_candidates: int = Field(ge=2, le=1000)
    caption_images: Count = Field(description="pictures with five captions each, in Flickr30K's layout")
    compositional_entries: Count = Field(description="entries of each of seven files, in SugarCrepe's layout")


class IngestParameters(Parameters):
    """Where raw pairs are read from, and how strictly."""

    root: str = Field(description="folder of MMEB-train layout: <data set>/<split>-*.parquet")
    image_root: str = Field(description="folder that image paths are relative to; null: root")
    split: str = Field(min_length=1, description="which files of a data set: <split>-*.parquet")
    datasets: list[str] | None = Field(description="data sets to read, null for all")
    meta_tasks: dict[str, str] = Field(description="meta-task of data sets that are not MMEB's own")
    max_reject_share: float = Field(ge=0, le=1)
    check_images: Literal["full", "header"] = Field(description="decode every image, or read its header only")
    workers: int = Field(ge=0, description="processes that read images; 0 chooses by size and cores")

    @model_validator(mode="before")
    @classmethod
    def _images_beside_pairs(cls, values: Any) -> Any:
        """Put ``root`` where ``image_root`` is null, so that nobody who reads it needs to know what null means."""
        if isinstance(values, dict) and "image_root" in values and values["image_root"] is None and "root" in values:
            return values | {"image_root": values["root"]}
        return values


class ModelParameters(Parameters):
    """Which model, how it is loaded."""

    model: str = Field(min_length=1, description="hub id, or a folder (relative to the project root)")
    revision: str | None = Field(description="hub revision; null for a local folder")
    device: Literal["auto", "cpu", "cuda"]
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        description="auto: float32 on CPU, bfloat16 on GPU"
    )
    min_pixels: int | None = Field(ge=1, description="smallest image area; null for the model's own")
    max_pixels: int | None = Field(ge=1, description="largest image area; null for the model's own")
    threads: int = Field(ge=0, description="CPU threads of torch; 0: one for small models, all cores for large ones")
    image_workers: int = Field(ge=0, description="processes that prepare pictures ahead; 0: none")


class PoolParameters(ModelParameters):
    """Global retrieval of potential hard negatives (method section 2.1)."""

    prompt: Literal["plain", "chat"] = Field(description="how an item's text is put to the embedder")
    max_tokens: int = Field(ge=16, description="longest input in tokens, image tokens included")
    batch_tokens: int = Field(ge=64, description="padded tokens per forward pass")
    k: int = Field(ge=1, le=2048, description="pool size per query")
    max_similarity: float | None = Field(ge=-1, le=1.0001, description="delta: keep candidates with a cosine below")
    exclude: Literal["positive", "known_positives"]
    memory_gb: float = Field(gt=0, description="budget of the search, in GiB")


class JudgeParameters(ModelParameters):
    """Yes/No scoring of pairs (method section 2.2)."""

    backend: Literal["transformers"]
    batch_size: int = Field(ge=1, description="candidates per forward pass")
    share_prefix: bool = Field(description="run instruction and query once per query")
    vision_cache_gb: float = Field(ge=0, description="image features in memory, in GiB; the rest goes to disk")
    max_tokens: int = Field(ge=64, description="longest prompt in tokens; longer texts are cut at the end")
    temperature: Temperature = Field(description="scores are sigmoid((yes - no) / temperature); model: its own")
    flush_seconds: float = Field(gt=0, description="how often finished scores reach the disk")
    max_error_share: float = Field(ge=0, le=1)


class FilterParameters(Parameters):
    """Which pool members are taken for false negatives."""

    rule: Rule
    margin: float | None = Field(ge=0, le=1, description="beta of the paper for rule absolute; null for the rule's own")

    @field_validator("margin")
    @classmethod
    def _fits_rule(cls, margin: float | None, info: ValidationInfo) -> float | None:
        """Refuse a margin that has no meaning for the rule, before anything is run."""
        rule = info.data.get("rule")  # absent when the rule itself is wrong
        if rule is not None and margin is not None:
            try:
                check_margin(rule, margin)
            except ConfigurationError as error:
                raise PydanticCustomError("margin", "{problem}", {"problem": str(error)}) from error
        return margin

    @property
    def effective_margin(self) -> float:
        """The margin that is used: the one given, else the rule's default."""
        return DEFAULT_MARGINS[self.rule] if self.margin is None else self.margin


class SelectParameters(Parameters):
    """False-negative filter and sampling (method section 2.3)."""

    negatives: int = Field(ge=1, le=2048, description="negatives kept per query")
    step: int = Field(ge=1, description="interval of the cyclical sampling")
    seed: int = Field(ge=0, description="seed of the random fallback")
    filter: FilterParameters
    gallery_queries: int = Field(ge=0, description="queries shown in the gallery")


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


class TrainParameters(ModelParameters):
    """Training the embedder on mined negatives (method section 3)."""

    prompt: Literal["plain", "chat"]
    max_tokens: int = Field(ge=16)
    seed: int = Field(ge=0)
    negatives: int = Field(ge=1, le=2048, description="hard negatives used per query, the first of those mined")
    fallback: Literal["use", "drop"]
    loss: LossParameters
    steps: int = Field(ge=1)
    batch: int = Field(ge=2, description="queries per step, over all processes")
    chunk: int = Field(ge=1, description="contents per forward pass")
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
    validation: ValidationParameters
    distributed: DistributedParameters
    arguments: dict[str, Any] = Field(description="further arguments of transformers.TrainingArguments")

    @field_validator("arguments")
    @classmethod
    def _not_ours(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        """Refuse arguments that have a key of their own: two places for one value contradict each other some day."""
        for name in arguments:
            if name in REFUSED_ARGUMENTS:
                problem = {"name": name, "what": REFUSED_ARGUMENTS[name]}
                raise PydanticCustomError("arguments", "{name} is not supported: {what}", problem)
            if name in OWN_ARGUMENTS:
                instead = OWN_ARGUMENTS[name]
                what = f"set train.{instead} instead" if instead else "it cannot be set"
                raise PydanticCustomError("arguments", "{name}: {what}", {"name": name, "what": what})
        return arguments


class TinyModelParameters(Parameters):
    """Shape and training of one of the embedded tiny models."""

    output: str
    seed: int = Field(ge=0)
    layers: int = Field(ge=1)
    hidden: int = Field(ge=32)
    align_steps: int = Field(ge=0)
    steps: int = Field(ge=1)
    batch: int = Field(ge=2)
    learning_rate: float = Field(gt=0)


class PretrainParameters(Parameters):
    """How the embedded tiny models are made."""

    judge: TinyModelParameters
    embedder: TinyModelParameters
    judge_test_pairs: int = Field(ge=64, description="held-out hard pairs per data set")
    test_seed: int = Field(ge=0, description="seed of the held-out pairs, their drawings and the bootstrap")


#: top-level key of the parameters -> its model
SECTIONS: dict[str, type[Parameters]] = {
    "demo": DemoParameters,
    "ingest": IngestParameters,
    "pool": PoolParameters,
    "judge": JudgeParameters,
    "select": SelectParameters,
    "train": TrainParameters,
    "pretrain": PretrainParameters,
}
