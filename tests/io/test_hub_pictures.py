"""Pictures inside parquet files, as royokong/flickr30k_test keeps them, become files and a CSV."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image

from unime_kedro.errors import DataError
from unime_kedro.io.captions import read_captions
from unime_kedro.io.hub_pictures import unpack_pictures


def encoded(shade: int, kind: str = "JPEG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 6), (shade, 0, 0)).save(stream, format=kind)
    return stream.getvalue()


def write(file: Path, rows: list[tuple[Any, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = pl.Struct({"bytes": pl.Binary, "path": pl.String})
    columns = {"image": pl.Series([row[0] for row in rows], dtype=image), "text": [row[1] for row in rows]}
    pl.DataFrame(columns).write_parquet(file)


def picture(shade: int, kind: str = "JPEG") -> dict[str, Any]:
    return {"bytes": encoded(shade, kind), "path": None}


def test_unpacked_pictures_are_read_like_flickr30ks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unime_kedro.io.hub_pictures._ROWS", 1)
    write(tmp_path / "data/test-00001-of-00002.parquet", [(picture(3), ["z"])])
    write(tmp_path / "data/test-00000-of-00002.parquet", [(picture(1), ["ä, b", 'c "d"']), (picture(2, "PNG"), ["e"])])
    write(tmp_path / "data/train-00000-of-00001.parquet", [(picture(9), ["not these"])])
    assert unpack_pictures(tmp_path, tmp_path / "out") == 3
    found = read_captions(tmp_path / "out/annotations.csv", tmp_path / "out/images")
    assert found.images["image"].to_list() == ["000000.jpg", "000001.png", "000002.jpg"]
    assert found.captions.select("image_id", "text").rows() == [(0, "ä, b"), (0, 'c "d"'), (1, "e"), (2, "z")]
    assert (tmp_path / "out/images/000001.png").read_bytes() == encoded(2, "PNG")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["data", "out"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((picture(1), []), r"row 1, column text: expected a list of captions"),
        ((picture(1), ["a", " "]), r"row 1, column text: expected a list of captions"),
        ((None, ["a"]), r"row 1, column image: expected the bytes of a picture"),
        (({"bytes": b"text", "path": "a.jpg"}, ["a"]), r"row 1, column image: expected the bytes of a picture"),
    ],
)
def test_a_bad_row_leaves_nothing_behind(tmp_path: Path, row: tuple[Any, Any], message: str) -> None:
    write(tmp_path / "test-0.parquet", [(picture(1), ["fine"]), row])
    with pytest.raises(DataError, match=r"test-0\.parquet, " + message):
        unpack_pictures(tmp_path, tmp_path / "out")
    assert [file.name for file in tmp_path.iterdir()] == ["test-0.parquet"]


def test_folders_that_will_not_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no data/test-\*\.parquet"):
        unpack_pictures(tmp_path, tmp_path / "out")
    write(tmp_path / "test-0.parquet", [(picture(1), ["fine"])])
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match=r"out exists already"):
        unpack_pictures(tmp_path, tmp_path / "out")
    pl.DataFrame({"text": [["a"]]}).write_parquet(tmp_path / "test-0.parquet")
    with pytest.raises(DataError, match=r"lacks image\. Found: text\. Expected: image, text"):
        unpack_pictures(tmp_path, tmp_path / "new")
