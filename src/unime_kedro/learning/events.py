"""What a training says while it runs: one JSON object a line, appended to a file that others follow.

Every event has a ``step``. A training that goes on from a checkpoint first drops the events of later steps: they belong
to steps that will be done again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unime_kedro.atomic import atomic_write

EVENTS = "events.jsonl"


class EventLog:
    """Appends events to a file.

    Args:
        file: The file; it is made when it is not there.
        keep_to: Events after this step, left by a training that was killed, are dropped.
    """

    def __init__(self, file: Path, keep_to: int) -> None:
        self._file = file
        kept = [event for event in read_events(file) if event["step"] <= keep_to]
        with atomic_write(file) as temporary:
            temporary.write_text("".join(_line(event) for event in kept), encoding="utf-8")

    def write(self, step: int, values: Mapping[str, float | str]) -> None:
        """Append one event; it is in the file when this returns, also if the process is killed next."""
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(_line({"step": step, **values}))
            stream.flush()
            os.fsync(stream.fileno())


def read_events(file: Path) -> list[dict[str, Any]]:
    """Return the events of a file, in order; a last line that was cut off, and a missing file, have none."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and isinstance(event.get("step"), int):
            found.append(event)
    return found


def history_of(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per step, sorted, with all that was said of it; what was said last counts."""
    rows: dict[int, dict[str, Any]] = {}
    for event in events:
        rows.setdefault(event["step"], {}).update(event)
    return [rows[step] for step in sorted(rows)]


def _line(event: Mapping[str, Any]) -> str:
    return json.dumps(event) + "\n"
