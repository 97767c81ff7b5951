"""Parameters of training the reranker."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from unime_kedro.parameters.base import Parameters
from unime_kedro.parameters.training import TrainingParameters


class RerankValidationParameters(Parameters):
    """Choices among mined negatives while training."""

    queries: int = Field(ge=0, description="held-out training queries; 0 trains on all")
    every: int = Field(ge=0, description="steps between validations; 0: after the last one only")


class RerankParameters(TrainingParameters):
    """Training the reranker on mined negatives (method section 4)."""

    section: ClassVar[str] = "rerank"

    negatives: int = Field(ge=1, le=99, description="most candidates of a listwise message beside the positive")
    fewest_negatives: int = Field(ge=1, le=99, description="of the shortest lists; their length is drawn")
    listwise_weight: float = Field(ge=0, description="weight of L_list in L_pair + weight * L_list; 0: pairwise only")
    validation: RerankValidationParameters

    @model_validator(mode="after")
    def _shortest_is_no_longer(self) -> RerankParameters:
        """Refuse shortest lists that are longer than the longest."""
        if self.fewest_negatives > self.negatives:
            values = {"fewest": self.fewest_negatives, "most": self.negatives}
            problem = "fewest_negatives is {fewest}; expected at most negatives, which is {most}"
            raise PydanticCustomError("fewest_negatives", problem, values)
        return self
