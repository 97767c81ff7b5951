"""The authors' release format, both ways."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unime_kedro.errors import DataError
from unime_kedro.io.release import export_release, format_import_report, import_release, write_imported
from unime_kedro.mining.training import training_table

KEYS = [
    *("query_text", "query_image", "pos_text", "pos_image"),
    *("query_pos_scores", "hard_negatives", "hard_negatives_scores"),
]
EXAMPLE = Path(
    os.environ.get("UNIME_RELEASE_EXAMPLE", Path(__file__).parents[3] / "shared/data/unime_v2_example_rows.json")
)


def row(query: str, positive: str, score: float, negatives: list[list[str]], scores: list[float]) -> dict[str, Any]:
    query_image = "images/OK-VQA/Train/1.jpg"
    return dict(zip(KEYS, (query, query_image, positive, "", score, negatives, scores), strict=True))


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    """Three rows: plain with two violations, repeated negatives, fallback."""
    return [
        row("q0", "yes", 0.5, [["a", ""], ["b", ""], ["c", "images/x.png"], ["d", ""]], [0.49, 0.5, 0.1, 0.875]),
        row("q1", "yes", 0.75, [["a", ""], ["b", ""], ["a", ""], ["b", ""]], [0.25, 0.125, 0.25, 0.125]),
        row("q2", "no", 0.25, [["a", ""], ["a", ""], ["q2", "images/OK-VQA/Train/1.jpg"], ["d", ""]], [1.0] * 4),
    ]


def save(path: Path, data: Any) -> Path:
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def judge_scores(imported: Any, rows: list[dict[str, Any]]) -> pl.DataFrame:
    return imported.queries.select(
        "query_id",
        item_id="positive_item_id",
        is_positive=pl.lit(True),
        score=pl.Series([row["query_pos_scores"] for row in rows], dtype=pl.Float32),
    )


def test_tables_worked_out_by_hand(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    done = import_release(save(tmp_path / "mined.json", rows))
    # in order of mention: q0, yes, a, b, c, d, q1, q2, no
    assert done.items["text"].to_list() == ["q0", "yes", "a", "b", "c", "d", "q1", "q2", "no"]
    assert done.items["item_id"].to_list() == list(range(9))
    assert done.items["modality"].to_list()[:5] == ["image_text", "text", "text", "text", "image_text"]
    assert done.queries.rows() == [
        (0, "OK-VQA", "vqa", 0, 1),
        (1, "OK-VQA", "vqa", 6, 1),
        (2, "OK-VQA", "vqa", 7, 8),
    ]
    assert done.negatives.select("query_id", "slot", "item_id", "origin").rows() == [
        *((0, 0, 2, "sampled"), (0, 1, 3, "sampled"), (0, 2, 4, "sampled"), (0, 3, 5, "sampled")),
        *((1, 0, 2, "sampled"), (1, 1, 3, "sampled"), (1, 2, 2, "duplicate"), (1, 3, 3, "duplicate")),
        *((2, 0, 2, "fallback"), (2, 1, 2, "fallback"), (2, 2, 7, "fallback"), (2, 3, 5, "fallback")),
    ]
    # 0.49 = 0.5 - 0.01 is not above the threshold; the fallback's 1.0 are not scores
    assert done.violations.rows() == [(0, 1, 0.5, 0.49), (0, 3, 0.875, 0.49)]
    assert done.metrics == {
        "rows": 3,
        "items": 9,
        "negatives": 12,
        "negatives_per_row_min": 4,
        "negatives_per_row_max": 4,
        "origin_sampled": 6,
        "origin_duplicate": 2,
        "origin_fallback": 4,
        "violations": 2,
        "violating_rows": 1,
        "images": 2,
        "images_read": 0,
    }
    assert done.negatives.schema == {
        "query_id": pl.Int64,
        "slot": pl.Int32,
        "item_id": pl.Int64,
        "score": pl.Float32,
        "origin": pl.String,
    }


def test_export_gives_the_rows_that_were_imported(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    done = import_release(save(tmp_path / "mined.json", rows))
    shuffled = done.negatives.sample(fraction=1.0, shuffle=True, seed=3)
    exported = export_release(shuffled, done.queries.reverse(), done.items.reverse(), judge_scores(done, rows))
    expected = copy.deepcopy(rows)
    expected[0]["hard_negatives_scores"] = [float(np.float32(s)) for s in rows[0]["hard_negatives_scores"]]
    assert exported == expected
    assert [list(row) for row in exported] == [KEYS] * 3
    assert json.loads(json.dumps(exported, allow_nan=False)) == exported


def test_queries_without_positive_score_or_negatives_are_left_out_and_counted(
    tmp_path: Path, rows: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    done = import_release(save(tmp_path / "mined.json", rows))
    scores = judge_scores(done, rows).with_columns(
        score=pl.when(pl.col("query_id") == 0).then(pl.lit(float("nan"))).otherwise("score")
    )
    negatives = done.negatives.filter(pl.col("query_id") != 2)
    with caplog.at_level(logging.WARNING):
        exported = export_release(negatives, done.queries, done.items, scores)
    assert [row["query_text"] for row in exported] == ["q1"]
    assert "2 queries have no negatives or no scored positive" in caplog.text


def test_image_content_counts_where_the_images_are(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    (tmp_path / "images").mkdir()
    for name in ("x.png", "y.png"):
        Image.new("RGB", (2, 2), "red").save(tmp_path / "images" / name)
    rows = rows[:1]
    rows[0]["hard_negatives"][3] = ["c", "images/y.png"]
    path = save(tmp_path / "mined.json", rows)
    without, with_images = import_release(path), import_release(path, image_root=tmp_path)
    assert without.negatives["item_id"].to_list() == [2, 3, 4, 5]
    assert with_images.negatives["item_id"].to_list() == [2, 3, 4, 4]
    assert with_images.negatives["origin"].to_list() == ["sampled"] * 3 + ["duplicate"]
    assert (with_images.metrics["images"], with_images.metrics["images_read"]) == (3, 2)
    image = hashlib.blake2b((tmp_path / "images/x.png").read_bytes(), digest_size=16).hexdigest()
    key = hashlib.blake2b(b"c\0" + image.encode(), digest_size=16).hexdigest()
    assert with_images.items["content_key"][4] == key
    assert without.items["content_key"][4] != key
    assert without.items["content_key"][2] == with_images.items["content_key"][2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r[1].pop("pos_text"), "row 1, key pos_text: expected, found none"),
        (lambda r: r[0].update(query_image=None), "row 0, key query_image: expected text, found null"),
        (lambda r: r[2].update(query_text=7), "row 2, key query_text: expected text, found 7"),
        (lambda r: r[0].update(pos_text=""), "row 0, keys pos_text and pos_image: expected text or an image path"),
        (lambda r: r[0].update(query_pos_scores="0.5"), r"row 0, key query_pos_scores: expected a number in \[0, 1\]"),
        (lambda r: r[0].update(query_pos_scores=True), "query_pos_scores: expected a number .* found true"),
        (lambda r: r[0].update(query_pos_scores=float("nan")), "query_pos_scores: expected a number .* found nan"),
        (lambda r: r[0].update(query_pos_scores=1.5), "query_pos_scores: expected a number .* found 1.5"),
        (lambda r: r[1].update(hard_negatives="a"), "row 1, key hard_negatives: expected a list, found the text 'a'"),
        (
            lambda r: r[1].update(hard_negatives_scores={}),
            "hard_negatives_scores: expected a list, found an object of 0",
        ),
        (lambda r: r[1]["hard_negatives"].pop(), "row 1, key hard_negatives_scores: expected 3 scores, .* found 4"),
        (
            lambda r: r[1]["hard_negatives"].__setitem__(2, ["a"]),
            r"key hard_negatives\[2\]: expected \[text, image path\]",
        ),
        (lambda r: r[1]["hard_negatives"].__setitem__(2, ["", ""]), r"key hard_negatives\[2\]: .* found both empty"),
        (lambda r: r[1]["hard_negatives_scores"].__setitem__(3, None), r"hard_negatives_scores\[3\]: .* found null"),
        (lambda r: r.append([1]), "row 3, expected an object with the keys query_text, .* found a list of 1"),
        (lambda r: r.clear(), "expected at least one row"),
    ],
)
def test_errors_name_file_row_key_and_expectation(
    tmp_path: Path, rows: list[dict[str, Any]], change: Any, message: str
) -> None:
    change(rows)
    with pytest.raises(DataError, match=message) as error:
        import_release(save(tmp_path / "mined.json", rows))
    assert str(tmp_path / "mined.json") in str(error.value)


def test_many_problems_are_counted(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    with pytest.raises(DataError) as error:
        import_release(save(tmp_path / "mined.json", [{**rows[0], "pos_text": None}] * 12))
    assert str(error.value).count("key pos_text") == 5
    assert "and 7 more" in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[\n{"query_text": }]', "mined.json is not a JSON file in UTF-8: .*line 2 column 16"),
        (b'["\xff"]', "mined.json is not a JSON file in UTF-8: .*0xff"),
        (b'{"rows": []}', "expected a JSON array of rows, found an object of 1"),
    ],
)
def test_files_that_are_no_array_of_rows(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "mined.json").write_bytes(content)
    with pytest.raises(DataError, match=message):
        import_release(tmp_path / "mined.json")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"mined.json cannot be read: No such file"):
        import_release(tmp_path / "mined.json")


def test_report(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    done = import_release(save(tmp_path / "mined.json", rows))
    assert format_import_report(done, limit=1) == "\n".join(
        [
            "3 rows, 12 negatives (4 per row), 9 distinct items",
            "origin: 6 sampled, 2 duplicate, 4 fallback",
            "images: 2 paths, 0 read from disk; the others are told apart by path",
            "violations: 2, in 1 of 3 rows. By the paper's rule these are false negatives (score > score of the "
            "positive - 0.01); they are imported as they are:",
            "     row  slot    score  threshold",
            "       0     1   0.5000     0.4900",
            "... and 1 more",
        ]
    )
    clean = import_release(save(tmp_path / "clean.json", rows[1:2]))
    assert format_import_report(clean).endswith("violations: 0. No negative is a false one by the paper's rule "
                                                "(score > score of the positive - 0.01).")  # fmt: skip


def test_write_imported(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    done = import_release(save(tmp_path / "mined.json", rows))
    paths = write_imported(done, tmp_path / "new" / "folder")
    root = tmp_path / "new" / "folder"
    places = {path.stem: path.relative_to(root).as_posix() for path in paths}
    assert places == {
        "items": "02_intermediate/items.parquet",
        "queries": "02_intermediate/queries.parquet",
        "judge_scores": "03_primary/judge_scores.parquet",
        "negatives": "05_model_input/negatives.parquet",
        "violations": "05_model_input/violations.parquet",
        "judge_origin": "03_primary/judge_origin.json",
    }
    for name in ("items", "queries", "judge_scores", "negatives", "violations"):
        assert pl.read_parquet(root / places[name]).equals(getattr(done, name))
    assert sorted(f for f in root.rglob("*") if f.is_file()) == sorted(paths)


def test_imported_scores_and_negatives_can_be_trained_on(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    done = import_release(save(tmp_path / "mined.json", rows))
    few = min(len(row["hard_negatives"]) for row in rows)
    table, _ = training_table(done.negatives, done.queries, done.judge_scores, n_negatives=few)
    sides = {i: [text, image] for i, text, image in done.items.select("item_id", "text", "image").iter_rows()}
    for row, (score, ids, scores) in zip(
        rows, table.select("positive_score", "negative_item_ids", "negative_scores").iter_rows(), strict=True
    ):
        assert score == pytest.approx(row["query_pos_scores"])
        assert [sides[i] for i in ids] == [list(side) for side in row["hard_negatives"][:few]]
        assert scores == pytest.approx(row["hard_negatives_scores"][:few])


text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4)
score = st.floats(0, 1, width=32)
negative = st.tuples(st.tuples(text, st.sampled_from(["", "images/a.png", "images/b.png"])), score)


@settings(max_examples=60, deadline=None)
@given(data=st.lists(st.tuples(text, text, score, st.lists(negative, min_size=1, max_size=4)), min_size=1, max_size=5))
def test_round_trip_of_any_rows(tmp_path_factory: pytest.TempPathFactory, data: list) -> None:
    rows = [
        row(query, positive, s, [list(side) for side, _ in negatives], [value for _, value in negatives])
        for query, positive, s, negatives in data
    ]
    done = import_release(save(tmp_path_factory.mktemp("release") / "mined.json", rows))
    assert export_release(done.negatives, done.queries, done.items, judge_scores(done, rows)) == rows
    for place, expected in enumerate(rows):  # the slow way: what each row says by itself
        mine = done.negatives.filter(pl.col("query_id") == place)
        sides, scores = expected["hard_negatives"], expected["hard_negatives_scores"]
        if all(s == 1.0 for s in scores):
            assert set(mine["origin"]) == {"fallback"}
            continue
        repeats = [side in sides[:slot] for slot, side in enumerate(sides)]
        assert mine["origin"].to_list() == ["duplicate" if repeat else "sampled" for repeat in repeats]
        broken = [slot for slot, s in enumerate(scores) if s > expected["query_pos_scores"] - 0.01]
        assert done.violations.filter(pl.col("query_id") == place)["slot"].to_list() == broken


@pytest.mark.skipif(not EXAMPLE.is_file(), reason="the release's example rows are not here (UNIME_RELEASE_EXAMPLE)")
def test_the_fifty_published_rows() -> None:
    rows = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    done = import_release(EXAMPLE)
    assert (len(done.queries), len(done.negatives), len(done.violations)) == (50, 500, 10)
    assert done.negatives.group_by("query_id").len()["len"].to_list() == [10] * 50
    assert set(done.queries["meta_task"]) == {"classification", "vqa", "retrieval", "visual_grounding"}
    assert "50 rows, 500 negatives (10 per row)" in format_import_report(done)
    assert "violations: 10, in 1 of 50 rows" in format_import_report(done)
    exported = export_release(done.negatives, done.queries, done.items, judge_scores(done, rows))
    assert exported == rows
    assert [list(row) for row in exported] == [list(row) for row in rows]
