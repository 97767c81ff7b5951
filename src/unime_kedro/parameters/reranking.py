"""Parameters of training the reranker."""

from __future__ import annotations

from pydantic import Field

from unime_kedro.parameters.base import ModelParameters


class RerankParameters(ModelParameters):
    """Training the reranker on mined negatives (method section 4)."""

    seed: int = Field(ge=0)
