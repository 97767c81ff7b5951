"""The gallery page: what it shows, where its numbers come from, and that it stands alone."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unime_kedro.errors import DataError
from unime_kedro.io.gallery import choose_queries, render_gallery
from unime_kedro.io.pictures import Pictures

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Node:
    """An element: its tag, attributes, children and text."""

    def __init__(self, tag="", attrs=()):
        self.tag, self.attrs, self.children, self.texts = tag, dict(attrs), [], []

    def find(self, tag="", css=""):
        """Return all descendants with this tag and this CSS class."""
        found = []
        for child in self.children:
            if (not tag or child.tag == tag) and (not css or css in (child.attrs.get("class") or "").split()):
                found.append(child)
            found += child.find(tag, css)
        return found

    @property
    def text(self):
        return " ".join(" ".join(part if isinstance(part, str) else part.text for part in self.texts).split())


class Page(HTMLParser):
    """Parses a page strictly: every element that opens must close."""

    def __init__(self, html):
        super().__init__()
        self.root = Node()
        self.stack = [self.root]
        self.feed(html)
        self.close()
        assert self.stack == [self.root], f"unclosed: {[node.tag for node in self.stack[1:]]}"

    def handle_starttag(self, tag, attrs):
        node = Node(tag, attrs)
        self.stack[-1].children.append(node)
        self.stack[-1].texts.append(node)
        if tag not in VOID:
            self.stack.append(node)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.stack.pop()

    def handle_endtag(self, tag):
        assert self.stack.pop().tag == tag

    def handle_data(self, data):
        self.stack[-1].texts.append(data)


def data_uris(html):
    return {
        name: (mime, base64.b64decode(data))
        for name, mime, data in re.findall(r"\.(p\d+) \{ background-image: url\(data:([^;]+);base64,([^)]*)\)", html)
    }


@pytest.fixture
def world(tmp_path):
    """Two queries. Query 0: an ordinary one, with pictures. Query 1: fell back, texts only."""
    rng = np.random.default_rng(0)
    for name in "abc":
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    items = [
        (0, "<|image_1|>\nWhat is <b>this</b>?\n", "a.png"),  # query 0
        (1, "a cat & a dog", ""),  # positive of both
        (2, "a cat", ""),
        (3, "<|image_1|>\nRepresent the given image.", "b.png"),
        (4, "<|image_1|>\nRepresent the given image.", "gone/c.png"),
        (5, "a dog and a cat", ""),
        (6, "Find what looks like <|image_1|> but is red", "c.png"),
        (7, "Which animal?", ""),  # query 1
    ]
    scores = [
        (0, 1, True, 0.9), (0, 5, False, 0.97), (0, 2, False, 0.5), (0, 3, False, 0.125), (0, 4, False, 0.93),
        (1, 1, True, 0.2), (1, 2, False, 0.8), (1, 3, False, 0.3),
    ]  # fmt: skip
    pool = [
        (0, 0, 5, 0.95), (0, 1, 2, 0.9), (0, 2, 3, 0.8), (0, 3, 4, 0.75), (0, 4, 6, 0.7),
        (1, 0, 2, 0.6), (1, 1, 3, 0.5),
    ]  # fmt: skip
    negatives = [
        (0, 0, 2, 0.5, "sampled"), (0, 1, 3, 0.125, "sampled"), (0, 2, 2, 0.5, "duplicate"),
        (1, 0, 3, 1.0, "fallback"), (1, 1, 2, 1.0, "fallback"), (1, 2, 3, 1.0, "fallback"),
    ]  # fmt: skip
    selection = [(0, 0.9, 0.89, 5, 2, 2, 1, "duplicated"), (1, 0.2, 0.19, 2, 0, 2, 0, "fallback")]
    f32 = pl.Float32

    def frame(rows, **schema):
        return pl.DataFrame(rows, schema, orient="row")

    ids = {"query_id": pl.Int64, "item_id": pl.Int64}
    return {
        "queries": frame(
            [(0, "Set A", "vqa", 0, 1), (1, "Set <B>", "retrieval", 7, 1)],
            query_id=pl.Int64, dataset=pl.String, meta_task=pl.String, item_id=pl.Int64, positive_item_id=pl.Int64,
        ),
        "items": frame(items, item_id=pl.Int64, text=pl.String, image=pl.String),
        "pool": frame(pool, query_id=pl.Int64, rank=pl.Int32, item_id=pl.Int64, similarity=f32),
        "judge_scores": frame(scores, **ids, is_positive=pl.Boolean, score=f32),
        "negatives": frame(negatives, query_id=pl.Int64, slot=pl.Int32, item_id=pl.Int64, score=f32, origin=pl.String),
        "selection": frame(
            selection,
            query_id=pl.Int64, positive_score=f32, threshold=f32, pool_size=pl.Int32, kept=pl.Int32,
            dropped_false_negative=pl.Int32, dropped_unjudged=pl.Int32, outcome=pl.String,
        ),
        "image_root": tmp_path, "n_queries": 2, "seed": 1, "title": "Mined <now>", "facts": {"pairs & more": "<8>"},
        "truth": frame(
            [(0, 1, 1.0), (0, 5, 1.0), (0, 2, 0.5), (0, 3, 1.0), (0, 4, 0.25), (1, 1, 1.0), (1, 2, None)],
            **ids, relevance=f32,
        ),
    }  # fmt: skip


def section(html, query_id):
    return next(s for s in Page(html).root.find("section") if s.attrs["id"] == f"q{query_id}")


def test_a_query_with_its_positive_and_negatives(world):
    query = section(render_gallery(**world), 0)
    asked, answer = query.find(css="face")
    assert asked.text == "Query What is <b>this</b>?"
    assert answer.text == "Positive a cat & a dog 0.900 true 1.00"
    assert answer.find("u")[0].attrs["style"] == "left:89.0%"  # the threshold on the score's scale
    cards = query.find("ol", "cards")[0].find("li")
    assert [card.text for card in cards] == [
        "0 a cat 0.500 true 0.50 rank 1 · cos 0.900 sampled",
        "1 Represent the given image. 0.125 true 1.00 rank 2 · cos 0.800 sampled false negative",
        "2 a cat 0.500 true 0.50 rank 1 · cos 0.900 duplicate",
    ]
    assert "threshold 0.890" in query.text
    assert "5 in the pool 2 dropped as false negatives 1 not judged 2 kept 2 taken" in query.text


def test_what_was_dropped_and_why_most_similar_first(world):
    dropped = section(render_gallery(**world), 0).find("details")[0]
    assert dropped.find("summary")[0].text == "2 dropped as false negatives, 1 not judged"
    assert "open" not in dropped.attrs
    assert [card.text for card in dropped.find("li")] == [
        "a dog and a cat 0.970 true 1.00 above the threshold by 0.080 rank 0 · cos 0.950",
        "picture not found gone/c.png Represent the given image. 0.930 true 0.25 above the threshold by 0.040 "
        "rank 3 · cos 0.750 wrongly dropped",
        "Find what looks like but is red n/a no score rank 4 · cos 0.700",  # its relevance is not known
    ]


def test_a_fallback_shows_the_score_it_was_given_and_the_judges(world):
    query = section(render_gallery(**world), 1)
    cards = query.find("ol", "cards")[0].find("li")
    assert [card.text for card in cards] == [
        "0 Represent the given image. 1.000 rank 1 · cos 0.500 judged 0.300 fallback",
        "1 a cat 1.000 rank 0 · cos 0.600 judged 0.800 fallback",
        "2 Represent the given image. 1.000 rank 1 · cos 0.500 judged 0.300 fallback",
    ]
    assert query.find("span", "fallback")[0].text == "fallback"  # beside the heading


def test_the_profile_draws_every_pool_member(world):
    paths = {p.attrs["class"]: p.attrs["d"] for p in section(render_gallery(**world), 0).find("svg")[0].find("path")}
    assert paths == {  # bars 6 wide every 8, 60 high at score 1; at least 1.5 high
        "fill-taken": "M9 60v-30.0h6v30.0zM17 60v-7.5h6v7.5z",
        "fill-dropped": "M1 60v-58.2h6v58.2zM25 60v-55.8h6v55.8z",
        "fill-unjudged": "M33 60v-1.5h6v1.5z",
        "fill-marks": "M9 64h6v3h-6zM17 64h6v3h-6z",
    }


def test_the_histogram_counts_all_queries_by_fate(world):
    world["n_queries"] = 1
    root = Page(render_gallery(**world)).root
    rows = [p.text for p in root.find("div", "histogram")[0].find("p")]
    assert rows == ["positives 2 pairs", "kept 2 pairs", "dropped 4 pairs"]
    labels = [svg.attrs["aria-label"] for svg in root.find("div", "histogram")[0].find("svg")]
    assert "below .1: 0 %, above .9: 50 %" in labels[0]  # .9 and .2
    assert "below .1: 0 %, above .9: 0 %" in labels[1]  # .5 and .125
    assert "below .1: 0 %, above .9: 50 %" in labels[2]  # .97, .93, .8 and .3


def test_the_page_stands_alone_and_escapes_everything(world):
    world["note"] = "numbers <i>say</i> nothing"
    html = render_gallery(**world)
    root = Page(html).root
    assert not re.search(r"https?:|\ssrc=|@import|url\((?!data:)", html)
    assert {a.attrs["href"] for a in root.find("a")} == {"#q0", "#q1"}
    assert "<|image_1|>" not in html
    assert "image_1" not in html
    for raw in ("<b>this", "<now>", "<B>", "<8>", "<i>say"):
        assert raw not in html
    assert root.find("h1")[0].text == "Mined <now>"
    assert root.find("dl", "facts")[0].text == "pairs & more <8>"
    assert root.find("p", "note")[0].text == "numbers <i>say</i> nothing"
    buttons = root.find("nav")[0].find("button")
    assert [b.attrs["data-set"] for b in buttons] == ["", "Set <B>", "Set A"]
    assert {s.attrs["data-set"] for s in root.find("section")} == {"Set <B>", "Set A"}


def test_every_picture_is_embedded_once_and_small_ones_as_they_are(world, tmp_path):
    html = render_gallery(**world)
    found = data_uris(html)
    assert html.count("data:image") == len(found) == 3
    assert sorted(found.values()) == sorted(("image/png", (tmp_path / f"{n}.png").read_bytes()) for n in "abc")
    shown = [css for node in Page(html).root.find("span") for css in (node.attrs.get("class") or "").split()]
    assert {css for css in shown if re.fullmatch(r"p\d+", css)} == set(found)


def test_a_placeholder_within_a_text_becomes_a_small_picture(world):
    words = section(render_gallery(**world), 0).find("details")[0].find("p", "words")[-1]
    assert [part if isinstance(part, str) else part.attrs["class"].split()[0] for part in words.texts] == [
        "Find what looks like ", "thumb", " but is red",
    ]  # fmt: skip
    world["items"] = world["items"].with_columns(pl.lit("").alias("image"))
    words = section(render_gallery(**world), 0).find("details")[0].find("p", "words")[-1]
    assert words.text == "Find what looks like no picture but is red"


@pytest.mark.parametrize("path", ["gone.png", "broken.png", "cut.png", "../outside.png", "folder"])
def test_a_picture_that_cannot_be_shown_leaves_its_path(world, tmp_path, path):
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (root / "broken.png").write_bytes(b"no picture")
    (root / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:-500])
    (tmp_path / "outside.png").write_bytes((tmp_path / "a.png").read_bytes())
    world["items"] = world["items"].with_columns(
        image=pl.when(pl.col("item_id") == 0).then(pl.lit(path)).otherwise(pl.lit(""))
    )
    html = render_gallery(**world | {"image_root": root})
    assert section(html, 0).find("span", "lost")[0].text == f"picture not found {path}"
    assert not data_uris(html)


def test_the_same_tables_in_any_order_give_the_same_bytes(world):
    expected = render_gallery(**world)
    for seed in range(3):
        shuffled = {
            name: value.sample(fraction=1, shuffle=True, seed=seed) if isinstance(value, pl.DataFrame) else value
            for name, value in world.items()
        }
        assert render_gallery(**shuffled) == expected


def test_without_truth_pool_or_threshold(world):
    del world["truth"]
    world["pool"] = world["pool"].clear()
    world["selection"] = world["selection"].with_columns(threshold=pl.lit(None, dtype=pl.Float32))
    html = render_gallery(**world)
    query = section(html, 0)
    assert not Page(html).root.find("small")
    assert not Page(html).root.find(css="mistake")
    assert not query.find("svg")
    assert not query.find("u")
    assert not query.find("details")
    assert query.find("li")[0].text == "0 a cat 0.500 not in the pool sampled"


def test_a_positive_that_was_not_judged(world):
    one = pl.col("query_id") == 0
    world["selection"] = world["selection"].with_columns(
        threshold=pl.when(~one).then("threshold"),
        positive_score=pl.when(~one).then("positive_score"),
        kept=pl.lit(0, dtype=pl.Int32),
        dropped_false_negative=pl.when(one).then(0).otherwise("dropped_false_negative"),
        dropped_unjudged=pl.when(one).then(5).otherwise("dropped_unjudged"),
    )
    query = section(render_gallery(**world), 0)
    assert query.find("summary")[0].text == "5 not judged"
    assert query.find("p", "why")[0].text == "positive has no score"


def test_many_dropped_members_are_cut_and_counted(world):
    n = 31
    world["items"] = pl.concat(
        [
            world["items"],
            pl.DataFrame({"item_id": range(100, 100 + n), "text": [f"text {i}" for i in range(n)], "image": [""] * n}),
        ]
    )
    more = pl.DataFrame(
        {"query_id": [1] * n, "rank": range(2, 2 + n), "item_id": range(100, 100 + n), "similarity": [0.1] * n},
        schema=world["pool"].schema,
    )
    world["pool"] = pl.concat([world["pool"], more])
    dropped = section(render_gallery(**world), 1).find("details")[0]
    assert len(dropped.find("li")) == 20
    assert dropped.find("p", "more")[0].text == "and 13 less similar ones, not shown"


def test_one_is_singular(world):
    one = pl.col("query_id") == 0
    world["selection"] = world["selection"].with_columns(dropped_false_negative=pl.lit(1, dtype=pl.Int32))
    world["judge_scores"] = world["judge_scores"].filter(one, pl.col("item_id").is_in([1, 2, 5]))
    root = Page(render_gallery(**world | {"queries": world["queries"].filter(one)})).root
    assert "1 of 1 query, drawn" in root.find("p", "lede")[0].text
    assert root.find("p", "caption")[0].text.startswith("By score, over all 1 query;")
    assert root.find("div", "histogram")[0].find("p")[0].text == "positives 1 pair"
    assert "1 dropped as a false negative " in root.find("p", "story")[0].text + " "
    assert root.find("summary")[0].text.startswith("1 dropped as a false negative")


def test_an_item_that_does_not_exist_is_named(world):
    world["items"] = world["items"].filter(pl.col("item_id") != 3)
    with pytest.raises(DataError, match="item_id 3"):
        render_gallery(**world)


def test_no_queries(world):
    root = Page(render_gallery(**world | {"n_queries": 0})).root
    assert not root.find("section")
    assert "0 of 2 queries" in root.find("p", "lede")[0].text


def photo(path, size, orientation=None):
    """Write a picture of smooth colours with some grain, red at its left side."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    grain = np.random.default_rng(width).integers(0, 12, (height, width))
    red = np.where(x < width / 4, 230, 20) + grain
    pixels = np.stack([red, 100 + 50 * np.sin(x / 30) + grain, 100 + 50 * np.cos(y / 20) + grain], axis=-1)
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.fromarray(pixels.astype(np.uint8)).save(path, exif=exif)


