"""Comparing two models: by hand, against scipy and a slow bootstrap, and what intervals and tests promise."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from unime_kedro.errors import DataError
from unime_kedro.evaluation.comparison import COMPARISON_SCHEMA, compare_models

unhurried = settings(deadline=None, max_examples=20)


def table(answers, units=None) -> pl.DataFrame:
    """Predictions from data set -> "1101", a digit per query; every query its own unit unless given."""
    rows = [(name, i, int(digit) > 0) for name, digits in answers.items() for i, digit in enumerate(digits)]
    found = pl.DataFrame(rows, schema=["dataset", "query_id", "correct"], orient="row")
    return found.with_columns(unit=pl.col("query_id") if units is None else units)


def simulated(seed, sizes=(40, 60), better=0.1, seeds=1, unit=1):
    """Two models that find the same queries hard; the first answers more of them."""
    rng = np.random.default_rng(seed)
    names = np.repeat([f"d{i}" for i in range(len(sizes))], sizes)
    query = np.concatenate([np.arange(n) for n in sizes])
    chance = rng.uniform(0.2, 0.8, size=names.size)
    keys = pl.DataFrame({"dataset": names, "query_id": query, "unit": query // unit})
    return tuple(
        [keys.with_columns(correct=pl.Series(rng.random(names.size) < chance + shift)) for _ in range(seeds)]
        for shift in (better, 0)
    )


def test_by_hand():
    # a: the first wins two of ten queries and loses one; b: it wins one of four
    first = table({"b": "1100", "a": "1111110000"})
    second = table({"b": "1000", "a": "1111001000"})
    found = compare_models(first, second, resamples=20_000)
    assert found.schema == pl.Schema(COMPARISON_SCHEMA)
    assert found["dataset"].to_list() == ["a", "b", "all"]
    assert found["n"].to_list() == found["units"].to_list() == [10, 4, 14]
    assert found["seeds"].to_list() == [1, 1, 1]
    assert found["first"].to_list() == pytest.approx([0.6, 0.5, 0.55])
    assert found["second"].to_list() == pytest.approx([0.5, 0.25, 0.375])
    assert found["difference"].to_list() == pytest.approx([0.1, 0.25, 0.175])
    # a: |sum| of three signs is 1 or 3, of one wins: P(3) + P(1) / 2 = 1/4 + 3/8. b: P(1) / 2
    assert found["p"].to_list()[:2] == pytest.approx([0.625, 0.5])
    assert found["p_holm"].to_list() == [1.0, 1.0, None]
    # variance of ten differences with mean .1: (.29 / 9) / 10; one more unit: 1 / 100
    error = [math.sqrt((0.3 - 0.01) / 9 + 1 / 100), math.sqrt((0.25 - 0.0625) / 3 + 1 / 16)]
    error.append(math.sqrt(((0.3 - 0.01) / 9 + (0.25 - 0.0625) / 3) / 4 + 1 / 14**2))
    for row, one, freedom in zip(found.to_dicts(), error, (9, 3, 12), strict=True):
        reach = scipy.stats.t.ppf(0.975, freedom) * one
        assert (row["low"], row["high"]) == pytest.approx(
            (max(-1, row["difference"] - reach), min(1, row["difference"] + reach)), rel=0.03
        )
        assert row["detectable"] == pytest.approx(min(1, reach + scipy.stats.t.ppf(0.8, freedom) * one), rel=0.03)


def test_p_values_of_queries_are_mcnemars_and_are_corrected_by_holm():
    first, second = (
        table({"a": "1" * 12 + "0" * 4, "b": "1" * 9 + "0" * 20}),
        table({"a": "0" * 12 + "1" * 4, "b": "0" * 29}),
    )
    found = compare_models(first, second, resamples=100)
    exact = [scipy.stats.binomtest(k, n).pvalue - scipy.stats.binom.pmf(k, n, 0.5) for k, n in ((12, 16), (9, 9))]
    assert found["p"].to_list()[:2] == pytest.approx(exact, abs=1e-12)
    assert found["p_holm"].to_list()[:2] == pytest.approx([exact[0], 2 * exact[1]], abs=1e-12)


def test_models_that_never_differ_are_not_certain_to_be_equal():
    answers = table({"a": "10" * 50, "b": "1" * 20})
    found = compare_models(answers, answers)
    assert found["difference"].to_list() == [0, 0, 0]
    assert found["p"].to_list() == [1, 1, 1]
    reach = scipy.stats.t.ppf(0.975, 99) / 100
    assert found.row(0, named=True)["high"] == pytest.approx(reach)
    assert found["low"].to_list() == (-found["high"]).to_list()
    # chance of no difference in 100 queries where a share of .0198 is won: .135; an interval of no width would deny it
    assert 0.9802**100 > 0.1
    # as far as 120 queries reach for the mean, whose data sets count the same
    assert found.row(2, named=True)["high"] == pytest.approx(scipy.stats.t.ppf(0.975, 118) / 120)


def test_one_data_set_is_its_own_mean():
    first, second = simulated(0, (30,))
    one, mean = compare_models(first, second).to_dicts()
    assert {**mean, "dataset": "d0", "p_holm": one["p_holm"]} == one
    assert mean["dataset"] == "all"


def slow_error(first, second, resamples=3000):
    """Standard error of the mean over data sets, drawing whole units of both models together, one by one."""
    joined = first.join(second, on=["dataset", "query_id", "unit"], suffix="_second")
    rng, draws = np.random.default_rng(5), []
    sets = [part for _, part in sorted(joined.partition_by("dataset", as_dict=True).items())]
    units = [
        [group["correct"].cast(int) - group["correct_second"] for _, group in part.group_by("unit")] for part in sets
    ]
    for _ in range(resamples):
        means = []
        for some in units:
            picked = np.concatenate([some[i].to_numpy() for i in rng.integers(0, len(some), len(some))])
            means.append(picked.mean())
        draws.append(np.mean(means))
    return np.std(draws)


@pytest.mark.parametrize("unit", [1, 4])
def test_the_interval_is_that_of_a_slow_bootstrap_of_units(unit):
    first, second = simulated(3, (60, 90), unit=unit)
    found = compare_models(first, second, resamples=4000).row(-1, named=True)
    n = found["units"]
    assert n == -(-60 // unit) + -(-90 // unit)
    few = (1 + 2 / n) * slow_error(first[0], second[0]) ** 2  # about what the factors m / (m - 1) do
    reach = scipy.stats.t.ppf(0.975, n - 2) * math.sqrt(few + 1 / n**2)
    assert found["high"] - found["difference"] == pytest.approx(reach, rel=0.06)


def test_queries_that_share_a_unit_are_no_more_certain_than_one():
    first, second = simulated(1, (50,))
    alone = compare_models(first, second, resamples=500).row(0, named=True)
    copies = [
        pl.concat([side[0].with_columns(query_id=pl.col("query_id") * 5 + i) for i in range(5)])
        for side in (first, second)
    ]
    found = compare_models(*copies, resamples=500).row(0, named=True)
    assert {**found, "n": 50} == pytest.approx(alone)
    assert found["n"] == 250


def test_pairing_makes_the_interval_narrower():
    # both fail on the same queries; the second on one more in ten
    rng = np.random.default_rng(0)
    right = rng.random(400) < 0.5
    first, second = ("".join("01"[int(x)] for x in some) for some in (right, right & (rng.random(400) < 0.9)))
    mixed = "".join(np.random.default_rng(1).permutation(list(second)))
    paired, unpaired = (compare_models(table({"a": first}), table({"a": other})) for other in (second, mixed))
    wide, narrow = ((t["high"] - t["low"])[0] for t in (unpaired, paired))
    assert narrow < 0.5 * wide
    assert paired["low"][0] > 0
    assert paired["p"][0] < 2e-4
    assert paired["detectable"][0] < 0.5 * unpaired["detectable"][0]


@unhurried
@given(st.integers(0, 500), st.integers(1, 3), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing_and_the_other_way_round_changes_the_sign(seed, seeds, random):
    first, second = simulated(seed, (9, 14, 25), seeds=seeds, unit=2)
    expected = compare_models(first, second, resamples=50)
    shuffled = [
        [one.sample(fraction=1, shuffle=True, seed=random.randrange(1000)) for one in side] for side in (first, second)
    ]
    assert compare_models(*shuffled, resamples=50).equals(expected)
    swapped = compare_models(second, first, resamples=50)
    for column, other, sign in (("difference", "difference", -1), ("low", "high", -1), ("first", "second", 1)):
        assert swapped[column].to_list() == pytest.approx((sign * expected[other]).to_list(), abs=1e-12)
    assert swapped["p"].to_list() == pytest.approx(expected["p"].to_list(), abs=1e-12)
    order = random.sample(range(seeds), seeds)
    again = compare_models([first[i] for i in order], [second[i] for i in order], resamples=50)
    for column in ("difference", "low", "high", "p", "detectable"):
        assert again[column].to_list() == pytest.approx(expected[column].to_list(), abs=1e-12)


def test_other_data_sets_and_the_seed():
    first, second = simulated(2, (30, 40, 50))
    whole = compare_models(first, second, resamples=100)
    kept = [side[0].filter(pl.col("dataset") != "d0") for side in (first, second)]
    without = compare_models(*kept, resamples=100)
    assert without.row(0)[:10] == whole.row(1)[:10]  # all but Holm's correction
    other = compare_models(first, second, resamples=100, seed=1)
    assert (other["low"] != whole["low"]).all()
    assert other["p"].to_list()[:3] == whole["p"].to_list()[:3]  # exact
    assert other["p"][3] != whole["p"][3]  # drawn


def test_data_sets_are_resampled_apart():
    # with one stream for both, equal data sets would vary together, and their mean as much as either
    rng = np.random.default_rng(0)
    first, second = ("".join("01"[int(x)] for x in rng.random(300) < p) for p in (0.6, 0.5))
    found = compare_models(table({"a": first, "b": first}), table({"a": second, "b": second}), resamples=5000)
    widths = (found["high"] - found["low"]).to_list()
    assert widths[2] == pytest.approx(widths[0] / math.sqrt(2), rel=0.04)


# --- seeds ---


def test_seeds_by_hand():
    # every query of a seed has the same fate: the first model wins 8, 4 and 6 of ten queries, whichever they are
    rng = np.random.default_rng(0)
    n = 1000
    won = [rng.permutation(np.arange(n) < share * n) for share in (0.8, 0.4, 0.6)]
    first = [table({"a": "".join("01"[int(x)] for x in some)}) for some in won]
    row = compare_models(first, table({"a": "0" * n}), resamples=4000).row(0, named=True)
    assert row["seeds"] == 3
    assert row["difference"] == pytest.approx(0.6)
    # standard error of three seeds: .2 / sqrt(3); queries add next to nothing, so that two degrees are left
    error = 0.2 / math.sqrt(3)
    assert row["high"] == 1  # .6 + 4.3 x .115
    assert row["low"] == pytest.approx(0.6 - 4.303 * error, abs=0.005)
    assert row["p"] == pytest.approx(2 * scipy.stats.t.sf(0.6 / error, 2), rel=0.02)


def two_way(differences: np.ndarray) -> tuple[float, float, float]:
    """Mean squares of queries, of seeds and of what is left of (n_seeds, n) differences, by loops."""
    n_seeds, n = differences.shape
    whole = differences.mean()
    queries = sum(n_seeds * (differences[:, q].mean() - whole) ** 2 for q in range(n)) / (n - 1)
    seeds = sum(n * (differences[s].mean() - whole) ** 2 for s in range(n_seeds)) / (n_seeds - 1)
    left = [
        (differences[s, q] - differences[s].mean() - differences[:, q].mean() + whole) ** 2
        for s in range(n_seeds)
        for q in range(n)
    ]
    return queries, seeds, sum(left) / ((n_seeds - 1) * (n - 1))


def test_seeds_add_their_component_of_variance():
    checked = 0
    for seed in range(12):
        first, second = simulated(seed, (80,), seeds=4)
        row = compare_models(first, second, resamples=10_000).row(0, named=True)
        wins = [a.sort("query_id")["correct"].to_numpy().astype(int) for a in first]
        queries, seeds, left = two_way(np.array(wins) - [b.sort("query_id")["correct"].to_numpy() for b in second])
        if seeds <= left:
            continue
        # variance of the mean: of queries, and of seeds beyond what single answers make them differ
        parts = [queries / 320, seeds / 320, left / 320]
        total = parts[0] + parts[1] - parts[2]
        freedom = total**2 / (parts[0] ** 2 / 79 + parts[1] ** 2 / 3 + parts[2] ** 2 / 237)
        reach = scipy.stats.t.ppf(0.975, max(freedom, 3)) * math.sqrt(total + 1 / 80**2)
        assert row["high"] - row["difference"] == pytest.approx(reach, rel=0.03)
        checked += 1
    assert checked >= 3


def test_seeds_that_do_the_same_add_nothing():
    first, second = simulated(4, (50, 70))
    one, three = compare_models(first, second), compare_models(first * 3, second * 3)
    assert three["seeds"].to_list() == [3] * 3
    for column in ("difference", "low", "high", "detectable"):
        assert three[column].to_list() == pytest.approx(one[column].to_list(), abs=1e-12)


def test_seeds_that_differ_by_single_answers_do_not_widen_the_interval_twice():
    # nothing but luck differs between seeds: two-way ANOVA gives seeds as such no variance
    widths = []
    for i in range(60):
        first, second = simulated(i, (100, 100), seeds=4, better=0)
        row = compare_models(first, second, resamples=200).row(-1, named=True)
        widths.append((row["high"] - row["low"]) / 2)
    # luck alone: variance of an answer .22 (chance .2 to .8), twice, over 4 x 200 answers
    luck = math.sqrt(2 * (0.25 - 0.03) / 800)
    # in about half of the cases seeds differ by less than luck alone makes them; in the others few seeds cost width
    assert np.quantile(widths, 0.25) == pytest.approx(1.97 * luck, rel=0.12)


# --- what is refused ---


def test_what_cannot_be_compared():
    good = table({"a": "101", "b": "01"})
    cases = [
        (good.drop("unit"), good, "predictions of the first model lack unit"),
        (good, [], "no predictions of the second model"),
        (good, good.clear(), "no predictions of the second model"),
        (good, pl.concat([good, good[:1]]), "of the second model: a, query_id 0 stands there twice"),
        (good, good.with_columns(correct=pl.lit(None, pl.Boolean)), "lacks a value"),
        (good, good[:4], r"b, query_id 1 \(unit 1\) was put to one model and not to the other.*1 such queries"),
        (good[1:], good, r"a, query_id 0 \(unit 0\) was put to one model"),
        (good, good.with_columns(unit=pl.col("unit") + 7), r"a, query_id 0 \(unit 0\).*or not in this unit"),
        ([good] * 3, [good] * 2, "the models have 3 and 2 seeds"),
        ([good, good[:4]], [good] * 2, "b, query_id 1"),
        (good.with_columns(model=pl.col("dataset")), good, "of the first model hold several of model"),
        (
            good,
            [good, good.with_columns(benchmark=pl.col("dataset"))],
            "second model, seed number 1 hold several of benchm",
        ),
        (table({"all": "1"}), table({"all": "1"}), "a data set is called 'all'"),
    ]
    for first, second, message in cases:
        with pytest.raises(DataError, match=message):
            compare_models(first, second)
    for options in ({"level": 1.0}, {"level": 0.0}, {"resamples": 1}):
        with pytest.raises(ValueError, match="0 < level < 1 and resamples >= 2"):
            compare_models(good, good, **options)


# --- what intervals and tests promise ---


def answers(rng, sizes, won, lost, unit=1):
    """Two models: the first alone is right on ``won`` of the queries, the second alone on ``lost``."""
    names = np.repeat([f"d{i}" for i in range(len(sizes))], sizes)
    query = np.concatenate([np.arange(n) for n in sizes])
    fate = rng.random(names.size)
    if unit > 1:  # in six of ten queries it is up to the unit
        shared = np.concatenate([np.repeat(rng.random(-(-n // unit)), unit)[:n] for n in sizes])
        fate = np.where(rng.random(names.size) < 0.6, shared, fate)
    both = rng.random(names.size) < 0.5
    keys = pl.DataFrame({"dataset": names, "query_id": query, "unit": query // unit})
    first = np.where(fate < won, True, np.where(fate < won + lost, False, both))
    second = np.where(fate < won, False, np.where(fate < won + lost, True, both))
    return keys.with_columns(correct=pl.Series(first)), keys.with_columns(correct=pl.Series(second))


def rates(sizes, won, lost, unit=1, simulations=1000):
    """Return how often the mean's interval held its value, p < .05 in the mean and in the first data set, detectable."""
    rng, rows = np.random.default_rng(1), []
    for i in range(simulations):
        found = compare_models(*answers(rng, sizes, won, lost, unit), resamples=200, seed=i)
        mean, one = found.row(-1, named=True), found.row(0, named=True)
        rows.append((mean["low"] <= won - lost <= mean["high"], mean["p"] < 0.05, one["p"] < 0.05, mean["detectable"]))
    return np.mean(np.array(rows, dtype=float), axis=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "won", "lost", "unit"),
    [
        ((100, 100, 200), 0.1, 0.1, 1),
        ((50, 100, 100, 200, 300), 0.12, 0.06, 1),
        ((200, 200), 0.1, 0.1, 5),
        ((100,), 0.03, 0, 1),
    ],
)
def test_coverage_and_false_alarms(sizes, won, lost, unit):
    held, alarms, alarms_of_one, _ = rates(sizes, won, lost, unit)
    assert 0.93 <= held <= 0.975
    if won == lost:
        assert 0.03 <= alarms <= 0.06
        assert 0.02 <= alarms_of_one <= 0.06  # few discordant units: cautious


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "rate"), [((100, 100, 100, 100, 100), 0.1), ((1000,), 0.05)])
def test_a_detectable_difference_is_found_in_four_of_five_cases(sizes, rate):
    detectable = rates(sizes, rate, rate, simulations=100)[3]
    found = rates(sizes, rate + detectable / 2, rate - detectable / 2, simulations=500)[1]
    assert 0.75 <= found <= 0.86


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "deviation"), [(3, 0.0), (3, 0.01), (3, 0.02), (5, 0.02)])
def test_coverage_with_seeds(seeds, deviation):
    rng, held = np.random.default_rng(2), 0
    names, query = np.repeat(["d0", "d1", "d2", "d3"], 100), np.tile(np.arange(100), 4)
    keys = pl.DataFrame({"dataset": names, "query_id": query, "unit": query})
    for i in range(500):
        chance, effect = rng.uniform(0.2, 0.8, names.size), rng.normal(0.05, 0.05, names.size)
        shift = rng.normal(0, deviation, (2, seeds))
        first, second = (
            [
                keys.with_columns(correct=pl.Series(rng.random(names.size) < chance + side * effect + s))
                for s in shift[side]
            ]
            for side in (1, 0)
        )
        row = compare_models(first, second, resamples=200, seed=i).row(-1, named=True)
        held += row["low"] <= 0.05 <= row["high"]
    # cautious where seeds do not matter at all
    assert 0.92 <= held / 500 <= (0.975 if deviation else 0.995)
