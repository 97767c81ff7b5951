"""The judge behind ``judge.backend``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unime_kedro.parameters import JudgeParameters
from unime_kedro.pipelines.pool.nodes import model_spec

if TYPE_CHECKING:
    from unime_kedro.mllm.judge import PrefixJudge
    from unime_kedro.mllm.vllm_judge import VllmJudge


def make_judge(judge: JudgeParameters) -> PrefixJudge | VllmJudge:
    """Load the judge; vLLM's engine starts when it has something to do.

    Args:
        judge: Which backend, which model, and how.

    Returns:
        See :class:`unime_kedro.mining.scorer.Judge`; with ``metrics()``, flat numbers of what was computed.

    Raises:
        ConfigurationError: If the backend is not installed.
        ModelError: If the model cannot be read.
    """
    if judge.backend == "vllm":
        return _vllm_judge(judge)
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
