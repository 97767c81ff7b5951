"""Reading corpora in the layout of MMEB, sound and broken."""

from __future__ import annotations

import logging
from pathlib import Path

import polars as pl
import pytest

from unime_kedro.errors import DataError
from unime_kedro.io.mmeb import MMEB_META_TASKS, read_eval, read_pairs

COLUMNS = ["qry", "qry_image_path", "pos_text", "pos_image_path"]


def write(root: Path, name: str, rows: dict[str, object]) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(rows).write_parquet(path)


def rows(*texts: str) -> dict[str, object]:
    return {
        "qry": list(texts),
        "qry_image_path": "",
        "pos_text": [f"pos {text}" for text in texts],
        "pos_image_path": "",
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, "WebQA/original-00001-of-00002.parquet", rows("c"))
    write(tmp_path, "WebQA/original-00000-of-00002.parquet", rows("a", "b"))
    write(tmp_path, "WebQA/diverse_instruction-00000-of-00001.parquet", rows("z"))
    write(tmp_path, "ImageNet_1K/original-00000-of-00001.parquet", rows("i"))
    (tmp_path / "images" / "WebQA").mkdir(parents=True)
    (tmp_path / "README.md").write_text("# a corpus")
    return tmp_path


def test_pairs_of_all_data_sets_in_order(root: Path) -> None:
    pairs = read_pairs(root, "original")
    assert pairs.select("dataset", "file", "row", "meta_task", "qry", "pos_text").rows() == [
        ("ImageNet_1K", "ImageNet_1K/original-00000-of-00001.parquet", 0, "classification", "i", "pos i"),
        ("WebQA", "WebQA/original-00000-of-00002.parquet", 0, "retrieval", "a", "pos a"),
        ("WebQA", "WebQA/original-00000-of-00002.parquet", 1, "retrieval", "b", "pos b"),
        ("WebQA", "WebQA/original-00001-of-00002.parquet", 0, "retrieval", "c", "pos c"),
    ]
    assert pairs["neg_text"].to_list() == [[], [], [], []]
    assert pairs["wrong_type"].to_list() == [None] * 4
    assert pairs.schema["row"] == pl.Int64


def test_split_and_data_sets_are_chosen(root: Path) -> None:
    assert read_pairs(root, "diverse_instruction")["qry"].to_list() == ["z"]
    assert read_pairs(root, "original", ["ImageNet_1K"])["qry"].to_list() == ["i"]


def test_given_negatives_as_text_or_list(root: Path) -> None:
    pair = {name: ["x", "y"] for name in COLUMNS}
    write(root, "CIRR/original-0.parquet", {**pair, "neg_text": ["n", None], "neg_image_path": ["", "m.png"]})
    write(
        root, "NIGHTS/original-0.parquet", {**pair, "neg_text": [["n", "o"], None], "neg_image_path": [["", "p"], []]}
    )
    write(root, "EDIS/original-0.parquet", {**pair, "neg_text": [["n", "o"], []]})
    pairs = read_pairs(root, "original", ["CIRR", "NIGHTS", "EDIS"])
    assert pairs.select("dataset", "neg_text", "neg_image_path").rows() == [
        ("CIRR", ["n"], [""]),
        ("CIRR", [""], ["m.png"]),
        ("EDIS", ["n", "o"], ["", ""]),
        ("EDIS", [], []),
        ("NIGHTS", ["n", "o"], ["", "p"]),
        ("NIGHTS", [], []),
    ]


def test_columns_of_other_types_do_not_stop_the_reading(root: Path) -> None:
    write(root, "VOC2007/original-0.parquet", {**rows("1", "2"), "qry": [1, None]})
    pairs = read_pairs(root, "original", ["VOC2007", "ImageNet_1K"])
    assert pairs["qry"].to_list() == ["i", None, None]
    assert pairs["wrong_type"].to_list() == [None, "qry is Int64, expected text", None]


