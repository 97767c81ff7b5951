"""Rules of the tables of query-item pairs on the way: pool and judge_scores."""

from __future__ import annotations

import polars as pl

from unime_kedro.quality.rules import Rule, between, holds, in_set, same, unique
from unime_kedro.quality.suite import Coverage, References, Suite, in_order, known, position, previous, with_occurrences

#: how far a stored float32 score may be from the sigmoid of its stored float32 logits
SCORE_TOLERANCE = 1e-5


def reference_rules() -> list[Rule]:
    """Rules over the helpers ``query_exists`` and ``item_exists``."""
    return [
        holds("query_exists", "query_exists", "query_id is in queries"),
        holds("item_exists", "item_exists", "item_id is in items", shown=["item_id"]),
    ]


def no_own_positive(where: str) -> Rule:
    """Rule over the helper ``is_own_positive``."""
    return in_set(
        "own_positive_is_absent",
        "is_own_positive",
        [False],
        f"a query's own positive is never {where}",
        shown=["item_id", "positive_item_id"],
    )


def with_query(table: pl.DataFrame, references: References) -> pl.DataFrame:
    """Add ``positive_item_id``, ``is_own_positive``, ``query_exists`` and ``item_exists`` to a table of pairs."""
    return references.attach(table, "queries", "positive_item_id").with_columns(
        is_own_positive=pl.col("item_id") == pl.col("positive_item_id"),
        query_exists=pl.col("positive_item_id").is_not_null() | pl.col("query_id").is_null(),
        item_exists=known("item_id", references.ids("items", "item_id")),
    )


def _derive_pool(table: pl.DataFrame, references: References, slots: int | None) -> pl.DataFrame:
    frame = with_query(in_order(table, "query_id", "rank"), references)
    return with_occurrences(frame, "occurrences", "query_id", "item_id").with_columns(
        rank_expected=position("query_id"),
        similarity_rise=pl.col("similarity") - previous("similarity", "query_id"),
    )


def _pool_rules(rows: int) -> list[Rule]:
    return [
        *reference_rules(),
        same("ranks_have_no_gaps", "rank", "rank_expected", "the ranks of a query are 0, 1, 2, ..., each once"),
        between("similarity_is_a_cosine", "similarity", -1, 1, "similarity is a cosine, within [-1, 1]"),
        between(
            "similarity_falls_with_rank",
            "similarity_rise",
            None,
            0,
            "similarity never rises from one rank of a query to the next",
            shown=["similarity"],
        ),
        no_own_positive("in its pool"),
        unique("pairs_are_unique", "occurrences", "no item is twice in the pool of a query"),
    ]


def _without_pool(table: pl.DataFrame, references: References) -> pl.DataFrame:
    """Return the queries without a pool that could have one."""
    queries = references.once("queries", "item_id", "positive_item_id")
    absent = queries.join(table.select("query_id").unique(), on="query_id", how="anti", maintain_order="left")
    if absent.is_empty():
        return absent.select("query_id")
    candidates = references.read("candidates", "item_id").unique()
    # what pool.exclude may leave out: the query's item, its positive, all positives of that item
    positives = absent.select("query_id", "item_id").join(queries.select("item_id", "positive_item_id"), on="item_id")
    left_out = pl.concat(
        [positives.select("query_id", item_id="positive_item_id"), absent.select("query_id", "item_id")]
    )
    counts = left_out.unique().join(candidates, on="item_id", how="semi").group_by("query_id").len("left_out")
    counted = absent.join(counts, on="query_id", how="left", maintain_order="left")
    return counted.filter(pl.col("left_out").fill_null(0) < candidates.height).select("query_id")


POOL = Suite(
    columns={"query_id": pl.Int64, "rank": pl.Int32, "item_id": pl.Int64, "similarity": pl.Float32},
    keys=("query_id", "rank", "item_id"),
    derive=_derive_pool,
    rules=_pool_rules,
    references=("items", "queries", "candidates"),
    coverage=Coverage(
        "every_query_has_a_pool",
        "every query has a pool, unless no candidate is left beside its own item and the positives of that item "
        "(where pool.max_similarity leaves none, it is too low)",
        _without_pool,
    ),
)


