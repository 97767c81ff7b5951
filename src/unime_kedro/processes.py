"""Telling one process from another: ids are used again, start times are not."""

from __future__ import annotations

from pathlib import Path

_DEAD = frozenset("ZXx")  # zombie, dead


def process_start(pid: int) -> str | None:
    """Return when a living process started, in clock ticks since boot; None if there is no such living process.

    Read from ``/proc/<pid>/stat`` (Linux), field 22. Fields are counted from the last closing bracket, for field 2,
    the name of the program, may itself hold blanks and brackets. A zombie counts as dead.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in _DEAD else fields[19]