def embedded(pictures):
    return [Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1]))) for _, uri in pictures.encoded()]


@pytest.mark.parametrize(
    ("size", "small"), [((800, 400), (224, 112)), ((300, 900), (75, 224)), ((224, 225), (223, 224))]
)
def test_a_large_picture_is_scaled_down(tmp_path, size, small):
    photo(tmp_path / "big.jpg", size)
    pictures = Pictures(tmp_path)
    assert pictures.name("big.jpg") == "p0"
    (picture,) = embedded(pictures)
    assert picture.size == small
    assert picture.format == "WEBP"
    left, right = picture.convert("RGB").getpixel((2, 50)), picture.convert("RGB").getpixel((small[0] - 3, 50))
    assert left[0] > 200 > 80 > right[0]


def test_a_large_picture_is_turned_upright(tmp_path):
    photo(tmp_path / "turned.jpg", (800, 400), orientation=6)  # to be turned by 90 degrees clockwise: red on top
    pictures = Pictures(tmp_path)
    pictures.name("turned.jpg")
    (picture,) = embedded(pictures)
    assert picture.size == (112, 224)
    assert picture.convert("RGB").getpixel((50, 5))[0] > 200


def test_transparency_survives(tmp_path):
    Image.new("RGBA", (500, 500), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    pictures = Pictures(tmp_path)
    pictures.name("clear.png")
    assert embedded(pictures)[0].convert("RGBA").getpixel((9, 9))[3] == 0


def test_many_pictures_share_the_bytes_of_a_page(tmp_path):
    for i in range(20):
        photo(tmp_path / f"{i}.png", (150 + i, 150))
    for page_bytes, side in ((2_000_000, 150), (60_000, 160), (40_000, 112)):
        pictures = Pictures(tmp_path, page_bytes)
        assert [pictures.name(f"{i}.png") for i in range(20)] == [f"p{i}" for i in range(20)]
        assert pictures.name("3.png") == "p3"
        uris = pictures.encoded()
        assert sum(len(uri) * 3 // 4 for _, uri in uris) < page_bytes * 1.1
        assert max(max(picture.size) for picture in embedded(pictures)) <= max(side, 169 if side == 150 else side)


def many(sizes, outcomes):
    """Build queries and selection: ``sizes[i]`` queries of data set i, outcomes in order of id."""
    names = [f"set {i}" for i, size in enumerate(sizes) for _ in range(size)]
    ids = list(range(len(names)))
    outcomes = [*outcomes, *["sampled"] * len(names)][: len(names)]
    return pl.DataFrame({"query_id": ids, "dataset": names}), pl.DataFrame({"query_id": ids, "outcome": outcomes})


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 30), st.integers(0, 5))
def test_the_choice_is_spread_over_the_data_sets(sizes, n, seed):
    queries, selection = many(sizes, [])
    chosen = choose_queries(queries, selection, n, seed)
    assert len(set(chosen)) == len(chosen) == min(n, sum(sizes))
    shares = [sum(queries["dataset"][q] == f"set {i}" for q in chosen) for i in range(len(sizes))]
    least = min((share for share, size in zip(shares, sizes, strict=True) if share < size), default=99)
    assert max(shares, default=0) <= least + 1  # none is two ahead of one that has more to give
    assert chosen == choose_queries(queries.reverse(), selection.sample(fraction=1, shuffle=True, seed=1), n, seed)


@settings(deadline=None)
@given(st.permutations(["fallback", "duplicated", "sampled", "sampled", "fallback", "duplicated"]), st.integers(2, 60))
def test_the_choice_has_a_fallback_and_a_duplicated_query(outcomes, n):
    queries, selection = many([40, 40, 40], ["sampled"] * 57 + list(outcomes))
    chosen = choose_queries(queries, selection, n, seed=n)
    assert len(chosen) == n
    assert {"fallback", "duplicated"} <= set(selection["outcome"].gather(chosen))


def test_the_choice_depends_on_the_seed_and_is_grouped_by_data_set():
    queries, selection = many([50, 50], ["fallback"])
    first, second = (choose_queries(queries, selection, 10, seed) for seed in (1, 2))
    assert first != second
    assert first[4] == 0  # the fallback is the last of its data set
    assert first[:4] == sorted(first[:4])
    assert first[5:] == sorted(first[5:])
    assert all(q < 50 for q in first[:5])
    assert all(q >= 50 for q in first[5:])