def _derive_judge_scores(table: pl.DataFrame, references: References, slots: int | None) -> pl.DataFrame:
    temperature = pl.col("temperature")
    difference = pl.col("yes_logit").cast(pl.Float64) - pl.col("no_logit").cast(pl.Float64)
    expected = 1 / (1 + (-difference / temperature.cast(pl.Float64)).exp())
    error = (pl.col("score").cast(pl.Float64) - expected).abs()
    numbers = pl.col("yes_logit", "no_logit", "score")
    usable = (temperature > 0) & temperature.is_finite()
    # without a usable temperature no score can be expected; that fault has rules of its own
    given = pl.all_horizontal(numbers.is_not_null(), numbers.is_not_nan(), usable)
    frame = with_query(table, references)
    unjudged = references.read("judge_errors", "query_id", "is_positive").filter("is_positive")["query_id"].unique()
    return with_occurrences(frame, "occurrences", "query_id", "item_id").with_columns(
        positives_expected=pl.when(pl.col("query_id").is_in(unjudged.implode())).then(0).otherwise(1).cast(pl.Int64),
        positives=pl.when(pl.col("query_id").is_not_null()).then(
            pl.col("is_positive").sum().over("query_id").cast(pl.Int64)
        ),
        temperature_positive=pl.when(temperature.is_not_nan()).then(usable),
        # the most common one, so that what a rule reports are the odd rows
        temperature_expected=temperature.fill_nan(None).drop_nulls().mode().min(),
        score_expected=expected,
        # two infinite logits have no difference; that is an error of the score, not a missing value
        score_error=pl.when(given).then(error.fill_nan(float("inf"))),
    )


def _judge_score_rules(rows: int) -> list[Rule]:
    return [
        *reference_rules(),
        same(
            "one_positive_per_query",
            "positives",
            "positives_expected",
            "every query has exactly one row with is_positive; none if that pair is in judge_errors",
        ),
        same(
            "positive_is_the_querys",
            "is_positive",
            "is_own_positive",
            "is_positive marks the query's positive_item_id, and nothing else",
        ),
        holds(
            "temperature_is_positive",
            "temperature_positive",
            "temperature is a finite number above 0",
            shown=["temperature"],
        ),
        same(
            "temperature_is_constant",
            "temperature",
            "temperature_expected",
            "all scores of the table have the same temperature",
        ),
        between("score_is_a_probability", "score", 0, 1, "score lies in [0, 1]"),
        between(
            "score_fits_logits",
            "score_error",
            0,
            SCORE_TOLERANCE,
            f"score is the sigmoid of (yes_logit - no_logit) / temperature, to {SCORE_TOLERANCE:g}",
            shown=["score", "score_expected", "temperature"],
        ),
        unique("pairs_are_unique", "occurrences", "no pair of query and item is scored twice"),
    ]


def _unjudged(table: pl.DataFrame, references: References) -> pl.DataFrame:
    """Return the pairs that should have a score or an error and have neither.

    Where a pool was judged in part, so many of its members may be without a score as the table of coverage says.
    """
    queries = references.read("queries", "query_id", "positive_item_id")
    pool = references.read("pool", "query_id", "item_id").with_columns(member=pl.lit(True))
    positives = queries.rename({"positive_item_id": "item_id"}).with_columns(member=pl.lit(False))
    pairs = pl.concat([positives, pool])
    width = int(pairs["item_id"].max() or 0) + 1  # type: ignore[arg-type]
    # one number per pair: on two columns the join of 33 million pairs takes four times as long
    number = (pl.col("query_id") * width + pl.col("item_id")).alias("number")
    known = pl.col("item_id").is_between(0, width - 1)
    errors = references.read("judge_errors", "query_id", "item_id")
    done = pl.concat([one.lazy().filter(known).select(number) for one in (table, errors)]).collect()
    missing = pairs.with_columns(number).join(done, on="number", how="anti", maintain_order="left")
    coverage = references.once("judge_coverage", "pool_size", "judged")
    open_ = coverage.select("query_id", left_out=pl.col("pool_size") - pl.col("judged")).filter(pl.col("left_out") > 0)
    if not open_.is_empty():
        place = pl.int_range(pl.len()).over("query_id", "member")
        missing = missing.with_columns(place=place).join(open_, on="query_id", how="left", maintain_order="left")
        missing = missing.filter(~pl.col("member") | (pl.col("place") >= pl.col("left_out").fill_null(0)))
    return missing.select("query_id", "item_id")


JUDGE_SCORES = Suite(
    columns={
        "query_id": pl.Int64,
        "item_id": pl.Int64,
        "is_positive": pl.Boolean,
        "yes_logit": pl.Float32,
        "no_logit": pl.Float32,
        "temperature": pl.Float32,
        "score": pl.Float32,
    },
    keys=("query_id", "item_id"),
    derive=_derive_judge_scores,
    rules=_judge_score_rules,
    references=("items", "queries", "pool", "judge_errors", "judge_coverage"),
    may_be_empty=False,
    coverage=Coverage(
        "every_pair_is_judged",
        "every query is scored with its positive and with every item of its pool, or as many of them as judge_coverage "
        "says, but for the pairs in judge_errors",
        _unjudged,
    ),
)
