"""One file of one's own pairs becomes a data set that ingest reads, or nothing is written."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner
from published_rows import picture  # type: ignore[import-not-found]

from unime_kedro.cli import main
from unime_kedro.errors import DataError
from unime_kedro.fetching.own_pairs import write_own_pairs
from unime_kedro.io.mmeb import read_pairs

ROWS = [
    {"query": "a dog, <b>bold</b>", "query_image": "", "positive": "", "positive_image": "1.jpg"},
    {
        "query": "<|image_1|>\nwhat is it?",
        "query_image": "sub/2.jpg",
        "positive": 'a "cat", she said',
        "positive_image": "",
    },
    {"query": "what?", "query_image": "1.jpg", "positive": "line\nbreak", "positive_image": ""},
]
EXPECTED = [
    ("a dog, <b>bold</b>", "", "<|image_1|>", "1.jpg"),
    ("<|image_1|>\nwhat is it?", "sub/2.jpg", 'a "cat", she said', ""),
    ("<|image_1|>\nwhat?", "1.jpg", "line\nbreak", ""),
]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "1.jpg").write_bytes(picture(1))
    (tmp_path / "sub/2.jpg").write_bytes(picture(2))
    return tmp_path


def write(folder: Path, kind: str, rows: list[dict[str, str]]) -> Path:
    file, table = folder / f"pairs.{kind}", pl.DataFrame(rows)
    if kind == "parquet":
        table.write_parquet(file)
    elif kind == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        table.write_csv(file, separator="\t" if kind == "tsv" else ",")
    return file


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv", "tsv"])
def test_every_format_gives_the_same_pairs(images: Path, kind: str) -> None:
    done = write_own_pairs(write(images, kind, ROWS), images / "out", "mine", images)
    assert (done.rows, done.with_query_picture, done.with_positive_picture, done.placeholders_added) == (3, 2, 1, 2)
    found = read_pairs(images / "out", "original", meta_tasks={"mine": "vqa"})
    assert found.select("qry", "qry_image_path", "pos_text", "pos_image_path").rows() == EXPECTED
    again = done.file.read_bytes()
    write_own_pairs(write(images, kind, ROWS), images / "out", "mine", images)
    assert done.file.read_bytes() == again


def test_mmebs_names_and_absolute_paths_and_no_pictures_at_all(images: Path) -> None:
    rows = [{"qry": "a", "qry_image_path": f"{images}/1.jpg", "pos_text": "b", "more": "x"}]
    write_own_pairs(write(images, "jsonl", rows), images / "out", "mine", images)
    found = read_pairs(images / "out", "original", meta_tasks={"mine": "vqa"})
    assert found.select("qry", "qry_image_path", "pos_text", "pos_image_path").rows() == [
        ("<|image_1|>\na", "1.jpg", "b", "")
    ]
    write_own_pairs(
        write(images, "csv", [{"query": "a", "positive": "b"}]), images / "out", "words", images / "nowhere"
    )


def test_bad_rows_are_named_and_nothing_is_written(images: Path) -> None:
    bad = [
        ROWS[0],
        {"query": " ", "query_image": "", "positive": "x", "positive_image": ""},
        {"query": "q", "query_image": "no.jpg", "positive": "x", "positive_image": ""},
        {"query": "q", "query_image": "", "positive": "<|image_1|> x", "positive_image": ""},
        {"query": "q", "query_image": "../1.jpg", "positive": "x", "positive_image": ""},
    ]
    with pytest.raises(DataError) as caught:
        write_own_pairs(write(images, "csv", bad), images / "out", "mine", images)
    message = str(caught.value)
    assert "4 of 5 rows cannot be used" in message
    assert "row 2: neither words in qry nor a picture in qry_image_path" in message
    assert f"row 3: qry_image_path no.jpg: there is no such file below {images}" in message
    assert "row 4: pos_text has <|image_1|>, but pos_image_path is empty" in message
    assert "row 5: qry_image_path ../1.jpg" in message
    assert not (images / "out").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"query": "a", "positive": "b"}\n{broken\n', "line 2 is no JSON"),
        ("a.jsonl", '{"query": "a", "positive": "b"}\n[1]\n', "line 2 holds a list; expected an object"),
        ("a.jsonl", '{"query": "a", "positive": ["b"]}\n', "line 1: positive is a list; expected a text"),
        (
            "a.csv",
            "query,answer\na,b\n",
            "has no column pos_text .or positive, positive_text, pos.. Found: query, answer",
        ),
        ("a.csv", "query,qry,positive\na,b,c\n", "has the columns qry and query, which mean the same"),
        ("a.csv", "query,positive\n", "has no rows"),
        ("a.txt", "x", "expected a file that ends in .parquet, .jsonl, .csv or .tsv"),
        ("a.parquet", "x", "cannot be read"),
    ],
)
def test_files_that_cannot_be_understood(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        write_own_pairs(tmp_path / name, tmp_path / "out", "mine", tmp_path)
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_to_run_next_and_that_reads_it(images: Path) -> None:
    file = write(images, "csv", ROWS)
    done = CliRunner().invoke(main, ["init-data", str(file), f"--out={images / 'out'}", "--meta-task=vqa"])
    assert done.exit_code == 0, done.output
    assert "3 pairs, 2 queries and 1 positives with a picture; 2 texts were given the mark of theirs" in done.output
    root = images / "out/01_raw/own"
    line = done.output.splitlines()[-1].strip()
    assert line == (
        f"UNIME_DATA_ROOT={images / 'out'} kedro run --pipeline=mine --params=ingest.root={root},"
        f"ingest.image_root={images},ingest.meta_tasks.pairs=vqa"
    )
    assert CliRunner().invoke(main, ["check-data", str(root), f"--images={images}"]).exit_code == 0
