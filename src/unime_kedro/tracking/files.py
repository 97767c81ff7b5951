"""The files behind datasets: which were written, and what is in them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from unime_kedro.paths import resolve
from unime_kedro.tracking.contents import contents_of
from unime_kedro.tracking.metrics import plain

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping

    from kedro.io import CatalogProtocol
    from kedro.pipeline import Pipeline

    from unime_kedro.io.datasets import Folder

#: how paths below the data root begin in records
DATA_ROOT = "<data root>"
#: the dataset that says what the corpus is: a dict whose ``digest`` is the hash of its raw files
CORPUS = "corpus"
#: further inputs that the corpus' digest covers
_PARTS_OF_CORPUS = {"corpus_truth"}
_CORPUS_TAG = f"input.{CORPUS}.sha256"


class FileRecord(NamedTuple):
    """What a run read or wrote.

    Attributes:
        side: ``input`` or ``output``.
        dataset: Its name in the catalog; ``params:judge.model`` for a model that a parameter names.
        path: ``<data root>/...`` below the data root, relative to the project below that, else absolute.
        sha256, md5, bytes: As in :class:`.Contents`.
    """

    side: str
    dataset: str
    path: str
    sha256: str | None
    md5: str | None
    bytes: int


class Places(NamedTuple):
    """The two folders that paths of records are relative to."""

    root: Path
    data_root: Path

    def portable(self, file: Path) -> str:
        """Return a path that means the same in another copy of the project."""
        if file.is_relative_to(self.data_root):
            return f"{DATA_ROOT}/{file.relative_to(self.data_root).as_posix()}"
        if file.is_relative_to(self.root):
            return file.relative_to(self.root).as_posix()
        return str(file)

    def portable_root(self) -> str:
        """Return the data root, relative to the project where it lies below it."""
        inside = self.data_root.is_relative_to(self.root)
        return self.data_root.relative_to(self.root).as_posix() if inside else str(self.data_root)


def recorded(side: str, files: Mapping[str, Path], places: Places) -> list[FileRecord]:
    """Hash files and folders, each byte read once; what does not exist is left out.

    Args:
        side: ``input`` or ``output``.
        files: dataset -> file.
        places: What paths are relative to.
    """
    found = ((name, file, contents_of(file)) for name, file in sorted(files.items()))
    return [FileRecord(side, name, places.portable(file), *what) for name, file, what in found if what is not None]


def hash_tags(records: Iterable[FileRecord]) -> dict[str, str]:
    """Return tags ``<side>.<dataset>.sha256`` and ``.md5``, by which runs are found."""
    pairs = (
        (f"{one.side}.{one.dataset.removeprefix('params:')}.{kind}", getattr(one, kind))
        for one in records
        for kind in ("sha256", "md5")
    )
    return {tag: value for tag, value in pairs if value}


def files_of(names: Iterable[str], catalog: CatalogProtocol) -> dict[str, Path]:
    """Return the files of those datasets that have one."""
    found = {name: file_of(catalog, name) for name in names}
    return {name: file for name, file in found.items() if file is not None}


def input_records(pipeline: Pipeline, catalog: CatalogProtocol, places: Places) -> list[FileRecord]:
    """Record what a pipeline reads and does not make itself, models that its parameters name included.

    A run that prepares the corpus replaces what lies there now, so nothing of it is an input of that run.
    """
    names = pipeline.inputs() - (_PARTS_OF_CORPUS if CORPUS in pipeline.all_outputs() else set())
    names -= {name for name in names if _folder(name, catalog) is not None}
    models = dict(_models(sorted(name for name in names if name.startswith("params:") and name in catalog), catalog))
    return recorded("input", files_of(names, catalog) | models, places)


def output_records(
    saved: Iterable[str], pipeline: Pipeline, catalog: CatalogProtocol, places: Places
) -> list[FileRecord]:
    """Record what a run wrote: the datasets that were saved, and the folders that its nodes filled.

    Folders of work in progress (``metadata: {dvc: work}``) are no results.
    """
    filled = [name for name in pipeline.inputs() if (folder := _folder(name, catalog)) and not _is_work(folder)]
    return recorded("output", files_of([*saved, *filled], catalog), places)


def _folder(name: str, catalog: CatalogProtocol) -> Folder | None:
    """Return a dataset that is a folder which the node that reads it fills."""
    from unime_kedro.io.datasets import Folder

    if name.startswith("params:") or name == "parameters" or name not in catalog:
        return None
    dataset = catalog.get(name)
    return dataset if isinstance(dataset, Folder) else None


def _is_work(folder: Folder) -> bool:
    return (folder.metadata or {}).get("dvc") == "work"


def _models(parameters: Iterable[str], catalog: CatalogProtocol) -> Iterator[tuple[str, Path]]:
    """Yield the folders that parameters called ``model`` name, at any depth."""
    for name in parameters:
        for key, value in _texts(name, plain(catalog.load(name))):
            if key.rpartition(".")[2] == "model" and (folder := resolve(value)).is_dir():
                yield key, folder


def _texts(key: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str) and value:
        yield key, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _texts(f"{key}.{name}", inner)


def input_tags(records: Iterable[FileRecord], catalog: CatalogProtocol) -> dict[str, str]:
    """Return the tags of what was read.

    For the corpus the sha256 is that of the raw files, as in runs that prepare the corpus themselves.
    """
    tags = hash_tags(records)
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
