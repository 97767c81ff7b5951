import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from unime_kedro.errors import ConfigurationError, DataError
from unime_kedro.mining.selection import false_negatives_by_dataset, select_negatives

NAN = float("nan")
POOL = {"query_id": pl.Int64, "rank": pl.Int32, "item_id": pl.Int64, "similarity": pl.Float32}
SCORES = {"query_id": pl.Int64, "item_id": pl.Int64, "is_positive": pl.Boolean, "score": pl.Float32}


def tables(pools, positives):
    """Tables in the pipelines' order. pools: query -> [(item, score)], positives: query -> (item, score)."""
    pool = [(q, rank, item, 0.5) for q, members in pools.items() for rank, (item, _) in enumerate(members)]
    scores = []
    for q in sorted(pools.keys() | positives.keys()):
        if q in positives:
            scores.append((q, positives[q][0], True, positives[q][1]))
        scores += [(q, item, False, score) for item, score in pools.get(q, [])]
    return pl.DataFrame(pool, POOL, orient="row"), pl.DataFrame(scores, SCORES, orient="row")


# four queries worked out by hand: step 2, three negatives, absolute rule with margin 0.25
HAND_POOLS = {
    # threshold 0.5. Kept: 11, 13, 14, 15 = numbers 0..3, taken in the order 0, 2, 1
    3: [(10, 0.9), (11, 0.5), (12, 0.75), (13, 0.25), (14, 0.125), (15, 0.0)],
    # threshold 0.25. 20 is unjudged, 21 a false negative, 22 the only one left
    5: [(20, NAN), (21, 0.5), (22, 0.25)],
    # threshold -0.25: nothing is left
    6: [(30, 0.0), (31, 0.5), (32, 0.25), (33, None)],
    # its positive has no score
    8: [(40, 0.5)],
}
HAND_POSITIVES = {3: (1, 0.75), 5: (2, 0.5), 6: (3, 0.0), 8: (4, NAN), 9: (5, 0.5)}


def hand(**changes):
    options = {"n_negatives": 3, "rule": "absolute", "margin": 0.25, "step": 2} | changes
    return select_negatives(*tables(HAND_POOLS, HAND_POSITIVES), **options)


class TestByHand:
    def test_negatives(self):
        negatives = hand().negatives
        assert dict(negatives.schema) == {
            "query_id": pl.Int64,
            "slot": pl.Int32,
            "item_id": pl.Int64,
            "score": pl.Float32,
            "origin": pl.String,
        }
        assert negatives.filter(pl.col("query_id") < 6).rows() == [
            (3, 0, 11, 0.5, "sampled"),
            (3, 1, 14, 0.125, "sampled"),
            (3, 2, 13, 0.25, "sampled"),
            (5, 0, 22, 0.25, "sampled"),
            (5, 1, 22, 0.25, "duplicate"),
            (5, 2, 22, 0.25, "duplicate"),
        ]
        drawn = negatives.filter(pl.col("query_id") == 6)
        assert drawn["slot"].to_list() == [0, 1, 2]
        assert set(drawn["item_id"]) < {30, 31, 32, 33}
        assert drawn["item_id"].n_unique() == 3
        assert set(drawn["score"]) == {1.0}
        assert set(drawn["origin"]) == {"fallback"}
        assert negatives.height == 9

    def test_selection(self):
        assert hand().selection.to_dicts() == [
            dict(zip(hand().selection.columns, row, strict=True))
            for row in [
                (3, 0.75, 0.5, 6, 4, 2, 0, "sampled"),
                (5, 0.5, 0.25, 3, 1, 1, 1, "duplicated"),
                (6, 0.0, -0.25, 4, 0, 3, 1, "fallback"),
            ]
        ]
        assert hand().selection.columns == [
            "query_id",
            "positive_score",
            "threshold",
            "pool_size",
            "kept",
            "dropped_false_negative",
            "dropped_unjudged",
            "outcome",
        ]

    def test_skipped(self):
        assert hand().skipped.rows() == [(8, "positive_unjudged"), (9, "empty_pool")]

    def test_metrics(self):
        metrics = hand().metrics
        assert metrics.pop("seconds") > 0
        assert metrics == {
            "queries": 3,
            "skipped_queries": 2,
            "pool_rows": 13,
            "unjudged": 2,
            "false_negatives_dropped": 6,
            "false_negative_share": 6 / 11,
            "duplicated_queries": 1,
            "duplicate_slots": 2,
            "fallback_queries": 1,
            "fallback_share": 1 / 3,
            "mean_negative_score": (0.5 + 0.125 + 0.25 + 3 * 0.25) / 6,
        }

    def test_rule_none_has_no_threshold(self):
        result = hand(rule="none")
        assert result.selection["threshold"].to_list() == [None, None, None]
        assert result.selection["threshold"].dtype == pl.Float32
        assert result.selection["kept"].to_list() == [6, 2, 3]

    def test_other_rules(self):
        # query 3: positive 0.75; relative 0.5 -> 0.375, percentage 0.5 -> 0.375: items 13, 14, 15 stay
        for rule in ("relative", "percentage"):
            row = hand(rule=rule, margin=0.5).selection.row(0, named=True)
            assert (row["threshold"], row["kept"]) == (0.375, 3)

    def test_share_by_data_set(self):
        queries = pl.DataFrame({"query_id": [3, 5, 6, 8], "dataset": ["b", "b", "a", "a"]})
        # b: 2 of 6 and 1 of 2 judged; a: 3 of 3
        assert false_negatives_by_dataset(hand().selection, queries) == {"a": 1.0, "b": 3 / 8}
        with pytest.raises(DataError, match="no data set for query_id 6"):
            false_negatives_by_dataset(hand().selection, queries[:2])

    def test_share_where_nothing_was_judged(self):
        result = select_negatives(*tables({0: [(1, NAN)]}, {0: (2, 0.5)}), rule="absolute", margin=0.01)
        queries = pl.DataFrame({"query_id": [0], "dataset": ["only"]})
        assert false_negatives_by_dataset(result.selection, queries) == {"only": 0.0}


