"""What a check says, and where the files of a run are looked for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

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

    def data_root_of(self, record: RunRecord) -> Path:
        """Return the data root of another run of the same project or package."""
        root = record.tags.get("data.root", "data")
        return self.root / ("data" if self.packaged and Path(root).is_absolute() else root)

    def find(self, record: FileRecord) -> Path:
        """Return where a recorded file should lie."""
        return located(record.path, self.root, self.data_root)

    def contents(self, path: Path) -> Contents | None:
        """Return the hashes of a file or folder as it is, read once; None if it does not exist."""
        if path not in self._hashes:
            self._hashes[path] = contents_of(path)
        return self._hashes[path]

    def is_unchanged(self, entry: FileRecord) -> bool:
        """Whether a file is there with the recorded bytes."""
        found = self.contents(self.find(entry))
        return found is not None and found.sha256 is not None and found.sha256 == entry.sha256

    def unchanged(self, record: RunRecord, dataset: str, side: str = "output") -> Path | None:
        """Return the file of a dataset if it is there with the recorded bytes, from DVC's cache if need be."""
        entry = next((one for one in record.side(side) if one.dataset == dataset), None)
        if entry is None or entry.sha256 is None:
            return None
        if self.is_unchanged(entry):
            return self.find(entry)
        return None if (entry.md5 or "").endswith(".dir") else self.cached(entry)

    def cached(self, entry: FileRecord) -> Path | None:
        """Return the entry of DVC's cache with the recorded bytes, None if it is not there or was damaged.

        Of a folder it is DVC's list of its files; they are looked at, too.
        """
        if not entry.md5:
            return None
        path = self._cache_entry(entry.md5)
        if not self._has(path, entry.md5.removesuffix(".dir")):
            return None
        if path.suffix == ".dir":
            members = [one["md5"] for one in json.loads(path.read_text(encoding="utf-8"))]
            if not all(self._has(self._cache_entry(md5), md5) for md5 in members):
                return None
        return path

    def _cache_entry(self, md5: str) -> Path:
        return self.root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]

    def _has(self, path: Path, md5: str) -> bool:
        found = self.contents(path) if path.is_file() else None
        return found is not None and found.md5 == md5

    def fetch(self, entry: FileRecord, target: Path) -> bool:
        """Copy what was recorded to a new place, from DVC's cache if need be; False if nobody has it any more."""
        if entry.sha256 is None:
            return False
        target.parent.mkdir(parents=True, exist_ok=True)
        path = self.find(entry)
        if self.is_unchanged(entry):
            copy: Callable[..., Any] = shutil.copytree if path.is_dir() else shutil.copyfile
            copy(path, target, **({"dirs_exist_ok": True} if path.is_dir() else {}))
            return True
        cached = self.cached(entry)
        if cached is None:
            return False
        if cached.suffix != ".dir":
            shutil.copyfile(cached, target)
            return True
        for one in json.loads(cached.read_text(encoding="utf-8")):
            file = target / one["relpath"]
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self._cache_entry(one["md5"]), file)
        return True
