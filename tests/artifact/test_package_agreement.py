"""Whatever of a package is changed, removed or added, it is found, also if manifest and metadata were mended."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_package import MINE, NEGATIVES, TRAIN, changed_record, contents, gathered, make, mended, verdict, zipped

from unime_kedro.artifact.reading import audit_artifact
from unime_kedro.artifact.writing import write_package

CARD = "cards/data/06_models/trained/README.md"
#: no run records these; of README only the words are compared, for another version may word it otherwise
BESIDE = {"README.md", "project/NOTICE", "project/dvc.lock"}
#: a package without them is whole: they are not in every project
OPTIONAL = {"project/NOTICE", "project/dvc.lock", "project/constraints.txt"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("small")
    make(folder / "project", folder / "a.zip")
    return contents(folder / "a.zip")


def test_untouched_nothing_is_held_against_it(files: dict[str, bytes], tmp_path: Path) -> None:
    main, findings = audit_artifact(zipped(files, tmp_path / "a.zip"))
    assert main.run_id == TRAIN
    assert {one.subject: one.text for one in findings if one.status in ("fail", "note")} == {
        "code": "files differed from the commit, recorded in git.diff",
        f"mine {MINE[:6]}: code": "files differed from the commit, recorded in git.diff",
    }
    passed = {one.subject for one in findings if one.check == "package" and one.status == "pass"}
    assert passed == {"manifest-sha256.txt", "ro-crate-metadata.json", "runs/", "files/", "cards/"}


def test_mending_alone_changes_nothing(files: dict[str, bytes], tmp_path: Path) -> None:
    assert verdict(mended(files), tmp_path / "a.zip") == {}


def test_a_byte_more_in_any_file_is_found(files: dict[str, bytes], tmp_path: Path) -> None:
    for name in sorted(set(files) - {"manifest-sha256.txt", "ro-crate-metadata.json"}):
        other = {**files, name: b"9" + files[name]}
        assert name in verdict(other, tmp_path / "a.zip") or name.endswith("record.json"), name
        found = verdict(mended(other), tmp_path / "a.zip")
        assert bool(found) == (name not in BESIDE), (name, found)


def test_a_removed_file_is_found(files: dict[str, bytes], tmp_path: Path) -> None:
    for name in sorted(files):
        other = {one: content for one, content in files.items() if one != name}
        assert verdict(other, tmp_path / "a.zip"), name
        if name in ("manifest-sha256.txt", "ro-crate-metadata.json"):
            continue
        found = verdict(mended(other), tmp_path / "a.zip")
        assert bool(found) == (name not in OPTIONAL), (name, found)


def test_predictions_cannot_be_left_out_silently(files: dict[str, bytes], tmp_path: Path) -> None:
    other = mended({name: content for name, content in files.items() if not name.endswith("train_metrics.json")})
    name = "files/data/08_reporting/train_metrics.json"
    assert verdict(other, tmp_path / "a.zip") == {name: f"{name} is not there, and absent.json does not name it"}


@pytest.mark.parametrize(
    ("name", "subject", "text"),
    [
        ("files/data/07_model_output/more.parquet", None, "no run of the package wrote it"),
        (f"files/data/{NEGATIVES}/more", "refused", "cannot be unpacked"),
        (f"runs/{TRAIN}/more.txt", None, "is not what the run's record says"),
        ("cards/other/README.md", "cards/other/sha256.txt", "is not of a model that a run recorded"),
    ],
)
def test_what_does_not_belong_there_is_found(
    files: dict[str, bytes], tmp_path: Path, name: str, subject: str | None, text: str
) -> None:
    found = verdict(mended({**files, name: b"x"}), tmp_path / "a.zip")
    assert text in found[subject or name]


def test_a_card_with_a_list_that_fits_it_is_still_not_the_models(files: dict[str, bytes], tmp_path: Path) -> None:
    listed = CARD.replace("README.md", "sha256.txt")
    old, new = (hashlib.sha256(text).hexdigest().encode() for text in (files[CARD], b"better"))
    assert old in files[listed]
    found = verdict(mended({**files, CARD: b"better", listed: files[listed].replace(old, new)}), tmp_path / "a.zip")
    assert found == {listed: f"{listed} is not of a model that a run recorded"}


def test_a_run_that_is_left_out_is_missed(files: dict[str, bytes], tmp_path: Path) -> None:
    crate = "ro-crate-metadata.json"
    other = {name: content for name, content in files.items() if MINE not in name}
    other[crate] = other[crate].replace(f'"@id": "#run-{MINE}"'.encode(), f'"@id": "#run-{TRAIN}"'.encode(), 1)
    found = verdict(mended(other), tmp_path / "a.zip")
    assert found[f"files/data/{NEGATIVES}"].endswith("no run of the package wrote it")


def test_words_of_another_version_are_a_note(files: dict[str, bytes], tmp_path: Path) -> None:
    other = mended({**files, "README.md": b"# other words\n"})
    _, findings = audit_artifact(zipped(other, tmp_path / "a.zip"))
    notes = {one.subject for one in findings if one.status == "note" and one.check == "package"}
    assert notes == {"README.md"}


def _file(number: int, **values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda record: record["files"][number].update(values)


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.update(name=3),
        lambda record: record.update(start="early"),
        lambda record: record.update(tags=[]),
        lambda record: record["tags"].update({"data.root": 3}),
        lambda record: record.update(environment=3),
        lambda record: record.update(config=3),
        lambda record: record.update(config={"parameters": 3}),
        lambda record: record.update(params={"a": 3}),
        lambda record: record.update(metrics_files=[1]),
        lambda record: record.update(metrics_files={"train_metrics": 1}),
        lambda record: record.update(metrics={"a": []}),
        lambda record: record.update(children=3),
        lambda record: record.update(more=1),
        lambda record: record.pop("files"),
        lambda record: record.update(run_id="0" * 32),
        _file(0, path=3),
        _file(0, bytes="many"),
        _file(0, path="<data root>/../../../etc/hostname"),
        lambda record: record["tags"].update({"data.root": "../../../etc"}),
    ],
)
def test_a_record_of_other_shape_is_an_answer_and_no_crash(
    files: dict[str, bytes], tmp_path: Path, change: Callable[[dict[str, Any]], Any]
) -> None:
    assert verdict(changed_record(files, TRAIN, change), tmp_path / "a.zip")


def test_no_file_of_the_recipients_machine_is_looked_at(tmp_path: Path) -> None:
    """A path that was absolute on the sender's machine may be another file here, and must not pass for it."""
    outside = tmp_path / "outside.bin"
    outside.write_bytes(b"of the recipient")
    digest = hashlib.sha256(b"of the recipient").hexdigest()
    found = gathered(tmp_path / "project")
    train = found.records[0]
    entry = train.side("input")[0]._replace(dataset="params:train.model", path=str(outside), sha256=digest)
    tags = train.tags | {"input.train.model.sha256": digest, "input.train.model.md5": str(entry.md5)}
    found.records[0] = replace(train, files=[*(train.files or ()), entry], tags=tags)
    write_package(found, tmp_path / "project", tmp_path / "a.zip")
    _, findings = audit_artifact(tmp_path / "a.zip")
    looked = {one.subject: (one.status, one.text) for one in findings if one.check == "files"}
    status, text = looked["input params:train.model"]
    assert status == "skip"
    assert "is not in the package" in text
