"""Rules of the table that rerank makes: as that of train, but lists may be short, and the hardest negative is first."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from unime_kedro.quality.rules import Rule, between
from unime_kedro.quality.suite import References
from unime_kedro.quality.suite_training import TRAINING, derive_training, training_rules

_IDS, _SCORES = "negative_item_ids", "negative_scores"


def _derive_reranking(table: pl.DataFrame, references: References, slots: int | None) -> pl.DataFrame:
    rises = pl.col(_SCORES).list.eval(pl.element().fill_nan(None)).list.diff().list.max()
    return derive_training(table, references, slots).with_columns(
        repeated_negatives=(pl.col(_IDS).list.len() - pl.col(_IDS).list.n_unique()).cast(pl.Int64),
        largest_rise=rises.fill_null(0.0).cast(pl.Float64),
    )


def _reranking_rules(rows: int) -> list[Rule]:
    return [
        # a query has as many as mining found different ones for it
        *(rule for rule in training_rules(rows) if rule.name != "negatives_per_query"),
        between("negatives_are_distinct", "repeated_negatives", 0, 0, f"no id stands twice in {_IDS}", shown=[_IDS]),
        between(
            "hardest_negative_is_first",
            "largest_rise",
            None,
            0,
            f"{_SCORES} never rise: the hardest negative is the first",
            shown=[_SCORES],
        ),
    ]


RERANKING = replace(TRAINING, derive=_derive_reranking, rules=_reranking_rules)
