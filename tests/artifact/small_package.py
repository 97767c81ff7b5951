"""A package made of records by hand, with all that belongs to it, in milliseconds."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from unime_kedro.artifact.gathering import Gathered, folder_list, without_places
from unime_kedro.artifact.reading import audit_artifact
from unime_kedro.artifact.writing import Exported, write_package
from unime_kedro.audit.record import RunRecord
from unime_kedro.errors import DataError
from unime_kedro.tracking.contents import contents_of
from unime_kedro.tracking.files import FileRecord
from unime_kedro.tracking.metrics import flat_parameters, metric_values
from unime_kedro.tracking.provenance import config_hash, seed_tags

MINE, TRAIN = "a1" * 16, "b2" * 16
NEGATIVES = "05_model_input/negatives.parquet"
PARAMETERS: dict[str, Any] = {
    "demo": {"root": "<data root>/01_raw/mini_mmeb"},
    "ingest": {"root": "<data root>/01_raw/mini_mmeb/train"},
    "pool": {"model": "models/tiny-embedder"},
    "judge": {"model": "models/tiny-judge"},
}
_TABLES = {
    "items": ("02_intermediate/items.parquet", pl.DataFrame({
        "item_id": [0, 1, 2, 3], "text": ["red cat", "", "ein Café", "日本"], "image": ["", "a/b.png", "", ""],
        "content_key": ["k0", "k1", "k2", "k3"], "modality": ["text", "image", "text", "text"],
    })),
    "queries": ("02_intermediate/queries.parquet", pl.DataFrame({
        "query_id": [0, 1], "dataset": ["d", "d"], "meta_task": ["vqa", "retrieval"], "item_id": [0, 1],
        "positive_item_id": [2, 3],
    })),
    "negatives": (NEGATIVES, pl.DataFrame({
        "query_id": [0, 0, 1, 1], "slot": [0, 1, 0, 1], "item_id": [3, 3, 2, 0], "score": [0.25, 0.25, 1.0, 1e-7],
        "origin": ["sampled", "duplicate", "fallback", "sampled"],
    }, schema_overrides={"slot": pl.Int32, "score": pl.Float32})),
}  # fmt: skip
_ROWS = [
    {"query_text": "red cat", "query_image": "", "pos_text": "ein Café", "pos_image": "", "query_pos_scores": 0.5,
     "hard_negatives": [["日本", ""]], "hard_negatives_scores": [0.25]},
]  # fmt: skip


def make(root: Path, out: Path, parameters: dict[str, Any] = PARAMETERS, **others: Any) -> Exported:
    """Write the package of a training run and the mining run upstream of it."""
    return write_package(gathered(root, parameters, **others), root, out)


def gathered(root: Path, parameters: dict[str, Any] = PARAMETERS, **others: Any) -> Gathered:
    """Write a project's files; returns what :func:`gather` would say of them."""
    for name in ("NOTICE", "constraints.txt", "dvc.lock"):
        _write(root / name, f"{name}\n".encode())
    data = root / "data"
    outputs = [_output(data, name, path, table) for name, (path, table) in _TABLES.items()]
    outputs.append(_output(data, "mined", "05_model_input/mined.json", _ROWS))
    outputs.append(_output(data, "report", "08_reporting/report.html", "<p>page</p>"))
    mine = _record(MINE, "mine", parameters, outputs, start=1_700_000_000_000, **others)
    content = {"loss": 0.5, "precision_at_1": {"all": 0.75}}
    metrics = _output(data, "train_metrics", "08_reporting/train_metrics.json", content)
    _write(data / "06_models/trained/README.md", b"# a card\n")
    _write(data / "06_models/trained/model.safetensors", b"\0weights")
    _write(data / "06_models/trained/deep/tokenizer.json", b"{}")
    found = contents_of(data / "06_models/trained")
    assert found is not None
    model = FileRecord("output", "trained_folder", "<data root>/06_models/trained", *found)
    read = [one._replace(side="input") for one in outputs[:3]]
    train = _record(
        TRAIN, "train", parameters, [*read, metrics, model], start=1_700_000_100_000,
        metrics_files={"train_metrics": content}, metrics=metric_values("train_metrics", content),
    )  # fmt: skip
    records = [without_places(record, root, data) for record in (train, mine)]
    files = {f"files/data/{one.path.removeprefix('<data root>/')}": one for one in [*outputs, metrics]}
    here = {name: data / one.path.removeprefix("<data root>/") for name, one in files.items()}
    card = "cards/data/06_models/trained"
    here[f"{card}/README.md"] = data / "06_models/trained/README.md"
    lists = {f"{card}/sha256.txt": folder_list(data / "06_models/trained")}
    return Gathered(records, here, lists, {"files/data/06_models/trained": "a model"})