def random_tables(seed, n=60, k=9):
    """Pools of all sizes, every outcome, several thousand values."""
    rng = np.random.default_rng(seed)
    pools, positives = {}, {}
    for q in rng.permutation(200)[:n].tolist():
        items = (1000 + rng.permutation(60)[: rng.integers(1, k + 1)]).tolist()
        score = rng.random(len(items))
        score[rng.random(len(items)) < 0.2] = np.nan
        pools[q] = list(zip(items, score.tolist(), strict=True))
        positives[q] = (q, float(rng.choice([0.0, 0.5, 0.9, 1.0])))
    return tables(pools, positives)


def assert_same(one, other):
    assert_frame_equal(one.negatives, other.negatives)
    assert_frame_equal(one.selection, other.selection)
    assert_frame_equal(one.skipped, other.skipped)
    assert {**one.metrics, "seconds": 0} == {**other.metrics, "seconds": 0}


class TestOrder:
    @pytest.mark.parametrize("chunk_queries", [1, 7, 1000])
    def test_chunks(self, chunk_queries):
        pool, scores = random_tables(0)
        whole = select_negatives(pool, scores, n_negatives=4, rule="absolute", margin=0.01)
        parts = select_negatives(pool, scores, n_negatives=4, rule="absolute", margin=0.01, chunk_queries=chunk_queries)
        assert set(whole.selection["outcome"]) == {"sampled", "duplicated", "fallback"}
        assert_same(whole, parts)

    @given(st.integers(0, 50))
    @settings(max_examples=15, deadline=None)
    def test_row_order(self, seed):
        pool, scores = random_tables(seed)
        pool, scores = pool.sort("query_id", "rank"), scores.sort("query_id", maintain_order=True)
        expected = select_negatives(pool, scores, n_negatives=4, rule="absolute", margin=0.01)
        shuffled = [table.sample(fraction=1, shuffle=True, seed=seed) for table in (pool, scores)]
        assert_same(expected, select_negatives(*shuffled, n_negatives=4, rule="absolute", margin=0.01))

    def test_other_queries_do_not_matter(self):
        pool, scores = random_tables(1)
        whole = select_negatives(pool, scores, n_negatives=4, rule="absolute", margin=0.01)
        some = sorted(set(pool["query_id"]))[::3]
        part = select_negatives(
            pool.filter(pl.col("query_id").is_in(some)),
            scores.filter(pl.col("query_id").is_in(some)),
            n_negatives=4,
            rule="absolute",
            margin=0.01,
        )
        assert_frame_equal(part.negatives, whole.negatives.filter(pl.col("query_id").is_in(some)))

    def test_scores_without_a_row_are_unjudged(self):
        pool, scores = random_tables(2)
        with_nan = select_negatives(pool, scores, n_negatives=4, rule="absolute", margin=0.01)
        without = scores.filter(pl.col("is_positive") | pl.col("score").is_not_nan())
        assert without.height < scores.height
        assert_same(with_nan, select_negatives(pool, without, n_negatives=4, rule="absolute", margin=0.01))

    def test_scores_of_other_items_are_ignored(self):
        pool, scores = random_tables(3)
        expected = select_negatives(pool, scores, n_negatives=4, rule="absolute", margin=0.01)
        # the positive's own row stays apart from a pool row of the same item, and strangers are not looked at
        strangers = scores.filter(pl.col("is_positive")).with_columns(
            item_id=pl.lit(9999, dtype=pl.Int64), is_positive=pl.lit(False), score=pl.lit(0.0, dtype=pl.Float32)
        )
        more = pl.concat([scores, strangers])
        assert_same(expected, select_negatives(pool, more, n_negatives=4, rule="absolute", margin=0.01))

    def test_integer_types_and_extra_columns(self):
        pool, scores = random_tables(4)
        expected = select_negatives(pool, scores, n_negatives=4, rule="absolute", margin=0.01)
        narrow = pool.with_columns(pl.col("query_id", "item_id").cast(pl.Int32), pl.col("rank").cast(pl.UInt8))
        assert_same(expected, select_negatives(narrow, scores, n_negatives=4, rule="absolute", margin=0.01))


