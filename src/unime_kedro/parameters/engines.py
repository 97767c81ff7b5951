"""Parameters of the engines that run large models."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from unime_kedro.parameters.base import Parameters


class VllmParameters(Parameters):
    """How vLLM runs, see :mod:`unime_kedro.mllm.vllm_engine`."""

    gpu_memory_utilization: float = Field(gt=0, le=1, description="share of each GPU's memory")
    tensor_parallel_size: int = Field(ge=1, description="GPUs that share one model")
    max_model_len: int | None = Field(ge=16, description="longest prompt in tokens; null: max_tokens")
    block_size: int | None = Field(ge=8, description="tokens per block of the prefix cache; null: the engine's own")
    kv_cache_gb: int = Field(ge=1, description="prefix cache on a CPU, in GiB")
    enforce_eager: bool = Field(description="no CUDA graphs, no compilation")


class VllmJudgeParameters(VllmParameters):
    """The same for the judge."""

    chunk_pairs: int = Field(ge=1, description="pairs that the engine gets at a time")
    check_pairs: int = Field(ge=0, description="pairs judged by transformers as well, first of all; 0: none")


class RayParameters(Parameters):
    """Where workers run, see :mod:`unime_kedro.cluster`."""

    address: str | None = Field(min_length=1, description="host:port, auto; null: processes of this machine")
    worker: Literal["transformers", "vllm"] = Field(description="what a worker runs")
    min_workers: int = Field(ge=1, description="fewest workers")
    max_workers: int | None = Field(ge=1, description="most workers; null: as many as there is room for")
    cpus_per_worker: float = Field(gt=0, description="CPU cores that a worker takes")
    gpus_per_worker: float = Field(ge=0, description="GPUs that a worker takes")


class RayJudgeParameters(RayParameters):
    """The same for the judge."""

    chunk_pairs: int = Field(ge=1, description="pairs that a worker gets at a time")


class VllmPoolParameters(VllmParameters):
    """The same for the embedder of the pool."""

    check_items: int = Field(ge=0, description="contents embedded by transformers as well, first of all; 0: none")
