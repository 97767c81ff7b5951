"""What the figures draw, and how they become part of the page."""

from __future__ import annotations

import re

import polars as pl
import pytest
from report_tables import DOCUMENT, FOUND, drawing, parsed

from unime_kedro.reporting.ablations import ablation
from unime_kedro.reporting.comparisons import by_pair, comparison_metrics, comparison_rows, no_comparisons, pairs_of
from unime_kedro.reporting.drawing import FIRST, SECOND, Drawings, png, svg
from unime_kedro.reporting.figures import ablation_figure, curves_figure, differences_figure, projection_figure


def test_the_largest_difference_stands_first_and_the_mean_last() -> None:
    table = pl.concat([comparison_rows(FOUND, "new", "old", "B"), comparison_rows(FOUND, "new", "old", "A")])
    pairs = by_pair(table)
    assert sorted(pairs) == [("new", "old", "A"), ("new", "old", "B")]
    assert pairs["new", "old", "A"]["dataset"].to_list() == ["b", "a", "c", "all"]
    assert comparison_metrics(table)["new_against_old"]["B"] == {
        "difference": 0.1, "low": 0.05, "high": 0.15, "p": 0.002, "datasets": 3, "datasets_better": 1,
        "datasets_worse": 1,
    }  # fmt: skip
    assert by_pair(no_comparisons()) == comparison_metrics(no_comparisons()) == {}


def test_pairs_are_of_benchmarks_that_both_answered() -> None:
    rows = [("new", "A", 1), ("new", "B", 2), ("old", "B", 3), ("old", "C", 4)]
    table = pl.DataFrame(rows, ["model", "benchmark", "query_id"], orient="row")
    ((benchmark, one, other),) = pairs_of(table, "new", "old")
    assert (benchmark, one["query_id"].to_list(), other["query_id"].to_list()) == ("B", [2], [3])
    assert list(pairs_of(None, "new", "old")) == []
    more = pl.concat(
        [
            table,
            table.with_columns(benchmark=pl.format("{}2", "benchmark")),
            table.select("model", pl.lit("X").alias("benchmark"), "query_id"),
        ]
    )
    assert [name for name, *_ in pairs_of(more, "new", "old", ["X", "gone"])] == ["X", "B", "B2"]


def markers(axes) -> dict[float, tuple[float, str]]:
    """y -> (x, filled or open) of every dot."""
    dots = [line for line in axes.lines if line.get_marker() in ("o", "s")]
    return {float(dot.get_ydata()[0]): (round(float(dot.get_xdata()[0]), 9), dot.get_markerfacecolor()) for dot in dots}


def test_dots_and_whiskers() -> None:
    rows = by_pair(comparison_rows(FOUND, "new", "old", "B"))["new", "old", "B"]
    (axes,) = differences_figure(rows, "new", "old").axes
    places = {label.get_text(): place for place, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)}
    dots = {name: markers(axes)[place] for name, place in places.items()}
    # in points; b and c are significant after Holm, a is not, the mean needs no correction
    assert dots == {"b": (40, FIRST), "a": (10, "#ffffff"), "c": (-20, FIRST), "all": (10, FIRST)}
    assert places["b"] > places["a"] > places["c"] > places["all"]
    whiskers = {float(line.get_ydata()[0]): list(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 2}
    assert whiskers[places["c"]] == pytest.approx([-30, -10])
    assert "old better" in axes.get_xlabel().split("·")[0]


def test_an_ablation_with_the_papers_differences() -> None:
    group = ablation(DOCUMENT)
    assert (group.measure, group.reference, group.paper) == ("P@1", "base", "Table 4, MMEB (2B)")
    assert [arm.paper for arm in group.arms] == [None, pytest.approx(3.5), None]
    assert group.arms[1].by_seed == [0.02, 0.04]
    assert group.runs == {"commit": "0123456789, 0123456789 (changed)", "data": "pool " + "f" * 12}
    (axes,) = ablation_figure(group).axes
    places = {label.get_text(): place for place, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)}
    dots = markers(axes)
    assert places["base"] not in dots  # the reference is the line at zero
    assert dots[places["soft"]][0] == 3
    assert dots[places["new"]][0] == -10
    diamonds = [float(line.get_xdata()[0]) for line in axes.lines if line.get_marker() == "D"]
    assert diamonds == [pytest.approx(3.5)]


