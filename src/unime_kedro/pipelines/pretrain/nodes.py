"""Nodes of pipelines ``pretrain`` and ``measure``."""

import logging
from pathlib import Path
from typing import Any

from unime_kedro.learning.tiny.make import Report
from unime_kedro.parameters import DemoParameters, PretrainParameters
from unime_kedro.paths import resolve
from unime_kedro.progress import Progress, progress

log = logging.getLogger(__name__)

History = list[dict[str, float]]


def _reporter(bar: Progress, history: History) -> Report:
    """Return a function that moves the bar, keeps the figures of a step and logs them."""

    def report(step: int, values: dict[str, float]) -> None:
        bar.advance(step - bar.done)
        history.append({"step": step, **values})
        log.info("step %d: %s", step, ", ".join(f"{key} {value:.3f}" for key, value in values.items()))

    return report


def pretrain_judge(pretrain: PretrainParameters) -> tuple[dict[str, float], History]:
    """Train, save, calibrate and test the tiny judge, and write its card.

    Returns:
        Its measured quality with the seconds it took, and its training's figures by step.
    """
    from unime_kedro.learning.tiny.cards import judge_card
    from unime_kedro.learning.tiny.make import make_judge

    folder = resolve(pretrain.judge.output)
    history: History = []
    with progress("training the judge", pretrain.judge.steps, "steps") as bar:
        options = pretrain.judge.model_dump(exclude={"output"})
        record = make_judge(
            folder,
            **options,
            report=_reporter(bar, history),
            calibration_pairs=pretrain.judge_test_pairs,
            calibration_seed=pretrain.test_seed,
        )
    metrics = measure_judge(pretrain)
    _write_card(folder, judge_card(record, metrics))
    return {**metrics, **_times(record)}, history


def pretrain_embedder(
    pretrain: PretrainParameters, corpus: dict[str, Any], demo: DemoParameters
) -> tuple[dict[str, float], History]:
    """Train, save and test the tiny pool embedder, and write its card; returns as :func:`pretrain_judge`."""
    from unime_kedro.learning.tiny.cards import embedder_card
    from unime_kedro.learning.tiny.make import make_embedder

    folder = resolve(pretrain.embedder.output)
    history: History = []
    with progress("training the embedder", pretrain.embedder.steps, "steps") as bar:
        options = pretrain.embedder.model_dump(exclude={"output"})
        record = make_embedder(folder, **options, report=_reporter(bar, history))
    metrics = measure_embedder(pretrain, corpus, demo)
    _write_card(folder, embedder_card(record, metrics))
    return {**metrics, **_times(record)}, history


def _times(record: dict[str, Any]) -> dict[str, float]:
    return {key: record[key] for key in ("seconds", "cpu_seconds", "parameters")}


def _write_card(folder: Path, text: str) -> None:
    (folder / "README.md").write_text(text, encoding="utf-8")


def measure_judge(pretrain: PretrainParameters) -> dict[str, float]:
    """Measure the saved judge on held-out hard pairs."""
    from unime_kedro.learning.tiny.measure import measure_judge

    return measure_judge(resolve(pretrain.judge.output), pairs=pretrain.judge_test_pairs, seed=pretrain.test_seed)


def measure_embedder(pretrain: PretrainParameters, corpus: dict[str, Any], demo: DemoParameters) -> dict[str, float]:
    """Measure the saved embedder on mini-MMEB's evaluation sets.

    Args:
        pretrain: Which model.
        corpus: What the corpus is; it is there before this runs.
        demo: Where it is.
    """
    from unime_kedro.evaluation.mini_mmeb import evaluate_mini_mmeb
    from unime_kedro.mllm.adapters import load_adapter
    from unime_kedro.mllm.content import ModelSpec
    from unime_kedro.mllm.embedding import Embedder

    adapter = load_adapter(ModelSpec(pretrain.embedder.output, dtype="float32"))
    embedder = Embedder(adapter, prompt="plain", max_tokens=512, batch_tokens=16384)
    return evaluate_mini_mmeb(resolve(demo.root), embedder.embed, seed=pretrain.test_seed, progress=progress)
