"""The judge behind ``judge.backend``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unime_kedro.parameters import JudgeParameters
from unime_kedro.pipelines.pool.nodes import model_spec

if TYPE_CHECKING:
    from unime_kedro.mllm.judge import PrefixJudge


def make_judge(judge: JudgeParameters) -> PrefixJudge:
    """Load the judge.

    Args:
        judge: Which backend, which model, and how.

    Returns:
        See :class:`unime_kedro.mining.scorer.Judge`; with ``metrics()``, flat numbers of what was computed.

    Raises:
        ModelError: If the model cannot be read.
    """
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
