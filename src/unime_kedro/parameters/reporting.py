"""Parameters of what people look at."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from unime_kedro.parameters.base import Parameters


class SecondJudgeParameters(Parameters):
    """Another judge, to compare with; how it is run is as the section ``judge`` says."""

    model: str = Field(min_length=1, description="hub id, or a folder (relative to the project root)")
    revision: str | None = Field(default=None, description="hub revision; null for a local folder")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(default="auto")


class JudgeCardParameters(Parameters):
    """What is measured of the judge in use."""

    seed: int = Field(ge=0, description="of the sample of queries and of the resampling")
    queries: int = Field(ge=1, description="queries whose whole pools are judged again, several times")
    precision: Literal["auto", "float32", "bfloat16", "float16"] | None = Field(
        description="number format of one of these times; auto: bfloat16, or float32 if that is in use; null: none"
    )
    wordings: dict[Annotated[str, Field(pattern=r"^\w+$")], Annotated[str, Field(min_length=1)]] = Field(
        description="name -> instruction instead of the paper's"
    )
    second_judge: SecondJudgeParameters | None = Field(description="null: none")
    level: float = Field(gt=0, lt=1, description="of intervals")
    resamples: int = Field(ge=1, description="of the queries, for intervals")


class ReportParameters(Parameters):
    """The report."""

    seed: int = Field(ge=0, description="of the choice of cases and of projected contents")
    comparisons: list[Annotated[list[str], Field(min_length=2, max_length=2)]] = Field(
        description="pairs of names in evaluate.models"
    )
    cases: int = Field(ge=0, le=200, description="wins shown per pair of models, and as many losses")
    case_candidates: int = Field(ge=1, le=20, description="candidates shown per case and model")
    projection_models: list[str] = Field(description="names in evaluate.models whose embedding spaces are drawn")
    projection_contents: int = Field(ge=0, description="candidates embedded for it, half texts and half pictures")
