"""Items, queries and candidates from raw pairs, worked out by hand."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unime_kedro.errors import DataError
from unime_kedro.mining.items import Ingested, build_items, content_key, enforce_reject_share

COLUMNS = ["qry", "qry_image_path", "pos_text", "pos_image_path", "neg_text", "neg_image_path"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """red.png and copy/of_red.png have the same bytes; blue.png differs."""
    root = tmp_path_factory.mktemp("images")
    (root / "copy").mkdir()
    Image.new("RGB", (4, 4), "red").save(root / "red.png")
    (root / "copy" / "of_red.png").write_bytes((root / "red.png").read_bytes())
    Image.new("RGB", (4, 4), "blue").save(root / "blue.png")
    return root


def table(rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    """Rows of (dataset, file, row, qry, image, pos, image, negatives, images)."""
    lists = {"neg_text": pl.List(pl.String), "neg_image_path": pl.List(pl.String)}
    return pl.DataFrame(rows, schema=["dataset", "file", "row", *COLUMNS], schema_overrides=lists, orient="row")


@pytest.fixture
def pairs() -> pl.DataFrame:
    a, b = ("A", "A/original-0.parquet"), ("B", "B/original-0.parquet")
    rows = [
        (*a, 0, "what?", "red.png", "a dog", "", ["a cat", "a dog", ""], ["", "", ""]),
        (*a, 1, "what?", "copy/of_red.png", "a dog", "", ["a cow"], [""]),  # the same pair under another file name
        (*a, 2, "", "blue.png", "a cat", "", [], []),
        (*b, 0, "a dog", "", "<|image_1|>\n", "blue.png", [], []),
        (*b, 1, "what?", "red.png", "a dog", "", [], []),  # a pair of A, but in another data set
        (*b, 2, "lonely <|image_1|>", "", "a cow", "", [], []),  # an image is announced but there is none
    ]
    tasks = pl.col("dataset").replace_strict({"A": "vqa", "B": "retrieval"})
    return table(rows).with_columns(meta_task=tasks)


def same(one: Ingested, two: Ingested) -> None:
    for name in ("items", "queries", "candidates", "rejects"):
        assert getattr(one, name).equals(getattr(two, name)), name
    assert {**one.metrics, "seconds": 0} == {**two.metrics, "seconds": 0}


def test_six_rows_by_hand(pairs: pl.DataFrame, images: Path) -> None:
    done = build_items(pairs, images)
    # order of mention: A0 query, positive, negatives; A1 adds "a cow"; A2; B0; B1 nothing new; B2
    assert done.items.select("item_id", "text", "image", "modality").rows() == [
        (0, "what?", "red.png", "image_text"),
        (1, "a dog", "", "text"),
        (2, "a cat", "", "text"),
        (3, "a cow", "", "text"),
        (4, "", "blue.png", "image"),
        (5, "<|image_1|>\n", "blue.png", "image"),
        (6, "lonely <|image_1|>", "", "text"),
    ]
    assert done.queries.rows() == [
        (0, "A", "vqa", 0, 1),
        (1, "A", "vqa", 4, 2),
        (2, "B", "retrieval", 1, 5),
        (3, "B", "retrieval", 0, 1),
        (4, "B", "retrieval", 6, 3),
    ]
    assert done.candidates["item_id"].to_list() == [1, 2, 3, 5]
    assert done.rejects.rows() == []
    assert done.metrics.pop("seconds") > 0
    assert done.metrics == {
        "pairs_read": 6,
        "pairs_accepted": 5,
        "rejected": 0,
        "reject_share": 0.0,
        "duplicate_pairs": 1,
        "datasets": 2,
        "items": 7,
        "items_text": 4,
        "items_image": 2,
        "items_image_text": 1,
        "placeholder_without_image": 1,
        "candidates": 4,
        "images_read": 3,
    }


def test_schemas(pairs: pl.DataFrame, images: Path) -> None:
    for rows in (pairs, pairs.head(0)):
        done = build_items(rows, images)
        text = dict.fromkeys(("text", "image", "content_key", "modality"), pl.String)
        assert done.items.schema == {"item_id": pl.Int64, **text}
        ids = {"item_id": pl.Int64, "positive_item_id": pl.Int64}
        assert done.queries.schema == {"query_id": pl.Int64, "dataset": pl.String, "meta_task": pl.String, **ids}
        assert done.candidates.schema == {"item_id": pl.Int64}
        assert done.rejects.schema == {"dataset": pl.String, "file": pl.String, "row": pl.Int64, "reason": pl.String}


def test_content_keys_are_hashes_of_text_and_image_bytes(pairs: pl.DataFrame, images: Path) -> None:
    def blake(data: bytes) -> str:
        return hashlib.blake2b(data, digest_size=16).hexdigest()

    items = build_items(pairs, images).items
    red = blake((images / "red.png").read_bytes())
    assert items["content_key"][0] == blake(b"what?\0" + red.encode())
    assert items["content_key"][1] == blake(b"a dog\0")
    assert items["content_key"].n_unique() == len(items)


def test_content_keys_do_not_run_together() -> None:
    hashed = "0" * 32
    keys = {content_key(text, image) for text in ("", "a", "a\0", f"a\0{hashed}") for image in ("", hashed)}
    assert len(keys) == 8


def test_the_order_of_rows_does_not_matter(pairs: pl.DataFrame, images: Path) -> None:
    expected = build_items(pairs, images)
    for seed in range(5):
        same(build_items(pairs.sample(fraction=1.0, shuffle=True, seed=seed), images), expected)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_processes_does_not_matter(images: Path, tmp_path: Path, workers: int) -> None:
    names = [f"{i:03}.png" for i in range(150)]  # more than two chunks of images
    for i, name in enumerate(names):
        (tmp_path / name).write_bytes((images / "red.png").read_bytes() if i % 3 else b"no image" + bytes([i]))
    rows = table([("A", "f", i, "", name, f"p{i % 7}", "", [], []) for i, name in enumerate(names)])
    expected = build_items(rows, tmp_path, workers=0)
    assert expected.metrics["rejected"] == 50
    assert expected.metrics["items"] == 1 + 7
    same(build_items(rows, tmp_path, workers=workers), expected)


def test_a_folder_of_images_that_is_not_there(pairs: pl.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"image root .*nowhere is not a folder\. Set ingest\.image_root"):
        build_items(pairs, tmp_path / "nowhere")
    without = build_items(pairs.filter(pl.col("qry") == "lonely <|image_1|>"), tmp_path / "nowhere")
    assert len(without.queries) == 1


def test_data_sets_of_unknown_meta_task(pairs: pl.DataFrame, images: Path) -> None:
    assert set(build_items(pairs.drop("meta_task"), images).queries["meta_task"]) == {"unknown"}


def slow_tables(rows: list[tuple[Any, ...]]) -> tuple[list[str], list[tuple[int, int]], list[int]]:
    """The same tables row by row: item texts, (item, positive) of the queries, candidates."""
    items: dict[str, int] = {}
    queries: dict[tuple[str, int, int], None] = {}
    candidates: set[int] = set()
    for dataset, _, _, query, _, positive, _, negatives, _ in sorted(rows, key=lambda row: row[:3]):
        ids = [items.setdefault(text, len(items)) for text in (query, positive, *filter(None, negatives))]
        queries[dataset, ids[0], ids[1]] = None
        candidates.update(ids[1:])
    return list(items), [key[1:] for key in queries], sorted(candidates)


text = st.sampled_from(["a", "b", "c", "d", "e"])
raw = st.tuples(st.sampled_from("AB"), text, text, st.lists(st.one_of(text, st.just("")), max_size=3))


@settings(max_examples=100, deadline=None)
@given(raw=st.lists(raw, min_size=1, max_size=12), seed=st.integers(0, 99))
def test_tables_agree_with_the_slow_way(raw: list[tuple], seed: int) -> None:
    rows = [(d, "f", i, q, "", p, "", n, [""] * len(n)) for i, (d, q, p, n) in enumerate(raw)]
    shuffled = random.Random(seed).sample(rows, len(rows))
    done = build_items(table(shuffled), "unused")
    items, queries, candidates = slow_tables(rows)
    assert done.items["text"].to_list() == items
    assert done.queries.select("item_id", "positive_item_id").rows() == queries
    assert done.candidates["item_id"].to_list() == candidates
    assert done.metrics["duplicate_pairs"] == len(rows) - len(queries)


def test_too_many_rejects_stop_with_counts_examples_and_advice(images: Path) -> None:
    file = ("A", "A/original-0.parquet")
    rows = [(*file, i, "q", "gone.png" if i in (3, 5) else "", "p" if i != 4 else "", "", [], []) for i in range(8)]
    done = build_items(table([*rows, (*file, 8, "q", "gone.png", "p", "", [], [])]), images)
    assert done.metrics["rejected"] == 4
    assert done.metrics["rejected/image_missing"] == 3
    assert done.metrics["rejected/empty_positive"] == 1
    enforce_reject_share(done, 4 / 9)
    with pytest.raises(DataError) as error:
        enforce_reject_share(done, 0.25)
    lines = str(error.value).splitlines()
    assert lines[0] == (
        "4 of 9 rows (44.4%) cannot be used, more than ingest.max_reject_share = 0.25 allows. Nothing was written."
    )
    assert [line.split() for line in lines[1:3]] == [["1", "empty_positive"], ["3", "image_missing"]]
    assert lines[4:7] == [
        "  A/original-0.parquet, row 3 (data set A): image_missing: gone.png (No such file or directory)",
        "  A/original-0.parquet, row 4 (data set A): empty_positive: neither text nor image",
        "  A/original-0.parquet, row 5 (data set A): image_missing: gone.png (No such file or directory)",
    ]
    assert "--params=ingest.max_reject_share=0.45" in lines[7]


def test_nothing_left_stops_whatever_is_allowed(images: Path) -> None:
    with pytest.raises(DataError, match="which leaves no pair to mine"):
        enforce_reject_share(build_items(table([("A", "f", 0, "", "", "p", "", [], [])]), images), 1.0)
    with pytest.raises(DataError, match="The corpus has no rows"):
        enforce_reject_share(build_items(table([]), images), 1.0)
