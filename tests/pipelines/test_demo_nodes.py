"""The node that writes mini-MMEB: what it counts, and when it has nothing to do."""

from __future__ import annotations

import polars as pl
import pytest

from unime_kedro.errors import ConfigurationError
from unime_kedro.parameters import DemoParameters
from unime_kedro.pipelines.demo.nodes import ensure_mini_mmeb


def demo(root, **changes) -> DemoParameters:
    options = {
        "root": str(root),
        "seed": 1,
        "train_pairs": {"EmojiObjects": 3, "EasyVQA": 2},
        "eval_queries": {"EmojiChoice": 2},
        "validation_queries": {"EmojiObjects": 2, "EmojiTwins": 1},
        "eval_candidates": 3,
        "caption_images": 0,
        "compositional_entries": 0,
    }
    return DemoParameters(**options | changes)


def test_every_row_is_counted_and_nothing_is_written_twice(tmp_path):
    root = tmp_path / "mini"
    corpus, metrics = ensure_mini_mmeb(demo(root))
    rows = sum(
        len(pl.read_parquet(file))
        for part in ("train", "eval", "validation")
        for file in root.glob(f"{part}/*/*.parquet")
    )
    assert metrics["written"] == rows == 10
    assert corpus["version"] == 3
    assert corpus["validation_queries"] == {"EmojiObjects": 2, "EmojiTwins": 1}
    again, metrics = ensure_mini_mmeb(demo(root))
    assert (again, metrics["written"]) == (corpus, 0)
    other, metrics = ensure_mini_mmeb(demo(root, validation_queries={"EmojiTwins": 1}))
    assert metrics["written"] == 8
    assert other["digest"] != corpus["digest"]
    assert not (root / "validation/EmojiObjects").exists()


def test_an_unknown_validation_set_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"unknown data sets \['EmojiNope'\]"):
        ensure_mini_mmeb(demo(tmp_path / "mini", validation_queries={"EmojiNope": 1}))
