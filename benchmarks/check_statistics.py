"""Do intervals hold what they promise? Simulated evaluations whose true values are known.

    python benchmarks/check_statistics.py                  # 2,000 simulations each; about ten minutes on one core
    python benchmarks/check_statistics.py --simulations 200

Prints how often an interval of 95 % held the true value, how often a test found a difference at p < .05 that is not
there, and how often it found one of the size that it calls detectable. At 2,000 simulations a share of .95 is known to
.01 (two standard errors).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import polars as pl

from unime_kedro.evaluation.comparison import compare_models
from unime_kedro.evaluation.statistics import bootstrap_draws, mean_share_interval, percentile_interval, share_interval

RESAMPLES = 400


def shares(simulations: int) -> None:
    print("share of one data set: queries, share, held, held by percentiles")
    rng = np.random.default_rng(0)
    for n in (20, 100, 1000):
        for p in (0.5, 0.8, 0.95, 0.98):
            held = by_percentiles = 0
            for i in range(simulations):
                right = rng.random(n) < p
                draws = bootstrap_draws("mean", right, resamples=RESAMPLES, seed=i)
                low, high = share_interval(float(right.mean()), draws, 0.95, n)[1:3]
                held += low <= p <= high
                low, high = percentile_interval(float(right.mean()), draws, 0.95, n)[1:3]
                by_percentiles += low <= p <= high
            print(f"  {n:5} {p:.2f}  {held / simulations:.3f}  {by_percentiles / simulations:.3f}", flush=True)


def groups(simulations: int) -> None:
    print("share of one data set whose queries share pictures: pictures, share, held")
    rng = np.random.default_rng(1)
    for n, a, b in ((20, 2, 1), (40, 4, 1), (100, 4, 1), (100, 9.5, 0.5), (200, 9.5, 0.5)):
        held = 0
        for i in range(simulations):
            labels = np.repeat(np.arange(n), rng.integers(1, 10, n))
            right = rng.random(len(labels)) < rng.beta(a, b, n)[labels]
            draws = bootstrap_draws("mean", right, groups=labels, resamples=RESAMPLES, seed=i)
            low, high = share_interval(float(right.mean()), draws, 0.95, n)[1:3]
            held += low <= a / (a + b) <= high
        print(f"  {n:5} {a / (a + b):.2f}  {held / simulations:.3f}", flush=True)


def means(simulations: int) -> None:
    print("mean over data sets: queries of each, shares, held")
    rng = np.random.default_rng(2)
    cases: list[tuple[list[int], list[float]]] = [
        ([100, 300, 1000], [0.5, 0.8, 0.95]),
        ([50, 100, 100, 200, 400], [0.9, 0.95, 0.97, 0.99, 0.6]),
        ([100] * 13, [0.95] * 13),
        ([100] * 13, np.linspace(0.1, 0.99, 13).tolist()),
        ([100] * 36, [0.99] * 36),
        ([100] * 2, [0.98] * 2),
        ([10, 1000], [0.97, 0.5]),
    ]
    for sizes, true in cases:
        held = 0
        for i in range(simulations):
            right = [rng.random(n) < p for n, p in zip(sizes, true, strict=True)]
            draws = [bootstrap_draws("mean", some, resamples=RESAMPLES, seed=[i, j]) for j, some in enumerate(right)]
            low, high = mean_share_interval([float(some.mean()) for some in right], draws, sizes, 0.95)[1:3]
            held += low <= np.mean(true) <= high
        print(f"  {_short(sizes)} {_short(true)}  {held / simulations:.3f}", flush=True)


def _short(values: Sequence[float]) -> str:
    shown = " ".join(f"{value:.3g}" for value in values[:5])
    return f"{shown}, {len(values)} in all;" if len(values) > 5 else f"{shown};"


def answers(rng: np.random.Generator, sizes: list[int], won: float, lost: float, unit: int) -> list[pl.DataFrame]:
    """Return predictions of two models: the first alone is right on ``won`` of the queries, the second on ``lost``."""
    names = np.repeat([f"d{i}" for i in range(len(sizes))], sizes)
    query = np.concatenate([np.arange(n) for n in sizes])
    # in six of ten queries what happens is up to the unit
    unit_id = np.unique(
        np.stack([np.repeat(np.arange(len(sizes)), sizes), query // unit]), axis=1, return_inverse=True
    )[1]
    luck = rng.random(len(names))
    if unit > 1:
        luck = np.where(rng.random(len(names)) < 0.6, rng.random(unit_id.max() + 1)[unit_id], luck)
    both = rng.random(len(names)) < 0.5
    first = np.where(luck < won, True, np.where(luck < won + lost, False, both))
    second = np.where(luck < won, False, np.where(luck < won + lost, True, both))
    table = pl.DataFrame({"dataset": names, "query_id": query, "unit": unit_id})
    return [table.with_columns(correct=pl.Series(side)) for side in (first, second)]


def differences(simulations: int) -> None:
    print("difference of two models: queries of each, first alone right, second alone, queries per unit; held (mean,")
    print("first data set), p < .05 (mean, any data set after correction), detectable, found at that size")
    cases: list[tuple[list[int], float, float, int]] = [
        ([100], 0.1, 0.1, 1),
        ([100], 0.02, 0.02, 1),
        ([100], 0.03, 0.0, 1),
        ([1000], 0.05, 0.05, 1),
        ([50, 100, 100, 200, 300], 0.05, 0.05, 1),
        ([50, 100, 200], 0.15, 0.1, 1),
        ([100] * 13, 0.01, 0.01, 1),
        ([200, 200], 0.1, 0.1, 5),
    ]
    for sizes, won, lost, unit in cases:
        *figures, detectable = _simulate(simulations, sizes, won, lost, unit)
        words = "  ".join(f"{figure:.3f}" for figure in figures)
        line = f"  {_short(sizes)} {won} {lost} {unit}  {words}  {detectable:.4f}"
        if won == lost and won > detectable / 2:
            found = _simulate(simulations, sizes, won + detectable / 2, lost - detectable / 2, unit)[2]
            line += f"  {found:.3f}"
        print(line, flush=True)


def _simulate(simulations: int, sizes: list[int], won: float, lost: float, unit: int) -> list[float]:
    rng, rows = np.random.default_rng(3), []
    for i in range(simulations):
        found = compare_models(*answers(rng, sizes, won, lost, unit), resamples=RESAMPLES, seed=i)
        mean, one = found.row(-1, named=True), found.row(0, named=True)
        held = [row["low"] <= won - lost <= row["high"] for row in (mean, one)]
        rows.append([*held, mean["p"] < 0.05, (found["p_holm"].head(-1) < 0.05).any(), mean["detectable"]])
    return np.mean(np.array(rows, dtype=float), axis=0).tolist()


def seeds(simulations: int) -> None:
    print("difference of two ways of training, 7 data sets of 100 queries: seeds, standard deviation over seeds, held,")
    print("p < .05 without a difference")
    rng = np.random.default_rng(4)
    names, query = np.repeat([f"d{i}" for i in range(7)], 100), np.tile(np.arange(100), 7)
    keys = pl.DataFrame({"dataset": names, "query_id": query, "unit": query})
    for n_seeds in (1, 3, 5):
        for deviation in (0.0, 0.01, 0.02, 0.03):
            held = alarms = 0
            for i in range(simulations // 4):
                chance, effect = rng.uniform(0.2, 0.8, 700), rng.normal(0, 0.05, 700)
                shift = rng.normal(0, deviation, (2, n_seeds))
                tables = [
                    [
                        keys.with_columns(correct=pl.Series(rng.random(700) < chance + side * effect + s))
                        for s in shift[side]
                    ]
                    for side in (0, 1)
                ]
                found = compare_models(*tables, resamples=RESAMPLES, seed=i).row(-1, named=True)
                held += found["low"] <= 0 <= found["high"]
                alarms += found["p"] < 0.05
            n = simulations // 4
            print(f"  {n_seeds} {deviation:.2f}  {held / n:.3f}  {alarms / n:.3f}", flush=True)


def main() -> None:
    """Run all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=2000)
    simulations = parser.parse_args().simulations
    for check in (shares, groups, means, differences, seeds):
        check(simulations)


if __name__ == "__main__":
    main()
