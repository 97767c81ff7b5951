"""What the parameters of all pipelines are made of."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=0)]


class Parameters(BaseModel):
    """Base: no unknown keys, no silent conversions of type, immutable, ``model_*`` names allowed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())


class LoadingParameters(Parameters):
    """How a model is loaded."""

    device: Literal["auto", "cpu", "cuda"]
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        description="auto: float32 on CPU, bfloat16 on GPU"
    )
    min_pixels: int | None = Field(ge=1, description="smallest image area; null for the model's own")
    max_pixels: int | None = Field(ge=1, description="largest image area; null for the model's own")
    threads: int = Field(ge=0, description="CPU threads of torch; 0: one for small models, all cores for large ones")
    image_workers: int = Field(ge=0, description="processes that prepare pictures ahead; 0: none")


class ModelParameters(LoadingParameters):
    """Which model, how it is loaded."""

    model: str = Field(min_length=1, description="hub id, or a folder (relative to the project root)")
    revision: str | None = Field(description="hub revision; null for a local folder")