def test_meta_tasks(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(root, "Mine/original-0.parquet", rows("m"))
    write(root, "Yours/original-0.parquet", rows("y"))
    with caplog.at_level(logging.WARNING):
        pairs = read_pairs(root, "original", meta_tasks={"Mine": "vqa", "WebQA": "classification"})
    found = dict(pairs.select("dataset", "meta_task").iter_rows())
    assert found == {"ImageNet_1K": "classification", "Mine": "vqa", "WebQA": "classification", "Yours": "unknown"}
    assert "Yours" in caplog.text
    assert "Mine" not in caplog.text


def test_meta_tasks_of_mmeb() -> None:
    # method: 36 data sets, classification 10, VQA 10, retrieval 12, visual grounding 4; ImageNet-1K has two spellings
    count = {task: sum(value == task for value in MMEB_META_TASKS.values()) for task in set(MMEB_META_TASKS.values())}
    assert count == {"classification": 11, "vqa": 10, "retrieval": 12, "visual_grounding": 4}
    assert MMEB_META_TASKS["ImageNet_1K"] == MMEB_META_TASKS["ImageNet-1K"] == "classification"
    assert MMEB_META_TASKS["Visual7W"] == "vqa"
    assert MMEB_META_TASKS["Visual7W-Pointing"] == MMEB_META_TASKS["MSCOCO"] == "visual_grounding"
    assert MMEB_META_TASKS["MSCOCO_i2t"] == "retrieval"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("no_such_split",),
            r"No data sets found: .*no_such_split-\*\.parquet matches nothing; .* holds ImageNet_1K, ",
        ),
        (
            ("original", ["WebQa"]),
            r"no data set 'WebQa' in .*Did you mean 'WebQA'\? It holds ImageNet_1K, WebQA, images",
        ),
        (("train", ["WebQA"]), r"'WebQA' has no file train-\*.parquet; .* holds diverse_instruction-00000-of-00001"),
        (("original", ["images"]), r"'images' has no file original-\*.parquet"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(root: Path, arguments: tuple, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_pairs(root, *arguments)


def test_missing_root(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"corpus folder .*nowhere does not exist\. Set ingest\.root"):
        read_pairs(tmp_path / "nowhere", "original")
    with pytest.raises(DataError, match="holds nothing"):
        read_pairs(tmp_path, "original")


def test_a_file_that_is_no_parquet_file_is_named(root: Path) -> None:
    (root / "WebQA" / "original-00002.parquet").write_text("<html>404</html>")
    with pytest.raises(DataError, match=r"WebQA/original-00002\.parquet is not a readable parquet file"):
        read_pairs(root, "original")


def test_a_missing_column_is_named_with_those_found_and_expected(root: Path) -> None:
    write(root, "GQA/original-0.parquet", {"qry": ["q"], "pos_text": ["p"], "label": [1]})
    message = (
        r"GQA/original-0.parquet lacks the columns qry_image_path, pos_image_path. Found: qry, pos_text, label. "
        r"Expected: qry, qry_image_path, pos_text, pos_image_path."
    )
    with pytest.raises(DataError, match=message):
        read_pairs(root, "original")


def test_evaluation_rows(tmp_path: Path) -> None:
    write(
        tmp_path,
        "GQA/test-00000-of-00001.parquet",
        {
            "qry_text": ["good", "also good", "unequal", "", "no targets", "no first", "no second", "null in", None],
            "qry_img_path": ["a.png", "", "", " ", "", "", "", "", ""],
            "tgt_text": [["t", "u"], [""], ["t", "u"], ["t"], [], ["", "u"], ["t", " "], ["t", None], ["t"]],
            "tgt_img_path": [["", "b.png"], ["c.png"], [""], [""], [], ["", ""], ["", ""], ["", ""], [""]],
        },
    )
    write(
        tmp_path,
        "Mine/test-0.parquet",
        {"qry_text": [7], "qry_img_path": "", "tgt_text": [["t"]], "tgt_img_path": [[""]]},
    )
    rows, rejects = read_eval(tmp_path)
    assert rows.rows() == [
        ("GQA", "GQA/test-00000-of-00001.parquet", 0, "vqa", "good", "a.png", ["t", "u"], ["", "b.png"]),
        ("GQA", "GQA/test-00000-of-00001.parquet", 1, "vqa", "also good", "", [""], ["c.png"]),
    ]
    assert rows.columns == [
        "dataset",
        "file",
        "row",
        "meta_task",
        "qry_text",
        "qry_img_path",
        "tgt_text",
        "tgt_img_path",
    ]
    assert rejects.select("dataset", "row", "reason").rows() == [
        ("GQA", 2, "unequal_lists: 2 in tgt_text, 1 in tgt_img_path"),
        ("GQA", 3, "empty_query: neither text nor image"),
        ("GQA", 4, "empty_positive: neither text nor image"),
        ("GQA", 5, "empty_positive: neither text nor image"),
        ("GQA", 6, "empty_target: a target has neither text nor image"),
        ("GQA", 7, "null: tgt_text holds a null"),
        ("GQA", 8, "null: qry_text is null or NaN"),
        ("Mine", 0, "wrong_type: qry_text is Int64, expected text"),
    ]


def test_evaluation_files_need_their_targets(tmp_path: Path) -> None:
    write(tmp_path, "GQA/test-0.parquet", {"qry_text": ["q"], "qry_img_path": [""], "tgt_text": [["t"]]})
    with pytest.raises(DataError, match=r"lacks the column tgt_img_path\. Found: qry_text, qry_img_path, tgt_text"):
        read_eval(tmp_path)


def test_of_each_data_set_the_first_rows_by_file_and_row(tmp_path):
    for name, parts in {"a": (3, 2), "b": (1,)}.items():
        (tmp_path / name).mkdir()
        for part, n in enumerate(parts):
            rows = {column: [f"{name}{part}{i}" for i in range(n)] for column in ("qry", "pos_text")}
            empty = {column: [""] * n for column in ("qry_image_path", "pos_image_path")}
            pl.DataFrame(rows | empty).write_parquet(tmp_path / name / f"original-{part}.parquet")
    tasks = {"a": "vqa", "b": "vqa"}
    assert read_pairs(tmp_path, "original", None, tasks, 4)["qry"].to_list() == ["a00", "a01", "a02", "a10", "b00"]
    assert read_pairs(tmp_path, "original", None, tasks, 1)["qry"].to_list() == ["a00", "b00"]
    assert len(read_pairs(tmp_path, "original", None, tasks)) == 6
