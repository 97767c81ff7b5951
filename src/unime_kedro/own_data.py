"""Own data, as against the embedded corpus: whether it is what is mined, and whether it is there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unime_kedro.paths import project_root, resolve

if TYPE_CHECKING:
    from unime_kedro.config import Sources

#: entries of a folder that a message names at most
_MOST_NAMES = 5


#: folders below ``models``
EMBEDDED_MODELS = ("tiny-embedder", "tiny-judge", "tiny-small-judge")


def is_embedded_model(model: str) -> bool:
    """Whether a model is one of those that come with the project: tiny, trained on synthetic drawings."""
    return resolve(model) in {project_root() / "models" / name for name in EMBEDDED_MODELS}


def is_own_data(parameters: Mapping[str, Any]) -> bool:
    """Whether ``ingest.root`` lies outside ``demo.root``, where the embedded corpus is drawn.

    Args:
        parameters: All sections, as plain values. Without one of the two nothing can be said: False.
    """
    try:
        embedded, mined = resolve(parameters["demo"]["root"]), resolve(parameters["ingest"]["root"])
    except (KeyError, TypeError):
        return False
    return embedded not in (mined, *mined.parents)


def folder_faults(ingest: Mapping[str, Any], sources: Sources) -> list[str]:
    """Return one line for everything that is missing where the raw pairs should be; empty when all is there.

    Only names are looked at: how many rows are bad is found by reading them.

    Args:
        ingest: The section of the parameters, checked and resolved.
        sources: Where values come from.
    """
    root, split = resolve(ingest["root"]), ingest["split"]
    layout = f"<data set>/{split}-*.parquet"
    if problem := _no_folder(root):
        return [_fault("root", ingest, f"{problem}; expected the folder that holds {layout}", sources)]
    faults = []
    if ingest["datasets"] is None:
        missing = [] if any(_has_split(folder, split) for folder in root.iterdir()) else [layout]
    else:
        missing = [f"{name}/{split}-*.parquet" for name in ingest["datasets"] if not _has_split(root / name, split)]
    if missing:
        what = f"expected {', '.join(missing)} below it, by ingest.split and ingest.datasets; {_holds(root)}"
        faults.append(_fault("root", ingest, what, sources))
    if problem := _no_folder(resolve(ingest["image_root"])):
        what = f"{problem}; expected the folder that the pairs' picture paths start from, null: that of ingest.root"
        faults.append(_fault("image_root", ingest, what, sources))
    return faults


def _fault(key: str, ingest: Mapping[str, Any], what: str, sources: Sources) -> str:
    return f"ingest.{key} = {resolve(ingest[key])}: {what}{sources.where(('ingest', key))}"


def _no_folder(path: Path) -> str:
    """Say why a path is no folder, "" if it is one."""
    if path.is_dir():
        return ""
    return "it is a file" if path.exists() else "there is no such folder"


def _has_split(folder: Path, split: str) -> bool:
    """Whether a folder is a data set with files of the split; by name, brackets in a path are no pattern."""
    return folder.is_dir() and any(
        file.name.startswith(f"{split}-") and file.suffix == ".parquet" for file in folder.iterdir()
    )


def _holds(folder: Path) -> str:
    """Say what is in a folder instead."""
    names = sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir())
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"it holds {', '.join(names[:_MOST_NAMES]) or 'nothing'}{more}"
