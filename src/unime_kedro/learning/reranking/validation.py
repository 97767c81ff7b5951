"""How well a reranker chooses among the mined negatives of held-out queries while it is trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from transformers import TrainerCallback

from unime_kedro.learning.reranking.rows import RerankingRows, draw_list, listwise_message
from unime_kedro.mllm.content import Content
from unime_kedro.mllm.reranker import Reranker

if TYPE_CHECKING:
    from unime_kedro.learning.step_trainer import StepTrainer
    from unime_kedro.mllm.adapters.base import BackboneAdapter

#: how the metrics begin
PREFIX = "validation_"


class Validation(TrainerCallback):
    """Validates before the first step, every ``every`` steps and after the last one, or there alone.

    Args:
        rows: Held-out queries; with none nothing is done.
        datasets: (n,) data set of each of them.
        contents: item_id -> content.
        adapter: The model that is trained.
        every: Steps between validations; 0 for after the last step only.
        max_tokens: Longest prompt.
        listwise: Whether choices from lists are measured.
        seed: Of the places of the positives.
        report: Receives the figures.
    """

    trainer: StepTrainer[Any]

    def __init__(
        self,
        rows: RerankingRows,
        datasets: NDArray[np.str_],
        contents: Mapping[int, Content],
        adapter: BackboneAdapter,
        *,
        every: int,
        max_tokens: int,
        listwise: bool,
        seed: int,
        report: Callable[[int, dict[str, float]], None],
    ) -> None:
        self._rows, self._datasets, self._contents, self._adapter = rows, datasets, contents, adapter
        self._every, self._max_tokens, self._listwise, self._seed = every, max_tokens, listwise, seed
        self._report = report

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
        if len(self._rows) and state.is_world_process_zero:  # the others wait for it at their next exchange
            self.trainer.without_clock(lambda: self._measure(state))

    def _measure(self, state: Any) -> None:
        model = self._adapter.model
        model.eval()
        start = time.perf_counter()
        # a new one each time: what it keeps of pictures is of the weights that it was made with
        reranker = Reranker(self._adapter, max_tokens=self._max_tokens, batch_tokens=16384)
        found = measure(self._rows, self._contents, reranker, listwise=self._listwise, seed=self._seed)
        model.train()
        figures = summary(found, self._datasets)
        self._report(state.global_step, {**figures, f"{PREFIX}seconds": time.perf_counter() - start})


def measure(
    rows: RerankingRows, contents: Mapping[int, Content], reranker: Reranker, *, listwise: bool, seed: int
) -> pl.DataFrame:
    """Ask the reranker about every query: which of the list, and of each candidate whether it is right.

    Args:
        rows: The queries.
        contents: item_id -> content.
        reranker: The model, in evaluation mode.
        listwise: Whether lists are asked about.
        seed: Of the places of the positives.

    Returns:
        One row per query: listwise_accuracy (the positive's number is the constrained answer; null if not asked),
        listwise_chance (one of how many), pairwise_accuracy (half for the positive's Yes, half for the hardest
        negative's No), pairwise_choice_accuracy (no candidate has a score as high as the positive's). A score that is
        not finite is wrong.
    """
    lists = [
        listwise_message(
            int(rows.item_ids[row]),
            int(rows.positive_item_ids[row]),
            negatives,
            # all negatives are shown, whatever lists are trained on
            draw_list(int(rows.query_ids[row]), len(negatives), epoch=0, seed=seed, fewest=len(negatives))[1],
        )
        for row, negatives in enumerate(rows.negative_item_ids)
    ]
    chosen: list[bool | None] = [None] * len(lists)
    if listwise:
        prompts = [(contents[m.query], [contents[item] for item in m.candidates]) for m in lists]
        choices = reranker.choose(prompts, decoding="constrained")
        places = [m.candidates.index(int(p)) + 1 for m, p in zip(lists, rows.positive_item_ids, strict=True)]
        chosen = [choice.number == place for choice, place in zip(choices, places, strict=True)]
    scores = [
        reranker.scores(contents[int(query)], [contents[item] for item in (int(positive), *negatives)])
        for query, positive, negatives in zip(
            rows.item_ids, rows.positive_item_ids, rows.negative_item_ids, strict=True
        )
    ]
    return pl.DataFrame(
        {
            "listwise_accuracy": pl.Series(chosen, dtype=pl.Boolean).cast(pl.Float64),
            "listwise_chance": [1 / len(m.candidates) for m in lists],
            "pairwise_accuracy": [(float(s[0] > 0.5) + float(s[1] < 0.5)) / 2 for s in scores],
            "pairwise_choice_accuracy": [float((s[0] > s[1:]).all()) for s in scores],
        }
    )


def summary(found: pl.DataFrame, datasets: NDArray[np.str_]) -> dict[str, float]:
    """Return the means of what :func:`measure` found, over all queries, and over those of each data set.

    Args:
        found: One row per query.
        datasets: (n,) data set of each.
    """
    if found["listwise_accuracy"].is_null().all():
        found = found.drop("listwise_accuracy", "listwise_chance")
    means = found.mean().row(0, named=True)
    figures = {f"{PREFIX}{name}": float(value) for name, value in means.items()}
    by_set = found.with_columns(dataset=pl.Series(datasets, dtype=pl.String)).group_by("dataset").mean().sort("dataset")
    for row in by_set.iter_rows(named=True):
        name = row.pop("dataset")
        figures |= {f"{PREFIX}{key}/{name}": value for key, value in row.items() if key != "listwise_chance"}
    return figures
