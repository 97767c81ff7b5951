"""Parameters of the corpus, of mining, and of the embedded models."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from unime_kedro.errors import ConfigurationError
from unime_kedro.mining.margins import DEFAULT_MARGINS, Rule, check_margin
from unime_kedro.parameters.base import Count, ModelParameters, Parameters
from unime_kedro.parameters.engines import RayJudgeParameters, RayParameters, VllmJudgeParameters, VllmPoolParameters


def _model_or_number(value: Any) -> Any:
    """Refuse what is neither ``model`` nor a temperature, in one message instead of one per alternative."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value == "model" or (is_number and 0 < value < math.inf):
        return value
    raise PydanticCustomError("temperature", "expected `model` or a finite number above 0")


Temperature = Annotated[Literal["model"] | float, BeforeValidator(_model_or_number)]


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
    rows_per_dataset: int | None = Field(ge=1, description="the first so many of each; null for all")
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


class IndexParameters(Parameters):
    """How the nearest candidates are searched."""

    kind: Literal["auto", "flat", "ivf", "hnsw", "gpu_flat", "gpu_ivf"]
    flat_minutes: float = Field(ge=0, description="auto stays exact up to this estimated time")
    nlist: int | None = Field(ge=1, description="inverted lists; null: 4 * sqrt(candidates)")
    nprobe: int = Field(ge=1, description="inverted lists searched per query")
    train_points: int = Field(ge=1, description="candidates that the lists are made from, in memory together")
    m: int = Field(ge=2, le=256, description="links per node of the graph")
    ef_construction: int = Field(ge=1, description="candidates looked at to place a node of the graph")
    ef_search: int = Field(ge=1, description="candidates looked at per query in the graph")
    seed: int = Field(ge=0)
    recall_queries: int = Field(ge=0, description="queries compared with exact search; 0: none")
    gpus: int = Field(ge=0, description="0: all")
    gpu_memory_gb: float = Field(gt=0, description="GiB of each GPU that candidates may take")


class PoolParameters(ModelParameters):
    """Global retrieval of potential hard negatives (method section 2.1)."""

    backend: Literal["transformers", "vllm", "ray"]
    vllm: VllmPoolParameters
    ray: RayParameters
    prompt: Literal["plain", "chat"] = Field(description="how an item's text is put to the embedder")
    max_tokens: int = Field(ge=16, description="longest input in tokens, image tokens included")
    batch_tokens: int = Field(ge=64, description="padded tokens per forward pass")
    k: int = Field(ge=1, le=2048, description="pool size per query")
    max_similarity: float | None = Field(ge=-1, le=1.0001, description="delta: keep candidates with a cosine below")
    exclude: Literal["positive", "known_positives"]
    memory_gb: float = Field(gt=0, description="budget of the search, in GiB")
    index: IndexParameters


class SelectionParameters(Parameters):
    """What the negatives will be, for a judge that is asked no more than they need; ``select``'s own values."""

    negatives: int = Field(ge=1, le=2048)
    step: int = Field(ge=1)
    rule: Rule
    margin: float = Field(ge=0, le=1)


class SmallJudgeParameters(Parameters):
    """The small judge of a cascade; all else is the large one's."""

    model: str = Field(min_length=1, description="hub id, or a folder (relative to the project root)")
    revision: str | None = Field(description="hub revision; null for a local folder")
    min_pixels: int | None = Field(ge=1, description="smallest image area; null for the model's own")
    max_pixels: int | None = Field(ge=1, description="largest image area; null for the model's own")


class StrategyParameters(Parameters):
    """Which pairs are judged, see :mod:`unime_kedro.mining.strategies`."""

    kind: Literal["exhaustive", "lazy", "cascade", "budget"]
    look: int = Field(ge=0, description="lazy, budget: members of every pool that are judged in any case")
    calls_per_query: float = Field(ge=0, description="budget: calls about candidates, per query on average")
    band: float = Field(ge=0, le=1, description="cascade: pairs with a small score this near the threshold go on")
    small: SmallJudgeParameters | None = Field(description="cascade: the small judge")
    selection: SelectionParameters | None = Field(description="null: what `select` says")

    @model_validator(mode="after")
    def _cascade_has_a_small_judge(self) -> StrategyParameters:
        if self.kind == "cascade" and self.small is None:
            raise PydanticCustomError("small", "kind cascade needs a small judge: small: {{model: ...}}")
        return self


class JudgeParameters(ModelParameters):
    """Yes/No scoring of pairs (method section 2.2)."""

    backend: Literal["transformers", "vllm", "ray"]
    vllm: VllmJudgeParameters
    ray: RayJudgeParameters
    strategy: StrategyParameters
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
