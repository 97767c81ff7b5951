"""Small mined tables with every kind of content, for tests of exports."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from PIL import Image

#: item_id -> words, picture
ITEMS = [
    ("<|image_1|>\nWhich colour?", "q0.png"),  # 0, query 0
    ('red, not "blue"', ""),  # 1
    ("", "c2.png"),  # 2
    ("<|image_1|> a crop", "c3.png"),  # 3
    ("a plain question\u2028with a line separator", ""),  # 4, query 1
    ("słoń 🐘", ""),  # 5
    ("query of nothing", ""),  # 6, query 2
    ("query of a fallback", ""),  # 7, query 3
]
#: query_id, item, positive, negatives as (item, score, origin)
QUERIES = [
    (0, 0, 1, [(2, 0.25, "sampled"), (3, 0.5, "sampled"), (2, 0.25, "duplicate")]),
    (1, 4, 5, [(1, 0.125, "sampled"), (6, 0.0, "sampled"), (7, 0.75, "sampled")]),
    (2, 6, 1, []),
    (3, 7, 5, [(1, 1.0, "fallback"), (2, 1.0, "fallback"), (4, 1.0, "fallback")]),
]
POSITIVE_SCORES = {0: 0.875, 1: 0.625, 2: 0.5, 3: 0.375}


def tables(words_alone: bool = False) -> dict[str, pl.DataFrame]:
    """Return negatives, queries, items and judge_scores, rows not in order; ``words_alone`` leaves out pictures."""
    contents = [(text.replace("<|image_1|>", "").strip() or "words", "") for text, _ in ITEMS] if words_alone else ITEMS
    items = pl.DataFrame(
        {"item_id": range(len(ITEMS)), "text": [t for t, _ in contents], "image": [i for _, i in contents]}
    )
    negatives = [
        {"query_id": q, "slot": slot, "item_id": item, "score": score, "origin": origin}
        for q, _, _, members in QUERIES
        for slot, (item, score, origin) in enumerate(members)
    ]
    scores = [
        {"query_id": q, "item_id": p, "is_positive": True, "score": POSITIVE_SCORES[q]} for q, _, p, _ in QUERIES
    ] + [
        {"query_id": row["query_id"], "item_id": row["item_id"], "is_positive": False, "score": row["score"]}
        for row in negatives
    ]
    types = {"slot": pl.Int32, "score": pl.Float32}
    return {
        "negatives": pl.DataFrame(negatives[::-1], schema_overrides=types),
        "queries": pl.DataFrame(
            [{"query_id": q, "dataset": "D", "item_id": i, "positive_item_id": p} for q, i, p, _ in QUERIES[::-1]]
        ),
        "items": items,
        "judge_scores": pl.DataFrame(scores, schema_overrides={"score": pl.Float32}),
    }


def draw(folder: Path) -> Path:
    """Write the pictures; each has a colour of its own."""
    for i, (_, image) in enumerate(ITEMS):
        if image:
            Image.new("RGB", (56, 56), (40 * i, 10, 200)).save(folder / image)
    return folder
