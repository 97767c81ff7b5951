"""Artifacts of a run: what an audit needs (files, packages, changes of the code), and the pages that people read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from unime_kedro.tracking.files import FileRecord, file_of
from unime_kedro.tracking.surroundings import changes_of, environment_tags, environment_text

if TYPE_CHECKING:
    from kedro.io import CatalogProtocol

    from unime_kedro.tracking.run import TrackedRun

FILES, ENVIRONMENT, CHANGES = "files.json", "environment.txt", "git.diff"
#: datasets that are pages for people, and the one that is a folder of PNG figures: copies of them become artifacts
PAGES, FIGURES = ("gallery", "judge_card", "report"), "report_figures"


def record_files(run: TrackedRun, records: Iterable[FileRecord]) -> None:
    """Write ``files.json``: side, dataset, path, sha256, md5 and bytes of all that was read and written."""
    ordered = sorted(records, key=lambda one: (one.side, one.dataset))
    run.text(json.dumps([one._asdict() for one in ordered], indent=1, ensure_ascii=False) + "\n", FILES)


def record_surroundings(run: TrackedRun, root: Path) -> None:
    """Write ``environment.txt``, and ``git.diff`` where files differ from the commit; their hashes as tags."""
    packages = environment_text()
    run.tags(environment_tags(packages, root))
    run.text(packages, ENVIRONMENT)
    patch, left_out = changes_of(root)
    if left_out:
        run.tags({"git.left_out": ", ".join(left_out)})
    if patch:
        data = patch.encode("utf-8", errors="surrogateescape")
        run.tags({"git.diff.sha256": hashlib.sha256(data).hexdigest()})
        run.data(data, CHANGES)


def store_pages(run: TrackedRun, saved: Container[str], catalog: CatalogProtocol) -> None:
    """Keep copies of the pages and figures that were written."""
    for name in filter(saved.__contains__, PAGES):
        page = file_of(catalog, name)
        if page is not None and page.is_file():
            run.file(page)
    figures = file_of(catalog, FIGURES) if FIGURES in saved else None
    for file in sorted(figures.glob("*.png")) if figures else ():
        run.file(file, "figures")
