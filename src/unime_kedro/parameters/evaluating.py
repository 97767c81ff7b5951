"""Parameters of scoring models on benchmarks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from unime_kedro.parameters.base import LoadingParameters, Parameters

#: names are keys of tables, files and metrics
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$")]


class EvaluatedModel(Parameters):
    """An embedder, alone or with a reranker behind it."""

    model: str = Field(min_length=1, description="hub id, or a folder (relative to the project root)")
    revision: str | None = Field(default=None, description="hub revision; null for a local folder")
    reranker: str | None = Field(default=None, description="model that reorders the embedder's first candidates")
    reranker_revision: str | None = None


class BenchmarkSource(Parameters):
    """Where a benchmark is on disk."""

    root: str = Field(min_length=1, description="its folder, in the layout of its publishers")
    image_root: str | None = Field(default=None, description="where picture paths start; null: the usual folder")
    datasets: list[str] | None = Field(default=None, description="data sets to score; null for all")


class RerankingParameters(Parameters):
    """How a reranker reorders what the embedder found (method section 4)."""

    top: int = Field(ge=2, le=100, description="the embedder's first candidates, which are put to the reranker")
    method: Literal["listwise", "pairwise"]
    decoding: Literal["constrained", "free"] = Field(description="of listwise answers")
    max_tokens: int = Field(ge=64, description="longest prompt")
    batch_tokens: int = Field(ge=64, description="padded tokens per forward pass")


class LeakageParameters(Parameters):
    """Contents of the training data among those of a benchmark."""

    hash_distance: int = Field(ge=0, le=32, description="bits of 64 in which two pictures' hashes may differ")
    exclude: Literal["none", "exact", "near"] = Field(description="queries that are not scored because of it")


class EvaluateParameters(LoadingParameters):
    """Scoring models on benchmarks (method section 5)."""

    models: dict[Name, EvaluatedModel | None]
    benchmarks: dict[Name, BenchmarkSource | None]
    prompt: Literal["plain", "chat"]
    max_tokens: int = Field(ge=16)
    batch_tokens: int = Field(ge=64, description="padded tokens per forward pass")
    reranking: RerankingParameters
    leakage: LeakageParameters
    seed: int = Field(ge=0, description="of the bootstrap")
    resamples: int = Field(ge=100)
    level: float = Field(gt=0.5, lt=1, description="of the intervals")