@given(st.integers(0, 10**6), st.sampled_from(["absolute", "relative", "percentage", "none"]), st.integers(1, 12))
@settings(max_examples=30, deadline=None)
def test_what_every_selection_promises(seed, rule, slots):
    pool, scores = random_tables(seed, n=12)
    result = select_negatives(pool, scores, n_negatives=slots, rule=rule, margin=0.5)
    judged = pool.join(scores.filter(~pl.col("is_positive")), on=["query_id", "item_id"], how="left")
    for row in result.selection.to_dicts():
        assert row["pool_size"] == row["kept"] + row["dropped_false_negative"] + row["dropped_unjudged"]
        mine = result.negatives.filter(pl.col("query_id") == row["query_id"])
        members = judged.filter(pl.col("query_id") == row["query_id"])
        given_scores = dict(zip(members["item_id"], members["score"], strict=True))
        allowed = [
            item
            for item, score in given_scores.items()
            if score == score and (row["threshold"] is None or score <= row["threshold"])
        ]
        assert mine["slot"].to_list() == list(range(slots))
        assert len(allowed) == row["kept"]
        if allowed:
            assert set(mine["item_id"]) <= set(allowed)
            assert mine["item_id"].n_unique() == min(slots, len(allowed))
            assert all(given_scores[item] == score for item, score in mine.select("item_id", "score").rows())
        else:
            assert set(mine["origin"]) == {"fallback"}
            assert set(mine["item_id"]) <= set(given_scores)
            assert mine["item_id"].n_unique() == min(slots, len(given_scores))


class TestFaults:
    def select(self, pool, scores, **changes):
        return select_negatives(pool, scores, **({"rule": "absolute", "margin": 0.01} | changes))

    def test_missing_column(self):
        pool, scores = random_tables(0)
        with pytest.raises(DataError, match="judge_scores: no column score; expected query_id, item_id, is_positive"):
            self.select(pool, scores.drop("score"))

    def test_null(self):
        pool, scores = random_tables(0)
        pool = pool.with_columns(item_id=pl.when(pl.int_range(pl.len()) == 5).then(None).otherwise("item_id"))
        with pytest.raises(DataError, match="pool: row 5 has no item_id"):
            self.select(pool, scores)

    def test_score_out_of_range(self):
        pool, scores = tables({7: [(1, 0.5), (2, 1.5)]}, {7: (3, 0.5)})
        with pytest.raises(DataError, match=r"score 1.5 of query_id 7, item_id 2 is outside \[0, 1\]"):
            self.select(pool, scores)

    def test_repeated_rank(self):
        pool, scores = tables({7: [(1, 0.5), (2, 0.5)], 8: [(4, 0.5)]}, {7: (3, 0.5)})
        with pytest.raises(DataError, match="pool: rank 0 of query_id 7 stands there more than once"):
            self.select(pool.with_columns(rank=pl.lit(0, dtype=pl.Int32)), scores)

    def test_repeated_pool_item(self):
        pool, scores = tables({7: [(1, 0.5), (2, 0.5), (1, 0.5)], 8: [(1, 0.5)]}, {7: (3, 0.5), 8: (3, 0.5)})
        with pytest.raises(DataError, match="pool: item_id 1 stands more than once in the pool of query_id 7"):
            self.select(pool, scores)

    def test_repeated_score(self):
        pool, scores = tables({7: [(1, 0.5), (2, 0.5)]}, {7: (3, 0.5)})
        with pytest.raises(DataError, match="judge_scores: query_id 7 and item_id 2 stand there more than once"):
            self.select(pool, pl.concat([scores, scores[-1:]]))

    def test_repeated_positive(self):
        pool, scores = tables({7: [(1, 0.5)]}, {7: (3, 0.5)})
        with pytest.raises(DataError, match="query_id 7 has more than one row with is_positive"):
            self.select(pool, pl.concat([scores, scores[:1]]))

    @pytest.mark.parametrize("name", ["n_negatives", "step", "chunk_queries"])
    def test_parameter_below_one(self, name):
        with pytest.raises(ConfigurationError, match=f"{name} must be at least 1, got 0"):
            self.select(*random_tables(0), **{name: 0})

    def test_margin_is_checked_even_without_rows(self):
        pool, scores = random_tables(0)
        with pytest.raises(ConfigurationError, match="margin 2 is out of range"):
            self.select(pool[:0], scores[:0], margin=2)


def test_empty_tables():
    pool, scores = random_tables(0)
    result = select_negatives(pool[:0], scores[:0], rule="absolute", margin=0.01)
    assert result.negatives.height == result.selection.height == result.skipped.height == 0
    assert result.negatives.schema["origin"] == pl.String
    assert result.metrics["queries"] == 0
    assert result.metrics["mean_negative_score"] == 0.0


def test_progress_counts_every_query():
    class Counter:
        done = 0

        def advance(self, n=1):
            self.done += n

    counter = Counter()
    pool, scores = tables(HAND_POOLS, HAND_POSITIVES)
    select_negatives(pool, scores, rule="absolute", margin=0.01, chunk_queries=3, progress=counter)
    assert counter.done == 4
