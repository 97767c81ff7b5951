"""Folders of work in progress, when DVC runs a stage.

A judge's store or a training's checkpoints let a killed stage go on. They are named by models, data and parameters,
not by code, so that a corrected comment does not cost days of judging. DVC, though, runs a stage again *because* code
has changed, and must not be handed what the old code made. So in a stage of DVC every version of the code behind a
node has a folder of its own within the folder of work, ``code-<hash>``. What was made without DVC stays as it is.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from kedro.framework.hooks import hook_impl

if TYPE_CHECKING:
    from kedro.io import CatalogProtocol
    from kedro.pipeline import Pipeline

#: set by DVC to the name of the stage that it runs
STAGE_VARIABLE = "DVC_STAGE"
_PREFIX = "code-"


class WorkHook:
    """Moves folders of work, in a stage of DVC."""

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        """Give every folder of work the part that belongs to the code as it is now."""
        if not os.environ.get(STAGE_VARIABLE):
            return
        from unime_kedro.io.datasets import Folder

        for name in sorted(pipeline.inputs()):
            folder = catalog.get(name) if not name.startswith("param") else None
            if isinstance(folder, Folder) and (folder.metadata or {}).get("dvc") == "work":
                folder.part = _PREFIX + code_digest(n.func.__module__ for n in pipeline.nodes if name in n.inputs)
                remove_others(folder.load())


def code_digest(modules: Iterable[str]) -> str:
    """Return a hash of all files of the package that running modules depends on, 16 hex digits."""
    import unime_kedro
    from unime_kedro.reproduce.modules import files_behind

    root = Path(unime_kedro.__file__).parent
    digest = hashlib.sha256()
    for file in files_behind(sorted(set(modules)), root):
        digest.update(file.relative_to(root).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def remove_others(part: Path) -> None:
    """Remove the work of other versions of the code: nothing goes on from it."""
    for other in part.parent.glob(f"{_PREFIX}*"):
        if other != part:
            shutil.rmtree(other, ignore_errors=True)
