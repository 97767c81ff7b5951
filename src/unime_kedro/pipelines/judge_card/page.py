"""What the card's page is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from unime_kedro.own_data import is_embedded_model
from unime_kedro.parameters import JudgeCardParameters, JudgeParameters, SelectParameters
from unime_kedro.paths import project_root
from unime_kedro.pipelines.judge_card.measures import faults, in_use

TINY_NOTE = (
    "This judge is tiny and was trained from nothing on synthetic scenes of drawings, with the paper's wording of the "
    "instruction alone. Its card shows how a judge is measured; it says nothing about the paper's judge."
)


def render(
    metrics: Mapping[str, Any],
    scores: pl.DataFrame,
    origin: Mapping[str, Any],
    judge_origin: Mapping[str, str],
    judge: JudgeParameters,
    select: SelectParameters,
    card: JudgeCardParameters,
) -> str:
    """Return the page; see :class:`unime_kedro.reporting.judge_card.Card`."""
    from unime_kedro.reporting.judge_card import Card, render_judge_card

    rule, margin = select.filter.rule, select.filter.effective_margin
    return render_judge_card(
        Card(
            title="Judge card",
            facts=_facts(origin, judge, card, metrics),
            notes=[*faults(metrics, judge_origin, origin), *[TINY_NOTE] * is_embedded_model(judge.model)],
            metrics=metrics,
            wordings=card.wordings,
            rule=rule,
            margin=margin,
            level=card.level,
            svgs=_figures(metrics, scores, margin if rule == "absolute" else None),
        )
    )


def _figures(metrics: Mapping[str, Any], scores: pl.DataFrame, margin: float | None) -> dict[str, str]:
    from unime_kedro.reporting.drawing import svg
    from unime_kedro.reporting.judge_card import yes_groups
    from unime_kedro.reporting.judge_figures import movement_figure, yes_figure
    from unime_kedro.tracking.plots import calibration_figure

    figures = {
        "movement": (movement_figure(scores, margin), "share of pairs that move by more than a difference"),
        "yes": (yes_figure(yes_groups(metrics["yes"])), "share of Yes and of true pairs by group"),
    }
    if metrics["curve"]:
        figures["calibration"] = (calibration_figure(dict(metrics)), "share of true pairs by score; pairs by score")
    return {name: svg(figure, name, words) for name, (figure, words) in figures.items()}


def _facts(
    origin: Mapping[str, Any], judge: JudgeParameters, card: JudgeCardParameters, metrics: Mapping[str, Any]
) -> dict[str, str]:
    from unime_kedro.tracking.provenance import code_commit, code_tags, command_line, git_tags

    known, root = in_use(origin), project_root()
    tags = git_tags(root) | code_tags(root)
    commit = code_commit(tags)[:12] or "none"
    return {
        "Judge": judge.model + (f" ({judge.revision})" if judge.revision else ""),
        "Fingerprint": known["model"],
        "Number format": str(known["dtype"]).removeprefix("torch."),
        "Temperature": f"{known['temperature']:.4g}",
        "Prompt": known["prompt"],
        "Corpus": origin["corpus"],
        "Saved scores": f"{origin['judge_scores']} ({metrics['pairs']:,} pairs)",
        "Judged again": f"{metrics['sample_queries']:,} queries, {metrics['sample_pairs']:,} pairs; seed {card.seed}",
        "Command": command_line(),
        "Commit": commit + (" with changed files" if tags.get("git.dirty") == "true" else ""),
    }
