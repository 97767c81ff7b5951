"""An audit as people and programs read it."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Sequence

from unime_kedro.audit.findings import FAIL, NOTE, PASS, SKIP, Finding
from unime_kedro.audit.record import RunRecord

_STATUS = {PASS: "pass", FAIL: "FAIL", NOTE: "note", SKIP: "skip"}
_NARROW, _WIDE = 72, 140


def as_text(record: RunRecord, findings: Sequence[Finding], width: int | None = None) -> str:
    """Return a table of all findings, what failed once more at the end with what to do, and a sentence."""
    width = min(max(width or shutil.get_terminal_size((100, 24)).columns, _NARROW), _WIDE)
    lines = [f"audit of {record.name} ({record.run_id}), {record.tags.get('kedro.command', 'unknown command')}", ""]
    subjects = max((len(one.subject) for one in findings), default=0)
    subjects = min(subjects, width // 3)
    check = ""
    for one in _folded(findings):
        if one.check != check:
            check = one.check
            lines.append(check)
        head = f"  {_STATUS[one.status]}  {one.subject:{subjects}}  "
        lines += textwrap.wrap(one.text, width, initial_indent=head, subsequent_indent=" " * (subjects + 10)) or [head]
    failed = [one for one in findings if one.status == FAIL]
    advised = [*failed, *(one for one in findings if one.status == NOTE and one.remedy)]
    if advised:
        lines += ["", "what to do"]
        for one in advised:
            text = f"{one.check}, {one.subject}: {one.remedy}"
            lines += textwrap.wrap(text, width, initial_indent="  - ", subsequent_indent="    ")
    return "\n".join([*lines, "", summary(findings)])


def _folded(findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings with the files that are as they were in one line per side: there are dozens of them."""
    found: list[Finding] = []
    for side in ("input", "output"):
        same = [f for f in findings if f.check == "files" and f.status == PASS and f.subject.startswith(f"{side} ")]
        if same:
            names = ", ".join(one.subject.removeprefix(f"{side} ") for one in same)
            found.append(Finding("files", f"{len(same)} {side}s", PASS, f"have the recorded bytes: {names}"))
    folded = iter(found)
    rest = [one for one in findings if not (one.check == "files" and one.status == PASS)]
    place = next((n for n, one in enumerate(rest) if one.check not in ("run",)), len(rest))
    return [*rest[:place], *folded, *rest[place:]]


def summary(findings: Sequence[Finding]) -> str:
    """Return the result in a sentence."""
    counts = {status: sum(one.status == status for one in findings) for status in _STATUS}
    text = f"{counts[PASS]} passed, {counts[FAIL]} failed, {counts[NOTE]} notes, {counts[SKIP]} not looked at"
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
