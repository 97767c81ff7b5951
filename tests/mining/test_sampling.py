import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unime_kedro.mining.sampling import Origin, cyclical_order, random_keys, sample_negatives

SAMPLED, DUPLICATE, FALLBACK = Origin.SAMPLED, Origin.DUPLICATE, Origin.FALLBACK


def sample(keep, n, step=5, seed=42, query_ids=None, mask=None, scores=None):
    keep = np.atleast_2d(np.array(keep, dtype=bool))
    if scores is None:
        scores = np.tile(np.arange(keep.shape[1], dtype=np.float32) / 100, (len(keep), 1))
    mask = np.ones_like(keep) if mask is None else np.atleast_2d(np.array(mask, dtype=bool))
    ids = np.arange(len(keep)) if query_ids is None else np.array(query_ids)
    return sample_negatives(keep, scores, mask, n, step, seed, ids)


class TestCyclicalOrder:
    def test_paper(self):
        """All 50 kept: positions 0, 5, ..., 45, then 1, 6, ..., 46, and so on."""
        order = cyclical_order(np.ones((1, 50), dtype=bool))[0].tolist()
        assert order[:12] == [0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 1, 6]
        assert order[-10:] == [4, 9, 14, 19, 24, 29, 34, 39, 44, 49]

    def test_stride_counts_kept_members_only(self):
        # kept: columns 1, 2, 4, 5, 7, 8, 9; with step 3 these are numbers 0 3 6, 1 4, 2 5 of them
        keep = np.array([[0, 1, 1, 0, 1, 1, 0, 1, 1, 1]], dtype=bool)
        assert cyclical_order(keep, 3)[0].tolist() == [1, 5, 9, 2, 7, 4, 8, -1, -1, -1]

    def test_step_one_is_retrieval_order(self):
        assert cyclical_order(np.array([[1, 0, 1, 1]], dtype=bool), 1)[0].tolist() == [0, 2, 3, -1]

    def test_step_beyond_the_pool_is_retrieval_order(self):
        assert cyclical_order(np.array([[1, 0, 1, 1]], dtype=bool), 9)[0].tolist() == [0, 2, 3, -1]

    def test_several_rows(self):
        keep = np.array([[0, 0, 0], [1, 1, 1], [0, 1, 0]], dtype=bool)
        assert cyclical_order(keep, 2).tolist() == [[-1, -1, -1], [0, 2, 1], [1, -1, -1]]

    @pytest.mark.parametrize("shape", [(0, 5), (3, 0)])
    def test_empty(self, shape):
        assert cyclical_order(np.ones(shape, dtype=bool)).shape == shape

    def test_step_below_one(self):
        with pytest.raises(ValueError, match="step must be at least 1, got 0"):
            cyclical_order(np.ones((1, 3), dtype=bool), 0)


class TestSample:
    def test_paper(self):
        positions, scores, origin = sample(np.ones(50), 10)
        assert positions.tolist() == [[0, 5, 10, 15, 20, 25, 30, 35, 40, 45]]
        assert scores[0].tolist() == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45])
        assert set(origin[0]) == {SAMPLED}
        assert (positions.dtype, scores.dtype, origin.dtype) == (np.int32, np.float32, np.uint8)

    def test_paper_with_a_dropped_member(self):
        """Without number 0 of 12: kept 1..11, so numbers 0, 5, 10 are columns 1, 6, 11, then 1, 6 are columns 2, 7."""
        keep = np.ones(12)
        keep[0] = 0
        assert sample(keep, 10)[0].tolist() == [[1, 6, 11, 2, 7, 3, 8, 4, 9, 5]]

    def test_fewer_than_wanted_repeats_the_selection_in_order(self):
        keep = [0, 1, 0, 1, 1, 1, 1, 1]  # 6 kept: numbers 0 5, 1, 2, 3, 4 = columns 1 7 3 4 5 6
        positions, scores, origin = sample(keep, 10)
        assert positions.tolist() == [[1, 7, 3, 4, 5, 6, 1, 7, 3, 4]]
        assert scores[0].tolist() == pytest.approx([0.01, 0.07, 0.03, 0.04, 0.05, 0.06, 0.01, 0.07, 0.03, 0.04])
        assert origin[0].tolist() == [SAMPLED] * 6 + [DUPLICATE] * 4

    def test_one_kept(self):
        positions, _, origin = sample([0, 0, 1], 4)
        assert positions.tolist() == [[2, 2, 2, 2]]
        assert origin[0].tolist() == [SAMPLED] + [DUPLICATE] * 3

    def test_exactly_enough_has_no_duplicate(self):
        assert sample(np.ones(10), 10)[2].tolist() == [[SAMPLED] * 10]

    def test_nothing_kept_draws_from_the_pool_without_replacement(self):
        mask = np.arange(60) < 50
        positions, scores, origin = sample(np.zeros(60), 10, mask=mask)
        drawn = positions[0].tolist()
        assert len(set(drawn)) == 10
        assert max(drawn) < 50
        assert scores.tolist() == [[1.0] * 10]
        assert origin.tolist() == [[FALLBACK] * 10]

    def test_fallback_with_a_small_pool_repeats_in_the_drawn_order(self):
        positions, scores, origin = sample(np.zeros(5), 8, mask=[1, 1, 1, 0, 0])
        drawn = positions[0].tolist()
        assert sorted(drawn[:3]) == [0, 1, 2]
        assert drawn[3:] == [*drawn[:3], *drawn[:2]]
        assert set(origin[0]) == {FALLBACK}
        assert set(scores[0]) == {1.0}

    def test_fallback_depends_on_seed_and_query_only(self):
        keep = np.zeros((40, 20))
        keep[::3] = 1
        ids = np.arange(40) * 7
        whole = sample(keep, 5, query_ids=ids)[0]
        shuffled = np.random.default_rng(0).permutation(40)
        assert (sample(keep[shuffled], 5, query_ids=ids[shuffled])[0] == whole[shuffled]).all()
        alone = [sample(keep[i], 5, query_ids=ids[i : i + 1])[0][0] for i in range(40)]
        assert (np.array(alone) == whole).all()
        wider = np.pad(keep, ((0, 0), (0, 9)))
        mask = np.arange(29) < np.full((40, 1), 20)
        assert (sample(wider, 5, query_ids=ids, mask=mask)[0] == whole).all()
        other_seed = sample(keep, 5, query_ids=ids, seed=43)[0]
        assert (other_seed[::3] == whole[::3]).all()  # no random draw there
        assert (other_seed != whole).any()

    def test_fallback_is_uniform(self):
        """Every column equally often in the first slot, and every pair in the first two (chi-square, 1e-4 quantile)."""
        n = 30_000
        positions = sample(np.zeros((n, 5)), 2)[0]
        first = np.bincount(positions[:, 0], minlength=5)
        assert ((first - n / 5) ** 2 / (n / 5)).sum() < 23.5  # 4 degrees of freedom
        pairs = Counter(map(tuple, positions.tolist()))
        expected = n / 20
        statistic = sum((pairs[pair] - expected) ** 2 / expected for pair in itertools.permutations(range(5), 2))
        assert statistic < 50.8  # 19 degrees of freedom

    def test_empty_pool_names_the_query(self):
        with pytest.raises(ValueError, match="the pool of query_id 9 is empty"):
            sample(np.zeros((2, 3)), 2, mask=[[1, 1, 1], [0, 0, 0]], query_ids=[8, 9])

    def test_kept_outside_the_pool(self):
        with pytest.raises(ValueError, match="outside the pool"):
            sample([1, 1], 2, mask=[1, 0])

    @pytest.mark.parametrize(("n", "step", "name"), [(0, 5, "n_negatives"), (3, 0, "step")])
    def test_parameters_below_one(self, n, step, name):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            sample([1, 1], n, step=step)

    def test_no_queries(self):
        positions, scores, origin = sample(np.zeros((0, 4)), 3)
        assert positions.shape == scores.shape == origin.shape == (0, 3)


