"""Zip files that are damaged, or would do harm, are refused with a sentence."""

from __future__ import annotations

import random
import zipfile
from pathlib import Path

import pytest
from small_package import contents, make, verdict, zipped

from unime_kedro.artifact import unpacking
from unime_kedro.artifact.reading import audit_artifact
from unime_kedro.errors import DataError


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    return make(folder / "project", folder / "a.zip").file


def refusal(file: Path) -> str:
    with pytest.raises(DataError) as caught:
        audit_artifact(file)
    return str(caught.value)


def test_any_flipped_bit_and_any_cut_is_noticed(package: Path, tmp_path: Path) -> None:
    content, chance = package.read_bytes(), random.Random(0)
    _, right = audit_artifact(package)
    for _ in range(60):
        other = bytearray(content)
        other[chance.randrange(len(other))] ^= 1 << chance.randrange(8)
        file = tmp_path / "flipped.zip"
        file.write_bytes(other)
        try:
            _, findings = audit_artifact(file)
        except DataError:
            continue
        # times and the like of the zip file itself, which nothing is read from
        assert findings == right or any(one.status == "fail" for one in findings)
    for _ in range(20):
        file.write_bytes(content[: chance.randrange(len(content))])
        assert "cannot be unpacked" in refusal(file)


@pytest.mark.parametrize("name", ["../evil.txt", "/evil.txt", "a/../../evil.txt", "..\\evil.txt"])
def test_nothing_is_written_elsewhere(package: Path, tmp_path: Path, name: str) -> None:
    file = zipped({**contents(package), name: b"evil"}, tmp_path / "sub.zip")
    assert "would be written elsewhere; refused" in refusal(file)
    assert not list(tmp_path.parent.rglob("evil.txt"))


def test_links_are_refused(package: Path, tmp_path: Path) -> None:
    file = zipped(contents(package), tmp_path / "link.zip")
    with zipfile.ZipFile(file, "a") as archive:
        entry = zipfile.ZipInfo("files/link")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "/etc")
    assert "'files/link', which would be written elsewhere" in refusal(file)


def test_a_name_that_is_there_twice_is_refused(package: Path, tmp_path: Path) -> None:
    file = zipped(contents(package), tmp_path / "twice.zip")
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("README.md", b"another page")
    assert "'README.md' twice" in refusal(file)


def test_a_bomb_is_refused_before_it_is_unpacked(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "bomb.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(2**22))
    assert file.stat().st_size < 2**14
    monkeypatch.setattr(unpacking, "MAX_BYTES", 2**22)
    assert "has no manifest-sha256.txt" in refusal(file)
    monkeypatch.setattr(unpacking, "MAX_BYTES", 2**22 - 1)
    assert "would unpack to more than" in refusal(file)
    monkeypatch.setattr(unpacking, "MAX_FILES", 3)
    assert "or 3 files; refused" in refusal(package)


def test_an_entry_that_is_larger_than_its_header_says_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "liar.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(2**20))
    content = file.read_bytes().replace((2**20).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    file.write_bytes(content)
    assert "damaged" in refusal(file) or "cannot be unpacked" in refusal(file)


@pytest.mark.parametrize(("offset", "value", "text"), [(8, 1, "is encrypted"), (10, 99, "cannot be unpacked")])
def test_what_cannot_be_read_is_said(package: Path, tmp_path: Path, offset: int, value: int, text: str) -> None:
    """Byte 8 of an entry of the central directory is its flags, byte 10 its method; two bytes before in the header."""
    content = bytearray(package.read_bytes())
    content[content.find(b"PK\x01\x02") + offset] = value
    content[offset - 2] = value
    file = tmp_path / "other.zip"
    file.write_bytes(content)
    assert text in refusal(file)


@pytest.mark.parametrize("name", ["manifest-sha256.txt", "ro-crate-metadata.json"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[1]", b'{"@graph": [1]}', b'{"@graph": []}', b"[" * 9999])
def test_lists_that_are_none_are_answered(package: Path, tmp_path: Path, name: str, content: bytes) -> None:
    found = verdict({**contents(package), name: content}, tmp_path / "other.zip")
    assert "refused" not in found or "the package was changed or damaged" in found["refused"]
    assert found
