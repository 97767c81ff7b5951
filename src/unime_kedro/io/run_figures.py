"""Figures of a run, kept apart from figures of its result.

How long something took, at what rate, with how much memory, and what was there already, differ from run to run of the
same work. In one file with results they would make equal results unequal files, and DVC would take every repetition
for a change. So they lie in a file of their own, ``run_figures/<name>.json`` beside the results', which says of which
bytes it speaks: beside results of another run it counts as absent.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from unime_kedro.atomic import atomic_write
from unime_kedro.io.json_text import write_json

#: folder of these files, beside the results
FOLDER = "run_figures"
#: last part of the names of such figures; after a "/" stands what a figure is of
_OF_A_RUN = re.compile(
    r"((.+_)?(seconds|per_second|memory_gb)"  # time, rates, memory
    r"|index_reason"  # what a machine of its speed is to do
    r"|(small_)?(written|reused|judged_now|from_store|retries|truncated"  # what was left to do, and what that needed
    r"|(prompt|run|padded)_tokens|prefix_(reuse_share|hit_rate)|encodes_saved|pictures_(encoded|spilled|prepared)"
    r"|checked_(pairs|items|difference)|workers))(/.*)?"
)


def is_of_a_run(name: str) -> bool:
    """Whether a figure with this name describes a run and not its result."""
    return _OF_A_RUN.fullmatch(name) is not None


def split(data: Any) -> tuple[Any, Any]:
    """Divide nested figures into those of the result and those of the run.

    Args:
        data: Mappings by name, and lists of them, such as figures by step.

    Returns:
        The same without figures of the run; and these alone: mappings, the elements of a list by their index as text.
    """
    if isinstance(data, Mapping):
        of_run = {key: value for key, value in data.items() if isinstance(key, str) and is_of_a_run(key)}
        parts = {key: split(value) for key, value in data.items() if key not in of_run}
        of_run |= {key: run for key, (_, run) in parts.items() if run}
        return {key: result for key, (result, _) in parts.items()}, of_run
    if isinstance(data, (list, tuple)):
        pairs = [split(value) for value in data]
        return [result for result, _ in pairs], {str(i): run for i, (_, run) in enumerate(pairs) if run}
    return data, {}


def merge(result: Any, of_run: Any) -> Any:
    """Put together what :func:`split` divided."""
    if isinstance(result, list) and isinstance(of_run, Mapping):
        return [merge(value, of_run.get(str(i), {})) for i, value in enumerate(result)]
    if isinstance(result, Mapping) and isinstance(of_run, Mapping):
        inner = {key: merge(value, of_run[key]) if key in of_run else value for key, value in result.items()}
        return inner | {key: value for key, value in of_run.items() if key not in result}
    return result


def write_run_figures(file: Path, of_run: Any) -> None:
    """Write the figures of the run that has just written ``file``; none is a file less."""
    place = _place(file)
    if not of_run:
        place.unlink(missing_ok=True)
        return
    document = {"of": _digest(file), "figures": of_run}
    with atomic_write(place) as temporary, temporary.open("w", encoding="utf-8") as text:
        write_json(document, text)


def read_run_figures(file: Path) -> Any:
    """Return the figures of the run that wrote ``file`` as it is; nothing where they are not known."""
    with suppress(OSError, ValueError):
        document = json.loads(_place(file).read_text(encoding="utf-8"))
        if isinstance(document, dict) and document.get("of") == _digest(file):
            return document.get("figures") or {}
    return {}


def _place(file: Path) -> Path:
    return file.parent / FOLDER / file.name


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
