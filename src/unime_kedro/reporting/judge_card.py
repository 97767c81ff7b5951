"""The judge card as one HTML page that opens anywhere: no network, no JavaScript, light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unime_kedro.io.page_parts import environment


@dataclass(frozen=True)
class Card:
    """What the page shows.

    Attributes:
        title: Heading of the page.
        facts: Which judge, which data, which command, in this order.
        notes: What a reader must know before believing the numbers.
        metrics: See :func:`unime_kedro.pipelines.judge_card.measures.card_metrics`.
        wordings: name -> instruction.
        rule: The filter's rule in use, ``absolute`` for example.
        margin: Its margin.
        level: Level of the intervals.
        svgs: ``calibration``, ``movement`` and ``yes``: figures as ``<svg>`` elements; a missing one is left out.
        pictures: Of the style sheet, which the report shares; a card has none.
    """

    title: str
    facts: Mapping[str, str]
    notes: Sequence[str]
    metrics: Mapping[str, Any]
    wordings: Mapping[str, str]
    rule: str
    margin: float
    level: float
    svgs: Mapping[str, str]
    pictures: Sequence[tuple[str, str]] = ()


def render_judge_card(card: Card) -> str:
    """Render the card; the same content gives the same bytes.

    Returns:
        The page, text to be written as UTF-8.
    """
    engine = environment()
    engine.filters["percent"] = lambda value: "" if value is None else f"{100 * value:.1f}"
    engine.filters["fine"] = fine
    return engine.get_template("judge_card.html.j2").render(content=card, groups=yes_groups(card.metrics["yes"]))


def fine(value: float | None) -> str:
    """Return a number with two significant digits, ``1.23e-07`` as 1.2 · 10⁻⁷; "" for None."""
    if value is None:
        return ""
    if value == 0 or abs(value) >= 1e-4:
        text = f"{value:.2g}"
    else:
        mantissa, _, exponent = f"{value:.1e}".partition("e")
        raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        text = f"{mantissa} · 10{raised}"
    return text.replace("-", "\N{MINUS SIGN}")


def yes_groups(yes: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, Mapping[str, float]]:
    """Return groups of pairs for figure and table: all, meta-tasks, modalities; readable names.

    Args:
        yes: See :func:`unime_kedro.evaluation.judge_card.measure_yes`.
    """
    groups = {"all pairs": yes["all"]["all"]}
    for column in ("meta_task", "modalities"):
        groups |= {name.replace("image_text", "image and text").replace("_", " "): v for name, v in yes[column].items()}
    return groups
