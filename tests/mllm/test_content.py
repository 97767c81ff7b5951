"""Contents of an items table."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from unime_kedro.mllm.content import Content, contents_of


def test_contents_are_in_the_order_of_item_id():
    items = pl.DataFrame({"item_id": [2, 0, 1], "text": ["c", "<|image_1|>", ""], "image": ["", "a/1.png", "2.png"]})
    root = Path("/pictures")
    assert contents_of(items, root) == [
        Content("<|image_1|>", Path("/pictures/a/1.png")),
        Content("", Path("/pictures/2.png")),
        Content("c", None),
    ]
    assert contents_of(items.clear(), root) == []
