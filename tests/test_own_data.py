"""Own data: told from the embedded corpus, and looked for before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from unime_kedro.config import Sources, fill_in
from unime_kedro.errors import ConfigurationError
from unime_kedro.hooks import ParameterCheckHook
from unime_kedro.own_data import folder_faults, is_own_data
from unime_kedro.parameters import IngestParameters

INGEST: dict[str, Any] = {
    "image_root": None,
    "split": "original",
    "datasets": None,
    "meta_tasks": {},
    "rows_per_dataset": None,
    "max_reject_share": 0.01,
    "check_images": "full",
    "workers": 0,
}


@pytest.mark.parametrize(
    ("demo", "mined", "own"),
    [
        ("data/mini", "data/mini/train", False),
        ("data/mini", "data/mini", False),
        ("data/mini/", "./data/mini/train", False),
        ("data/mini", "data/mini_2/train", True),
        ("data/mini/train", "data/mini", True),
        ("data/mini", "/data/mini/train", True),
    ],
)
def test_own_data_lie_outside_the_embedded_corpus(demo: str, mined: str, own: bool) -> None:
    assert is_own_data({"demo": {"root": demo}, "ingest": {"root": mined}}) is own


def test_without_a_section_nothing_is_own() -> None:
    assert not is_own_data({})
    assert not is_own_data({"demo": {"root": "a"}})
    assert not is_own_data({"demo": {"root": "a"}, "ingest": None})


# ---------------------------------------------------------------- image_root: null


def test_pictures_lie_beside_the_pairs_unless_told_otherwise() -> None:
    assert IngestParameters(**INGEST | {"root": "/data/A"}).image_root == "/data/A"
    assert IngestParameters(**INGEST | {"root": "/data/A", "image_root": "/b"}).image_root == "/b"
    given = {"ingest": INGEST | {"root": "/data/A"}, "judge": {"model": "m"}}
    assert fill_in(given) == {"ingest": INGEST | {"root": "/data/A", "image_root": "/data/A"}, "judge": {"model": "m"}}
    assert given["ingest"]["image_root"] is None  # the argument is left as it was
    assert fill_in({"ingest": INGEST | {"root": "a", "image_root": "b"}})["ingest"]["image_root"] == "b"


# ---------------------------------------------------------------- what is missing


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two data sets with files of one split, a third of another split, and a folder of pictures."""
    for name in ("A/original-0.parquet", "B[1]/original-00000-of-2.parquet", "C/diverse-0.parquet", "images/A/0.png"):
        file = tmp_path / "corpus" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    (tmp_path / "file").write_text("x")
    return tmp_path / "corpus"


def faults(root: Path, **changes: Any) -> list[str]:
    ingest = fill_in({"ingest": INGEST | {"root": str(root)} | changes})["ingest"]
    return folder_faults(ingest, Sources("conf", None, {"ingest": {"root": str(root)} | changes}, "parameters"))


def test_all_is_there(corpus: Path) -> None:
    assert faults(corpus) == []
    assert faults(corpus, datasets=["A", "B[1]"]) == []
    assert faults(corpus, split="diverse") == []
    assert faults(corpus, image_root=str(corpus / "images")) == []


@pytest.mark.parametrize(("place", "why"), [("nope", "there is no such folder"), ("file", "it is a file")])
def test_a_corpus_that_is_not_there(corpus: Path, place: str, why: str) -> None:
    root = corpus.parent / place
    assert faults(root) == [
        f"ingest.root = {root}: {why}; expected the folder that holds <data set>/original-*.parquet [--params]"
    ]


@pytest.mark.parametrize(("place", "why"), [("nope", "there is no such folder"), ("file", "it is a file")])
def test_a_picture_folder_that_is_not_there(corpus: Path, place: str, why: str) -> None:
    images = corpus.parent / place
    assert faults(corpus, image_root=str(images)) == [
        f"ingest.image_root = {images}: {why}; expected the folder that the pairs' picture paths start from, "
        "null: that of ingest.root [--params]"
    ]


def test_a_folder_without_pairs_says_what_it_holds_instead(corpus: Path) -> None:
    told = "below it, by ingest.split and ingest.datasets; it holds"
    assert faults(corpus, split="train") == [
        f"ingest.root = {corpus}: expected <data set>/train-*.parquet {told} A/, B[1]/, C/, images/ [--params]"
    ]
    assert faults(corpus / "A") == [
        f"ingest.root = {corpus}/A: expected <data set>/original-*.parquet {told} original-0.parquet [--params]"
    ]
    assert faults(corpus, datasets=["A", "C", "D"], image_root="/nope") == [
        f"ingest.root = {corpus}: expected C/original-*.parquet, D/original-*.parquet {told} A/, B[1]/, C/, images/ "
        "[--params]",
        "ingest.image_root = /nope: there is no such folder; expected the folder that the pairs' picture paths start "
        "from, null: that of ingest.root [--params]",
    ]


def test_of_a_full_folder_a_few_names_are_told(tmp_path: Path) -> None:
    for name in "hgfedcba":
        (tmp_path / name).write_text("")
    assert "; it holds a, b, c, d, e and 3 more [--params]" in faults(tmp_path)[0]
    (tmp_path / "i").mkdir()
    assert "; it holds nothing [--params]" in faults(tmp_path / "i")[0]


@pytest.mark.parametrize(
    ("pipeline", "root", "stopped"),
    [
        ("mine", "/nope", True),
        ("ingest", "/nope", True),
        ("pool", "/nope", False),  # works with the tables that ingest made
        ("select", "/nope", False),
        ("mine", "demo/train", False),  # the embedded corpus is drawn by the run itself
    ],
)
def test_pipelines_that_read_pairs_stop_when_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pipeline: str, root: str, stopped: bool
) -> None:
    from unime_kedro.pipeline_registry import register_pipelines

    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny/config.json").write_text("{}")
    models = {section: {"model": str(tmp_path / "tiny")} for section in ("pool", "judge")}
    hook = ParameterCheckHook()
    hook._data_root = tmp_path / "data"
    hook._parameters = fill_in({"demo": {"root": "demo"}, "ingest": INGEST | {"root": root}, **models})
    hook._sources = Sources(tmp_path / "conf", None, {}, "parameters")
    if not stopped:
        hook.before_pipeline_run(register_pipelines()[pipeline])
        return
    with pytest.raises(ConfigurationError, match=r"^1 fault in the parameters, nothing was run:\n  ingest\.root = /n"):
        hook.before_pipeline_run(register_pipelines()[pipeline])
    assert not (tmp_path / "data").exists()
