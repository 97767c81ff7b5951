"""What a judge is worth, from the tables that mining saved: known truth, bias towards Yes, what each filter rule does.

What needs the judge itself (noise, wording, a second judge) is in :mod:`unime_kedro.evaluation.rescoring` and
:mod:`unime_kedro.evaluation.agreement`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from unime_kedro.evaluation.agreement import Choice, Resampling, defined
from unime_kedro.evaluation.calibration import calibration_curve
from unime_kedro.evaluation.ranking import precision_recall
from unime_kedro.evaluation.resampled import calibration_error_interval, roc_auc_interval
from unime_kedro.mining.margins import DEFAULT_MARGINS, RULES, Rule
from unime_kedro.mining.selection import select_negatives
from unime_kedro.mllm.judgements import score

_PAIR = ["query_id", "item_id"]
#: of calibration curves and errors
BINS = 15


def judged_pairs(
    judge_scores: pl.DataFrame, queries: pl.DataFrame, items: pl.DataFrame, relevance: pl.DataFrame
) -> pl.DataFrame:
    """Put beside every judged pair what it is of, and the truth.

    Args:
        judge_scores: Table ``judge_scores``.
        queries: Table ``queries``.
        items: Table ``items``.
        relevance: Table ``pool_relevance``; without rows where there is no truth.

    Returns:
        query_id, item_id, is_positive, score, uncalibrated (the score at temperature 1), meta_task, modalities
        (such as ``text to image``), true (whether the relevance is 1; null where it is unknown); sorted by query, item.
    """
    modality = items.select("item_id", "modality")
    of_query = queries.select("query_id", "meta_task", query_item="item_id").join(
        modality.rename({"item_id": "query_item", "modality": "from"}), on="query_item"
    )
    truth = relevance.drop_nulls("relevance").unique(_PAIR).select(*_PAIR, true=pl.col("relevance") == 1)
    pairs = (
        judge_scores.with_columns(pl.col("score").fill_nan(None))
        .drop_nulls("score")
        .join(of_query, on="query_id")
        .join(modality.rename({"modality": "to"}), on="item_id")
        .join(truth, on=_PAIR, how="left")
        .sort(*_PAIR, "is_positive")
    )
    plain = score(pairs["yes_logit"].to_numpy(), pairs["no_logit"].to_numpy())
    return pairs.select(
        *_PAIR,
        "is_positive",
        "score",
        pl.Series("uncalibrated", plain),
        "meta_task",
        pl.format("{} to {}", "from", "to").alias("modalities"),
        "true",
    )


def measure_truth(judged: pl.DataFrame, resampling: Resampling) -> dict[str, dict[str, Any]]:
    """Measure scores against known truth, over all pairs (``all``) and per meta-task.

    Args:
        judged: See :func:`judged_pairs`.
        resampling: Of the intervals; queries are resampled.

    Returns:
        ``all`` or meta-task -> pairs, true_share, auc, auc_pool (pool members only), calibration_error,
        calibration_error_uncalibrated (the score at temperature 1); the last four with intervals. Empty without truth.
    """
    known = judged.drop_nulls("true")
    if known.is_empty():
        return {}
    parts = {"all": known} | _parts(known, "meta_task")
    return {name: _against_truth(part, resampling) for name, part in parts.items()}


def _against_truth(known: pl.DataFrame, resampling: Resampling) -> dict[str, Any]:
    members, options = known.filter(~pl.col("is_positive")), vars(resampling)
    true, query = known["true"].to_numpy(), known["query_id"].to_numpy()
    in_pool = (members["score"].to_numpy(), members["true"].to_numpy(), members["query_id"].to_numpy())
    return defined(
        {
            "pairs": known.height,
            "true_share": float(true.mean()),
            "auc": roc_auc_interval(known["score"].to_numpy(), true, query, **options),
            "auc_pool": roc_auc_interval(*in_pool, **options),
            "calibration_error": _calibration(known["score"], true, query, resampling),
            "calibration_error_uncalibrated": _calibration(known["uncalibrated"], true, query, resampling),
        }
    )


def _calibration(scores: pl.Series, true: np.ndarray, query: np.ndarray, resampling: Resampling) -> Any:
    return calibration_error_interval(scores.to_numpy(), true, query, bins=BINS, **vars(resampling))


def calibration_curves(judged: pl.DataFrame) -> dict[str, dict[str, list[float | None]]]:
    """Return how often pairs are true by their score, as lists over :data:`BINS` bins; empty without truth.

    Returns:
        ``calibrated`` and ``uncalibrated`` -> pairs, mean_score, positive_share (null for an empty bin).
    """
    known = judged.drop_nulls("true")
    if known.is_empty():
        return {}
    columns = {"calibrated": "score", "uncalibrated": "uncalibrated"}
    curves = {name: calibration_curve(known[column], known["true"], BINS) for name, column in columns.items()}
    return {
        name: {key: [None if np.isnan(v) else v for v in values.tolist()] for key, values in curve._asdict().items()}
        for name, curve in curves.items()
    }


def measure_yes(judged: pl.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """Measure how readily the judge says Yes, by meta-task and by modality of query and candidate.

    Of pairs to which a judge says Yes more readily than to others the filter drops more, whatever they are.

    Args:
        judged: See :func:`judged_pairs`.

    Returns:
        ``all``, ``meta_task`` and ``modalities`` -> name -> for ``positives`` and ``pool``: their number, and with
        ``_mean_score``, ``_yes_share`` (score above .5) and ``_true_share`` behind it these; what is unknown, or of
        nothing, is left out.
    """
    return {
        "all": {"all": _yes(judged)},
        **{
            column: {name: _yes(part) for name, part in _parts(judged, column).items()}
            for column in ("meta_task", "modalities")
        },
    }


def _yes(judged: pl.DataFrame) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, part in (
        ("positives", judged.filter("is_positive")),
        ("pool", judged.filter(~pl.col("is_positive"))),
    ):
        values = part["score"].cast(pl.Float64)
        shares = {
            "mean_score": values.mean(),
            "yes_share": (values > 0.5).mean(),
            "true_share": part["true"].mean(),  # of those whose truth is known
        }
        found[name] = part.height
        found |= {f"{name}_{key}": float(value) for key, value in shares.items() if isinstance(value, float)}
    return found


def measure_rules(
    pool: pl.DataFrame, judge_scores: pl.DataFrame, relevance: pl.DataFrame, choice: Choice
) -> dict[str, dict[str, float]]:
    """Apply every rule for false negatives at its default margin, and the rule in use.

    Args:
        pool: Table ``pool``.
        judge_scores: Table ``judge_scores``.
        relevance: Table ``pool_relevance``; without rows where there is no truth.
        choice: The rule in use, and how is sampled.

    Returns:
        Rule, and ``in_use`` when its margin is another -> margin, dropped, dropped_share (of the judged members),
        fallback_queries (nothing left), duplicated_queries (fewer left than are wanted); with a truth precision and
        recall of dropping, and false_negatives_chosen (true ones among the sampled), its number.
    """
    rules: dict[str, tuple[Rule, float]] = {rule: (rule, DEFAULT_MARGINS[rule]) for rule in RULES}
    if choice.rule != "none" and choice.margin != DEFAULT_MARGINS[choice.rule]:
        rules["in_use"] = (choice.rule, choice.margin)
    truth = relevance.drop_nulls("relevance").unique(_PAIR).select(*_PAIR, true=pl.col("relevance") == 1)
    return {name: _rule(pool, judge_scores, truth, choice, *rule) for name, rule in rules.items()}


def _rule(
    pool: pl.DataFrame, scores: pl.DataFrame, truth: pl.DataFrame, choice: Choice, rule: Rule, margin: float
) -> dict[str, float]:
    found = select_negatives(pool, scores, **(vars(choice) | {"rule": rule, "margin": margin}))
    measures: dict[str, float] = {
        "margin": margin,
        "dropped": found.metrics["false_negatives_dropped"],
        "dropped_share": found.metrics["false_negative_share"],
        "fallback_queries": found.metrics["fallback_queries"],
        "duplicated_queries": found.metrics["duplicated_queries"],
    }
    if truth.height:
        judged = scores.filter(~pl.col("is_positive")).with_columns(pl.col("score").fill_nan(None)).drop_nulls("score")
        members = (
            pool.select(_PAIR)
            .join(judged.select(*_PAIR, "score"), on=_PAIR)
            .join(found.selection.select("query_id", "threshold"), on="query_id")
            .join(truth, on=_PAIR)
        )
        dropped = (members["score"] > members["threshold"]).fill_null(value=False)  # rule none has no threshold
        detection = precision_recall(dropped.to_numpy(), members["true"].to_numpy())
        sampled = found.negatives.filter(pl.col("origin") == "sampled").join(truth, on=_PAIR)
        measures |= {
            "precision": detection.precision,
            "recall": detection.recall,
            "false_negatives_chosen": int(sampled["true"].sum()),
        }
    return defined(measures)


def _parts(table: pl.DataFrame, column: str) -> dict[str, pl.DataFrame]:
    """Cut a table by the values of a column, in alphabetical order."""
    parts = table.drop_nulls(column).partition_by(column, as_dict=True)
    return {str(name): part for (name,), part in sorted(parts.items())}
