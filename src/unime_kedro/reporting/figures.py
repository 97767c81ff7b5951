"""The report's figures: differences of models, ablations, embedding spaces, curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from unime_kedro.reporting.drawing import FIRST, INK, LINE, SECOND, SOFT, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from unime_kedro.reporting.ablations import Ablation

#: inches of a row in a dot-and-whisker figure, and of what is above and below the rows
_ROW, _FRAME = 0.26, 0.95
#: what a curve of training shows first; other figures of a history, such as pairs per second, are MLflow's
CURVES = (
    "loss",
    "validation_precision_at_1",
    "validation_listwise_accuracy",
    "validation_pairwise_choice_accuracy",
    "gradient_norm",
    "learning_rate",
)
#: names of what is projected
MODALITIES = {"text": FIRST, "picture": SECOND}


def differences_figure(differences: pl.DataFrame, first: str, second: str) -> Figure:
    """Draw the difference of two models on each data set, with its interval.

    Args:
        differences: dataset, difference, low, high (shares), p, p_holm; in the order of the rows from above. Rows with
            ``overall`` true stand apart, in bold type.
        first: Name of the model to the right of zero.
        second: The one to the left.

    Returns:
        One dot with a whisker per row, in percentage points. Filled: the Holm-corrected test rejects equality at 5 %.
    """
    rows = differences.to_dicts()
    figure, (axes,) = new_figure(8.4, _FRAME + _ROW * max(1, len(rows)))
    places = np.arange(len(rows))[::-1]
    for place, row in zip(places, rows, strict=True):
        tested = row["p"] if row["overall"] else row["p_holm"]  # one test of the mean, nothing to correct for
        marked = tested is not None and tested < 0.05
        ends = (None, None) if row["low"] is None else (100 * row["low"], 100 * row["high"])
        _whisker(axes, place, 100 * row["difference"], ends, filled=marked, square=row["overall"])
    axes.set_yticks(places, [row["dataset"] for row in rows])
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if row["overall"] else "normal")
    _zero_line(axes, len(rows))
    axes.set_xlabel(f"← {second} better · percentage points · {first} better →", fontsize=9, color=INK)
    return figure


def ablation_figure(group: Ablation) -> Figure:
    """Draw each arm's difference to the first arm, with its interval over queries and seeds, and the paper's.

    Args:
        group: The group's results.

    Returns:
        A filled dot with a whisker per arm and, where the paper has the arm, a hollow diamond below it.
    """
    rows = group.arms
    figure, (axes,) = new_figure(8.4, _FRAME + 0.2 + 1.6 * _ROW * max(1, len(rows)))
    places = 1.6 * np.arange(len(rows))[::-1]
    scale = 100 if group.percent else 1
    for place, row in zip(places, rows, strict=True):
        for value in row.by_seed:
            axes.plot(scale * value, place, marker="|", color=SOFT, markersize=6, zorder=1)
        if row.difference is not None:
            ends = tuple(None if end is None else scale * end for end in (row.low, row.high))
            _whisker(axes, place, scale * row.difference, ends, filled=True)
        if row.paper is not None:
            axes.plot(
                row.paper, place - 0.55, marker="D", markersize=4.5, color=SOFT, markerfacecolor="none", linestyle=""
            )
    axes.set_yticks(places, [row.arm for row in rows])
    _zero_line(axes, 1.6 * len(rows))
    unit = "percentage points" if group.percent else "units of the measure"
    axes.set_xlabel(f"{group.measure}: difference to {group.reference}, {unit}", fontsize=9, color=INK)
    return figure


def _whisker(
    axes: Axes,
    place: float,
    value: float,
    ends: Sequence[float | None],
    *,
    filled: bool,
    square: bool = False,
) -> None:
    """Draw a value with its interval, which may be missing."""
    low, high = ends
    if low is not None and high is not None:
        axes.plot([low, high], [place, place], color=FIRST, linewidth=1.6, solid_capstyle="butt", zorder=2)
    axes.plot(
        value,
        place,
        marker="s" if square else "o",
        markersize=6,
        color=FIRST,
        markerfacecolor=FIRST if filled else "#ffffff",
        markeredgewidth=1.5,
        zorder=3,
    )


def _zero_line(axes: Axes, height: float) -> None:
    axes.axvline(0, color=INK, linewidth=0.9, zorder=0)
    axes.grid(axis="x", color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_ylim(-0.9, height - 0.1)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    left, right = axes.get_xlim()
    axes.set_xlim(min(left, -1), max(right, 1))
    axes.locator_params(axis="x", nbins=9)


def projection_figure(projection: pl.DataFrame, gaps: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draw where texts and pictures lie, one panel per model.

    Args:
        projection: model, modality (text, picture), x, y; models in the order of their first row.
        gaps: model -> distance, explained_x, explained_y.

    Returns:
        Points in the plane of the first two principal components, each model's own; a cross marks a centre.
    """
    models = projection["model"].unique(maintain_order=True).to_list()
    figure, panels = new_figure(4.2 * max(1, len(models)), 3.9, 1, max(1, len(models)))
    for axes, model in zip(panels, models, strict=True):
        part = projection.filter(pl.col("model") == model)
        for modality, colour in MODALITIES.items():
            points = part.filter(pl.col("modality") == modality)
            axes.scatter(points["x"], points["y"], s=9, alpha=0.5, linewidths=0, color=colour, label=modality)
        for modality, colour in MODALITIES.items():
            centre = part.filter(pl.col("modality") == modality).select(pl.col("x", "y").mean()).row(0)
            if None not in centre:
                axes.plot(*centre, marker="X", markersize=10, color=colour, markeredgecolor="#ffffff")
        gap = gaps[model]
        axes.set_title(f"{model}: centres {gap['distance']:.2f} apart", fontsize=10, color=INK)
        axes.set_xlabel(f"first component ({gap['explained_x']:.0%} of the variance)", fontsize=9, color=INK)
        axes.set_ylabel(f"second ({gap['explained_y']:.0%})", fontsize=9, color=INK)
        axes.set_aspect("equal", adjustable="datalim")
        axes.locator_params(nbins=5)
    panels[0].legend(frameon=False, fontsize=9, loc="best", markerscale=2.2, handletextpad=0.1)
    return figure


def curves_figure(history: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Draw loss and validation figures of a training by step; None for a history without any of :data:`CURVES`."""
    curves = [(name, _points(history, name)) for name in CURVES]
    curves = [(name, points) for name, points in curves if len(points)]
    if not curves:
        return None
    figure, panels = new_figure(11, 2.6, 1, len(curves))
    for axes, (name, points) in zip(panels, curves, strict=True):
        axes.plot(points[:, 0], points[:, 1], color=FIRST, linewidth=1.5, marker="o", markersize=2.5)
        axes.set_title(name.replace("_precision_at_1", " P@1").replace("_", " "), fontsize=10, color=INK)
        axes.set_xlabel("step", fontsize=9, color=INK)
        axes.grid(axis="y", color=LINE, linewidth=0.6)
        axes.locator_params(nbins=4)
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 5), useMathText=False)
        axes.yaxis.get_offset_text().set_fontsize(8)
    return figure


def _points(history: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """Return (n, 2) steps and values of one figure, by step; of two values for a step the last counts."""
    found = {int(row["step"]): float(row[name]) for row in history if isinstance(row.get(name), (int, float))}
    points = np.array(sorted(found.items()), dtype=np.float64).reshape(-1, 2)
    return points[np.isfinite(points).all(axis=1)]
