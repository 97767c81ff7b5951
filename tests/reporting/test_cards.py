"""Rows of cards, as notebooks show them."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from unime_kedro.errors import DataError
from unime_kedro.reporting.cards import cards

ITEMS = pl.DataFrame(
    {
        "item_id": [0, 1, 2, 3, 4],
        "text": ["<|image_1|> What <is> it?", "a cat", "a dog & co", "<|image_1|>", ""],
        "image": ["q.png", "", "", "gone.png", ""],
    }
)
SHOWN = pl.DataFrame(
    {"query_id": [7, 5], "item_id": [0, 1], "positive_item_id": [1, 2], "note": ["target one", "target two"]}
)


def pairs(*rows: tuple[int, int, str, bool]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["query_id", "item_id", "note", "marked"], orient="row")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    Image.new("RGB", (3, 2), "#123456").save(tmp_path / "q.png")
    return tmp_path


def parts(html: str) -> list[str]:
    """Return the page cut into its rows."""
    return html.split('<div style="display: flex')[1:]


def test_rows_and_cards_keep_their_order_and_others_are_left_out(pictures: Path):
    candidates = pairs((5, 2, "n1", False), (7, 2, "n2", False), (7, 1, "n3", False), (9, 99, "n4", False))
    first, second = parts(cards(SHOWN, candidates, ITEMS, pictures))
    assert [first.index(word) for word in ("query 7", "target one", "n2", "n3")] == sorted(
        first.index(word) for word in ("query 7", "target one", "n2", "n3")
    )
    assert "query 5" in second
    assert "n1" in second
    assert "n4" not in first + second


def test_at_most_so_many_cards_of_each_query(pictures: Path):
    candidates = pairs(*((q, 2, f"note{q}-{i}!", False) for i in range(4) for q in (5, 7)))
    html = cards(SHOWN, candidates, ITEMS, pictures, most=3)
    assert sorted(set(re.findall(r"note\d-\d!", html))) == [f"note{q}-{i}!" for q in (5, 7) for i in range(3)]


def test_pictures_are_in_the_page_and_lost_ones_are_named(pictures: Path):
    html = cards(SHOWN, pairs((7, 3, "n", False), (7, 4, "m", False)), ITEMS, pictures)
    (uri,) = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    assert base64.b64decode(uri) == (pictures / "q.png").read_bytes()
    assert "picture not found: gone.png" in html
    assert "empty text" in html


def test_words_are_escaped_and_placeholders_are_not_shown(pictures: Path):
    html = cards(SHOWN, pairs((7, 2, "<b>", False)), ITEMS, pictures)
    assert "What &lt;is&gt; it?" in html
    assert "a dog &amp; co" in html
    assert "&lt;b&gt;" in html
    assert not re.search("<is>|<b>|& co|image_1", html)


def test_marked_cards_alone_are_red(pictures: Path):
    plain = cards(SHOWN, pairs((7, 2, "n", False)), ITEMS, pictures)
    marked = cards(SHOWN, pairs((7, 2, "n", True)), ITEMS, pictures)
    assert "border-top: 3px solid #b3261e" not in plain
    assert marked.count("border-top: 3px solid #b3261e") == 1


def test_a_query_without_candidates_says_so(pictures: Path):
    first, second = parts(cards(SHOWN, pairs((7, 2, "n", False)), ITEMS, pictures))
    assert "no cards" not in first
    assert "no cards" in second


def test_an_unknown_item_is_an_error(pictures: Path):
    with pytest.raises(DataError, match="item_id 11 is to be shown and is not in table 'items'"):
        cards(SHOWN, pairs((7, 11, "n", False)), ITEMS, pictures)
