"""What a run of the mining pipelines says at its end: what was mined, and where to look."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

Metrics = Mapping[str, Mapping[str, Any]]

#: stages without whose metrics there is nothing to say
STAGES = ("ingest", "pool", "judge", "select")
_LABEL_WIDTH = 11
_WIDTH = 100
_NO_BREAK = "\N{NO-BREAK SPACE}"
_TRUTH_NOTE = "against mini-MMEB's known truth"
_TINY_NOTE = "the embedded models are tiny and trained on synthetic data"


def result_lines(metrics: Metrics, models: Iterable[str] = ()) -> list[str]:
    """Return a line per stage that ran, or two: none is longer than 100 characters.

    Args:
        metrics: stage -> its metrics. A number that is not there is left out of its line, and a line that would be
            empty is not there.
        models: The models that were used, folders or hub ids; of the embedded ones a line says that they are tiny.
    """
    tiny = any(PurePosixPath(model).name.startswith("tiny-") for model in models)
    lines = {
        "ingest": _ingest(metrics.get("ingest", {})),
        "pool": _pool(metrics.get("pool", {})),
        "judge": _judge(metrics.get("judge", {})),
        "select": _select(metrics.get("select", {})),
        "truth": _truth(metrics.get("truth", {}), tiny),
    }
    return [line for label, text in lines.items() if text for line in _wrap(_line(label, text))]


def place_lines(places: Mapping[str, str | Path | None]) -> list[str]:
    """Return one line per place to look at; ``None`` is left out.

    Args:
        places: Label -> path or command. Paths below the working directory are shown relative to it.
    """
    return [_line(label, shorten(place)) for label, place in places.items() if place is not None]


def _wrap(line: str) -> list[str]:
    """Break a line that is too long after a comma, a semicolon, or before a bracket."""
    kept = line.replace(" ", _NO_BREAK)
    for mark, breakable in ((f",{_NO_BREAK}", ", "), (f";{_NO_BREAK}", "; "), (f"{_NO_BREAK}(", " (")):
        kept = kept.replace(mark, breakable)
    wrapped = textwrap.wrap(kept, _WIDTH, subsequent_indent=_NO_BREAK * (_LABEL_WIDTH + 2), break_long_words=False)
    return [part.replace(_NO_BREAK, " ") for part in wrapped]


def _line(label: str, text: str) -> str:
    return f"  {label:<{_LABEL_WIDTH}}{text}"


def shorten(place: str | Path) -> str:
    """Return a path relative to the working directory if it lies below it; other texts as they are."""
    if isinstance(place, Path) and place.is_relative_to(Path.cwd()):
        return str(place.relative_to(Path.cwd()))
    return str(place)


def _ingest(m: Mapping[str, Any]) -> str:
    rejected = _count(m, "rejected", "{} rejected")
    return _join(_count(m, "pairs_read", "{} pairs read"), _count_if_any(m, "duplicate_pairs", "{} duplicates"),
                 rejected, _count(m, "items", "{} items"), _count(m, "candidates", "{} candidates"))  # fmt: skip


def _pool(m: Mapping[str, Any]) -> str:
    short = _count_if_any(m, "short_queries", "{} queries with a short pool")
    return _join(_count(m, "queries", "{} queries"), _count(m, "pool_rows", "{} pool members"), short)


def _judge(m: Mapping[str, Any]) -> str:
    errors = _count_if_any(m, "errors", "{} ERRORS")
    speed = _join(
        _count(m, "pairs_per_second", "{} pairs/s"),
        _share(m, "prefix_reuse_share", "{} of prompt tokens reused"),
    )
    counts = _join(_count(m, "pairs", "{} pairs"), _count(m, "judged_now", "{} judged now"),
                   _count(m, "from_store", "{} from the store"), errors)  # fmt: skip
    return _join(counts, speed if m.get("judged_now") else None, separator="; ")


def _select(m: Mapping[str, Any]) -> str:
    dropped = _count(m, "false_negatives_dropped", "{} false negatives dropped")
    share = _share(m, "false_negative_share", " ({})")
    return _join(
        _count(m, "queries", "{} queries"),
        f"{dropped}{share or ''}" if dropped else None,
        _count_if_any(m, "unjudged", "{} unjudged"),
        _count(m, "duplicated_queries", "{} duplicated"),
        _count(m, "fallback_queries", "{} fallbacks"),
        _count_if_any(m, "skipped_queries", "{} skipped"),
    )


def _truth(m: Mapping[str, Any], tiny: bool) -> str:
    numbers = _join(_decimal(m, "judge_auc", "judge AUC {}"), _decimal(m, "filter_precision", "filter precision {}"),
                    _decimal(m, "filter_recall", "recall {}"))  # fmt: skip
    note = _join(_TRUTH_NOTE, _TINY_NOTE if tiny else None, separator="; ")
    return f"{numbers} ({note})" if numbers else ""


def _join(*parts: str | None, separator: str = ", ") -> str:
    return separator.join(part for part in parts if part)


def _number(m: Mapping[str, Any], key: str) -> float | None:
    value = m.get(key)
    finite = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < float("inf")
    return float(value) if finite else None  # type: ignore[arg-type]


def _count(m: Mapping[str, Any], key: str, template: str) -> str | None:
    value = _number(m, key)
    if value is None:
        return None
    return template.format(f"{value:,.0f}" if value >= 10 or value % 1 == 0 else f"{value:.1f}")


def _count_if_any(m: Mapping[str, Any], key: str, template: str) -> str | None:
    return _count(m, key, template) if _number(m, key) else None


def _share(m: Mapping[str, Any], key: str, template: str) -> str | None:
    value = _number(m, key)
    return None if value is None else template.format(f"{value:.1%}")


def _decimal(m: Mapping[str, Any], key: str, template: str) -> str | None:
    value = _number(m, key)
    return None if value is None else template.format(f"{value:.3f}")
