import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unime_kedro.errors import ConfigurationError
from unime_kedro.mining.filters import Reason, false_negative_threshold, filter_false_negatives
from unime_kedro.mining.margins import RULES

NAN = float("nan")
KEPT, FALSE_NEGATIVE, UNJUDGED, PADDING = Reason.KEPT, Reason.FALSE_NEGATIVE, Reason.UNJUDGED, Reason.PADDING


def one_row(scores, positive, rule, margin, size=None):
    mask = np.arange(len(scores)) < (len(scores) if size is None else size)
    keep, reason = filter_false_negatives(
        np.array([scores], np.float32), np.array([positive], np.float32), mask[None], rule, margin
    )
    assert keep.dtype == bool
    assert reason.dtype == np.uint8
    return keep[0].tolist(), reason[0].tolist()


class TestThreshold:
    @pytest.mark.parametrize(
        ("rule", "margin", "expected"),
        [("absolute", 0.01, 0.79), ("relative", 0.05, 0.76), ("percentage", 0.95, 0.76), ("none", 0.01, np.inf)],
    )
    def test_worked_numbers_of_the_docstring(self, rule, margin, expected):
        threshold = false_negative_threshold(0.8, rule, margin)
        assert threshold.dtype == np.float32
        assert threshold == np.float32(expected)

    def test_a_weak_positive_has_a_negative_threshold(self):
        assert false_negative_threshold(0.004, "absolute", 0.01) == pytest.approx(-0.006)

    def test_float32_positives(self):
        positives = np.array([0.95, 0.5, 0.0], np.float32)
        assert false_negative_threshold(positives, "absolute", 0.01).tolist() == pytest.approx([0.94, 0.49, -0.01])
        assert false_negative_threshold(positives, "percentage", 0.5).tolist() == pytest.approx([0.475, 0.25, 0.0])

    @pytest.mark.parametrize(
        ("rule", "margin"),
        [
            ("absolute", -0.01),
            ("absolute", 1.5),
            ("absolute", NAN),
            ("relative", 1.0),
            ("relative", -0.1),
            ("percentage", 0.0),
            ("percentage", 1.01),
            ("percentage", NAN),
        ],
    )
    def test_margin_out_of_range(self, rule, margin):
        with pytest.raises(ConfigurationError, match=f"margin .* out of range for rule '{rule}': expected .*<="):
            false_negative_threshold(0.5, rule, margin)

    def test_margin_limits_that_are_allowed(self):
        assert false_negative_threshold(0.5, "absolute", 0) == 0.5
        assert false_negative_threshold(0.5, "absolute", 1) == -0.5
        assert false_negative_threshold(0.5, "relative", 0) == 0.5
        assert false_negative_threshold(0.5, "percentage", 1) == 0.5

    def test_unknown_rule_lists_the_known_ones(self):
        with pytest.raises(ConfigurationError, match="'ratio'; expected one of absolute, relative, percentage, none"):
            false_negative_threshold(0.5, "ratio", 0.1)

    @pytest.mark.parametrize("positive", [NAN, np.inf])
    def test_positive_without_a_score(self, positive):
        with pytest.raises(ValueError, match="finite score"):
            false_negative_threshold([0.5, positive], "none", 0.0)


class TestFilter:
    def test_paper_rule_is_strict(self):
        # positive 0.75, margin 0.25: all binary fractions, so the threshold is 0.5 exactly
        above = float(np.nextafter(np.float32(0.5), np.float32(1)))
        keep, reason = one_row([0.9, above, 0.5, 0.1], 0.75, "absolute", 0.25)
        assert keep == [False, False, True, True]
        assert reason == [FALSE_NEGATIVE, FALSE_NEGATIVE, KEPT, KEPT]

    def test_decimal_tie_is_kept(self):
        keep, _ = one_row([0.94, 0.9400001], 0.95, "absolute", 0.01)
        assert keep == [True, False]

    def test_relative_and_percentage(self):
        scores = [0.8, 0.77, 0.76, 0.75]
        assert one_row(scores, 0.8, "relative", 0.05)[0] == [False, False, True, True]
        assert one_row(scores, 0.8, "percentage", 0.95)[0] == [False, False, True, True]
        assert one_row(scores, 0.8, "percentage", 0.05)[0] == [False] * 4

    def test_none_keeps_all_that_was_judged(self):
        assert one_row([1.0, 0.99, NAN], 0.0, "none", 0.0) == ([True, True, False], [KEPT, KEPT, UNJUDGED])

    def test_unjudged_and_padding(self):
        _, reason = one_row([NAN, 0.9, 0.1, NAN, 0.1], 0.5, "absolute", 0.01, size=3)
        assert reason == [UNJUDGED, FALSE_NEGATIVE, KEPT, PADDING, PADDING]

    def test_shapes_that_do_not_fit(self):
        with pytest.raises(ValueError, match=r"expected positive_scores of shape \(2,\)"):
            filter_false_negatives(
                np.zeros((2, 3), np.float32), np.zeros(3, np.float32), np.ones((2, 3), bool), "none", 0
            )


def slow_reason(score, positive, in_pool, rule, margin):
    if not in_pool:
        return PADDING
    if score != score:
        return UNJUDGED
    if rule == "none":
        return KEPT
    positive = float(positive)
    limit = {"absolute": positive - margin, "relative": positive * (1 - margin), "percentage": positive * margin}[rule]
    return FALSE_NEGATIVE if score > float(np.float32(limit)) else KEPT


@st.composite
def judged_rows(draw):
    n, k = draw(st.integers(0, 4)), draw(st.integers(1, 7))
    # few distinct values, so that scores often meet the threshold exactly
    value = st.sampled_from([0.0, 0.01, 0.25, 0.49, 0.5, 0.51, 0.75, 1.0])
    scores = [[draw(st.one_of(value, st.just(NAN))) for _ in range(k)] for _ in range(n)]
    positives = [draw(value) for _ in range(n)]
    sizes = [draw(st.integers(0, k)) for _ in range(n)]
    return np.array(scores, np.float32).reshape(n, k), np.array(positives, np.float32), sizes


@given(judged_rows(), st.sampled_from(RULES), st.sampled_from([0.01, 0.25, 0.5, 0.95]))
def test_filter_equals_a_loop(rows, rule, margin):
    scores, positives, sizes = rows
    n, k = scores.shape
    mask = np.arange(k) < np.array(sizes, dtype=int).reshape(n, 1)
    keep, reason = filter_false_negatives(scores, positives, mask, rule, margin)
    for i in range(n):
        for j in range(k):
            expected = slow_reason(float(scores[i, j]), positives[i], j < sizes[i], rule, margin)
            assert reason[i, j] == expected
            assert keep[i, j] == (expected == KEPT)


@given(st.floats(0, 1, width=32), st.floats(0, 1, width=32), st.sampled_from(RULES))
def test_stored_threshold_decides(score, positive, rule):
    threshold = false_negative_threshold(np.float32(positive), rule, 0.3)
    assert one_row([score], positive, rule, 0.3)[0] == [bool(np.float32(score) <= threshold)]
