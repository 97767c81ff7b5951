"""Files against recorded hashes, and who wrote them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hand_made import a_record, hash_tags, place_at, statuses, written

from unime_kedro.audit.files import check_files, check_lineage, check_raw, check_run
from unime_kedro.audit.findings import Finding, Place
from unime_kedro.audit.record import RunRecord
from unime_kedro.audit.stage import check_stage
from unime_kedro.minimmeb.corpus import folder_digest
from unime_kedro.tracking.contents import contents_of
from unime_kedro.tracking.files import FileRecord

TEXT = b"as it was"


@pytest.fixture
def run(tmp_path: Path) -> RunRecord:
    entry = written(tmp_path / "data", "05/t.parquet", TEXT)
    return a_record(files=[entry], tags=hash_tags(entry))


def the_file(tmp_path: Path) -> Path:
    return tmp_path / "data/05/t.parquet"


def one(run: RunRecord, place: Place) -> Finding:
    (found,) = check_files(run, place)
    return found


def cache(root: Path, content: bytes) -> Path:
    md5 = hashlib.md5(content).hexdigest()
    entry = root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    entry.parent.mkdir(parents=True)
    entry.write_bytes(content)
    return entry


def test_a_file_as_it_was_passes(run: RunRecord, tmp_path: Path) -> None:
    assert one(run, place_at(tmp_path)).status == "pass"


def test_a_changed_file_fails_and_says_what_it_is(run: RunRecord, tmp_path: Path) -> None:
    the_file(tmp_path).write_bytes(b"other")
    found = one(run, place_at(tmp_path))
    assert found.status == "fail"
    assert "has other bytes and is no readable parquet file" in found.text
    later = one(run, place_at(tmp_path, whose=lambda md5: ["run select (1234)"]))
    assert (later.status, later.text) == (
        "fail",
        "<data root>/05/t.parquet has other bytes, written by run select (1234); "
        f"expected sha256 {hashlib.sha256(TEXT).hexdigest()[:12]}...",
    )


@pytest.mark.parametrize(
    ("present", "known", "status"), [(b"x", True, "note"), (b"x", False, "fail"), (b"", False, "note")]
)
def test_recorded_bytes_in_the_cache(run: RunRecord, tmp_path: Path, present: bytes, known: bool, status: str) -> None:
    """What nobody is known to have written is a change by hand, whatever the cache has."""
    the_file(tmp_path).write_bytes(present)
    if not present:
        the_file(tmp_path).unlink()
    entry = cache(tmp_path, TEXT)
    place = place_at(tmp_path, whose=lambda md5: ["run select (1234)"] if known else [])
    found = one(run, place)
    assert (found.status, found.remedy) == (status, f"cp {entry.relative_to(tmp_path)} data/05/t.parquet")
    (tmp_path / "dvc.lock").write_text(f"md5: {hashlib.md5(TEXT).hexdigest()}")
    assert one(run, place).remedy == "dvc checkout --force data/05/t.parquet"
    entry.write_bytes(b"damaged")
    fresh = place_at(tmp_path, whose=place.whose)
    assert one(run, fresh).status == "fail"


def test_a_folder_in_the_cache_counts_with_all_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "data/model"
    for name in ("a", "sub/b"):
        written(tmp_path / "data", f"model/{name}", name.encode())
    found = contents_of(folder)
    assert found is not None
    assert found.md5 is not None
    listed = [{"md5": hashlib.md5(name.encode()).hexdigest(), "relpath": name} for name in ("a", "sub/b")]
    listing = json.dumps(listed, sort_keys=True).encode()
    assert found.md5 == f"{hashlib.md5(listing).hexdigest()}.dir"
    entry = FileRecord("output", "model", "<data root>/model", *found)
    run = a_record(files=[entry], tags=hash_tags(entry))
    assert one(run, place_at(tmp_path)).status == "pass"
    (folder / "a").unlink()
    cached = cache(tmp_path, listing)
    cached.rename(cached.with_name(f"{cached.name}.dir"))
    assert place_at(tmp_path).cached(entry) is None
    cache(tmp_path, b"a")
    member = cache(tmp_path, b"sub/b")
    assert place_at(tmp_path).cached(entry) is not None
    assert "dvc checkout --force data/model" in one(run, place_at(tmp_path)).remedy
    assert place_at(tmp_path).fetch(entry, tmp_path / "again")
    assert contents_of(tmp_path / "again") == found
    member.unlink()
    assert place_at(tmp_path).cached(entry) is None
    assert not place_at(tmp_path).fetch(entry, tmp_path / "third")


def test_hashes_of_the_database_and_of_the_list_must_agree(run: RunRecord, tmp_path: Path) -> None:
    for key in ("output.table.sha256", "output.table.md5"):
        assert one(replace(run, tags=run.tags | {key: "0"}), place_at(tmp_path)).status == "fail"
        assert (
            one(replace(run, tags={k: v for k, v in run.tags.items() if k != key}), place_at(tmp_path)).status == "fail"
        )


def test_a_file_that_the_list_lacks_is_found(run: RunRecord, tmp_path: Path) -> None:
    tags = run.tags | {"output.more.md5": "1", "input.params.x.sha256": "2", "input.corpus.sha256": "3"}
    found = statuses(list(check_files(replace(run, tags=tags), place_at(tmp_path))))
    assert found == {"output table": "pass", "output more": "fail", "input params.x": "fail"}


def test_a_list_that_is_gone_or_broken_is_found(run: RunRecord, tmp_path: Path) -> None:
    assert one(replace(run, files=None), place_at(tmp_path)).status == "fail"
    assert "no JSON" in one(replace(run, files=None, unreadable={"files.json": "no JSON"}), place_at(tmp_path)).text


def test_a_page_among_the_artifacts_is_that_of_the_run(run: RunRecord, tmp_path: Path) -> None:
    good = replace(run, pages={"t.parquet": hashlib.sha256(TEXT).hexdigest(), "else.html": "1"})
    assert one(good, place_at(tmp_path)).status == "pass"
    bad = replace(run, pages={"t.parquet": "0"})
    assert statuses(list(check_files(bad, place_at(tmp_path))))["artifact t.parquet"] == "fail"


def test_a_run_that_failed(tmp_path: Path) -> None:
    (found,) = check_run(a_record(status="FAILED", tags={"error": "ValueError: no"}), place_at(tmp_path))
    assert (found.status, found.text) == ("fail", "FAILED: ValueError: no")


def test_raw_files_have_the_digest_of_the_corpus(tmp_path: Path) -> None:
    corpus = tmp_path / "data/01_raw/mini"
    written(tmp_path / "data", "01_raw/mini/a.png", b"a")
    parameters = {"demo": {"root": "<data root>/01_raw/mini"}, "ingest": {"root": "<data root>/01_raw/mini/train"}}
    run = a_record(config={"parameters": parameters}, tags={"input.corpus.sha256": folder_digest(corpus)})
    (found,) = check_raw(run, place_at(tmp_path))
    assert found.status == "pass"
    (corpus / "a.png").write_bytes(b"b")
    (found,) = check_raw(run, place_at(tmp_path))
    assert found.status == "fail"
    (corpus / "a.png").rename(tmp_path / "a.png")
    corpus.rmdir()
    (found,) = check_raw(run, place_at(tmp_path))
    assert found.status == "note"
    own = replace(run, config={"parameters": {**parameters, "ingest": {"root": "elsewhere"}}})
    (found,) = check_raw(own, place_at(tmp_path))
    assert found.status == "skip"


def test_who_wrote_an_input(tmp_path: Path) -> None:
    entries = [written(tmp_path / "data", name, name.encode(), name, "input") for name in ("known", "packed", "nobody")]
    model = entries[0]._replace(dataset="params:judge.model", path="models/tiny", md5="m")
    upstream = a_record(run_id="cd" * 16, name="mine", files=[entries[1]._replace(side="output")])
    run = a_record(files=[*entries, model])
    place = place_at(tmp_path, upstream, whose=lambda md5: ["run ingest (1)"] if md5 == entries[0].md5 else [])
    found = {one.subject: (one.status, one.text) for one in check_lineage(run, place)}
    assert found == {
        "input known": ("pass", "written by run ingest (1)"),
        "input packed": ("pass", "written by run mine (cdcdcdcd)"),
        "input nobody": ("note", "<data root>/nobody: no known run wrote it"),
        "input params:judge.model": ("pass", "models/tiny comes with the project"),
    }


def test_a_stage_of_dvc_and_its_run_name_the_same_hashes(run: RunRecord, tmp_path: Path) -> None:
    md5 = hashlib.md5(TEXT).hexdigest()
    run = replace(run, tags=run.tags | {"dvc.stage": "select"})

    def found(run_id: str, in_runs: str, in_lock: str) -> list[str]:
        path = "data/05/t.parquet"
        stage = {"run_id": run_id, "outs": {path: in_runs}}
        (tmp_path / "runs.json").write_text(json.dumps({"stages": {"select": stage}}))
        (tmp_path / "dvc.lock").write_text(
            f"stages:\n  select:\n    outs:\n    - path: {path}\n      md5: '{in_lock}'\n"
        )
        return [one.status for one in check_stage(run, place_at(tmp_path))]

    assert found(run.run_id, md5, md5) == ["pass", "pass"]
    assert found(run.run_id, "0", md5) == ["fail", "pass"]
    assert found(run.run_id, md5, "0") == ["pass", "fail"]
    assert found("another", "0", "0") == ["note"]
    (tmp_path / "runs.json").unlink()
    assert [one.status for one in check_stage(run, place_at(tmp_path))] == ["note"]
    assert list(check_stage(replace(run, tags={}), place_at(tmp_path))) == []
