"""ShareGPT4V and Urban1K, sound and broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from unime_kedro.errors import DataError
from unime_kedro.io import long_captions
from unime_kedro.io.long_captions import read_sharegpt4v, read_urban1k


def entry(number: int, caption: Any = "A long caption.") -> dict[str, Any]:
    return {
        "id": str(number),
        "image": f"sam/{number}.jpg",
        "conversations": [{"from": "human", "value": "What?"}, {"from": "gpt", "value": caption}],
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "sam").mkdir()
    for i in range(4):
        Image.new("RGB", (9, 6), (i, 0, 0)).save(tmp_path / f"sam/{i}.jpg")
    return tmp_path


def write(root: Path, content: Any) -> Path:
    file = root / "captions.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return file


def test_the_first_entries_of_sharegpt4v(root: Path) -> None:
    file = write(root, [entry(2, "Zwei\nHündinnen, [rennen]."), entry(0), entry(9, "not there, not read")])
    found = read_sharegpt4v(file, root, first=2)
    assert found.images.rows() == [(0, "sam/2.jpg"), (1, "sam/0.jpg")]
    assert found.captions.rows() == [(0, 0, "Zwei Hündinnen, [rennen]."), (1, 1, "A long caption.")]


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_file_is_read_in_pieces_and_no_further_than_needed(
    root: Path, chunk: int, indent: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_captions, "_CHUNK", chunk)
    whole = json.dumps([entry(i, f'Say "{i}" ]}},') for i in range(4)], indent=indent)
    everything = read_sharegpt4v(write(root, whole), root, first=9)
    assert everything.captions["text"].to_list() == [f'Say "{i}" ]}},' for i in range(4)]
    cut = whole[: whole.index("What?", whole.index('"id": "2"'))]  # inside the third entry
    assert read_sharegpt4v(write(root, cut), root, first=2).images.height == 2
    with pytest.raises(DataError, match=r"captions\.json is not JSON"):
        read_sharegpt4v(write(root, cut), root, first=3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"0": entry(0)}, r"expected a JSON list of \{\"image\""),
        ([], r"has no entries"),
        ([entry(0), 7], r"entry 1, key image: expected the path"),
        ([{**entry(0), "image": " "}], r"entry 0, key image: expected the path"),
        ([entry(0), entry(1, " ")], r"entry 1, key conversations\[1\]\.value: expected a text with words"),
        ([{**entry(0), "conversations": [{"value": "q"}]}], r"entry 0, key conversations\[1\]\.value"),
        ([entry(0), entry(8)], r"entry 1, key image: the picture .*/sam/8\.jpg cannot be used: image_missing"),
    ],
)
def test_sharegpt4v_files_that_are_none(root: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_sharegpt4v(write(root, content), root)


def test_a_missing_file(root: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json cannot be read \(No such file"):
        read_sharegpt4v(root / "none.json", root)


@pytest.fixture
def urban(tmp_path: Path) -> Path:
    for name in ("caption", "image"):
        (tmp_path / name).mkdir()
    for i in (10, 9, 101):
        Image.new("RGB", (9, 6), (i, 0, 0)).save(tmp_path / f"image/{i}.jpg")
        (tmp_path / f"caption/{i}.txt").write_text(f"Street {i}. \r\nignored\n")
    return tmp_path


def test_urban1k_by_number(urban: Path) -> None:
    (urban / "image/README.md").write_text("no picture")
    found = read_urban1k(urban)
    assert found.images.rows() == [(0, "9.jpg"), (1, "10.jpg"), (2, "101.jpg")]
    assert found.captions["text"].to_list() == ["Street 9. ", "Street 10. ", "Street 101. "]
    (urban / "image").rename(urban / "pictures")
    assert read_urban1k(urban, urban / "pictures").images.rows() == found.images.rows()


def test_urban1k_that_is_none(urban: Path) -> None:
    (urban / "caption/8.txt").write_text("No picture.")
    (urban / "caption/7.txt").write_text("No picture.")
    with pytest.raises(DataError, match=r"/7\.txt has no partner; expected .*/image/7\.jpg\. 1 more have no partner"):
        read_urban1k(urban)
    for number in (7, 8, 9):
        (urban / f"caption/{number}.txt").unlink()
    with pytest.raises(DataError, match=r"image/9\.jpg has no partner; expected .*/caption/9\.txt\.$"):
        read_urban1k(urban)
    (urban / "caption/9.txt").write_text(" \nsecond line")
    with pytest.raises(DataError, match=r"caption/9\.txt: the first line has no words"):
        read_urban1k(urban)
    (urban / "caption/9.txt").write_text("A street.")
    (urban / "image/9.jpg").write_text("no picture")
    with pytest.raises(DataError, match=r"image/9\.jpg: the picture .* cannot be used: image_undecodable"):
        read_urban1k(urban)
    for file in (urban / "image").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"/image holds no file <n>\.jpg"):
        read_urban1k(urban)
    (urban / "image").rmdir()
    with pytest.raises(DataError, match=r"There is no folder .*/image; expected Urban1K"):
        read_urban1k(urban)
