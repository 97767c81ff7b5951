"""What a run of the mining pipelines says at its end: what was mined, and where to look."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unime_kedro.own_data import is_embedded_model

Metrics = Mapping[str, Mapping[str, Any]]

#: stages without whose metrics there is nothing to say
STAGES = ("ingest", "pool", "judge", "select")
#: section of the parameters that names a model -> the stages whose results come from it
_MADE_WITH = {"pool": ("embedding", "pool"), "judge": ("judge", "select"), "train": ("train",), "rerank": ("rerank",)}
_LABEL_WIDTH = 11
_WIDTH = 100
_NO_BREAK = "\N{NO-BREAK SPACE}"


def result_lines(metrics: Metrics, models: Mapping[str, str] | None = None, own_data: bool = False) -> list[str]:
    """Return a line or a few per stage that ran: none is longer than 100 characters.

    Args:
        metrics: stage -> its metrics. A number that is not there is left out of its line, and a line that would be
            empty is not there.
        models: Section of the parameters (``pool``, ``judge``) -> its model, a folder or hub id; of the embedded ones
            a line says that they are tiny.
        own_data: Whether something else than the embedded corpus was mined, for which they are not fit.
    """
    lines = [
        ("ingest", _ingest(metrics.get("ingest", {}))),
        ("pool", _pool(metrics.get("pool", {}))),
        ("judge", _judge(metrics.get("judge", {}))),
        ("select", _select(metrics.get("select", {}))),
        *_truth(metrics.get("truth", {})),
        *_measured(metrics),
        _tiny_models(metrics, models or {}, own_data),
    ]
    return [line for label, text in lines if text for line in _wrap(_line(label, text))]


def _measured(metrics: Metrics) -> list[tuple[str, str]]:
    from unime_kedro.summary_models import MODEL_STAGES, model_lines

    return model_lines(metrics) if any(stage in metrics for stage in MODEL_STAGES) else []


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
    return _join(
        _count(m, "pairs_read", "pair read", "pairs read"),
        _count_if_any(m, "duplicate_pairs", "duplicate", "duplicates"),
        _count(m, "rejected", "rejected"),
        _count(m, "items", "item", "items"),
        _count(m, "candidates", "candidate", "candidates"),
    )


def _pool(m: Mapping[str, Any]) -> str:
    return _join(
        _count(m, "queries", "query", "queries"),
        _count(m, "pool_rows", "pool member", "pool members"),
        _count_if_any(m, "short_queries", "query with a short pool", "queries with a short pool"),
        _recall(m),
    )


def _recall(m: Mapping[str, Any]) -> str | None:
    """Say what an approximate index found; an exact one has nothing to say."""
    found = m.get("index_recall")
    if not isinstance(found, Mapping):
        return None
    parts = [_formatted(found, key, "{:.1%}") for key in ("value", "low", "high")]
    return f"{m.get('index')} index found {parts[0]} of the exact pools ({parts[1]} to {parts[2]})"


def _judge(m: Mapping[str, Any]) -> str:
    speed = _join(
        _count(m, "pairs_per_second", "pairs/s"),
        _formatted(m, "prefix_reuse_share", "{:.1%} of prompt tokens reused"),
    )
    counts = _join(
        _count(m, "pairs", "pair", "pairs"),
        _equal_pairs(m),
        _count(m, "judged_now", "judged now"),
        _count(m, "from_store", "from the store"),
        _formatted(m, "judge_calls_per_query", "{:.1f} calls per query"),
        _formatted(m, "judge_calls_share", "{:.0%} of judging everything"),
        _count_if_any(m, "errors", "ERROR", "ERRORS"),
    )
    return _join(counts, speed if m.get("judged_now") else None, separator="; ")


def _equal_pairs(m: Mapping[str, Any]) -> str | None:
    """Say why more pairs are told than judged: equal content is judged once."""
    pairs, distinct = _number(m, "pairs"), _number(m, "distinct_pairs")
    if pairs is None or distinct is None:
        return None
    return _count_if_any({"equal": pairs - distinct}, "equal", "of them equal to another", "of them equal to others")


def _select(m: Mapping[str, Any]) -> str:
    dropped = _count(m, "false_negatives_dropped", "false negative dropped", "false negatives dropped")
    share = _formatted(m, "false_negative_share", " ({:.1%})")
    return _join(
        _count(m, "queries", "query", "queries"),
        f"{dropped}{share or ''}" if dropped else None,
        _count_if_any(m, "unjudged", "unjudged"),
        _count(m, "duplicated_queries", "duplicated"),
        _count(m, "fallback_queries", "fallback", "fallbacks"),
        _count_if_any(m, "skipped_queries", "skipped"),
    )


def _truth(m: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return how good the mining was, in three lines: judge and filter, what they leave, how hard the negatives are."""
    judge = _join(
        _formatted(m, "judge_auc", "judge AUC {:.3f}"),
        _formatted(m, "filter_precision", "filter precision {:.3f}"),
        _formatted(m, "filter_recall", "recall {:.3f}" if "filter_precision" in m else "filter recall {:.3f}"),
    )
    wrong = _join(
        _formatted(m, "false_negatives_in_pool_share", "{:.2%} of the pool"),
        _formatted(m, "false_negatives_kept_share", "{:.2%} after the filter"),
        _formatted(m, "false_negatives_chosen_share", "{:.2%} of the chosen"),
    )
    hardness = _join(
        _formatted(m, "hardness_pool", "{:.3f} in the pool"), _formatted(m, "hardness_chosen", "{:.3f} of the chosen")
    )
    texts = [
        f"{judge} (against mini-MMEB's known truth)" if judge else "",
        f"true false negatives: {wrong}" if wrong else "",
        f"hardness (mean relevance of true negatives): {hardness}" if hardness else "",
    ]
    return [("truth" if i == 0 else "", text) for i, text in enumerate(filter(None, texts))]


