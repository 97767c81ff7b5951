"""How much two scorings of the same pairs agree, and what of the mining would be different with the second one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from unime_kedro.errors import DataError
from unime_kedro.evaluation.ranking import spearman
from unime_kedro.evaluation.resampled import roc_auc_interval
from unime_kedro.evaluation.statistics import Interval, bootstrap_draws, bootstrap_interval, share_interval
from unime_kedro.mining.filters import false_negative_threshold
from unime_kedro.mining.margins import Rule
from unime_kedro.mining.selection import select_negatives

_PAIR = ["query_id", "item_id"]


@dataclass(frozen=True)
class Choice:
    """How negatives are filtered and sampled; see :func:`unime_kedro.mining.selection.select_negatives`."""

    rule: Rule
    margin: float
    n_negatives: int
    step: int
    seed: int

    def negatives(self, pool: pl.DataFrame, scores: pl.DataFrame) -> pl.DataFrame:
        """Return the negatives table that these scores lead to."""
        return select_negatives(pool, scores, **vars(self)).negatives


@dataclass(frozen=True)
class Resampling:
    """How intervals are made: share between their ends, how many resamples of queries, seed."""

    level: float
    resamples: int
    seed: int


def cohens_kappa(first: ArrayLike, second: ArrayLike) -> float:
    """Return Cohen's kappa of two yes/no raters: ``(p_o - p_e) / (1 - p_e)`` (Cohen 1960).

    p_o is the share of rows on which they agree, p_e the share that they would agree on by chance, each saying yes as
    often as it does.

    Args:
        first: (n,) truth values.
        second: (n,) truth values.

    Returns:
        1 for full agreement, 0 for that of chance; NaN when both always say the same word, and for no rows.

    Raises:
        ValueError: If the lengths differ.
    """
    one, other = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if one.shape != other.shape:
        raise ValueError(f"one rater has shape {one.shape}, the other {other.shape}")
    if not one.size:
        return float("nan")
    observed = float((one == other).mean())
    yes, other_yes = float(one.mean()), float(other.mean())
    chance = yes * other_yes + (1 - yes) * (1 - other_yes)
    return (observed - chance) / (1 - chance) if chance < 1 else float("nan")


def compare_scorings(
    first: pl.DataFrame,
    second: pl.DataFrame,
    pool: pl.DataFrame,
    choice: Choice,
    resampling: Resampling,
    relevance: pl.DataFrame | None = None,
) -> dict[str, Any]:
    """Compare a second scoring of pairs with the first one.

    ===================  ==========================================================================================
    measure              definition
    ===================  ==========================================================================================
    pairs, unpaired      pairs with a score in both, and in only one of the two
    largest_difference,  of the absolute differences of the scores
    mean_difference
    mean_shift           mean of second - first, with its interval
    spearman             rank correlation of the scores
    kappa                Cohen's kappa of ``score > .5``
    yes_share            share of the second's scores above .5
    pool_members         pairs of pool members whose query's positive has both scores, too
    dropped_share        share of them that the second drops as false negatives
    decisions_flipped    share of them that one of the two drops and the other keeps, each with its own scores of the
                         positives; with its interval, for which a query counts as one answer: where nothing flips,
                         its upper end is what so few queries cannot rule out
    negatives_kept       of the negatives that the first one chooses, the share that the second one chooses, too;
                         random ones (fallback) left out
    auc                  ROC AUC of the second's scores against the known truth, with its interval
    auc_positives        the same of positives against pool members: needs no truth, and counts a false negative in the
                         pool against the judge
    ===================  ==========================================================================================

    Args:
        first: query_id, item_id, is_positive, score; null or NaN where there is none.
        second: Likewise.
        pool: The pool table; queries without scores are left out.
        choice: Rule, margin and sampling that decide what a score does.
        resampling: Of the intervals; queries are resampled.
        relevance: query_id, item_id, relevance; None or empty where there is no truth.

    Returns:
        Measure -> number or ``{"value", "low", "high", "n"}``. What is undefined is left out.

    Raises:
        DataError: If the two have no pair in common.
    """
    pairs = _paired(first, second)
    if pairs.is_empty():
        raise DataError("the two scorings have no pair in common; score the same queries with both")
    one, other = (pairs[name].cast(pl.Float64).to_numpy() for name in ("score", "other"))
    decisions = _decisions(pairs.join(pool.select(_PAIR), on=_PAIR, how="semi"), pairs.filter("is_positive"), choice)
    options = vars(resampling)
    found: dict[str, Any] = {
        "pairs": pairs.height,
        "unpaired": _scored(first).height + _scored(second).height - 2 * pairs.height,
        "largest_difference": float(np.abs(other - one).max()),
        "mean_difference": float(np.abs(other - one).mean()),
        "mean_shift": bootstrap_interval("mean", other - one, groups=pairs["query_id"].to_numpy(), **options),
        "spearman": spearman(one, other),
        "kappa": cohens_kappa(one > 0.5, other > 0.5),
        "yes_share": float((other > 0.5).mean()),
        "negatives_kept": _negatives_kept(pairs, pool, choice),
        "auc_positives": _auc(pairs, pairs["is_positive"], resampling),
    }
    if decisions.height:
        found["pool_members"] = decisions.height
        found["dropped_share"] = float(decisions["other_drops"].to_numpy().mean())
        found["decisions_flipped"] = _flipped(decisions, resampling)
    if relevance is not None and relevance.height:
        known = pairs.join(relevance.drop_nulls("relevance").unique(_PAIR), on=_PAIR)
        found["auc"] = _auc(known, known["relevance"] == 1, resampling)
    return defined(found)


def defined(measures: dict[str, Any]) -> dict[str, Any]:
    """Return measures as JSON holds them: intervals as mappings, and without what is undefined (NaN)."""
    plain = {k: v._asdict() if isinstance(v, Interval) else v for k, v in measures.items()}
    values = {k: v["value"] if isinstance(v, dict) and "value" in v else v for k, v in plain.items()}
    return {k: v for k, v in plain.items() if not (isinstance(values[k], float) and np.isnan(values[k]))}


def _scored(scores: pl.DataFrame) -> pl.DataFrame:
    return scores.select(*_PAIR, "is_positive", pl.col("score").fill_nan(None)).drop_nulls("score")


def _paired(first: pl.DataFrame, second: pl.DataFrame) -> pl.DataFrame:
    """Return query_id, item_id, is_positive, score, other, sorted."""
    other = _scored(second).rename({"score": "other"})
    return _scored(first).join(other, on=[*_PAIR, "is_positive"]).sort(*_PAIR, "is_positive")


def _decisions(members: pl.DataFrame, positives: pl.DataFrame, choice: Choice) -> pl.DataFrame:
    """Return query_id, drops, other_drops of pool members, for queries whose positive has both scores."""
    limits = positives.select(
        "query_id",
        *(
            pl.Series(f"limit_{name}", false_negative_threshold(positives[name].to_numpy(), choice.rule, choice.margin))
            for name in ("score", "other")
        ),
    )
    return (
        members.filter(~pl.col("is_positive"))
        .join(limits, on="query_id")
        .select(
            "query_id",
            drops=pl.col("score") > pl.col("limit_score"),
            other_drops=pl.col("other") > pl.col("limit_other"),
        )
        .sort("query_id")
    )


def _flipped(decisions: pl.DataFrame, resampling: Resampling) -> Interval:
    flips = (decisions["drops"] != decisions["other_drops"]).to_numpy()
    queries = decisions["query_id"].to_numpy()
    draws = bootstrap_draws("mean", flips, groups=queries, resamples=resampling.resamples, seed=resampling.seed)
    return share_interval(float(flips.mean()), draws, resampling.level, len(np.unique(queries)))


def _negatives_kept(pairs: pl.DataFrame, pool: pl.DataFrame, choice: Choice) -> float:
    """Compare what the sampling takes with either scoring, of pairs that have both scores."""
    there = pool.join(pairs.filter(~pl.col("is_positive")), on=_PAIR, how="semi")
    if there.is_empty():
        return float("nan")
    one, other = (
        choice.negatives(there, pairs.select(*_PAIR, "is_positive", pl.col(name).alias("score")))
        .filter(pl.col("origin") != "fallback")
        .select(_PAIR)
        .unique()
        for name in ("score", "other")
    )
    return one.join(other, on=_PAIR, how="semi").height / one.height if one.height else float("nan")


def _auc(pairs: pl.DataFrame, labels: pl.Series, resampling: Resampling) -> Interval:
    if pairs.is_empty():
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    return roc_auc_interval(pairs["other"], labels, pairs["query_id"], **vars(resampling))