def _record(run_id: str, name: str, parameters: dict[str, Any], files: list[FileRecord], **others: Any) -> RunRecord:
    config, environment = {"parameters": parameters}, ["numpy==1.0", "polars==1.0"]
    tags = {
        f"{one.side}.{one.dataset}.{kind}": getattr(one, kind) for one in files for kind in ("sha256", "md5")
    } | {
        "config.hash": config_hash(config), "data.root": "data", "kedro.command": f"kedro run --pipeline={name}",
        "mlflow.source.git.commit": "c" * 40, "environment.hash": _sha256(b"numpy==1.0\npolars==1.0\n"),
        "environment.constraints": _sha256(b"constraints.txt\n"), "git.diff.sha256": _sha256(b"a patch\n"),
        "git.dirty": "true", "mlflow.user": "somebody", **seed_tags(parameters),
    }  # fmt: skip
    values = {"metrics": {}, "end": others["start"] + 50_000, "files": sorted(files), **others}
    return RunRecord(
        run_id=run_id, name=name, status="FINISHED", experiment="e", tags=tags, params=flat_parameters(parameters, 500),
        config=config, environment=environment, changes="a patch\n", **values,
    )  # fmt: skip


def _output(data: Path, dataset: str, path: str, content: Any) -> FileRecord:
    file = data / path
    file.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, pl.DataFrame):
        content.write_parquet(file)
    else:
        file.write_text(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False), "utf-8")
    found = contents_of(file)
    assert found is not None
    return FileRecord("output", dataset, f"<data root>/{path}", *found)


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def contents(package: Path) -> dict[str, bytes]:
    """Return path -> bytes of what is in a zip file."""
    with zipfile.ZipFile(package) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(files: dict[str, bytes], out: Path) -> Path:
    """Write a zip file."""
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out


def mended(files: dict[str, bytes]) -> dict[str, bytes]:
    """Return files whose manifest and RO-Crate say what they are now, as whoever changed them would make it look."""
    crate, manifest = "ro-crate-metadata.json", "manifest-sha256.txt"
    document = json.loads(files[crate])
    said = {one["@id"] for one in document["@graph"] if one["@type"] == "File"}
    there = set(files) - {crate, manifest}
    graph = [one for one in document["@graph"] if one["@id"] not in said - there]
    graph += [{"@id": name, "@type": "File"} for name in sorted(there - said)]
    for one in graph:
        if one["@type"] == "File":
            one |= {"sha256": _sha256(files[one["@id"]]), "contentSize": str(len(files[one["@id"]]))}
        if one["@id"] == "./":
            one["hasPart"] = [{"@id": name} for name in sorted(there)]
    files = {**files, crate: json.dumps({**document, "@graph": graph}).encode()}
    lines = (f"{_sha256(content)}  {name}\n" for name, content in sorted(files.items()) if name != manifest)
    return {**files, manifest: "".join(lines).encode()}


def changed_record(files: dict[str, bytes], run_id: str, change: Callable[[dict[str, Any]], Any]) -> dict[str, bytes]:
    """Return files with another record of a run, everything else mended."""
    name = f"runs/{run_id}/record.json"
    record = json.loads(files[name])
    change(record)
    return mended({**files, name: json.dumps(record).encode()})


def verdict(files: dict[str, bytes], out: Path) -> dict[str, str]:
    """Return subject -> text of what an audit of these files holds against them; its error under ``refused``."""
    try:
        _, findings = audit_artifact(zipped(files, out))
    except DataError as error:
        return {"refused": str(error)}
    return {one.subject: one.text for one in findings if one.status == "fail"}