def splitmix64_stream(state, count):
    """The published generator, in Python's unbounded integers."""
    out, ones = [], 2**64 - 1
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & ones
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & ones
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & ones
        out.append(z ^ (z >> 31))
    return out


def slow_keys(seed, query_id, width):
    """Seed -> number query_id of its stream -> the stream of that query."""
    (state,) = splitmix64_stream(seed, 1)
    row = splitmix64_stream(state + query_id * 0x9E3779B97F4A7C15, 1)[0]
    return splitmix64_stream(row, width)


def test_splitmix64_reference_values():
    # first outputs of the published C code for seed 1234567
    assert splitmix64_stream(1234567, 2) == [6457827717110365317, 3203168211198807973]


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**40))
def test_random_keys_are_splitmix64_streams(seed, query_id):
    assert random_keys(seed, np.array([query_id]), 4)[0].tolist() == slow_keys(seed, query_id, 4)


def slow_sample(keep, pool_size, n, step, seed, query_id):
    kept = [column for column, flag in enumerate(keep) if flag]
    if not kept:
        keys = slow_keys(seed, query_id, pool_size)
        drawn = sorted(range(pool_size), key=lambda column: keys[column])
        return [(drawn[slot % pool_size], FALLBACK) for slot in range(n)]
    walk = []
    for start in range(step):
        walk.extend(kept[start::step])
    out = [(column, SAMPLED) for column in walk[:n]]
    while len(out) < n:
        out.append((walk[len(out) % len(walk)], DUPLICATE))
    return out


@st.composite
def pools(draw):
    k = draw(st.integers(1, 24))
    rows = []
    for query_id in draw(st.lists(st.integers(0, 10**9), max_size=5, unique=True)):
        size = draw(st.integers(1, k))
        few = draw(st.booleans())
        flags = draw(st.lists(st.just(False) if few else st.booleans(), min_size=size, max_size=size))
        rows.append((query_id, size, flags + [False] * (k - size)))
    return k, rows


@given(pools(), st.integers(1, 12), st.integers(1, 7), st.integers(0, 99))
def test_sampler_equals_a_loop(pool, n, step, seed):
    k, rows = pool
    ids = np.array([row[0] for row in rows], dtype=np.int64)
    sizes = np.array([row[1] for row in rows], dtype=int).reshape(-1, 1)
    keep = np.array([row[2] for row in rows], dtype=bool).reshape(-1, k)
    scores = np.random.default_rng(seed).random((len(rows), k), dtype=np.float32)
    positions, got, origin = sample_negatives(keep, scores, np.arange(k) < sizes, n, step, seed, ids)
    for i, (query_id, size, flags) in enumerate(rows):
        expected = slow_sample(flags, size, n, step, seed, query_id)
        assert list(zip(positions[i].tolist(), origin[i].tolist(), strict=True)) == expected
        for slot, (column, kind) in enumerate(expected):
            assert got[i, slot] == (1.0 if kind == FALLBACK else scores[i, column])


@given(st.integers(1, 40), st.integers(1, 8))
def test_cyclical_order_visits_every_kept_member_once(k, step):
    keep = np.random.default_rng(k * 8 + step).random((3, k)) < 0.6
    for row, order in zip(keep, cyclical_order(keep, step), strict=True):
        kept = np.flatnonzero(row).tolist()
        walk = [column for start in range(step) for column in kept[start::step]]
        assert order.tolist() == walk + [-1] * (k - len(kept))
