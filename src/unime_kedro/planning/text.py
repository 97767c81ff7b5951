"""The estimate as people read it."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from unime_kedro.planning.interval import Interval

if TYPE_CHECKING:
    from unime_kedro.planning.estimate import Estimate, Stage

_WIDTH = 100
_STAGES = {
    "embed": "embedding for the pool",
    "judge": "judging",
    "train": "training the embedder",
    "rerank": "training the reranker",
    "evaluate": "evaluation",
}
_UNITS = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def format_estimate(estimate: Estimate) -> str:
    """Return the estimate as lines of at most 100 characters."""
    settings, corpus = estimate.settings, estimate.corpus
    env = f"--env={settings.env}" if settings.env else "the default environment"
    lines = [f"Plan of {', '.join(settings.pipelines)} with {env}. Nothing was run.", ""]
    lines += _field("corpus", corpus.source)
    lines += _field("", f"{corpus.queries:,} queries, {_count(corpus.items)} distinct contents")
    lines += _field("checked", _checked(estimate))
    for place, section in enumerate(estimate.models):
        lines += _field("" if place else "model", _model(section, estimate))
    for stage in estimate.stages:
        lines += ["", *_stage(stage)]
    lines += ["", *_field("total", _total(estimate)), *_field("device", estimate.device)]
    for note in [*corpus.notes, *estimate.notes]:
        lines += _field("note", note)
    return "\n".join(lines)


def _field(label: str, text: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=f"{label:<9} ", subsequent_indent=" " * 10, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def _checked(estimate: Estimate) -> str:
    found = estimate.corpus.checked
    if found is None:
        return "no raw pairs to look at"
    rows, bad = int(found.metrics["pairs_read"]), int(found.metrics["rejected"])
    allowed = estimate.settings.raw["ingest"]["max_reject_share"]
    text = f"{rows:,} raw rows drawn at random, pictures opened: "
    if not bad:
        return text + "all can be used"
    reasons = found.rejects["reason"].str.split(": ").list.first().value_counts(sort=True).rows()
    common = ", ".join(f"{n:,} {reason}" for reason, n in reasons[:4])
    verdict = "more than" if bad / rows > allowed else "within what"
    return f"{text}{bad:,} cannot be used ({common}), {bad / rows:.1%}, {verdict} ingest.max_reject_share allows"


def _model(section: str, estimate: Estimate) -> str:
    model = estimate.models[section]
    size = "size not known" if model.cost is None else f"{_short(model.cost.parameters)} parameters"
    how = "configuration read, no weights" if model.adapter is not None else "declared, not read"
    return f"{section}: {model.name}, {size} ({how})"


def _stage(stage: Stage) -> list[str]:
    work = stage.work
    lines = [f"{_STAGES[work.stage]}: {_count(work.amount)} {work.units}"]
    tokens = {
        "prompt_tokens": "tokens in prompts",
        "run_tokens": "of them run",
        "tokens": "tokens",
        "visual_tokens": "visual tokens encoded",
    }
    found = [f"{span(work.figures[name])} {words}" for name, words in tokens.items() if name in work.figures]
    lines += _field("", ", ".join(found))
    if "prefix_share" in work.figures:
        lines += _field("", f"share of prompt tokens that candidates share: {work.figures['prefix_share'].middle:.1%}")
    if work.operations is not None:
        lines += _field("", f"{span(work.operations)} floating-point operations")
    hours = "hours not known" if stage.hours is None else _hours(stage.hours)
    money = "" if stage.money is None else f", costs {span(stage.money)}"
    lines += _field("", f"{hours}{money} ({stage.basis})")
    for note in work.notes:
        lines += _field("", note)
    return lines


def _total(estimate: Estimate) -> str:
    missing = [stage.work.stage for stage in estimate.stages if stage.hours is None]
    money = "" if estimate.money is None else f", costs {span(estimate.money)}"
    without = f", without {', '.join(missing)}" if missing else ""
    return f"{_hours(estimate.hours)}{money}{without}"


def _hours(hours: Interval) -> str:
    """Return hours of one device; seconds where it is less than a tenth of an hour."""
    if hours.high < 0.1:
        return f"{span(hours * 3600)} s of one device"
    return f"{span(hours)} device hours"


def _count(value: Interval) -> str:
    return f"{value.middle:,.0f}" if value.is_exact else span(value)


def span(value: Interval) -> str:
    """Return ``middle (low to high)``, or the number alone where it is exact."""
    if value.is_exact:
        return _short(value.middle)
    return f"{_short(value.middle)} ({_short(value.low)} to {_short(value.high)})"


def _short(number: float) -> str:
    """Return a number with three digits and a letter for its thousands."""
    for size, letter in _UNITS:
        if number >= size:
            return f"{number / size:,.3g} {letter}" if number / size < 1000 else f"{number / size:,.0f} {letter}"
    return f"{number:.3g}"
