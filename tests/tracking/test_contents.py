"""Hashes of files and folders: what sha256sum, md5sum and DVC say."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from unime_kedro.tracking import contents
from unime_kedro.tracking.contents import Contents, content_hash, contents_of

FILES = {"b.txt": "two", "a/x.txt": "one", "a.txt": "three", "a-b/\u00fc.txt": "four"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / "store" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "store" / name).write_text(text)
    return tmp_path / "store"


def test_hashes_of_a_file_are_those_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")  # test vectors of FIPS 180 and RFC 1321
    assert contents_of(tmp_path / "abc") == Contents(
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "900150983cd24fb0d6963f7d28e17f72", 3
    )
    assert contents_of(tmp_path / "missing") is None
    assert content_hash(tmp_path / "missing") is None


def test_a_file_larger_than_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "_BLOCK", 7)
    (tmp_path / "long").write_bytes(bytes(range(256)))
    found = contents_of(tmp_path / "long")
    assert found == Contents(
        hashlib.sha256(bytes(range(256))).hexdigest(), hashlib.md5(bytes(range(256))).hexdigest(), 256
    )


def test_hash_of_a_folder_is_that_of_the_list_sha256sum_prints(folder: Path) -> None:
    listing = subprocess.run(
        "find * -type f | LC_ALL=C sort | xargs sha256sum", shell=True, cwd=folder, capture_output=True, check=True
    ).stdout
    before = content_hash(folder)
    assert before == hashlib.sha256(listing).hexdigest()
    (folder / "b.txt").rename(folder / "c.txt")
    assert content_hash(folder) != before


def test_md5_of_a_folder_is_the_one_dvc_writes_into_its_lock(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dvc.repo import Repo

    (folder / ".x.part").write_text("half written")  # what .dvcignore leaves out
    monkeypatch.chdir(folder.parent)
    (folder.parent / ".dvcignore").write_text(".*.part\n")
    Repo.init(str(folder.parent), no_scm=True).close()
    with Repo(str(folder.parent)) as repo:
        (stage,) = repo.add(str(folder))
        said = stage.outs[0].hash_info.value
    found = contents_of(folder)
    assert found is not None
    assert found.md5 == said
    assert said.endswith(".dir")
    assert found.bytes == sum(len(text) for text in FILES.values()) + len("half written")


def test_large_folder_is_not_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(b"12345")
    monkeypatch.setattr(contents, "MAX_FOLDER_BYTES", 10)
    assert content_hash(tmp_path) is not None
    monkeypatch.setattr(contents, "MAX_FOLDER_BYTES", 9)
    assert contents_of(tmp_path) == Contents(None, None, 10)
    monkeypatch.setattr(contents, "MAX_FOLDER_BYTES", 10)
    monkeypatch.setattr(contents, "MAX_FOLDER_FILES", 1)
    assert content_hash(tmp_path) is None
