"""The suites of all tables, by name."""

from __future__ import annotations

from unime_kedro.quality.suite import Suite
from unime_kedro.quality.suite_corpus import ITEMS, QUERIES
from unime_kedro.quality.suite_evaluation import EVALUATED_QUERIES, LEAKS, PREDICTIONS, RANKINGS
from unime_kedro.quality.suite_pairs import JUDGE_SCORES, POOL
from unime_kedro.quality.suite_reranking import RERANKING
from unime_kedro.quality.suite_selection import NEGATIVES, SELECTION
from unime_kedro.quality.suite_training import TRAINING

SUITES: dict[str, Suite] = {
    "items": ITEMS,
    "queries": QUERIES,
    "pool": POOL,
    "judge_scores": JUDGE_SCORES,
    "selection": SELECTION,
    "negatives": NEGATIVES,
    "training": TRAINING,
    "reranking": RERANKING,
    "evaluated_queries": EVALUATED_QUERIES,
    "leaks": LEAKS,
    "predictions": PREDICTIONS,
    "rankings": RANKINGS,
}
