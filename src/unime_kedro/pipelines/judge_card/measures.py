"""The card's numbers, from tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from unime_kedro.evaluation.agreement import Choice, Resampling, compare_scorings
from unime_kedro.evaluation.judge_card import (
    calibration_curves,
    judged_pairs,
    measure_rules,
    measure_truth,
    measure_yes,
)
from unime_kedro.pipelines.judge_card.scorings import BATCHES, FULL_PROMPTS, REFERENCE

#: largest difference between a saved score and the same judge's score now that passes as noise, by number format
TOLERANCE = {"torch.float32": 0.01}
_HALF_PRECISION = 0.1
#: kind of a scoring -> section of the metrics
SECTIONS = {"noise": "noise", "wording": "wordings", "second": "second_judge"}


@dataclass(frozen=True)
class Mined:
    """What mining saved."""

    queries: pl.DataFrame
    items: pl.DataFrame
    pool: pl.DataFrame
    judge_scores: pl.DataFrame
    relevance: pl.DataFrame


def card_metrics(
    mined: Mined, rescored: pl.DataFrame, origin: Mapping[str, Any], choice: Choice, resampling: Resampling
) -> dict[str, Any]:
    """Return the card's numbers.

    =============================  ================================================================================
    key                            what
    =============================  ================================================================================
    pairs, sample_queries,         judged pairs in the saved table; what was judged again
    sample_pairs
    auc, calibration_error, ...    the main figures of the sections below, flat
    truth                          saved scores against the truth, by meta-task (``measure_truth``)
    curve                          the same as curves over the score (``calibration_curves``)
    yes                            how readily the judge says Yes (``measure_yes``)
    rules                          what each filter rule does (``measure_rules``)
    saved                          the saved scores against the sample judged again by the judge in use
    sample                         that sample itself; what follows is compared with it (``compare_scorings``)
    noise                          judged in other batches, without sharing prefixes, in another number format
    wordings                       with other instructions
    second_judge                   by another judge
    =============================  ================================================================================

    Args:
        mined: The tables.
        rescored: The sample's scores.
        origin: Which judge made them.
        choice: What scores are used for.
        resampling: Of the intervals.
    """
    judged = judged_pairs(mined.judge_scores, mined.queries, mined.items, mined.relevance)
    metrics: dict[str, Any] = {
        "truth": measure_truth(judged, resampling),
        "curve": calibration_curves(judged),
        "yes": measure_yes(judged),
        "rules": measure_rules(mined.pool, mined.judge_scores, mined.relevance, choice),
        **_sample_metrics(mined, rescored, choice, resampling),
    }
    reference = in_use(origin)
    return {
        "pairs": judged.height,
        "sample_queries": rescored["query_id"].n_unique(),
        "sample_pairs": rescored.filter(pl.col("kind") == "reference").height,
        **main_figures(metrics),
        "model_fingerprint": reference["model"],
        **metrics,
    }


def _sample_metrics(mined: Mined, rescored: pl.DataFrame, choice: Choice, resampling: Resampling) -> dict[str, Any]:
    """Compare the sample's scorings with the one of the judge in use."""
    reference = rescored.filter(pl.col("kind") == "reference")
    saved = mined.judge_scores.join(reference, on=["query_id", "item_id", "is_positive"], how="semi")

    def compared(first: pl.DataFrame, second: pl.DataFrame) -> dict[str, Any]:
        return compare_scorings(first, second, mined.pool, choice, resampling, mined.relevance)

    sections: dict[str, Any] = {name: {} for name in SECTIONS.values()}
    others = rescored.filter(pl.col("kind") != "reference").partition_by(
        ["kind", "variant"], as_dict=True, maintain_order=True
    )
    for (kind, variant), part in others.items():
        sections[SECTIONS[str(kind)]][str(variant)] = compared(reference, part)
    own = compared(reference, reference)
    shown = {name: own[name] for name in ("pairs", "auc", "auc_positives", "yes_share") if name in own}
    return {"saved": compared(saved, reference), "sample": shown, **sections}


def in_use(origin: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the identity of the judge in use, of all scorings."""
    found: Mapping[str, Any] = origin["scorings"][f"reference/{REFERENCE}"]
    return found


def main_figures(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures that say most, under flat names; those that are unknown are left out."""
    truth, everything = metrics["truth"].get("all", {}), metrics["yes"]["all"]["all"]
    same_format = [metrics["noise"][name] for name in (BATCHES, FULL_PROMPTS) if name in metrics["noise"]]
    found = {
        "auc": _value(truth.get("auc")),
        "calibration_error": _value(truth.get("calibration_error")),
        "calibration_error_uncalibrated": _value(truth.get("calibration_error_uncalibrated")),
        "yes_share_positives": everything.get("positives_yes_share"),
        "yes_share_pool": everything.get("pool_yes_share"),
        "true_share_pool": everything.get("pool_true_share"),
        "noise_largest_difference": max((one["largest_difference"] for one in same_format), default=None),
        "saved_largest_difference": metrics["saved"]["largest_difference"],
    }
    return {name: value for name, value in found.items() if value is not None}


def _value(interval: Mapping[str, float] | None) -> float | None:
    return None if interval is None else interval["value"]


def faults(metrics: Mapping[str, Any], judge_origin: Mapping[str, str], origin: Mapping[str, Any]) -> list[str]:
    """Say why the saved scores are not those of the judge in use, if they are not."""
    reference = in_use(origin)
    found = []
    if judge_origin.get("model_fingerprint") != reference["model"]:
        found.append(
            f"The saved scores are of judge {judge_origin.get('model_fingerprint', 'unknown')}, the judge in use is "
            f"{reference['model']}: truth, bias and filter rules below are the former's, the rest the latter's. Run "
            "`kedro run --pipelines=judge,select,judge_card`."
        )
    tolerance = TOLERANCE.get(reference["dtype"], _HALF_PRECISION)
    difference = metrics["saved"]["largest_difference"]
    if difference > tolerance:
        found.append(
            f"Judged again, a saved score differs by {difference:.3g}, more than the {tolerance:g} that pass as noise: "
            "the saved scores are not of this judge with these settings (judge.temperature, max_tokens, min_pixels, "
            "max_pixels). Run `kedro run --pipelines=judge,select,judge_card`."
        )
    return found
