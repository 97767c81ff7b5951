"""Histograms of scores and similarities, and curves of trainings, drawn when the tables are saved.

Counts are made with numpy first, so that a table of tens of millions of rows costs no more to draw than a small one.
``pyplot`` is never imported: it keeps figures alive and looks for a display.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unime_kedro.imports import quick_imports
from unime_kedro.tracking.metrics import HISTORY, history_points

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLUE, _ORANGE, _GREY = "#2f6db3", "#d9762b", "#8a8f98"
_JUDGED = {"sampled": _BLUE, "duplicate": _GREY}


def judge_score_figure(scores: pl.DataFrame) -> Figure:
    """Draw how the judge scores positives and pool members, and how far apart the two are for one query.

    Args:
        scores: The table ``judge_scores``. Failed pairs (no score) are left out.

    Returns:
        Three panels: scores; logit(yes) - logit(no), which shows what the sigmoid squeezes together; score of a pool
        member minus that of its query's positive (to the right of zero: a candidate for a false negative).
    """
    import polars as pl

    gap = pl.col("yes_logit") - pl.col("no_logit")
    scores = scores.drop_nulls("score").select("query_id", "is_positive", "score", gap=gap)
    positives, members = scores.filter("is_positive"), scores.filter(~pl.col("is_positive"))
    best = positives.group_by("query_id").agg(positive=pl.col("score").max())
    difference = members.join(best, on="query_id").select(pl.col("score") - pl.col("positive")).to_series()

    figure, (left, middle, right) = _panels(f"Judge: {len(positives):,} positives, {len(members):,} pool members", 3)
    groups = {"positives": (positives, _ORANGE), "pool members": (members, _BLUE)}
    _histogram(left, {k: (v["score"], color) for k, (v, color) in groups.items()}, (0, 1))
    _labels(left, "Score", "s(q, c)")
    _histogram(middle, {k: (v["gap"], color) for k, (v, color) in groups.items()})
    _labels(middle, "Before the sigmoid", "logit(Yes) - logit(No)")
    _histogram(right, {"pool members": (difference, _BLUE)}, (-1, 1))
    right.axvline(0, color=_ORANGE, linewidth=1, label="as good as the positive")
    _labels(right, "Against the query's positive", "s(q, c) - s(q, positive)")
    return figure


def pool_figure(pool: pl.DataFrame) -> Figure:
    """Draw how similar pool members are, over all ranks and by rank.

    Args:
        pool: The table ``pool``.

    Returns:
        Two panels: cosine similarity of the nearest candidate and of all; median and quartiles of it by rank.
    """
    import polars as pl

    similarity = pl.col("similarity")
    by_rank = (
        pool.group_by("rank")
        .agg(low=similarity.quantile(0.25), median=similarity.median(), high=similarity.quantile(0.75))
        .sort("rank")
    )
    figure, (left, right) = _panels(f"Pool: {pool['query_id'].n_unique():,} queries, {len(pool):,} members", 2)
    nearest = pool.filter(pl.col("rank") == 0)["similarity"]
    _histogram(left, {"all ranks": (pool["similarity"], _BLUE), "rank 0": (nearest, _ORANGE)})
    _labels(left, "Similarity", "cosine")
    right.fill_between(by_rank["rank"], by_rank["low"], by_rank["high"], color=_BLUE, alpha=0.25, label="quartiles")
    right.plot(by_rank["rank"], by_rank["median"], color=_BLUE, label="median")
    _labels(right, "By rank", "rank in the pool (0 = nearest)", "cosine")
    return figure


def negatives_figure(negatives: pl.DataFrame) -> Figure:
    """Draw the judge's scores of the mined negatives, and where they come from.

    Args:
        negatives: The table ``negatives``.

    Returns:
        Two panels: scores by origin; mean score by slot. Without fallbacks, whose score is 1.0 by definition.
    """
    import polars as pl

    counts = dict(negatives["origin"].value_counts().iter_rows())
    title = ", ".join(f"{counts[name]:,} {name}" for name in (*_JUDGED, "fallback") if name in counts)
    figure, (left, right) = _panels(f"Negatives: {title or 'none'}", 2)
    judged = negatives.filter(pl.col("origin") != "fallback")
    parts = {name: (judged.filter(pl.col("origin") == name)["score"], color) for name, color in _JUDGED.items()}
    _histogram(left, {name: part for name, part in parts.items() if len(part[0])}, (0, 1))
    _labels(left, "Score (fallbacks left out)", "s(q, c)")
    by_slot = judged.group_by("slot").agg(pl.col("score").mean()).sort("slot")
    right.plot(by_slot["slot"], by_slot["score"], color=_BLUE, marker="o", markersize=3, label="mean")
    right.set_ylim(0, 1)
    _labels(right, "By slot", "slot", "s(q, c)")
    return figure


def history_figure(dataset: str, rows: list[dict[str, Any]]) -> Figure:
    """Draw how metrics changed while something was trained.

    Args:
        dataset: Name of the dataset, ``<stage>_history``.
        rows: ``{"step": 10, "loss": 0.7, ...}``, in any order (see :func:`history_points`).

    Returns:
        One panel per metric, three side by side: the loss, what was measured on validation data, then the others by
        name. All have the same steps from left to right and a scale of their own. A value that jumps up and down from
        step to step is drawn pale, with its moving average over it.
    """
    stage = dataset.removesuffix(HISTORY)
    points = history_points(dataset, rows)
    curves = [(key.removeprefix(f"{stage}/"), list(group)) for key, group in groupby(points, lambda point: point.key)]
    curves.sort(key=lambda curve: (curve[0] != "loss", not curve[0].startswith("validation"), curve[0]))
    steps = [point.step for point in points] or [0]
    figure, panels = _panels(f"{stage}: {max(steps):,} steps", max(1, len(curves)), columns=3)
    for axes, (name, curve) in zip(panels, curves, strict=False):
        _curve(axes, np.array([point.step for point in curve]), np.array([point.value for point in curve]))
        margin = max(0.03 * (max(steps) - min(steps)), 0.5)
        axes.set_xlim(min(steps) - margin, max(steps) + margin)
        _labels(axes, name, "step", "")
        axes.locator_params(axis="x", nbins=6, integer=True)
    if not curves:
        _no_rows(panels[0])
        _labels(panels[0], "History", "step", "")
    return figure


def calibration_figure(metrics: dict[str, Any]) -> Figure:
    """Draw how often a judge's pairs are true by their score, with its temperature and without.

    Args:
        metrics: Those of the judge card; ``curve`` holds per name the lists pairs, mean_score and positive_share, one
            value per bin, null for an empty one; without a known truth it is empty.

    Returns:
        Two panels: share of true pairs against the mean score of the bin (on the diagonal scores are probabilities);
        number of pairs per bin.
    """
    curves = metrics.get("curve") or {}
    pairs = next((sum(curve["pairs"]) for curve in curves.values()), 0)
    figure, (left, right) = _panels(f"Judge against the truth: {pairs:,} pairs", 2)
    left.plot([0, 1], [0, 1], color=_GREY, linewidth=1, linestyle="--")
    for (name, curve), color in zip(curves.items(), (_BLUE, _ORANGE), strict=False):
        columns = [[np.nan if v is None else v for v in curve[key]] for key in ("mean_score", "positive_share")]
        left.plot(*columns, color=color, marker="o", markersize=4, linewidth=1.3, label=name)
        right.stairs(curve["pairs"], np.linspace(0, 1, len(curve["pairs"]) + 1), color=color, label=name)
    if not curves:
        _no_rows(left)
    else:
        right.set_yscale("log")
    _labels(left, "Calibration", "mean score of the bin", "share of true pairs")
    _labels(right, "Pairs by score", "s(q, c)", "pairs")
    return figure


def _curve(axes: Axes, steps: NDArray[np.int64], values: NDArray[np.float64]) -> None:
    """Draw one metric over the steps; what is not finite leaves a gap."""
    values = np.where(np.isfinite(values), values, np.nan)
    marker = "o" if len(values) < 20 else None  # a curve of one point would not show
    jagged = _is_jagged(values)
    axes.plot(steps, values, color=_BLUE, alpha=0.3 if jagged else 1, marker=marker, markersize=3)
    if jagged:
        axes.plot(steps, _moving_average(values, len(values) // 20), color=_BLUE)
    # 1e-4 and not 0.0001 with eight digits: a learning rate
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 5), useMathText=True)
    axes.yaxis.get_offset_text().set_fontsize(8)


def _is_jagged(values: NDArray[np.float64]) -> bool:
    """Whether there are many values, and more than a quarter of them turn the curve round."""
    turns = np.diff(values)[1:] * np.diff(values)[:-1] < 0
    return len(values) >= 60 and bool(turns.mean() > 0.25)


def _moving_average(values: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
    """Return the mean of each value and up to ``reach`` on both sides, of those that there are and are numbers."""
    window = np.ones(2 * reach + 1)
    there = np.isfinite(values)
    sums = np.convolve(np.where(there, values, 0), window)[reach : reach + len(values)]
    counts = np.convolve(there.astype(float), window)[reach : reach + len(values)]
    return np.divide(sums, counts, out=np.full(len(values), np.nan), where=counts > 0.5)


#: dataset -> what is drawn when it is saved
FIGURES: dict[str, Callable[[Any], Figure]] = {
    "judge_scores": judge_score_figure,
    "pool": pool_figure,
    "negatives": negatives_figure,
    "judge_card_metrics": calibration_figure,
}


def figure_of(dataset: str) -> Callable[[Any], Figure] | None:
    """Return what draws a dataset when it is saved, None for one that is not drawn."""
    return partial(history_figure, dataset) if dataset.endswith(HISTORY) else FIGURES.get(dataset)


def _panels(title: str, count: int, columns: int = 4) -> tuple[Figure, Sequence[Axes]]:
    """Return an empty figure with ``count`` panels, at most ``columns`` of them side by side."""
    with quick_imports():
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    columns, rows = min(columns, count), -(-count // columns)
    figure = Figure(figsize=(4 * columns, 3.4 * rows), dpi=110)
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    figure.subplots_adjust(
        left=0.26 / columns, right=0.985, top=1 - 0.2 / rows, bottom=0.16 / rows, wspace=0.28, hspace=0.5
    )
    panels = list(np.ravel(figure.subplots(rows, columns)))
    for axes in panels[count:]:
        axes.remove()
    return figure, panels[:count]


def _histogram(axes: Axes, groups: dict[str, tuple[Any, str]], limits: tuple[float, float] | None = None) -> None:
    """Draw the share of each group's rows per bin; groups of very different sizes can be compared so."""
    values = {name: series.to_numpy() for name, (series, _) in groups.items()}
    values = {name: array[np.isfinite(array)] for name, array in values.items()}
    filled = [array for array in values.values() if array.size]
    if not filled:
        _no_rows(axes)
        return
    low, high = limits or (min(float(a.min()) for a in filled), max(float(a.max()) for a in filled))
    edges = np.linspace(low, high if high > low else low + 1e-6, 51)
    for name, (_, color) in groups.items():
        if values[name].size:
            share = np.histogram(values[name], edges)[0] / values[name].size
            axes.stairs(share, edges, fill=True, alpha=0.45, color=color, label=f"{name} ({values[name].size:,})")
    axes.set_ylim(0, axes.get_ylim()[1] * 1.3)  # room for the legend


def _no_rows(axes: Axes) -> None:
    axes.text(0.5, 0.5, "no rows", ha="center", va="center", transform=axes.transAxes)


def _labels(axes: Axes, title: str, x: str, y: str = "share of rows") -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.locator_params(axis="x", nbins=6)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, frameon=False)
