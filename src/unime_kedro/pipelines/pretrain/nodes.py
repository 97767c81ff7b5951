"""Nodes of pipeline ``pretrain``."""

import logging
from collections.abc import Callable

from unime_kedro.parameters import PretrainParameters
from unime_kedro.paths import resolve
from unime_kedro.progress import Progress, progress

log = logging.getLogger(__name__)


def _reporter(bar: Progress) -> Callable[[int, dict[str, float]], None]:
    """Return a function that moves the bar and logs the figures of a step."""

    def report(step: int, values: dict[str, float]) -> None:
        bar.advance(step - bar.done)
        log.info("step %d: %s", step, ", ".join(f"{key} {value:.3f}" for key, value in values.items()))

    return report


def pretrain_judge(pretrain: PretrainParameters) -> dict[str, float]:
    """Train, save and test the tiny judge; returns its measured quality."""
    from unime_kedro.learning.tiny.make import make_judge

    options = pretrain.judge.model_dump(exclude={"output"})
    folder = resolve(pretrain.judge.output)
    with progress("training the judge", pretrain.judge.steps, "steps") as bar:
        return make_judge(folder, **options, test_pairs=pretrain.judge_test_pairs, report=_reporter(bar))


def pretrain_embedder(pretrain: PretrainParameters) -> dict[str, float]:
    """Train, save and test the tiny pool embedder; returns its measured quality."""
    from unime_kedro.learning.tiny.make import make_embedder

    options = pretrain.embedder.model_dump(exclude={"output"})
    folder = resolve(pretrain.embedder.output)
    with progress("training the embedder", pretrain.embedder.steps, "steps") as bar:
        return make_embedder(folder, **options, report=_reporter(bar))