def _tiny_models(metrics: Metrics, models: Mapping[str, str], own_data: bool) -> tuple[str, str]:
    """Say which results come from an embedded model, and more loudly where the data are not the embedded ones."""
    sections = [
        section
        for section, stages in _MADE_WITH.items()
        if is_embedded_model(models.get(section, "")) and any(stage in metrics for stage in stages)
    ]
    if not sections:
        return "", ""
    names, one = " and ".join(models[section] for section in sections), len(sections) == 1
    what = f"{names} {'is' if one else 'are'} tiny, trained on synthetic drawings"
    if not own_data:
        return "models", what
    keys = " and ".join(f"{section}.model" for section in sections)
    return "WARNING", f"{what}, and not fit for real data; choose {'another' if one else 'others'} with {keys}"


def _join(*parts: str | None, separator: str = ", ") -> str:
    return separator.join(part for part in parts if part)


def _number(m: Mapping[str, Any], key: str) -> float | None:
    value = m.get(key)
    finite = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < float("inf")
    return float(value) if finite else None  # type: ignore[arg-type]


def _count(m: Mapping[str, Any], key: str, one: str, many: str | None = None) -> str | None:
    """Return ``"1 <one>"`` or ``"1,234 <many>"``; without ``many``, words that are the same for any number."""
    value = _number(m, key)
    if value is None:
        return None
    number = f"{value:,.0f}" if value >= 10 or value % 1 == 0 else f"{value:.1f}"
    return f"{number} {one if value == 1 else many or one}"


def _count_if_any(m: Mapping[str, Any], key: str, one: str, many: str | None = None) -> str | None:
    return _count(m, key, one, many) if _number(m, key) else None


def _formatted(m: Mapping[str, Any], key: str, template: str) -> str | None:
    value = _number(m, key)
    return None if value is None else template.format(value)
