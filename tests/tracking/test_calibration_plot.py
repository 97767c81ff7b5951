"""The calibration figure draws the judge card's curves."""

from __future__ import annotations

import numpy as np

from unime_kedro.tracking.plots import calibration_figure, figure_of

CURVE = {"pairs": [10, 0, 4], "mean_score": [0.1, None, 0.9], "positive_share": [0.2, None, 0.75]}
OTHER = {"pairs": [9, 1, 4], "mean_score": [0.2, 0.5, 0.8], "positive_share": [0.1, 1.0, 0.75]}


def test_curves_and_counts() -> None:
    left, right = calibration_figure({"curve": {"calibrated": CURVE, "uncalibrated": OTHER}}).axes
    diagonal, calibrated, uncalibrated = left.lines
    np.testing.assert_array_equal(diagonal.get_xydata(), [[0, 0], [1, 1]])
    np.testing.assert_array_equal(calibrated.get_xydata(), [[0.1, 0.2], [np.nan, np.nan], [0.9, 0.75]])
    np.testing.assert_array_equal(uncalibrated.get_xydata(), [[0.2, 0.1], [0.5, 1.0], [0.8, 0.75]])
    assert [line.get_label() for line in (calibrated, uncalibrated)] == ["calibrated", "uncalibrated"]
    assert [patch.get_data().values.tolist() for patch in right.patches] == [[10, 0, 4], [9, 1, 4]]
    assert left.figure.get_suptitle() == "Judge against the truth: 14 pairs"


def test_without_a_truth_it_says_so() -> None:
    left, _ = calibration_figure({"curve": {}, "auc": 0.5}).axes
    assert [text.get_text() for text in left.texts] == ["no rows"]


def test_it_is_drawn_when_the_metrics_are_saved() -> None:
    assert figure_of("judge_card_metrics") is calibration_figure
