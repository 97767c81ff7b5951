"""What is installed here now, against what was when the run was made: worth knowing, no fault of the run."""

from __future__ import annotations

from collections.abc import Iterator

from unime_kedro.audit.findings import NOTE, PASS, Finding, Place
from unime_kedro.audit.record import RunRecord
from unime_kedro.tracking.provenance import PACKAGES, hardware_tags, version_tags
from unime_kedro.tracking.surroundings import environment_text

_MOST_NAMES = 6


def check_environment(record: RunRecord, place: Place) -> Iterator[Finding]:
    """Yield differing packages, Python and hardware."""
    if record.environment:
        yield _packages(record)
    here = {**version_tags(), **hardware_tags()}
    for subject, tags in (
        ("Python", ["version.python"]),
        ("hardware", ["hardware.cpu", "hardware.cores", "hardware.gpu"]),
    ):
        different = [tag for tag in tags if record.tags.get(tag) != here.get(tag)]
        if not different:
            yield Finding("environment", subject, PASS, "the same")
        for tag in different:
            yield Finding("environment", subject, NOTE, f"{tag}: {record.tags.get(tag)} then, {here.get(tag)} now")


def _packages(record: RunRecord) -> Finding:
    then = dict(line.split("==", 1) for line in record.environment if "==" in line)
    now = dict(line.split("==", 1) for line in environment_text().splitlines())
    different = sorted(name for name in {*then, *now} if then.get(name) != now.get(name))
    if not different:
        return Finding("environment", "packages", PASS, f"the same {len(now)} packages are installed")
    # those that shape results first
    first = sorted(different, key=lambda name: (name not in PACKAGES, name))[:_MOST_NAMES]
    shown = ", ".join(f"{name} {then.get(name, '(none)')} then, {now.get(name, '(none)')} now" for name in first)
    more = f", and {len(different) - len(first)} more" if len(different) > len(first) else ""
    remedy = "figures may differ in their last digits; pip install -r environment.txt of the run gives its packages"
    return Finding("environment", "packages", NOTE, f"{len(different)} differ: {shown}{more}", remedy)
