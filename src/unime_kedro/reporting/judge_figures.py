"""The judge card's figures: how far scores move, and how readily the judge says Yes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from unime_kedro.reporting.drawing import FIRST, INK, LINE, SECOND, SOFT, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: colour by kind of scoring; within a kind lines differ by their dashes
COLOURS = {"noise": FIRST, "wording": SECOND, "second": INK}
_ENDINGS = {"noise": "", "wording": " (wording)", "second": " (other judge)"}
_DASHES: Sequence[Any] = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)))
#: differences below this are drawn as this: equal but for rounding
_SMALLEST = 1e-9
_ROW, _FRAME = 0.26, 0.85


def movement_figure(scores: pl.DataFrame, margin: float | None) -> Figure:
    """Draw which share of the pairs moves by more than a given difference when they are judged in another way.

    Args:
        scores: kind, variant, query_id, item_id, is_positive, score; kind ``reference`` is what is compared with.
        margin: Of the filter, where it is a distance between scores; a vertical line. None for no line.

    Returns:
        One curve per other scoring, over differences on a logarithmic scale; the higher, the more pairs move.
    """
    key = ["query_id", "item_id", "is_positive"]
    scored = scores.drop_nulls("score")
    reference = scored.filter(pl.col("kind") == "reference").select(*key, reference="score")
    others = scored.join(reference, on=key, maintain_order="left")
    figure, (axes,) = new_figure(8.4, 3.6)
    parts = others.partition_by(["kind", "variant"], as_dict=True, maintain_order=True)
    for kind, place, variant in _lines([(str(kind), str(variant)) for kind, variant in parts]):
        part = parts[kind, variant]
        moved = np.sort((part["score"].cast(pl.Float64) - part["reference"].cast(pl.Float64)).abs().to_numpy())
        axes.step(
            np.maximum(moved, _SMALLEST),
            1 - np.arange(moved.size) / moved.size,  # of the pairs at least as far
            where="pre",
            color=COLOURS[kind],
            linestyle=_DASHES[place % len(_DASHES)],
            linewidth=1.5,
            label=variant.replace("_", " ") + _ENDINGS[kind],
        )
    if margin:
        axes.axvline(margin, color=SOFT, linewidth=1)
        axes.annotate(
            f"margin {margin:g} ",
            (margin, 1.0),
            color=INK,
            fontsize=8.5,
            ha="right",
            va="bottom",
            annotation_clip=False,
        )
    axes.set_xscale("log")
    axes.set_xlim(_SMALLEST, 1)
    axes.set_ylim(0, 1)
    axes.grid(color=LINE, linewidth=0.6)
    axes.set_xlabel("difference of scores", fontsize=9, color=INK)
    axes.set_ylabel("share of pairs that move further", fontsize=9, color=INK)
    axes.legend(frameon=False, fontsize=8.5, loc="center left", bbox_to_anchor=(1.01, 0.5), handlelength=3)
    return figure


def _lines(names: Sequence[tuple[str, str]]) -> list[tuple[str, int, str]]:
    """Return kind, place within the kind, and variant, by kind in the order of :data:`COLOURS`."""
    of_kind = {kind: [variant for other, variant in names if other == kind] for kind in COLOURS}
    return [(kind, place, variant) for kind, variants in of_kind.items() for place, variant in enumerate(variants)]


def yes_figure(groups: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draw how often the judge says Yes, per group of pairs, and how often that would be right.

    Args:
        groups: name -> positives_yes_share, pool_yes_share, positives_true_share, pool_true_share; what is not there is
            not drawn.

    Returns:
        Two panels, positives and pool members: a filled dot for Yes, a hollow diamond for the truth.
    """
    figure, panels = new_figure(8.4, _FRAME + _ROW * max(1, len(groups)), 1, 2)
    titles = {"positives": "positives", "pool": "pool members"}
    for axes, (part, title) in zip(panels, titles.items(), strict=True):
        _yes_panel(axes, groups, part)
        axes.set_title(title, fontsize=10, color=INK)
    panels[0].set_yticks(np.arange(len(groups))[::-1], list(groups))
    panels[1].set_yticks([])
    panels[1].legend(frameon=False, fontsize=8.5, loc="center left", bbox_to_anchor=(1.0, 0.5), handletextpad=0.2)
    return figure


def _yes_panel(axes: Axes, groups: Mapping[str, Mapping[str, float]], part: str) -> None:
    rows = np.arange(len(groups))[::-1]
    marks: dict[str, dict[str, Any]] = {
        "yes_share": {"marker": "o", "color": FIRST, "label": "judged Yes"},
        "true_share": {"marker": "D", "color": SOFT, "markerfacecolor": "none", "label": "true"},
    }
    for key, style in reversed(marks.items()):
        values = [100 * group.get(f"{part}_{key}", np.nan) for group in groups.values()]
        axes.plot(values, rows, linestyle="", markersize=6, **style)
    axes.set_ylim(-0.8, len(groups) - 0.2)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.locator_params(axis="x", nbins=6)
    axes.set_xlabel("percent", fontsize=9, color=INK)
