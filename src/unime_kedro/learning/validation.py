"""Precision@1 on held-out queries while a model is trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from transformers import TrainerCallback

from unime_kedro.evaluation.embedders import EvalTables, evaluate_embedder

if TYPE_CHECKING:
    from unime_kedro.learning.trainer import EmbedderTrainer
    from unime_kedro.mllm.embedding import Embedder

PRECISION = "validation_precision_at_1"


class Validation(TrainerCallback):
    """Validates before the first step, every ``every`` steps and after the last one, or there alone.

    Args:
        sets: Validation sets; with none nothing is done.
        embedder: Around the model that is trained.
        image_root: Folder that the sets' image paths are relative to.
        every: Steps between validations; 0 for after the last step only.
        report: Receives the figures.
    """

    trainer: EmbedderTrainer

    def __init__(
        self,
        sets: Sequence[EvalTables],
        embedder: Embedder,
        image_root: Path,
        *,
        every: int,
        report: Callable[[int, dict[str, float]], None],
    ) -> None:
        self._sets, self._embedder, self._root = sets, embedder, image_root
        self._every, self._report = every, report

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure the model that is started from, unless the training goes on from a checkpoint."""
        if self._every and state.global_step == 0:
            self._validate(state)
        self.trainer.start_clock()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure where it is time to."""
        regular = self._every and state.global_step % self._every == 0
        if regular or state.global_step == state.max_steps:
            self._validate(state)

    def _validate(self, state: Any) -> None:
        if self._sets and state.is_world_process_zero:  # the others wait for it at their next exchange
            self.trainer.without_clock(lambda: self._measure(state))

    def _measure(self, state: Any) -> None:
        model = self._embedder.adapter.model
        model.eval()
        start = time.perf_counter()
        figures = precision_by_set(self._sets, self._embedder, self._root)
        model.train()
        mean = sum(figures.values()) / len(figures)
        by_set = {f"{PRECISION}/{name}": value for name, value in figures.items()}
        seconds = {"validation_seconds": time.perf_counter() - start}
        self._report(state.global_step, {PRECISION: mean, **by_set, **seconds})


def precision_by_set(sets: Sequence[EvalTables], embedder: Embedder, image_root: Path) -> dict[str, float]:
    """Return Precision@1 of each data set, ties counted as wrong.

    Args:
        sets: Data sets with distinct names.
        embedder: The model.
        image_root: Folder that image paths are relative to.
    """
    predictions = evaluate_embedder(sets, embedder.embed, image_root)
    means = predictions.group_by("dataset").agg(pl.col("correct").mean()).sort("dataset")
    return dict(means.iter_rows())
