"""Packages of runs: made, validated by public validators, read back, tampered with."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from audited_project import Copy, audit_here

pytestmark = pytest.mark.slow
#: terms of RO-Crate 1.1's context that a package uses, and what they stand for (schema.org); the context itself is on the
#: network, and a term that is missing here is reported by the validator
TERMS = (
    "name description datePublished license hasPart mentions about version softwareVersion softwareRequirements url value "
    "encodingFormat contentSize startTime endTime actionStatus instrument agent object result CreativeWork Dataset Person "
    "SoftwareApplication PropertyValue CreateAction"
)


@pytest.fixture(scope="session")
def package(made: Copy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of the training run, with the mining run upstream of it."""
    out = tmp_path_factory.mktemp("package") / "train.zip"
    output = made.run("unime", "export-artifact", "train", str(out))
    assert f"wrote {out}: 2 runs" in output
    assert f"sha256 {hashlib.sha256(out.read_bytes()).hexdigest()}" in output
    return out


@pytest.fixture(scope="session")
def unpacked(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(package) as archive:
        archive.extractall(folder)
    return folder


def audit(package: Path, made: Copy, status: int) -> list[dict[str, str]]:
    code, output = audit_here(made, "--artifact", str(package), "--json")
    assert code == status, output
    found: list[dict[str, str]] = json.loads(output)["findings"]
    return found


def failed(findings: list[dict[str, str]]) -> set[tuple[str, str]]:
    return {(one["check"], one["subject"]) for one in findings if one["status"] == "fail"}


def test_what_is_in_it(unpacked: Path) -> None:
    names = {p.relative_to(unpacked).as_posix() for p in unpacked.rglob("*") if p.is_file()}
    data = "files/data/smoke"
    assert {
        "README.md", "croissant.json", "ro-crate-metadata.json", "manifest-sha256.txt", "project/constraints.txt",
        "project/NOTICE", "cards/data/smoke/06_models/trained/README.md", "cards/tiny-judge/README.md",
        f"{data}/05_model_input/negatives.parquet", f"{data}/05_model_input/mined.json", f"{data}/08_reporting/gallery.html",
        f"{data}/07_model_output/trained_predictions.parquet", f"{data}/08_reporting/trained_metrics.json",
    } <= names, sorted(names)  # fmt: skip
    assert not [name for name in names if name.endswith((".safetensors", ".npy"))]
    absent = json.loads((unpacked / "absent.json").read_text())
    assert f"{data}/06_models/trained" in absent
    for run in (unpacked / "runs").iterdir():
        assert {"record.json", "config.yml", "environment.txt"} <= {file.name for file in run.iterdir()}
    assert subprocess.run(["sha256sum", "-c", "--quiet", "manifest-sha256.txt"], cwd=unpacked).returncode == 0


def test_it_tells_nothing_of_the_machine(unpacked: Path, made: Copy) -> None:
    for file in unpacked.rglob("*"):
        assert not file.is_file() or str(made.root).encode() not in file.read_bytes(), file
    tags = json.loads(next((unpacked / "runs").glob("*/record.json")).read_text())["tags"]
    assert not [tag for tag in tags if tag in ("mlflow.user", "unime.host", "unime.pid")]


def test_two_packages_of_a_run_are_the_same_bytes(package: Path, made: Copy, tmp_path: Path) -> None:
    made.run("unime", "export-artifact", "train", str(tmp_path / "again.zip"))
    assert (tmp_path / "again.zip").read_bytes() == package.read_bytes()
    assert "exists; --force replaces it" in made.run("unime", "export-artifact", "train", str(package), status=1)


def test_croissant_is_valid_and_its_records_are_the_tables_rows(unpacked: Path) -> None:
    import mlcroissant

    described = mlcroissant.Dataset(jsonld=str(unpacked / "croissant.json"))
    assert described.metadata.issues.report() == ""
    negatives = pl.read_parquet(unpacked / "files/data/smoke/05_model_input/negatives.parquet")
    rows = [{key.removeprefix("negatives/"): v for key, v in row.items()} for row in described.records("negatives")]
    assert len(rows) == negatives.height
    for row, wanted in zip(rows[:50], negatives.head(50).iter_rows(named=True), strict=True):
        text = row["origin"].decode() if isinstance(row["origin"], bytes) else row["origin"]
        assert (row["query_id"], row["slot"], row["item_id"], text) == (
            wanted["query_id"], wanted["slot"], wanted["item_id"], wanted["origin"],
        )  # fmt: skip
        assert row["score"] == pytest.approx(wanted["score"], abs=1e-6)
    mined = json.loads((unpacked / "files/data/smoke/05_model_input/mined.json").read_text())
    texts = [row["mined/query_text"] for row in described.records("mined")]
    assert [text.decode() if isinstance(text, bytes) else text for text in texts] == [
        row["query_text"] for row in mined
    ]
    document = json.loads((unpacked / "croissant.json").read_text())
    for one in document["distribution"]:
        assert one["sha256"] == hashlib.sha256((unpacked / one["contentUrl"]).read_bytes()).hexdigest()


class _Answer:
    """What the network would say when it is asked for the context."""

    status_code, ok, headers, url = 200, True, {"Content-Type": "application/ld+json"}, "context"

    def json(self) -> dict[str, Any]:
        terms = {term: f"http://schema.org/{term}" for term in TERMS.split()}
        terms |= {"File": "http://schema.org/MediaObject", "conformsTo": "http://purl.org/dc/terms/conformsTo"}
        return {"@context": terms}

    @property
    def text(self) -> str:
        return json.dumps(self.json())

    @property
    def content(self) -> bytes:
        return self.text.encode()


def test_ro_crate_is_a_valid_process_run_crate(unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rocrate_validator import models, services
    from rocrate_validator.utils import http

    asked: list[str] = []
    monkeypatch.setattr(
        http.HttpRequester, "get", lambda self, url, **options: asked.append(url) or _Answer(), raising=False
    )

    def issues(folder: Path) -> list[Any]:
        settings = services.ValidationSettings(
            rocrate_uri=str(folder), profile_identifier="process-run-crate",
            requirement_severity=models.Severity.REQUIRED, cache_path=str(tmp_path / "cache"),
        )  # fmt: skip
        return list(services.validate(settings).get_issues())

    assert issues(unpacked) == []
    assert set(asked) <= {"https://w3id.org/ro/crate/1.1/context"}
    broken = tmp_path / "broken"
    shutil.copytree(unpacked, broken)
    file = broken / "ro-crate-metadata.json"
    document = json.loads(file.read_text())
    for entity in document["@graph"]:
        if entity["@type"] == "CreateAction":
            del entity["instrument"]
    file.write_text(json.dumps(document))
    assert issues(broken)  # the validator looks at what we claim


def test_metadata_say_who_made_what_from_what(unpacked: Path) -> None:
    graph = {one["@id"]: one for one in json.loads((unpacked / "ro-crate-metadata.json").read_text())["@graph"]}
    train, mine = (graph[one["@id"]] for one in graph["./"]["mentions"])
    assert (train["name"], mine["name"]) == ("run train", "run mine")
    made = {one["@id"] for one in mine["result"]}
    used = {one["@id"] for one in train["object"]}
    assert "files/data/smoke/05_model_input/negatives.parquet" in made & used
    for name, entity in graph.items():
        if entity["@type"] == "File":
            content = (unpacked / name).read_bytes()
            assert (entity["sha256"], entity["contentSize"]) == (hashlib.sha256(content).hexdigest(), str(len(content)))


def test_read_back_it_is_in_order(package: Path, made: Copy) -> None:
    findings = audit(package, made, 0)
    texts = "\n".join(one["text"] for one in findings if one["status"] == "pass")
    assert "recomputed from trained_predictions are those in the database" in texts
    assert "recomputed from judge_scores are those in the database" in texts
    assert "written by run mine" in texts


def repacked(package: Path, out: Path, change: Callable[[dict[str, bytes]], None], manifest: bool) -> Path:
    """Change files of a package; with ``manifest`` whoever does so hides it from manifest and metadata."""
    with zipfile.ZipFile(package) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    change(files)
    if manifest:
        document = json.loads(files["ro-crate-metadata.json"])
        for entity in document["@graph"]:
            if entity["@type"] == "File" and entity["@id"] in files:
                entity["sha256"] = hashlib.sha256(files[entity["@id"]]).hexdigest()
        files["ro-crate-metadata.json"] = json.dumps(document).encode()
        hashes = {n: hashlib.sha256(c).hexdigest() for n, c in sorted(files.items()) if n != "manifest-sha256.txt"}
        files["manifest-sha256.txt"] = "".join(f"{digest}  {name}\n" for name, digest in hashes.items()).encode()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out


NEGATIVES = "files/data/smoke/05_model_input/negatives.parquet"
METRICS = "files/data/smoke/08_reporting/trained_metrics.json"


def flip(name: str) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        content = bytearray(files[name])
        content[len(content) // 2] ^= 1
        files[name] = bytes(content)

    return change


def raise_score(files: dict[str, bytes]) -> None:
    """Better results, in the record's metrics and their copy, as if they had been measured."""
    for name in [name for name in files if name.endswith("record.json")]:
        record = json.loads(files[name])
        if record["name"] == "train":
            record["metrics"]["trained/precision_at_1/all"] = 0.99
            record["metrics_files"]["trained_metrics"]["precision_at_1/all"] = 0.99
            files[name] = json.dumps(record).encode()


@pytest.mark.parametrize(
    ("change", "manifest", "check"),
    [
        (flip(NEGATIVES), False, ("package", NEGATIVES)),
        (flip(NEGATIVES), True, ("files", "output negatives")),
        (flip(METRICS), True, ("files", "output trained_metrics")),
        (raise_score, True, ("metrics", "trained_metrics")),
        (lambda files: files.pop("README.md"), False, ("package", "README.md")),
        (lambda files: files.update({"more.txt": b"x"}), False, ("package", "more.txt")),
    ],
)
def test_tampering_with_a_package_is_found(
    package: Path, made: Copy, tmp_path: Path, change: Callable[[dict[str, bytes]], None], manifest: bool,
    check: tuple[str, str],
) -> None:  # fmt: skip
    found = failed(audit(repacked(package, tmp_path / "other.zip", change, manifest), made, 1))
    assert any(one[0] == check[0] and one[1].endswith(check[1]) for one in found), found


def test_what_is_no_package_is_refused(package: Path, made: Copy, tmp_path: Path) -> None:
    def message(file: Path) -> str:
        return made.run("unime", "audit", "--artifact", str(file), status=1)

    assert "does not exist" in message(tmp_path / "none.zip")
    (tmp_path / "text.zip").write_text("no zip")
    assert "cannot be unpacked" in message(tmp_path / "text.zip")
    (tmp_path / "half.zip").write_bytes(package.read_bytes()[: package.stat().st_size // 2])
    assert "cannot be unpacked" in message(tmp_path / "half.zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("a.txt", "a")
    assert "has no manifest-sha256.txt" in message(tmp_path / "other.zip")
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("../evil.txt", "a")
    assert "would be written elsewhere; refused" in message(tmp_path / "evil.zip")
    assert not (tmp_path.parent / "evil.txt").exists()


def test_changed_outputs_and_unfinished_runs_are_not_packed(project: Copy, tmp_path: Path) -> None:
    import sqlite3

    file = project.data("07_model_output/trained_predictions.parquet")
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    output = project.run("unime", "export-artifact", "train", str(tmp_path / "a.zip"), status=1)
    assert "<data root>/07_model_output/trained_predictions.parquet" in output
    assert "not as their runs wrote them" in output
    assert not (tmp_path / "a.zip").exists()
    file.write_bytes(content)
    with sqlite3.connect(project.root / "mlflow.db") as database:
        database.execute("UPDATE runs SET status = 'FAILED' WHERE name = 'train'")
    assert "is FAILED; --anyway" in project.run("unime", "export-artifact", "train", str(tmp_path / "a.zip"), status=1)
    project.run("unime", "export-artifact", "train", str(tmp_path / "a.zip"), "--anyway", "--without-data")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        names = archive.namelist()
    assert NEGATIVES not in names
    assert "files/data/smoke/07_model_output/trained_predictions.parquet" in names
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".a.zip")]
