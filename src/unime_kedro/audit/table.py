"""An audit as people and programs read it."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from unime_kedro.audit.findings import FAIL, NOTE, PASS, SKIP, Finding
from unime_kedro.audit.record import RunRecord

#: status -> how it is shown, in the order within a check: what needs a reader's eye is last
_STATUS = {PASS: "pass", SKIP: "skip", NOTE: "note", FAIL: "FAIL"}
_NARROW, _WIDE = 72, 140
_INDENT, _GAP = 2, 2


def as_text(record: RunRecord, findings: Sequence[Finding], width: int | None = None) -> str:
    """Return a table of all findings by check, what to do about those that failed, and a sentence."""
    width = min(max(width or shutil.get_terminal_size((100, 24)).columns, _NARROW), _WIDE)
    shown = _folded(findings)
    column = min(max((len(one.subject) for one in shown), default=0), width // 3)
    command = record.tags.get("kedro.command", "no command is known")
    lines = [f"audit of {record.name} ({record.run_id})", *_wrapped("  ", command, width)]
    for check, group in groupby(shown, key=lambda one: one.check):
        lines += ["", check]
        for one in sorted(group, key=lambda one: list(_STATUS).index(one.status)):
            lines += _row(one, column, width)
    advised = [one for status in (NOTE, FAIL) for one in shown if one.status == status and one.remedy]
    if advised:
        lines += ["", "what to do"]
        for one in advised:
            lines += _wrapped(f"  {_STATUS[one.status]}  ", f"{one.check}, {one.subject}: {one.remedy}", width)
    return "\n".join([*lines, "", summary(findings)])


def _row(one: Finding, column: int, width: int) -> list[str]:
    """Return status, subject and text; the text of a long subject begins below it."""
    head = f"{' ' * _INDENT}{_STATUS[one.status]}{' ' * _GAP}"
    start = len(head) + column + _GAP
    if len(one.subject) > column:
        return [head + one.subject, *_wrapped(" " * start, one.text, width)]
    return _wrapped(f"{head}{one.subject:{column}}{' ' * _GAP}", one.text, width)


def _wrapped(head: str, text: str, width: int) -> list[str]:
    """Return lines, the first one after a head, the others below its end; words that are too long stay whole."""
    options: dict[str, Any] = {"break_on_hyphens": False, "break_long_words": False}
    return textwrap.wrap(text, width, initial_indent=head, subsequent_indent=" " * len(head), **options) or [head]


def _folded(findings: Sequence[Finding]) -> list[Finding]:
    """Return findings check by check, files that are as they were in one line per side: there are dozens of them."""
    found: dict[str, list[Finding]] = {}
    same: dict[str, list[str]] = {}
    for one in findings:
        side, _, name = one.subject.partition(" ")
        if one.check == "files" and one.status == PASS and side in ("input", "output"):
            if side not in same:
                found.setdefault(one.check, []).append(one._replace(subject=side, text=""))
            same.setdefault(side, []).append(name)
        else:
            found.setdefault(one.check, []).append(one)
    return [_filled(one, same) for group in found.values() for one in group]


def _filled(one: Finding, same: Mapping[str, Sequence[str]]) -> Finding:
    if one.text or one.subject not in same:
        return one
    names = same[one.subject]
    text = f"have the recorded bytes: {', '.join(names)}"
    return one._replace(subject=counted(len(names), one.subject), text=text)


def counted(number: int, word: str) -> str:
    """Return ``1 note``, ``2 notes``."""
    return f"{number} {word}{'' if number == 1 else 's'}"


def summary(findings: Sequence[Finding]) -> str:
    """Return the result in a sentence."""
    counts = {status: sum(one.status == status for one in findings) for status in _STATUS}
    text = (
        f"{counts[PASS]} passed, {counts[FAIL]} failed, {counted(counts[NOTE], 'note')}, {counts[SKIP]} not looked at"
    )
    return f"{'NOT in order' if counts[FAIL] else 'In order'}: {text}."


def as_json(record: RunRecord, findings: Sequence[Finding]) -> str:
    """Return the same as one JSON document."""
    document = {
        "run_id": record.run_id,
        "name": record.name,
        "passed": not any(one.status == FAIL for one in findings),
        "findings": [one._asdict() for one in findings],
    }
    return json.dumps(document, indent=1, ensure_ascii=False)
