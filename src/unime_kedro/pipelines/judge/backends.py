"""The judge behind ``judge.backend``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from unime_kedro.parameters import JudgeParameters
from unime_kedro.pipelines.pool.nodes import model_spec, placed_on_worker

if TYPE_CHECKING:
    from unime_kedro.cluster.judging import RayJudge
    from unime_kedro.mllm.judge import PrefixJudge
    from unime_kedro.mllm.vllm_judge import VllmJudge


def make_judge(judge: JudgeParameters) -> PrefixJudge | VllmJudge | RayJudge:
    """Load the judge; vLLM's engine starts when it has something to do.

    Args:
        judge: Which backend, which model, and how.

    Returns:
        See :class:`.scorer.Judge` and :class:`.scorer.FillsStore`; with ``metrics()``, flat numbers of what was
        computed.

    Raises:
        ConfigurationError: If the backend is not installed.
        ModelError: If the model cannot be read.
    """
    if judge.backend == "vllm":
        return _vllm_judge(judge)
    if judge.backend == "ray":
        return _ray_judge(judge)
    from unime_kedro.mllm.adapters import load_adapter
    from unime_kedro.mllm.judge import PrefixJudge

    return PrefixJudge(
        load_adapter(model_spec(judge)),
        batch_size=judge.batch_size,
        share_prefix=judge.share_prefix,
        max_tokens=judge.max_tokens,
        vision_cache_gb=judge.vision_cache_gb,
        workers=judge.image_workers,
    )


def _ray_judge(judge: JudgeParameters) -> RayJudge:
    from unime_kedro.cluster.connection import ClusterOptions
    from unime_kedro.cluster.judging import RayJudge

    worker = judge.model_copy(
        update={"backend": judge.ray.worker, **placed_on_worker(judge, judge.ray.cpus_per_worker)}
    )
    return RayJudge(
        partial(make_judge, worker),
        ClusterOptions(**judge.ray.model_dump(exclude={"worker", "chunk_pairs"})),
        chunk_pairs=judge.ray.chunk_pairs,
    )


def _vllm_judge(judge: JudgeParameters) -> VllmJudge:
    from unime_kedro.mllm.vllm_engine import EngineOptions
    from unime_kedro.mllm.vllm_judge import VllmJudge

    return VllmJudge(
        model_spec(judge),
        EngineOptions(**judge.vllm.model_dump(exclude={"chunk_pairs", "check_pairs"})),
        max_tokens=judge.max_tokens,
        chunk_pairs=judge.vllm.chunk_pairs,
        check_pairs=judge.vllm.check_pairs,
        vision_cache_gb=judge.vision_cache_gb,
        workers=judge.image_workers,
    )


def temperature_of(judge: JudgeParameters) -> float:
    """Return the number that ``judge.temperature`` stands for.

    Raises:
        ModelError: If the model's calibration cannot be read.
    """
    from unime_kedro.mllm.adapters import local_or_hub
    from unime_kedro.mllm.calibration import read_temperature

    if judge.temperature == "model":
        return read_temperature(local_or_hub(judge.model), judge.revision)
    return judge.temperature


def small_judge(judge: JudgeParameters) -> JudgeParameters:
    """Return the parameters of a cascade's small judge."""
    small = judge.strategy.small
    assert small is not None  # checked with the parameters
    return judge.model_copy(update=small.model_dump())
