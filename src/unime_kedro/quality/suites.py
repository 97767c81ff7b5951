"""The suites of all tables, by name."""

from __future__ import annotations

from .suite import Suite
from .suite_corpus import ITEMS, QUERIES
from .suite_pairs import JUDGE_SCORES, POOL
from .suite_selection import NEGATIVES, SELECTION

SUITES: dict[str, Suite] = {
    "items": ITEMS,
    "queries": QUERIES,
    "pool": POOL,
    "judge_scores": JUDGE_SCORES,
    "selection": SELECTION,
    "negatives": NEGATIVES,
}
