"""What a check says, and where the files of a run are looked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from unime_kedro.audit.record import RunRecord, located
from unime_kedro.tracking.contents import Contents, contents_of
from unime_kedro.tracking.files import FileRecord

PASS, FAIL, NOTE, SKIP = "pass", "fail", "note", "skip"


class Finding(NamedTuple):
    """One line of an audit.

    Attributes:
        check: ``run``, ``files``, ``configuration``, ``metrics``, ``arms``, ``environment``, ``lineage``, ``rerun``.
        subject: What was looked at.
        status: ``pass``, ``fail``, ``note`` (worth knowing, no fault of the run) or ``skip`` (could not be looked at).
        text: What was found.
        remedy: What to do, "" if nothing.
    """

    check: str
    subject: str
    status: str
    text: str
    remedy: str = ""


@dataclass
class Place:
    """Where the files of runs lie.

    Attributes:
        root: The project root, or the folder that a package was unpacked to.
        data_root: What ``<data root>`` stands for.
        records: Other runs that are known, by id: children, siblings, runs that wrote inputs.
        whose: Finds runs that wrote a file: md5 -> texts for people, the latest first. Empty where there is no store.
        packaged: Whether this is a package, in which not every file is.
    """

    root: Path
    data_root: Path
    records: Mapping[str, RunRecord] = field(default_factory=dict)
    whose: Callable[[str], Sequence[str]] = lambda md5: ()
    packaged: bool = False
    _hashes: dict[Path, Contents | None] = field(default_factory=dict)

    def find(self, record: FileRecord) -> Path:
        """Return where a recorded file should lie."""
        return located(record.path, self.root, self.data_root)

    def contents(self, path: Path) -> Contents | None:
        """Return the hashes of a file or folder as it is, read once; None if it does not exist."""
        if path not in self._hashes:
            self._hashes[path] = contents_of(path)
        return self._hashes[path]

    def unchanged(self, record: RunRecord, dataset: str) -> Path | None:
        """Return the file of an output if it is there with the recorded bytes, from DVC's cache if need be."""
        entry = next((one for one in record.side("output") if one.dataset == dataset), None)
        if entry is None:
            return None
        path = self.find(entry)
        found = self.contents(path)
        if found is not None and found.sha256 is not None and found.sha256 == entry.sha256:
            return path
        cached = self.cached(entry)
        return cached if cached is not None and not entry.md5.endswith(".dir") else None  # type: ignore[union-attr]

    def cached(self, entry: FileRecord) -> Path | None:
        """Return the entry of DVC's cache with the recorded bytes, None if it is not there or was damaged."""
        if not entry.md5:
            return None
        path = self.root / ".dvc/cache/files/md5" / entry.md5[:2] / entry.md5[2:]
        if not path.is_file():
            return None
        found = self.contents(path)
        assert found is not None
        return path if f"{found.md5}{'.dir' if entry.md5.endswith('.dir') else ''}" == entry.md5 else None
