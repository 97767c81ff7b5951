"""Judging pools in part: the tables, what is paid for, and going on after a stop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from strategy_loops import lazy_one

from unime_kedro.errors import DataError
from unime_kedro.mining.judging import judge_pairs
from unime_kedro.mining.partial import COVERAGE_SCHEMA, Strategy, judge_some, whole_coverage
from unime_kedro.mining.scorer import Group, PairScorer
from unime_kedro.mining.selection import select_negatives
from unime_kedro.mllm.judgements import Judgements

N_QUERIES, POOL, N_ITEMS, NEGATIVES, STEP, LOOK = 30, 20, 90, 6, 4, 3
RULE = {"rule": "absolute", "margin": 0.01}


class TableJudge:
    """Answers from a matrix by the numbers in the texts, and counts; stops or fails where it is told to."""

    def __init__(self, logits: np.ndarray, stop_after: int | None = None, fails: set[tuple[int, int]] = frozenset()):
        self.logits, self.stop_after, self.fails, self.asked = logits, stop_after, fails, []

    def identity(self) -> dict[str, Any]:
        return {"model": f"table {float(self.logits.sum())}"}

    def judge_all(self, groups: Sequence[Group]) -> Iterator[Judgements]:
        for query, candidates in groups:
            if self.stop_after is not None and len(self.asked) >= self.stop_after:
                raise KeyboardInterrupt
            pairs = [(int(query.text.split()[1]), int(c.text.split()[1])) for c in candidates]
            self.asked += pairs
            yes = np.array([self.logits[pair] for pair in pairs])
            errors = ["broken" if pair in self.fails else "" for pair in pairs]
            yes = np.where([bool(e) for e in errors], np.nan, yes)
            yield Judgements(yes, np.where(np.isnan(yes), np.nan, 0.0), errors)


@pytest.fixture(scope="module")
def world() -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, np.ndarray]:
    """Queries, items, pools of several sizes, logits; near members are false negatives more often."""
    random = np.random.default_rng(5)
    items = pl.DataFrame(
        {
            "item_id": range(N_ITEMS),
            "text": [f"content {i}" for i in range(N_ITEMS)],
            "image": [""] * N_ITEMS,
            "content_key": [f"{i:032x}" for i in range(N_ITEMS)],
        }
    )
    queries = pl.DataFrame({"query_id": range(N_QUERIES), "item_id": range(N_QUERIES)})
    queries = queries.with_columns(positive_item_id=pl.col("item_id") + N_QUERIES)
    logits = random.normal(-2, 1, (N_ITEMS, N_ITEMS))
    rows = []
    for q in range(N_QUERIES):
        members = random.permutation(np.setdiff1d(np.arange(N_QUERIES, N_ITEMS), [q + N_QUERIES]))
        size = POOL if q % 5 else 2 + q // 5
        for rank, item in enumerate(members[:size].tolist()):
            rows.append((q, rank, item))
            logits[q, item] += 4.0 * (random.random() < 0.6 * 0.8**rank)
        logits[q, q + N_QUERIES] = 1.0
    schema = {"query_id": pl.Int64, "rank": pl.Int32, "item_id": pl.Int64}
    return queries, items, pl.DataFrame(rows, schema=schema, orient="row"), logits


def strategy(kind: str = "lazy", **options: Any) -> Strategy:
    return Strategy(kind, NEGATIVES, RULE["rule"], RULE["margin"], STEP, LOOK, **options)


def run(world: Any, store: Path, judge: TableJudge, plan: Strategy, **options: Any) -> tuple[Any, pl.DataFrame]:
    queries, items, pool, _ = world
    if "small" in options:
        options["small"] = PairScorer(items, options["small"], store, store)
    return judge_some(queries, pool, PairScorer(items, judge, store, store), plan, **options)


def by_hand(world: Any) -> tuple[dict[int, set[int]], dict[int, list[int]]]:
    """Which members are asked about and which are taken, by a loop."""
    _, _, pool, logits = world
    asked, taken = {}, {}
    for q in range(N_QUERIES):
        members = pool.filter(query_id=q).sort("rank")["item_id"].to_list()
        scores = [float(np.float32(1 / (1 + np.exp(-logits[q, i])))) for i in members]
        limit = 1 / (1 + np.exp(-1.0)) - 0.01
        places, found = lazy_one(scores, limit, NEGATIVES, STEP, LOOK)
        asked[q], taken[q] = {members[p] for p in places}, [members[p] for p in found]
    return asked, taken


def test_what_is_judged_and_taken_is_what_a_loop_says(world: Any, tmp_path: Path) -> None:
    judge = TableJudge(world[3])
    found, coverage = run(world, tmp_path, judge, strategy())
    asked, taken = by_hand(world)
    members = found.scores.filter(~pl.col("is_positive"))
    for q in range(N_QUERIES):
        assert set(members.filter(query_id=q)["item_id"]) == asked[q]
    assert dict(coverage.select("query_id", "taken").rows()) == taken
    assert dict(coverage.select("query_id", "judged").rows()) == {q: len(x) for q, x in asked.items()}
    assert coverage["pool_size"].to_list() == world[2].group_by("query_id", maintain_order=True).len()["len"].to_list()
    assert dict(coverage.schema) == COVERAGE_SCHEMA
    # nothing is asked twice, positives included, and the counts are those of the judge
    calls = N_QUERIES + sum(map(len, asked.values()))
    assert len(judge.asked) == len(set(judge.asked)) == calls
    everything = N_QUERIES + len(world[2])
    assert found.metrics["judge_calls"] == found.metrics["judged_now"] == calls
    assert found.metrics["judge_calls_exhaustive"] == everything
    assert found.metrics["judge_calls_share"] == pytest.approx(calls / everything)
    assert found.metrics["judge_calls_per_query"] == pytest.approx(calls / N_QUERIES)
    assert found.metrics["taken_per_query"] == pytest.approx(sum(map(len, taken.values())) / N_QUERIES)


def test_what_is_selected_is_what_was_taken_and_obeys_the_rule(world: Any, tmp_path: Path) -> None:
    found, coverage = run(world, tmp_path, TableJudge(world[3]), strategy())
    taken = by_hand(world)[1]
    for wanted in (NEGATIVES, NEGATIVES - 2):
        result = select_negatives(
            world[2], found.scores, n_negatives=wanted, step=STEP, coverage=coverage, chunk_queries=7, **RULE
        )
        limit = dict(result.selection.select("query_id", "threshold").rows())
        for q, items in taken.items():
            rows = result.negatives.filter(query_id=q).sort("slot")
            if not items:
                assert set(rows["origin"]) == {"fallback"}
                continue
            assert rows["item_id"].to_list() == [items[:wanted][i % len(items[:wanted])] for i in range(wanted)]
            assert rows["origin"].to_list() == ["sampled" if i < len(items) else "duplicate" for i in range(wanted)]
            assert rows["score"].max() <= limit[q]
            scores = dict(found.scores.filter(query_id=q).select("item_id", "score").rows())
            assert rows["score"].to_list() == [scores[i] for i in rows["item_id"]]


def test_an_exhaustive_run_selects_the_same_with_a_table_of_whole_pools(world: Any, tmp_path: Path) -> None:
    queries, items, pool, logits = world
    everything = judge_pairs(queries, items, pool, TableJudge(logits), tmp_path, tmp_path)
    whole, coverage = run(
        world, tmp_path, TableJudge(logits), Strategy("lazy", NEGATIVES, "absolute", 0.01, STEP, POOL)
    )
    assert_frame_equal(whole.scores, everything.scores)
    options = {"n_negatives": NEGATIVES, "step": STEP, **RULE}
    picked = select_negatives(pool, whole.scores, coverage=coverage, **options)
    sampled = select_negatives(pool, everything.scores, **options)
    assert_frame_equal(picked.negatives, sampled.negatives)
    assert_frame_equal(picked.selection, sampled.selection)
    table = whole_coverage(pool)
    assert_frame_equal(table.drop("taken"), coverage.drop("taken"))
    assert dict(table.schema) == COVERAGE_SCHEMA
    assert table["taken"].null_count() == len(table)


def test_order_of_rows_does_not_matter(world: Any, tmp_path: Path) -> None:
    queries, items, pool, logits = world
    mixed = (queries.reverse(), items.reverse(), pool.sample(fraction=1, shuffle=True, seed=2), logits)
    for plan in (strategy(), strategy("budget", calls_per_query=9.5)):
        one = run(world, tmp_path / "a", TableJudge(logits), plan)
        other = run(mixed, tmp_path / "b", TableJudge(logits), plan)
        assert_frame_equal(one[0].scores, other[0].scores)
        assert_frame_equal(one[1], other[1])


@pytest.mark.parametrize("kind", ["lazy", "budget", "cascade"])
def test_a_stopped_run_goes_on_and_pays_for_nothing_twice(world: Any, tmp_path: Path, kind: str) -> None:
    logits = world[3]
    small = logits + np.random.default_rng(1).normal(0, 0.5, logits.shape)
    plan = strategy(kind, calls_per_query=9.0, band=0.05)
    more = {"small": TableJudge(small)} if kind == "cascade" else {}
    whole, coverage = run(world, tmp_path / "a", TableJudge(logits), plan, **more)
    calls: list[tuple[int, int]] = []
    for stop in (40, 60, 90, 120, None):
        judge = TableJudge(logits, stop_after=None if stop is None else stop - len(calls))
        more = {"small": TableJudge(small)} if kind == "cascade" else {}
        try:
            found, table = run(world, tmp_path / "b", judge, plan, **more)
        except KeyboardInterrupt:
            assert stop is not None
        calls += judge.asked
    assert len(calls) == len(set(calls)) == whole.metrics["judge_calls"]
    assert_frame_equal(found.scores, whole.scores)
    assert_frame_equal(table, coverage)


def test_judging_the_whole_pool_later_pays_for_the_rest_only(world: Any, tmp_path: Path) -> None:
    queries, items, pool, logits = world
    first, _ = run(world, tmp_path, TableJudge(logits), strategy())
    judge = TableJudge(logits)
    everything = judge_pairs(queries, items, pool, judge, tmp_path, tmp_path)
    assert len(judge.asked) == N_QUERIES + len(pool) - first.metrics["judge_calls"]
    known = everything.scores.join(first.scores, on=["query_id", "item_id"], how="semi", maintain_order="left")
    assert_frame_equal(known, first.scores)


def test_a_budget_is_kept_to_and_bought_with_it_is_better_knowledge(world: Any, tmp_path: Path) -> None:
    logits, exact = world[3], by_exhaustive(world)
    agree = []
    for calls in (3.0, 9.0, 14.0, 20.0):
        judge = TableJudge(logits)
        found, coverage = run(world, tmp_path / str(calls), judge, strategy("budget", calls_per_query=calls))
        limit = round(calls * N_QUERIES)
        assert found.metrics["judge_calls"] == len(judge.asked) == N_QUERIES + min(limit, len(world[2]))
        taken = dict(coverage.select("query_id", "taken").rows())
        agree.append(sum(len(set(taken[q]) & set(exact[q])) for q in exact))
    assert agree == sorted(agree)
    assert agree[-1] == sum(map(len, exact.values())), "all calls: all is as if judged exhaustively"


def by_exhaustive(world: Any) -> dict[int, list[int]]:
    _, _, pool, logits = world
    limit = 1 / (1 + np.exp(-1.0)) - 0.01
    found = {}
    for q in range(N_QUERIES):
        members = pool.filter(query_id=q).sort("rank")["item_id"].to_list()
        keep = [i for i in members if np.float32(1 / (1 + np.exp(-logits[q, i]))) <= limit]
        found[q] = [keep[i] for first in range(STEP) for i in range(first, len(keep), STEP)][:NEGATIVES]
    return found


def test_a_cascade_takes_nothing_on_the_small_judges_word_alone(world: Any, tmp_path: Path) -> None:
    logits = world[3]
    small = logits + np.random.default_rng(7).normal(0, 1.0, logits.shape)
    judge, other = TableJudge(logits), TableJudge(small)
    found, coverage = run(world, tmp_path, judge, strategy("cascade", band=0.02), small=other)
    assert found.metrics["small_judge_calls"] == len(other.asked) == N_QUERIES + len(world[2])
    assert found.metrics["judge_calls"] == len(judge.asked) < len(other.asked)
    # the scores are the large judge's, of everything that was taken
    for q, i, yes in found.scores.select("query_id", "item_id", "yes_logit").rows():
        assert yes == pytest.approx(logits[q, i], abs=1e-5)
    result = select_negatives(world[2], found.scores, n_negatives=NEGATIVES, step=STEP, coverage=coverage, **RULE)
    sampled = result.negatives.filter(pl.col("origin") == "sampled")
    limits = sampled.join(result.selection, on="query_id")
    assert (limits["score"] <= limits["threshold"]).all()


def test_a_pair_that_cannot_be_judged_is_not_taken(world: Any, tmp_path: Path) -> None:
    taken = by_hand(world)[1]
    query = next(q for q in taken if len(taken[q]) == NEGATIVES)
    broken = (query, taken[query][0])
    with pytest.raises(DataError, match=r"1 of \d+ pairs .* could not be judged"):
        run(world, tmp_path / "a", TableJudge(world[3], fails={broken}), strategy())
    found, coverage = run(world, tmp_path / "b", TableJudge(world[3], fails={broken}), strategy(), max_error_share=0.1)
    assert found.errors.select("query_id", "item_id").rows() == [broken]
    assert broken[1] not in coverage.filter(query_id=query)["taken"].item().to_list()
    assert len(coverage.filter(query_id=query)["taken"].item()) == NEGATIVES
    assert (
        coverage.filter(query_id=query)["judged"].item()
        == found.scores.filter(pl.col("query_id") == query, ~pl.col("is_positive")).height + 1
    )


def test_a_query_whose_positive_cannot_be_judged_is_skipped(world: Any, tmp_path: Path) -> None:
    found, coverage = run(
        world, tmp_path, TableJudge(world[3], fails={(7, 7 + N_QUERIES)}), strategy(), max_error_share=0.1
    )
    assert coverage.filter(query_id=7).select("judged", "taken").rows() == [(0, [])]
    result = select_negatives(world[2], found.scores, n_negatives=NEGATIVES, step=STEP, coverage=coverage, **RULE)
    assert result.skipped.rows() == [(7, "positive_unjudged")]


def test_a_coverage_of_other_pools_or_scores_is_refused(world: Any, tmp_path: Path) -> None:
    queries, items, pool, logits = world
    found, coverage = run(world, tmp_path, TableJudge(logits), strategy())
    options = {"n_negatives": NEGATIVES, "step": STEP, **RULE}
    with pytest.raises(DataError, match=r"nothing is said of query_id 3;"):
        select_negatives(pool, found.scores, coverage=coverage.filter(pl.col("query_id") != 3), **options)
    strange = coverage.with_columns(taken=pl.when(query_id=4).then([999]).otherwise("taken"))
    with pytest.raises(DataError, match=r"item_id 999 of query_id 4 is not in its pool"):
        select_negatives(pool, found.scores, coverage=strange, **options)
    everything = judge_pairs(queries, items, pool, TableJudge(logits), tmp_path, tmp_path).scores
    limit = 1 / (1 + np.exp(-1.0)) - 0.01
    bad = everything.filter(pl.col("score") > limit, ~pl.col("is_positive")).row(0, named=True)
    wrong = coverage.with_columns(taken=pl.when(query_id=bad["query_id"]).then([bad["item_id"]]).otherwise("taken"))
    with pytest.raises(DataError, match=rf"item_id {bad['item_id']} was taken for query_id {bad['query_id']}, but"):
        select_negatives(pool, everything, coverage=wrong, **options)


def test_an_empty_pool_is_said(world: Any, tmp_path: Path) -> None:
    queries, items, pool, logits = world
    with pytest.raises(DataError, match="nothing to judge"):
        run((queries, items, pool.clear(), logits), tmp_path, TableJudge(logits), strategy())
