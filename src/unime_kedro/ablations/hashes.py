"""Content hashes of files, each read once as long as it does not change."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from unime_kedro.tracking.contents import content_hash


class Hashes:
    """Content hashes of files and folders, each read once as long as it does not change."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[Any, str]] = {}
        self._models: dict[tuple[str, str | None], tuple[Any, str]] = {}

    def of(self, path: Path) -> str:
        """Return a sha256; ``absent``, or ``not hashed`` for a very large folder."""
        path = path.resolve()
        if not path.exists():
            return "absent"
        stamp = _stamp(path)
        known = self._known.get(path)
        if known is None or known[0] != stamp:
            known = self._known[path] = stamp, content_hash(path) or "not hashed"
        return known[1]

    def model(self, model: str, revision: str | None) -> str:
        """Return the fingerprint of a model, its base included if it is a LoRA adapter; of any size."""
        from unime_kedro.mllm.adapters import fingerprint_of, local_or_hub

        source = local_or_hub(model)
        stamp = _stamp(source) if isinstance(source, Path) else None
        known = self._models.get((model, revision))
        if known is None or known[0] != stamp:
            known = self._models[model, revision] = stamp, fingerprint_of(model, revision)
        return known[1]


def _stamp(path: Path) -> Any:
    """Return what changes when a file, or any file of a folder, is written anew."""
    files = [path] if path.is_file() else [Path(parent, n) for parent, _, names in os.walk(path) for n in sorted(names)]
    return [(str(file), s.st_mtime_ns, s.st_size, s.st_ino) for file in files if (s := _stat(file))]


def _stat(file: Path) -> os.stat_result | None:
    try:
        return file.stat()
    except OSError:  # gone in between
        return None
