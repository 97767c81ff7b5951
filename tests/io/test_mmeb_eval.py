"""Benchmarks in the layout of MMEB-eval, sound and broken, written as the publishers write them."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from unime_kedro.errors import DataError
from unime_kedro.io.mmeb_eval import read_eval_sets


def picture(root: Path, name: str, shade: int) -> str:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(root / name)
    return name


def write(root: Path, name: str, **columns: object) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(columns, strict=False).write_parquet(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    images = tmp_path / "images"
    a, same, b = (picture(images, f"GQA/{name}.png", shade) for name, shade in (("a", 1), ("same", 1), ("b", 2)))
    write(
        tmp_path,
        "GQA/test-00001-of-00002.parquet",
        qry_text=["see\n"],
        qry_img_path=[same],
        tgt_text=[["no", "yes", "no"]],
        tgt_img_path=[["", "", ""]],
    )
    write(
        tmp_path,
        "GQA/test-00000-of-00002.parquet",
        qry_text=["see\n", "look"],
        qry_img_path=[a, ""],
        tgt_text=[["yes", "no"], ["see\n", "", "yes"]],
        tgt_img_path=[["", ""], [b, a, ""]],
    )
    write(
        tmp_path,
        "CIRR/test-00000-of-00001.parquet",
        qry_text=["only"],
        qry_img_path=[""],
        tgt_text=[["only"]],
        tgt_img_path=[[""]],
    )
    (tmp_path / "README.md").write_text("# a benchmark")
    return tmp_path


def test_sets_contents_and_queries(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        cirr, gqa = read_eval_sets(root, root / "images")
    assert (cirr.dataset, gqa.dataset) == ("CIRR", "GQA")
    assert gqa.contents.rows() == [
        (0, "see\n", "GQA/a.png"),
        (1, "yes", ""),
        (2, "no", ""),
        (3, "look", ""),
        (4, "see\n", "GQA/b.png"),
        (5, "", "GQA/a.png"),
    ]
    # the third query's picture has another name and the bytes of the first
    assert gqa.queries.rows() == [(0, 0, [1, 2]), (1, 3, [4, 5, 1]), (2, 0, [2, 1, 2])]
    assert gqa.contents.schema == {"content_id": pl.Int64, "text": pl.String, "image": pl.String}
    assert gqa.queries.schema == {"query_id": pl.Int64, "content_id": pl.Int64, "candidates": pl.List(pl.Int64)}
    assert cirr.contents.rows() == [(0, "only", "")]
    assert cirr.queries.rows() == [(0, 0, [0])]
    assert [record.getMessage().split(";")[0] for record in caplog.records] == [
        "CIRR: 1 of 1 queries have the right target alone",
        "GQA: in 1 of 3 queries the right target's content stands among the wrong ones too",
    ]


def test_data_sets_are_chosen(root: Path) -> None:
    assert [one.dataset for one in read_eval_sets(root, root / "images", ["GQA"])] == ["GQA"]
    assert read_eval_sets(root, root / "images", []) == []
    write(root, "GQA/train-0.parquet", qry_text=["t"], qry_img_path=[""], tgt_text=[["u"]], tgt_img_path=[[""]])
    (train,) = read_eval_sets(root, root / "images", split="train")
    assert train.contents["text"].to_list() == ["t", "u"]


def test_what_is_read_can_be_evaluated(root: Path) -> None:
    from unime_kedro.evaluation.embedders import evaluate_embedder

    def embed(contents):  # "yes" and pictures without words point one way, all else another
        right = np.array([c.text == "yes" or (not c.text and c.image is not None) for c in contents])
        return np.stack([right, ~right], axis=1).astype(np.float32)

    found = evaluate_embedder(read_eval_sets(root, root / "images"), embed, root / "images")
    # CIRR: alone; GQA 0: "see" is "no"; 1: "look" is the picture with words; 2: "no" stands there twice
    assert found["correct"].to_list() == [True, False, True, False]
    assert found["predicted_index"].to_list() == [0, 1, 0, 2]


GOOD = {"qry_text": ["q"], "qry_img_path": [""], "tgt_text": [["t", "u"]], "tgt_img_path": [["", ""]]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"tgt_text": [["t"]]},
            r"row 0: unequal_lists: 1 in tgt_text, 2 in tgt_img_path\. Expected lists .* one length",
        ),
        (
            {"tgt_text": [[]], "tgt_img_path": [[]]},
            r"row 0: empty_positive: .*Expected lists tgt_text and tgt_img_path",
        ),
        ({"tgt_text": [["t", " "]]}, r"row 0: empty_target: .*Expected words in tgt_text or a picture in tgt_img_path"),
        ({"qry_text": [" "]}, r"row 0: empty_query: .*Expected words in qry_text or a picture in qry_img_path"),
        ({"qry_text": [None]}, r"row 0: null: qry_text is null"),
        ({"tgt_text": [["t", None]]}, r"row 0: null: tgt_text holds a null"),
        ({"qry_text": [7]}, r"row 0: wrong_type: qry_text is Int64, expected text"),
        ({"tgt_text": [[1, 2]]}, r"row 0: wrong_type: tgt_text is List\(Int64\)"),
        ({"tgt_text": ["t"], "tgt_img_path": [[""]]}, r"column tgt_text is String; expected a list of texts"),
        ({"tgt_text": [["t"]], "tgt_img_path": [""]}, r"column tgt_img_path is String; expected a list of texts"),
        (
            {"tgt_img_path": [["", "GQA/gone.png"]]},
            r"row 0, column tgt_img_path\[1\]: the picture .*/images/GQA/gone\.png cannot be used: image_missing",
        ),
        (
            {"qry_img_path": ["GQA/text.png"]},
            r"row 0, column qry_img_path: the picture .*/images/GQA/text\.png cannot be used: image_undecodable",
        ),
        ({"qry_img_path": ["../b.png"]}, r"row 0, column qry_img_path: .*image_outside_root \(a path with \.\.\)"),
    ],
)
def test_a_bad_row_is_named(root: Path, change: dict[str, object], message: str) -> None:
    (root / "images/GQA/text.png").write_text("no picture")
    write(root, "GQA/test-00000-of-00002.parquet", **{**GOOD, **change})
    with pytest.raises(DataError, match=r"/GQA/test-00000-of-00002\.parquet(, |: )" + message):
        read_eval_sets(root, root / "images", ["GQA"])


def test_more_bad_rows_are_counted(root: Path) -> None:
    bad = {name: values * 3 for name, values in GOOD.items()} | {"qry_text": ["q", "", ""]}
    write(root, "GQA/test-00000-of-00002.parquet", **bad)
    with pytest.raises(DataError, match=r"row 1: empty_query.* 1 more rows of the data set cannot be used either"):
        read_eval_sets(root, root / "images")
    write(root, "GQA/test-00000-of-00002.parquet", **{**GOOD, "tgt_img_path": [["x.png", "y.png"]]})
    with pytest.raises(DataError, match=r"x\.png cannot be used.* 1 more pictures cannot be used either"):
        read_eval_sets(root, root / "images")


def test_missing_files_and_columns(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no data set 'GQQ'.*Did you mean 'GQA'"):
        read_eval_sets(root, root / "images", ["GQQ"])
    with pytest.raises(DataError, match=r"No data sets found: .*valid-\*\.parquet matches nothing"):
        read_eval_sets(root, root / "images", split="valid")
    with pytest.raises(DataError, match="nowhere does not exist"):
        read_eval_sets(root / "nowhere", root)
    with pytest.raises(DataError, match=r"image root .*/none is not a folder; .*column qry_img_path"):
        read_eval_sets(root, root / "none", ["GQA"])
    columns = {name: values for name, values in GOOD.items() if name != "tgt_img_path"}
    write(root, "GQA/test-00000-of-00002.parquet", **columns)
    with pytest.raises(DataError, match=r"lacks the column tgt_img_path\. Found: qry_text, qry_img_path, tgt_text"):
        read_eval_sets(root, root / "images")
    pl.DataFrame(
        schema={"qry_text": pl.String, "qry_img_path": pl.String}
        | dict.fromkeys(("tgt_text", "tgt_img_path"), pl.List(pl.String))
    ).write_parquet(root / "CIRR/test-00000-of-00001.parquet")
    with pytest.raises(DataError, match=r"Data set 'CIRR' in .* has no rows"):
        read_eval_sets(root, root / "images", ["CIRR"])
