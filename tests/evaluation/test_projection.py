"""The plane of largest variance, and the gap between two groups of vectors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unime_kedro.evaluation.projection import modality_gap, principal_plane


def test_a_plane_that_can_be_seen() -> None:
    # variance 4 along the third axis, 1 along the first, none along the second
    vectors = np.array([[0, 5, 2], [0, 5, -2], [1, 5, 0], [-1, 5, 0]], dtype=float)
    plane = principal_plane(vectors)
    np.testing.assert_allclose(plane.coordinates, [[2, 0], [-2, 0], [0, 1], [0, -1]], atol=1e-12)
    np.testing.assert_allclose(plane.explained, [0.8, 0.2])


def test_the_plane_is_that_of_the_covariance_matrix() -> None:
    vectors = np.random.default_rng(0).normal(size=(40, 6)) * [1, 4, 2, 1, 3, 1]
    values, axes = np.linalg.eigh(np.cov(vectors.T))
    plane = principal_plane(vectors)
    np.testing.assert_allclose(plane.explained, values[::-1][:2] / values.sum())
    expected = np.abs((vectors - vectors.mean(axis=0)) @ axes[:, ::-1][:, :2])
    np.testing.assert_allclose(np.abs(plane.coordinates), expected, atol=1e-9)


@given(st.integers(0, 99), st.permutations(range(12)))
def test_signs_and_order_are_no_accident(seed: int, order: list[int]) -> None:
    vectors = np.random.default_rng(seed).normal(size=(12, 5))
    plane = principal_plane(vectors)
    np.testing.assert_allclose(principal_plane(vectors[order]).coordinates, plane.coordinates[order], atol=1e-8)
    np.testing.assert_allclose(principal_plane(vectors + 7).coordinates, plane.coordinates, atol=1e-8)
    for axis in range(2):  # the component's largest entry is positive: the fit of coordinates to its column, too
        weights = vectors.T @ plane.coordinates[:, axis]
        assert weights[np.abs(weights).argmax()] > 0


def test_fewer_than_two_directions() -> None:
    one = principal_plane([[3.0, 4.0]])
    np.testing.assert_array_equal(one.coordinates, [[0, 0]])
    np.testing.assert_array_equal(one.explained, [0, 0])
    line = principal_plane([[1.0], [3.0]])
    np.testing.assert_allclose(np.sort(line.coordinates, axis=0), [[-1, 0], [1, 0]])
    np.testing.assert_allclose(line.explained, [1, 0])


@pytest.mark.parametrize("vectors", [np.zeros((0, 3)), [1.0, 2.0], [[1.0, np.nan]]])
def test_what_is_no_matrix_of_numbers(vectors: object) -> None:
    with pytest.raises(ValueError, match="finite vectors"):
        principal_plane(vectors)


def test_the_gap_by_hand() -> None:
    vectors = np.array([[1.0, 1.0], [1.0, -1.0], [-2.0, 0.0]])
    gap = modality_gap(vectors, [True, True, False])
    assert (gap.first, gap.second) == (2, 1)
    assert gap.distance == pytest.approx(3.0)  # centres (1, 0) and (-2, 0)
    assert gap.spread == pytest.approx(0.5)  # 1 in the first group, 0 in the second


def test_opposite_unit_vectors_are_two_apart() -> None:
    assert modality_gap([[0.6, 0.8], [-0.6, -0.8]], [True, False]).distance == pytest.approx(2.0)


@pytest.mark.parametrize("is_first", [[True, True], [False, False]])
def test_both_groups_are_needed(is_first: list[bool]) -> None:
    with pytest.raises(ValueError, match="both groups"):
        modality_gap(np.eye(2), is_first)
