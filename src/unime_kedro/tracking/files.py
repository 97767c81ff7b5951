"""The files behind datasets: which were written, and what is in them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from kedro.io import CatalogProtocol
    from kedro.pipeline import Pipeline

#: the dataset that says what the corpus is: a dict whose ``digest`` is the hash of its raw files
CORPUS = "corpus"
#: further inputs that the corpus' digest covers
_PARTS_OF_CORPUS = {"corpus_truth"}
_CORPUS_TAG = f"input.{CORPUS}.sha256"


def hashes(side: str, names: Iterable[str], catalog: CatalogProtocol) -> dict[str, str]:
    """Return ``<side>.<dataset>.sha256`` of the datasets that are files."""
    from unime_kedro.tracking.provenance import content_hash

    files = {name: file_of(catalog, name) for name in names}
    found = {name: content_hash(file) for name, file in files.items() if file is not None}
    return {f"{side}.{name}.sha256": digest for name, digest in found.items() if digest}


def input_hashes(pipeline: Pipeline, catalog: CatalogProtocol) -> dict[str, str]:
    """Return tags of what a pipeline reads and does not make itself.

    For the corpus it is the hash of the raw files, as in runs that prepare the corpus themselves. Those replace what
    lies there now, so nothing of it is an input of theirs.
    """
    names = pipeline.inputs() - (_PARTS_OF_CORPUS if CORPUS in pipeline.all_outputs() else set())
    tags = hashes("input", sorted(names), catalog)
    return tags | corpus_tag(CORPUS, catalog.load(CORPUS)) if _CORPUS_TAG in tags else tags


def corpus_tag(dataset_name: str, data: Any) -> dict[str, str]:
    """Return the hash of the corpus' raw files as a tag; nothing for other datasets."""
    digest = data.get("digest") if dataset_name == CORPUS and isinstance(data, dict) else None
    return {_CORPUS_TAG: digest} if isinstance(digest, str) else {}


def written_elsewhere(pipeline: Pipeline, catalog: CatalogProtocol, since: float, known: Container[str]) -> list[str]:
    """Return the outputs that other processes wrote, under Kedro's ParallelRunner.

    Args:
        pipeline: What was run.
        catalog: Its catalog.
        since: When the run began, in seconds since the epoch; older files are of other runs.
        known: Names of the datasets whose saving was seen in this process.
    """
    files = {name: file_of(catalog, name) for name in sorted(pipeline.all_outputs()) if name not in known}
    return [name for name, file in files.items() if file and file.exists() and file.stat().st_mtime >= since]


def file_of(catalog: CatalogProtocol, name: str) -> Path | None:
    """Return the file or folder of a dataset, None for parameters and datasets in memory."""
    if name.startswith("params:") or name == "parameters" or name not in catalog:
        return None
    path = getattr(catalog.get(name), "_filepath", None)
    return Path(path) if path is not None else None