def test_an_ablation_without_a_paper_and_in_other_units() -> None:
    document = DOCUMENT | {"paper": None, "columns": {"p": {"title": "loss", "percent": False}}, "runs": {}}
    group = ablation(document)
    assert [arm.paper for arm in group.arms] == [None] * 3
    assert group.runs == {"commit": "", "data": ""}
    assert markers(ablation_figure(group).axes[0]).keys()
    assert sorted(x for x, _ in markers(ablation_figure(group).axes[0]).values()) == [-0.1, 0.03]


def test_curves_by_step_of_what_there_is() -> None:
    history = [
        {"step": 20, "loss": 1.0, "validation_precision_at_1": 0.5, "pairs_per_second": 9.0},
        {"step": 10, "loss": 2.0}, {"step": 10, "loss": 3.0}, {"step": 30, "loss": float("nan")},
    ]  # fmt: skip
    loss, validation = curves_figure(history).axes
    assert loss.lines[0].get_xydata().tolist() == [[10, 3], [20, 1]]
    assert (validation.get_title(), validation.lines[0].get_xydata().tolist()) == ("validation P@1", [[20, 0.5]])
    assert curves_figure([]) is None
    assert curves_figure([{"step": 1, "seconds": 3}]) is None


def test_points_and_centres_of_the_projection() -> None:
    table = pl.DataFrame(
        {"model": ["m"] * 3, "modality": ["text", "text", "picture"], "x": [0.0, 2.0, 5.0], "y": [1.0, 3.0, 0.0]}
    )
    figure = projection_figure(table, {"m": {"distance": 0.5, "explained_x": 0.25, "explained_y": 0.125}})
    (axes,) = figure.axes
    assert [part.get_offsets().tolist() for part in axes.collections] == [[[0, 1], [2, 3]], [[5, 0]]]
    crosses = {line.get_color(): line.get_xydata().tolist() for line in axes.lines}
    assert crosses == {FIRST: [[1, 2]], SECOND: [[5, 0]]}
    assert (axes.get_title(), axes.get_xlabel()) == ("m: centres 0.50 apart", "first component (25% of the variance)")


def test_the_same_figure_has_the_same_bytes() -> None:
    assert png(drawing()) == png(drawing()) != png(drawing(1))
    assert png(drawing()).startswith(b"\x89PNG")
    assert b"matplotlib" not in png(drawing()).lower()
    assert svg(drawing(), "a", "d") == svg(drawing(), "a", "d")


def test_an_svg_takes_colours_and_font_of_the_page() -> None:
    text = svg(drawing(), "one", 'less < "more"')
    (element,) = [part for part in parsed(text).parts if not isinstance(part, str)]
    assert (element.tag, element.attrs["aria-label"]) == ("svg", 'less < "more"')
    assert "what & why" in element.text  # words, no outlines
    assert not re.search(r"#[0-9a-f]{6}\b|DejaVu|https?:|<style|<\?xml", text)
    assert {"var(--first)", "var(--second)", "var(--ink)"} <= set(re.findall(r"var\(--\w+\)", text))


def test_ids_of_two_figures_differ_and_references_are_whole() -> None:
    texts = [svg(drawing(), name, "d") for name in ("one", "two")]
    ids = [set(re.findall(r'\bid="([^"]+)"', text)) for text in texts]
    used = [set(re.findall(r'(?:href="#|url\(#)([^")]+)', text)) for text in texts]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert all(uses <= known for uses, known in zip(used, ids, strict=True))


def test_drawings_leave_out_what_is_not_drawn() -> None:
    drawings = Drawings()
    drawings.add("a", None, "")
    drawings.add("b", drawing(), "")
    assert list(drawings.pngs) == list(drawings.svgs) == ["b"]
