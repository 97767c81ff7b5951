"""Captioned pictures in the layouts of Flickr30K and SugarCrepe, sound and broken."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from unime_kedro.errors import DataError
from unime_kedro.io.captions import read_captions
from unime_kedro.io.sugarcrepe import SUGARCREPE_GROUPS, read_sugarcrepe

HEADER = ["raw", "sentids", "split", "filename", "img_id"]
LONG = ['A man, in "blue".', "Zwei Hündinnen,\nsie rennen. "]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "flickr30k-images"
    folder.mkdir()
    for i in range(4):
        Image.new("RGB", (9, 6), (i, 0, 0)).save(folder / f"{i}.jpg")
    return folder


def write(folder: Path, rows: list[list[Any]], header: list[str] = HEADER) -> Path:
    file = folder / "flickr_annotations_30k.csv"
    with file.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([header, *rows])
    return file


def row(number: int, captions: Any, split: str = "test") -> list[Any]:
    return [captions if isinstance(captions, str) else json.dumps(captions), "[0]", split, f"{number}.jpg", number]


def test_captions(tmp_path: Path, images: Path) -> None:
    rows = [row(3, ["c"], "train"), row(2, LONG), row(9, "broken", "val"), row(0, ["a", "b", "a"]), row(1, ["b"])]
    found = read_captions(write(tmp_path, rows), images)
    assert found.images.rows() == [(0, "2.jpg"), (1, "0.jpg"), (2, "1.jpg")]
    assert found.captions.rows() == [
        (0, 0, LONG[0]),
        (1, 0, LONG[1]),
        (2, 1, "a"),
        (3, 1, "b"),
        (4, 1, "a"),
        (5, 2, "b"),
    ]
    assert found.captions.columns == ["caption_id", "image_id", "text"]
    train = read_captions(write(tmp_path, rows), images, split="train")
    assert (train.images.rows(), train.captions.rows()) == ([(0, "3.jpg")], [(0, 0, "c")])


@pytest.mark.parametrize(
    ("captions", "shown"),
    [("[]", r"'\[\]'"), ('["a"', r"'\[\"a\"'"), ('"a"', "'\"a\"'"), ('["a", 1]', "1"), ('["a", " "]', "a"), ("", "''")],
)
def test_captions_that_are_none(tmp_path: Path, images: Path, captions: str, shown: str) -> None:
    file = write(tmp_path, [row(0, "ignored", "train"), row(1, ["a"]), row(2, captions)])
    with pytest.raises(DataError, match=rf"30k\.csv, row 2, column raw: .*{shown}.*; expected a JSON list"):
        read_captions(file, images)


def test_caption_files_that_are_none(tmp_path: Path, images: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv is not a readable CSV file"):
        read_captions(tmp_path / "none.csv", images)
    with pytest.raises(DataError, match=r"lacks the columns split, filename\. Found: raw, file\. Expected: raw, split"):
        read_captions(write(tmp_path, [["[]", "x"]], ["raw", "file"]), images)
    with pytest.raises(DataError, match="no row of split 'test'; its splits are: train, val"):
        read_captions(write(tmp_path, [row(0, ["a"], "val"), row(1, ["a"], "train")]), images)
    with pytest.raises(DataError, match=r"row 0, column filename: '1\.jpg'; expected another picture in every row"):
        read_captions(write(tmp_path, [row(1, ["a"]), row(1, ["b"])]), images)
    file = write(tmp_path, [row(1, ["a"], "train"), row(7, ["a"])])
    with pytest.raises(
        DataError, match=r"30k\.csv, row 1, column filename: the picture .*-images/7\.jpg cannot be used"
    ):
        read_captions(file, images)
    with pytest.raises(DataError, match=r"image root .*elsewhere is not a folder"):
        read_captions(file, tmp_path / "elsewhere")


def image(number: int, captions: Any = ("a",), split: str = "test", folder: str | None = None) -> dict[str, Any]:
    found = {"filename": f"{number}.jpg", "split": split, "sentences": [{"raw": text} for text in captions]}
    return found | ({"filepath": folder} if folder else {})


def test_python_lists_are_captions_too_and_the_first_are_kept(tmp_path: Path, images: Path) -> None:
    texts = ['It\'s a "dog".', "b", "c"]
    file = write(tmp_path, [row(0, repr(texts)), row(1, ["d"])])
    assert read_captions(file, images).captions["text"].to_list() == [*texts, "d"]
    assert read_captions(file, images, first=2).captions.rows() == [(0, 0, texts[0]), (1, 0, "b"), (2, 1, "d")]


def test_karpathys_files(tmp_path: Path, images: Path) -> None:
    file = tmp_path / "dataset_flickr30k.json"
    content = [image(3, ["x"], "val"), image(2, LONG), image(0, ["a", "b"], folder="flickr30k-images")]
    file.write_text(json.dumps({"images": content}))
    (images / "flickr30k-images").mkdir()
    (images / "0.jpg").rename(images / "flickr30k-images/0.jpg")
    found = read_captions(file, images)
    assert found.images.rows() == [(0, "2.jpg"), (1, "flickr30k-images/0.jpg")]
    assert found.captions.rows() == [(0, 0, LONG[0]), (1, 0, LONG[1]), (2, 1, "a"), (3, 1, "b")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"k\.json is not a readable JSON file"),
        ([], r"k\.json: expected Karpathy's format"),
        ({"images": [image(1), 7]}, r"row 1 of images, key split: expected a text"),
        ({"images": [{**image(1), "filename": None}]}, r"row 0 of images, key filename: expected a text"),
        ({"images": [image(1, [])]}, r"row 0 of images, key sentences: expected at least one caption"),
        ({"images": [image(1, ["a", " "])]}, r"row 0 of images, key sentences"),
        ({"images": [image(1, split="val")]}, r"no row of split 'test'; its splits are: val"),
        ({"images": [image(1), image(1)]}, r"row 0, column filename: '1\.jpg'; expected another picture"),
        ({"images": [image(8)]}, r"row 0, column filename: the picture .*/8\.jpg cannot be used"),
    ],
)
def test_karpathys_files_that_are_none(tmp_path: Path, images: Path, content: Any, message: str) -> None:
    file = tmp_path / "k.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(DataError, match=message):
        read_captions(file, images)


def entry(number: int, caption: str = "a dog ", negative: str = "a cat.") -> dict[str, Any]:
    return {"filename": f"{number}.jpg", "caption": caption, "negative_caption": negative}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in SUGARCREPE_GROUPS:
        (folder / f"{name}.json").write_text(json.dumps({"0": entry(0), "2": entry(1, name)}))
    return folder


def test_sugarcrepe(folder: Path, images: Path) -> None:
    found = read_sugarcrepe(folder, images)
    assert found.columns == ["dataset", "query_id", "key", "image", "caption", "negative_caption"]
    assert found["dataset"].unique(maintain_order=True).to_list() == sorted(SUGARCREPE_GROUPS)
    assert found.filter(dataset="swap_att").rows() == [
        ("swap_att", 0, "0", "0.jpg", "a dog ", "a cat."),
        ("swap_att", 1, "2", "1.jpg", "swap_att", "a cat."),
    ]
    assert len(found) == 14
    groups = {group: sum(g == group for g in SUGARCREPE_GROUPS.values()) for group in set(SUGARCREPE_GROUPS.values())}
    assert groups == {"add": 2, "replace": 3, "swap": 2}
    assert all(name.startswith(group) for name, group in SUGARCREPE_GROUPS.items())
    assert len(read_sugarcrepe(folder, images, ["add_obj"])) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"add_obj\.json is not JSON"),
        ("[]", r"add_obj\.json: expected an object of entries"),
        ("{}", r"add_obj\.json: expected an object of entries"),
        ('{"5": []}', r'add_obj\.json, entry "5": \[\]; expected an object with filename, caption, negative_caption'),
        (json.dumps({"5": {"filename": "0.jpg"}}), r'entry "5", key caption: missing; expected a text with words'),
        (json.dumps({"5": entry(0, negative=" ")}), r"""entry "5", key negative_caption: ' '; expected a text"""),
        (json.dumps({"5": {**entry(0), "caption": 3}}), r'entry "5", key caption: 3; expected a text'),
        (
            json.dumps({"4": entry(0), "5": entry(8)}),
            r'add_obj\.json, entry "5", key filename: the picture .*/8\.jpg cannot be used: image_missing',
        ),
    ],
)
def test_sugarcrepe_files_that_are_none(folder: Path, images: Path, content: str, message: str) -> None:
    (folder / "add_obj.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read_sugarcrepe(folder, images)


def test_a_missing_file_of_sugarcrepe(folder: Path, images: Path) -> None:
    (folder / "swap_obj.json").unlink()
    with pytest.raises(DataError, match=r"swap_obj\.json cannot be read \(No such file"):
        read_sugarcrepe(folder, images)
