"""The numbers in the pictures, against counts made by hand."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from unime_kedro.tracking.plots import (
    FIGURES,
    figure_of,
    history_figure,
    judge_score_figure,
    negatives_figure,
    pool_figure,
)


def stairs(axes) -> dict[str, np.ndarray]:
    """Return label -> heights of the bins of a panel."""
    return {patch.get_label(): patch.get_data().values for patch in axes.patches}


def scores() -> pl.DataFrame:
    """Two queries: one positive each, three pool members in all, one of them failed."""
    rows = [
        (0, 10, True, 2.0, 0.0, 1.0, 0.88),
        (0, 11, False, 0.0, 0.0, 1.0, 0.50),
        (0, 12, False, None, None, None, None),
        (1, 13, True, 0.0, 0.0, 1.0, 0.50),
        (1, 14, False, 2.0, 0.0, 1.0, 0.88),
    ]
    columns = ["query_id", "item_id", "is_positive", "yes_logit", "no_logit", "temperature", "score"]
    return pl.DataFrame(rows, schema=columns, orient="row")


def test_judge_panels() -> None:
    score, logit, difference = judge_score_figure(scores()).axes
    positives, members = np.zeros(50), np.zeros(50)
    positives[[25, 44]] = members[[25, 44]] = 0.5  # 0.50 and 0.88 in bins of 0.02
    assert stairs(score).keys() == {"positives (2)", "pool members (2)"}  # the failed pair is left out
    np.testing.assert_allclose(stairs(score)["positives (2)"], positives)
    np.testing.assert_allclose(stairs(score)["pool members (2)"], members)
    assert stairs(logit)["positives (2)"][[0, 49]].tolist() == [0.5, 0.5]  # gaps of 0 and 2, the ends of the axis
    against = np.zeros(50)
    against[[15, 34]] = 0.5  # 0.50 - 0.88 = -0.38 and 0.88 - 0.50 = 0.38 in bins of 0.04 from -1
    np.testing.assert_allclose(stairs(difference)["pool members (2)"], against)


def test_pool_panels() -> None:
    pool = pl.DataFrame(
        {
            "query_id": [0, 0, 1, 1],
            "rank": [0, 1, 0, 1],
            "item_id": [5, 6, 7, 8],
            "similarity": pl.Series([0.9, 0.5, 0.7, 0.4], dtype=pl.Float32),
        }
    )
    similarity, by_rank = pool_figure(pool).axes
    assert stairs(similarity).keys() == {"all ranks (4)", "rank 0 (2)"}
    assert stairs(similarity)["all ranks (4)"].sum() == pytest.approx(1)
    assert stairs(similarity)["rank 0 (2)"][-1] == pytest.approx(0.5)  # 0.9, the largest of all
    np.testing.assert_allclose(by_rank.lines[0].get_xydata(), [[0, 0.8], [1, 0.45]], rtol=1e-6)  # medians


def test_negatives_panels_leave_fallbacks_out() -> None:
    negatives = pl.DataFrame(
        {
            "query_id": [0, 0, 1, 1],
            "slot": [0, 1, 0, 1],
            "score": [0.1, 0.3, 1.0, 1.0],
            "origin": ["sampled", "duplicate", "fallback", "fallback"],
        }
    )
    figure = negatives_figure(negatives)
    assert figure.get_suptitle() == "Negatives: 1 sampled, 1 duplicate, 2 fallback"
    score, by_slot = figure.axes
    assert {label: values.argmax() for label, values in stairs(score).items()} == {
        "sampled (1)": 5,
        "duplicate (1)": 15,
    }
    np.testing.assert_allclose(by_slot.lines[0].get_xydata(), [[0, 0.1], [1, 0.3]])


def test_a_history_has_a_panel_for_each_metric_over_its_steps() -> None:
    draw = figure_of("pretrain_judge_history")
    assert draw is not None
    rows = [{"step": step, "loss": 10 - step, "b": step * 2, "c": 0, "d": 1} for step in (2, 0, 1)]
    figure = draw([*rows, {"step": 9, "a": 5.0}])
    assert figure.get_suptitle() == "pretrain_judge: 9 steps"
    assert [axes.get_title() for axes in figure.axes] == ["loss", "a", "b", "c", "d"]
    curves = {axes.get_title(): axes.lines[0].get_xydata().tolist() for axes in figure.axes}
    assert curves["loss"] == [[0, 10], [1, 9], [2, 8]]
    assert curves["b"] == [[0, 0], [1, 2], [2, 4]]
    assert curves["a"] == [[9, 5]]
    assert {axes.get_xlabel() for axes in figure.axes} == {"step"}
    boxes = [axes.get_position() for axes in figure.axes]  # three side by side, two below them, none over another
    assert len({round(box.y0, 3) for box in boxes}) == 2
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_panels_of_a_history_have_the_same_steps_also_where_a_metric_is_measured_rarely() -> None:
    rows = [{"step": step, "a": 1.0, "loss": 2.0} for step in range(1, 101)]
    rows += [{"step": step, "validation_precision_at_1": step / 100} for step in (50, 100)]
    figure = history_figure("train_history", rows)
    assert [axes.get_title() for axes in figure.axes] == ["loss", "validation_precision_at_1", "a"]
    for axes in figure.axes:
        assert axes.get_xlim() == pytest.approx((1 - 2.97, 100 + 2.97))
    curve = figure.axes[1].lines[0]
    assert curve.get_xydata().tolist() == [[50, 0.5], [100, 1.0]]
    assert curve.get_marker() == "o"  # a few points are seen as such
    assert figure.axes[0].lines[0].get_marker() == "None"


def test_steps_are_whole_numbers_and_small_values_are_powers_of_ten() -> None:
    figure = history_figure("train_history", [{"step": step, "learning_rate": 1e-4 * step} for step in (1, 2, 3)])
    figure.canvas.draw()
    (axes,) = figure.axes
    assert all(tick == int(tick) for tick in axes.get_xticks())
    assert "10^{−4}" in axes.yaxis.get_offset_text().get_text()  # noqa: RUF001 (the minus of mathematics)
    assert "{1.00}" in axes.get_yticklabels()[1].get_text()


def test_a_jagged_curve_gets_its_moving_average() -> None:
    """100 values, so 5 to each side; one of them is not a number, another is infinite."""
    values = np.random.default_rng(0).normal(size=100)
    values[[30, 31]] = np.nan, np.inf
    rows = [{"step": step, "smooth": float(step), "loss": float(value)} for step, value in enumerate(values)]
    loss, smooth = history_figure("train_history", rows).axes
    assert len(smooth.lines) == 1
    raw, average = (line.get_ydata() for line in loss.lines)
    finite = [np.nan if step in (30, 31) else value for step, value in enumerate(values)]
    np.testing.assert_array_equal(raw, finite)
    slow = [np.nanmean(finite[max(0, step - 5) : step + 6]) for step in range(100)]
    np.testing.assert_allclose(average, slow)


def test_a_history_without_rows_is_drawn_as_such() -> None:
    draw = figure_of("x_history")
    assert draw is not None
    figure = draw([])
    assert [text.get_text() for text in figure.axes[0].texts] == ["no rows"]
    figure.canvas.draw()


def test_only_tables_that_are_known_are_drawn() -> None:
    assert figure_of("pool") is pool_figure
    assert figure_of("items") is None


@pytest.mark.parametrize("dataset", FIGURES)
def test_every_panel_has_title_and_axis_labels_even_without_rows(dataset: str) -> None:
    schemas = {
        "judge_scores": scores().schema,
        "pool": {"query_id": pl.Int64, "rank": pl.Int32, "item_id": pl.Int64, "similarity": pl.Float32},
        "negatives": {"query_id": pl.Int64, "slot": pl.Int32, "score": pl.Float32, "origin": pl.String},
    }
    empty = {name: pl.DataFrame(schema=schema) for name, schema in schemas.items()} | {"judge_card_metrics": {}}
    figure = FIGURES[dataset](empty[dataset])
    assert figure.get_suptitle()
    for axes in figure.axes:
        assert axes.get_title()
        assert axes.get_xlabel()
        assert axes.get_ylabel()
    figure.canvas.draw()
