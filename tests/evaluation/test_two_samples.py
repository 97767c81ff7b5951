"""Two-sample tests by permutation: distances as scipy has them, and chances that hold what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from unime_kedro.evaluation.two_samples import two_sample_test


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.lists(st.integers(0, 9), min_size=1, max_size=30))
def test_the_distance_is_kolmogorovs(one, other):
    found = two_sample_test(
        (np.array(one), np.arange(len(one))),
        (np.array(other), np.arange(len(other))),
        design="unpaired",
        permutations=9,
    )
    assert found.distance == pytest.approx(ks_2samp(one, other).statistic)


def test_many_values_are_compared_on_a_grid():
    random = np.random.default_rng(0)
    one, other = random.normal(0, 1, 5000), random.normal(0.1, 1, 5000)
    found = two_sample_test((one, np.arange(5000)), (other, np.arange(5000)), design="unpaired", permutations=199)
    exact = ks_2samp(one, other)
    assert found.distance == pytest.approx(exact.statistic, abs=0.002)
    assert found.critical == pytest.approx(1.358 * (2 / 5000) ** 0.5, rel=0.15)
    assert found.chance == pytest.approx(1 / 200)


@pytest.mark.parametrize("design", ["paired", "unpaired"])
def test_where_nothing_differs_one_test_in_ten_says_so_at_ten_percent(design):
    """Clusters whose values hang together, drawn alike on both sides."""
    random = np.random.default_rng(1)
    chances = []
    for i in range(150):
        clusters = np.repeat(np.arange(40), 5)
        values = [random.normal(0, 1, 40)[clusters] + random.normal(0, 0.3, 200) for _ in range(2)]
        found = two_sample_test((values[0], clusters), (values[1], clusters), design=design, permutations=99, seed=i)
        chances.append(found.chance)
    # 150 draws at .1: 15 expected, standard deviation 3.7
    assert 4 <= sum(chance <= 0.1 for chance in chances) <= 27


def test_a_test_that_ignores_clusters_would_cry_wolf():
    random = np.random.default_rng(2)
    clusters = np.repeat(np.arange(40), 5)
    wolves = sum(
        ks_2samp(random.normal(0, 1, 40)[clusters], random.normal(0, 1, 40)[clusters]).pvalue <= 0.1 for _ in range(100)
    )
    assert wolves > 30


def test_a_paired_design_sees_what_an_unpaired_one_cannot():
    random = np.random.default_rng(3)
    clusters = np.arange(300)
    base = random.normal(0, 1, 300)
    paired, unpaired = (
        two_sample_test((base, clusters), (base + 0.03, clusters), design=design, permutations=299)
        for design in ("paired", "unpaired")
    )
    assert paired.distance == unpaired.distance
    assert paired.chance < 0.05 < unpaired.chance
    assert paired.critical < unpaired.critical


def test_seeds_repeat_and_equal_sets_are_equal():
    values, clusters = np.arange(20) % 7, np.arange(20) // 2
    found = [two_sample_test((values, clusters), (values[::-1], clusters), design="unpaired", seed=4) for _ in range(2)]
    assert found[0] == found[1]
    same = two_sample_test((values, clusters), (values, clusters), design="paired", permutations=50)
    assert (same.distance, same.chance) == (0.0, 1.0)


def test_what_cannot_be_compared_is_refused():
    some = (np.arange(3), np.arange(3))
    with pytest.raises(ValueError, match="empty"):
        two_sample_test(some, (np.array([]), np.array([])), design="unpaired")
    with pytest.raises(ValueError, match="same clusters"):
        two_sample_test(some, (np.arange(3), np.arange(3) + 1), design="paired")
