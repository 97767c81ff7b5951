"""Nodes of pipeline ``pretrain``."""

import logging

from unime_kedro.parameters import PretrainParameters
from unime_kedro.paths import resolve

log = logging.getLogger(__name__)


def _report(step: int, values: dict[str, float]) -> None:
    log.info("step %d: %s", step, ", ".join(f"{key} {value:.3f}" for key, value in values.items()))


def pretrain_judge(pretrain: PretrainParameters) -> dict[str, float]:
    """Train, save and test the tiny judge; returns its measured quality."""
    from unime_kedro.learning.tiny.make import make_judge

    options = pretrain.judge.model_dump(exclude={"output"})
    return make_judge(resolve(pretrain.judge.output), **options, test_pairs=pretrain.judge_test_pairs, report=_report)


def pretrain_embedder(pretrain: PretrainParameters) -> dict[str, float]:
    """Train, save and test the tiny pool embedder; returns its measured quality."""
    from unime_kedro.learning.tiny.make import make_embedder

    options = pretrain.embedder.model_dump(exclude={"output"})
    return make_embedder(resolve(pretrain.embedder.output), **options, report=_report)
