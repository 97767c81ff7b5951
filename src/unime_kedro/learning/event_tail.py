"""Following the events that a training writes while it runs."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any, BinaryIO

log = logging.getLogger(__name__)

_MARK = 64


class EventTail:
    """Reads a growing file of events, each once.

    A training that goes on from a checkpoint first drops the events after it, by cutting the file or by replacing it,
    and does those steps again. Then the file is read from its beginning once more, and lines that were not in it before
    are returned; so **what an event says of a step replaces what earlier ones said**. What a file holds when the tail
    is made is from an earlier start. It is returned when the file is first touched: whatever is then in it counts.

    Args:
        path: The file; it may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        self._position = 0
        self._mark = b""  # the bytes before the position: still there, unless the file was cut and has grown again
        self._lines: set[bytes] = set()
        self._before: set[bytes] = set()  # those of the file that this one took the place of
        self._untouched: tuple[int, ...] | None = self._state()

    def read(self, *, all_of_it: bool = False) -> list[dict[str, Any]]:
        """Return the events since the last call. A last line that has no end yet is left for the next call.

        Args:
            all_of_it: The writer has ended, so that events of an earlier start count even if it added none.
        """
        state = self._state()
        if state is None or (state == self._untouched and not all_of_it):
            return []
        self._untouched = None
        if self._file is None or self._replaced():
            self._open()
        if self._file is None:
            return []
        self._file.seek(self._position)
        whole, end, _half = self._file.read().rpartition(b"\n")
        read = whole + end
        self._position += len(read)
        self._mark = (self._mark + read)[-_MARK:]
        return [event for line in whole.split(b"\n") if (event := self._news(line)) is not None]

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _state(self) -> tuple[int, ...] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _open(self) -> None:
        self.close()
        self._position, self._mark = 0, b""
        self._before, self._lines = self._lines, set()
        try:
            # kept open, so that another file cannot get the number of this one and be taken for it
            self._file = self.path.open("rb")
        except OSError:  # gone since it was looked at; it will be there the next time
            self._file = None

    def _replaced(self) -> bool:
        assert self._file is not None
        try:
            now, mine = self.path.stat(), os.fstat(self._file.fileno())
        except OSError:
            return True
        if (now.st_ino, now.st_dev) != (mine.st_ino, mine.st_dev) or now.st_size < self._position:
            return True
        return os.pread(self._file.fileno(), len(self._mark), self._position - len(self._mark)) != self._mark

    def _news(self, line: bytes) -> dict[str, Any] | None:
        """Return the event of a line, None if it is already known or none at all."""
        if not line.strip():
            return None
        self._lines.add(line)
        if line in self._before:
            return None
        try:
            event = json.loads(line)
            event["step"]
        except (ValueError, KeyError, TypeError):
            log.warning("%s: a line is no event with a step and is left out: %.80r", self.path, line)
            return None
        return dict(event)
