"""Parameters of what people look at."""

from __future__ import annotations

from pydantic import Field

from unime_kedro.parameters.base import Parameters


class JudgeCardParameters(Parameters):
    """What is measured of the judge in use."""

    seed: int = Field(ge=0)


class ReportParameters(Parameters):
    """The report."""

    seed: int = Field(ge=0)
