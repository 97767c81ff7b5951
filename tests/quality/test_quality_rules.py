"""Every single rule: a table that breaks it, and nothing else, is refused before it is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pytest
from evaluation_tables import evaluation_cases
from kedro.io import DataCatalog
from quality_tables import FILES, edit, good_tables

from unime_kedro.errors import DataError
from unime_kedro.quality import TableError
from unime_kedro.quality.suites import SUITES

Tables = dict[str, pl.DataFrame]


class Case(NamedTuple):
    """A fault, the rules it breaks, how many rows break the first of them, and what its message must show."""

    suite: str
    rules: str
    change: Callable[[pl.DataFrame], pl.DataFrame]
    rows: int
    sample: str


def _at(row: int, **values: object) -> Callable[[pl.DataFrame], pl.DataFrame]:
    return lambda table: edit(table, row, **values)


def _swap_ranks(table: pl.DataFrame) -> pl.DataFrame:
    return edit(edit(table, 3, rank=1), 4, rank=0)


CASES = [
    # items
    Case("items", "has_rows", lambda t: t.clear(), 0, "the table is empty"),
    Case("items", "item_id_in_range", _at(7, item_id=8), 1, "item_id=8"),
    Case("items", "item_id_in_range", _at(0, item_id=-1), 1, "item_id=-1"),
    Case("items", "item_id_is_unique", _at(7, item_id=6), 2, "item_id=6 item_id_occurrences=2"),
    Case("items", "content_key_is_not_empty", _at(5, content_key=""), 1, "item_id=5 content_key=''"),
    Case("items", "content_key_is_unique", _at(5, content_key="key-4"), 2, "item_id=4 content_key_occurrences=2"),
    Case("items", "modality_is_known modality_fits_content", _at(5, modality="video"), 1, "item_id=5 modality='video'"),
    Case(
        "items", "modality_fits_content", _at(1, text="a dog"), 1, "modality='image' modality_of_content='image_text'"
    ),
    Case("items", "modality_fits_content", _at(2, image=""), 1, "modality='image_text' modality_of_content='text'"),
    Case("items", "modality_fits_content", _at(3, text=""), 1, "modality='text' modality_of_content='nothing'"),
    # queries
    Case("queries", "has_rows", lambda t: t.clear(), 0, "the table is empty"),
    Case("queries", "query_id_in_range", _at(2, query_id=3), 1, "query_id=3"),
    Case("queries", "query_id_is_unique", _at(2, query_id=1), 2, "query_id=1 query_id_occurrences=2"),
    Case("queries", "dataset_is_not_empty", _at(1, dataset=""), 1, "query_id=1 dataset=''"),
    Case("queries", "meta_task_is_not_empty", _at(1, meta_task=""), 1, "query_id=1 meta_task=''"),
    Case("queries", "item_exists", _at(1, item_id=8), 1, "query_id=1 item_exists=False item_id=8"),
    Case("queries", "positive_exists", _at(1, positive_item_id=-1), 1, "positive_item_id=-1"),
    # pool
    Case(
        "pool",
        "query_exists every_query_has_a_pool",
        lambda t: _third_as(t, 9),
        3,
        "query_id=9 rank=0 item_id=7 query_exists=False",
    ),
    Case("pool", "item_exists", _at(4, item_id=99), 1, "query_id=1 rank=1 item_id=99 item_exists=False"),
    Case("pool", "ranks_have_no_gaps", _at(8, rank=3), 1, "query_id=2 rank=3 item_id=3 rank_expected=2"),
    Case("pool", "ranks_have_no_gaps", _at(4, rank=0), 1, "query_id=1 rank=0 item_id=6 rank_expected=1"),
    Case("pool", "ranks_have_no_gaps", lambda t: t.filter(pl.col("rank") > 0), 6, "rank=1 item_id=7 rank_expected=0"),
    Case("pool", "similarity_is_a_cosine", _at(0, similarity=1.2), 1, "query_id=0 rank=0 item_id=6 similarity=1.2"),
    Case("pool", "similarity_is_a_cosine", _at(8, similarity=-1.0000001), 1, "rank=2 item_id=3 similarity=-1.0000001"),
    Case("pool", "similarity_falls_with_rank", _at(1, similarity=0.95), 1, "similarity=0.95"),
    Case("pool", "similarity_falls_with_rank", lambda t: t.with_columns(rank=2 - pl.col("rank")), 5, "query_id=0"),
    Case("pool", "own_positive_is_absent", _at(5, item_id=4), 1, "query_id=1 rank=2 item_id=4"),
    Case("pool", "pairs_are_unique", _at(5, item_id=3), 2, "query_id=1 rank=0 item_id=3 occurrences=2"),
    Case("pool", "every_query_has_a_pool", lambda t: t.head(3), 2, "2 missing, for example: query_id=1 | query_id=2"),
    # judge_scores
    Case("judge_scores", "query_exists every_pair_is_judged", lambda t: _third_as(t, 9), 4, "query_id=9"),
    Case(
        "judge_scores",
        "item_exists every_pair_is_judged",
        _at(2, item_id=99),
        1,
        "query_id=0 item_id=99 item_exists=False",
    ),
    Case(
        "judge_scores",
        "one_positive_per_query every_pair_is_judged",
        lambda t: t.slice(1),
        3,
        "query_id=0 item_id=6 positives=0 positives_expected=1",
    ),
    Case(
        "judge_scores",
        "one_positive_per_query positive_is_the_querys",
        _at(1, is_positive=True),
        4,
        "query_id=0 item_id=3 positives=2",
    ),
    Case(
        "judge_scores",
        "positive_is_the_querys",
        lambda t: edit(edit(t, 0, is_positive=False), 1, is_positive=True),
        2,
        "query_id=0 item_id=6 is_positive=True is_own_positive=False",
    ),
    Case("judge_scores", "score_is_a_probability score_fits_logits", _at(1, score=1.5), 1, "item_id=6 score=1.5"),
    Case("judge_scores", "score_is_a_probability score_fits_logits", _at(1, score=-0.5), 1, "item_id=6 score=-0.5"),
    Case("judge_scores", "score_fits_logits", _at(1, score=0.50002), 1, "score=0.50002 score_expected=0.5"),
    Case("judge_scores", "score_fits_logits", _at(5, yes_logit=1.0), 1, "score=0.75 score_expected=0.731059"),
    Case(
        "judge_scores",
        "score_fits_logits",
        _at(1, yes_logit=float("inf"), no_logit=float("inf")),
        1,
        "query_id=0 item_id=6 score_error=inf score=0.5",
    ),
    # the whole column lies, or one row of it; row 1 has score .5, which fits any temperature, row 5 has .75
    Case(
        "judge_scores",
        "score_fits_logits",
        lambda t: t.with_columns(temperature=pl.lit(1.0, dtype=pl.Float32)),
        10,
        "score=0.9 score_expected=0.987805 temperature=1.0",
    ),
    Case(
        "judge_scores",
        "temperature_is_constant",
        _at(1, temperature=3.0),
        1,
        "item_id=6 temperature=3.0 temperature_expected=2.0",
    ),
    Case(
        "judge_scores",
        "temperature_is_constant score_fits_logits",
        _at(5, temperature=1.0),
        1,
        "item_id=3 temperature=1.0 temperature_expected=2.0",
    ),
    # the odd row is the first one: it is the one that is reported, not the others
    Case(
        "judge_scores",
        "temperature_is_constant score_fits_logits",
        _at(0, temperature=1.0),
        1,
        "item_id=3 temperature=1.0 temperature_expected=2.0",
    ),
    *(
        Case(
            "judge_scores",
            "temperature_is_positive",
            lambda t, wrong=wrong: t.with_columns(temperature=pl.lit(wrong, dtype=pl.Float32)),
            12,
            f"temperature_positive=False temperature={wrong}",
        )
        for wrong in (0.0, -2.0, float("inf"))
    ),
    Case("judge_scores", "pairs_are_unique every_pair_is_judged", _at(2, item_id=6), 2, "item_id=6 occurrences=2"),
    Case(
        "judge_scores",
        "every_pair_is_judged",
        lambda t: t.filter(pl.col("query_id") == 0),
        8,
        "8 missing, for example: query_id=1 item_id=4 | query_id=2 item_id=5 | query_id=1 item_id=3",
    ),
    Case(
        "judge_scores", "every_pair_is_judged", lambda t: t.head(11), 1, "1 missing, for example: query_id=2 item_id=3"
    ),
    Case("judge_scores", "has_rows every_pair_is_judged", lambda t: t.clear(), 0, "the table is empty"),
    # selection
    Case(
        "selection",
        "query_exists every_query_is_selected_or_skipped",
        _at(1, query_id=7),
        1,
        "query_id=7 query_exists=False",
    ),
    Case(
        "selection",
        "every_query_is_selected_or_skipped",
        lambda t: t.head(1),
        2,
        "2 missing, for example: query_id=1 | query_id=2",
    ),
    Case(
        "selection",
        "query_id_is_unique every_query_is_selected_or_skipped",
        _at(1, query_id=0),
        2,
        "query_id=0 query_id_occurrences=2",
    ),
    Case("selection", "positive_score_is_a_probability", _at(1, positive_score=1.01), 1, "positive_score=1.01"),
    Case("selection", "threshold_is_a_number", _at(1, threshold=float("nan")), 1, "query_id=1 threshold_is_nan=True"),
    Case("selection", "pool_size_is_a_count counts_add_up", _at(1, pool_size=-1), 1, "query_id=1 pool_size=-1"),
    Case("selection", "kept_is_a_count", _at(0, kept=-1, dropped_false_negative=4), 1, "query_id=0 kept=-1"),
    Case(
        "selection",
        "dropped_false_negative_is_a_count",
        _at(0, dropped_false_negative=-1, kept=4),
        1,
        "query_id=0 dropped_false_negative=-1",
    ),
    Case("selection", "dropped_unjudged_is_a_count", _at(0, dropped_unjudged=-1, kept=3), 1, "dropped_unjudged=-1"),
    Case("selection", "counts_add_up", _at(1, kept=2), 1, "query_id=1 pool_size=3 pool_size_expected=4"),
    Case("selection", "outcome_is_known", _at(0, outcome="drawn"), 1, "query_id=0 outcome='drawn'"),
    Case(
        "selection", "fallback_means_nothing_kept", _at(0, outcome="fallback"), 1, "is_fallback=True nothing_kept=False"
    ),
    Case(
        "selection", "fallback_means_nothing_kept", _at(2, outcome="sampled"), 1, "is_fallback=False nothing_kept=True"
    ),
    # negatives
    Case(
        "negatives",
        "query_exists query_selected every_selected_query_has_negatives",
        lambda t: _third_as(t, 9),
        2,
        "query_id=9 slot=0 item_id=7",
    ),
    Case(
        "negatives",
        "every_selected_query_has_negatives",
        lambda t: t.head(2),
        2,
        "2 missing, for example: query_id=1 | query_id=2",
    ),
    Case("negatives", "item_exists", _at(1, item_id=99), 1, "query_id=0 slot=1 item_id=99 item_exists=False"),
    Case("negatives", "slots_have_no_gaps", _at(1, slot=2), 1, "query_id=0 slot=2 item_id=7 slot_expected=1"),
    Case("negatives", "slots_have_no_gaps", _at(1, slot=0), 1, "query_id=0 slot=0 item_id=7 slot_expected=1"),
    Case(
        "negatives", "slots_per_query", lambda t: t.head(5), 1, "query_id=2 slot=0 item_id=7 slots=1 slots_expected=2"
    ),
    Case("negatives", "own_positive_is_absent", _at(1, item_id=3), 1, "query_id=0 slot=1 item_id=3"),
    Case("negatives", "origin_is_known", _at(1, origin="drawn"), 1, "query_id=0 slot=1 item_id=7 origin='drawn'"),
    Case("negatives", "score_is_a_probability", _at(1, score=-0.1), 1, "query_id=0 slot=1 item_id=7 score=-0.1"),
    Case("negatives", "score_is_below_threshold", _at(1, score=0.8900001), 1, "score=0.8900001 threshold=0.89"),
    Case("negatives", "fallback_scores_one", _at(5, score=0.75), 1, "query_id=2 slot=1 item_id=6 fallback_score=0.75"),
    Case(
        "negatives",
        "fallback_as_selected",
        _at(0, origin="fallback", score=1.0),
        1,
        "query_id=0 slot=0 item_id=6 is_fallback=True fallback_expected=False",
    ),
    Case("negatives", "fallback_as_selected", _at(5, origin="sampled", score=0.5), 1, "is_fallback=False"),
    Case("negatives", "repeats_are_marked", _at(3, origin="sampled"), 1, "query_id=1 slot=1 item_id=3"),
    Case("negatives", "duplicates_repeat", _at(1, origin="duplicate"), 1, "query_id=0 slot=1 item_id=7"),
    # training
    Case("training", "has_rows", lambda t: t.clear(), 0, "the table is empty"),
    Case("training", "query_exists", lambda t: _third_as(t, 9), 1, "query_id=9 query_exists=False"),
    Case(
        "training",
        "query_id_is_unique",
        lambda t: t.vstack(t.tail(1)),
        2,
        "query_id=2 query_id_occurrences=2",
    ),
    Case(
        "training",
        "rows_are_sorted",
        lambda t: t[[0, 2, 1]],
        1,
        "query_id=1 in_order=False query_id_before=2",
    ),
    Case("training", "dataset_is_the_querys", _at(1, dataset="OK-VQA"), 1, "dataset_expected='MSCOCO'"),
    Case("training", "item_id_is_the_querys", _at(1, item_id=2), 1, "query_id=1 item_id=2 item_id_expected=1"),
    Case(
        "training", "item_exists item_id_is_the_querys", _at(1, item_id=8), 1, "query_id=1 item_exists=False item_id=8"
    ),
    Case(
        "training",
        "positive_item_id_is_the_querys",
        _at(0, positive_item_id=5),
        1,
        "query_id=0 positive_item_id=5 positive_item_id_expected=3",
    ),
    Case(
        "training",
        "positive_exists positive_item_id_is_the_querys",
        _at(0, positive_item_id=-1),
        1,
        "query_id=0 positive_exists=False positive_item_id=-1",
    ),
    Case("training", "split_is_known", _at(1, split="test"), 1, "query_id=1 split='test'"),
    Case("training", "positive_score_is_a_probability", _at(1, positive_score=1.01), 1, "positive_score=1.01"),
    Case("training", "positive_score_is_a_probability", _at(1, positive_score=-0.01), 1, "positive_score=-0.01"),
    Case(
        "training",
        "negatives_per_query",
        _at(2, negative_item_ids=[7], negative_scores=[1.0]),
        1,
        "query_id=2 negatives=1 negatives_expected=2",
    ),
    Case(
        "training",
        "negatives_per_query",
        _at(2, negative_item_ids=[7, 6, 4], negative_scores=[1.0, 1.0, 1.0]),
        1,
        "query_id=2 negatives=3 negatives_expected=2",
    ),
    # the first row says how many there should be, so that it is the others that are reported
    Case(
        "training",
        "has_negatives negatives_per_query",
        _at(0, negative_item_ids=[], negative_scores=[]),
        1,
        "query_id=0 negatives=0",
    ),
    Case("training", "one_score_per_negative", _at(1, negative_scores=[0.75]), 1, "query_id=1 n_scores=1 negatives=2"),
    Case("training", "one_score_per_negative", _at(1, negative_scores=[0.1, 0.2, 0.3]), 1, "n_scores=3 negatives=2"),
    Case(
        "training",
        "negative_ids_are_present",
        _at(1, negative_item_ids=[3, None]),
        1,
        "query_id=1 missing_negatives=1 negative_item_ids=[3, null]",
    ),
    Case(
        "training",
        "negatives_exist",
        _at(1, negative_item_ids=[99, 98]),
        1,
        "query_id=1 unknown_negatives=2 negative_item_ids=[99, 98]",
    ),
    *(
        Case(
            "training",
            "negative_scores_are_present",
            _at(1, negative_scores=[0.95, missing]),
            1,
            f"query_id=1 missing_scores=1 negative_scores=[0.95, {shown}]",
        )
        for missing, shown in ((None, "null"), (float("nan"), "nan"))
    ),
    # NaN beside it hides nothing
    Case(
        "training",
        "negative_scores_from_zero negative_scores_are_present",
        _at(1, negative_scores=[float("nan"), -0.1]),
        1,
        "query_id=1 lowest_score=-0.1",
    ),
    Case(
        "training", "negative_scores_from_zero", _at(1, negative_scores=[0.5, -0.1]), 1, "query_id=1 lowest_score=-0.1"
    ),
    Case(
        "training", "negative_scores_up_to_one", _at(1, negative_scores=[1.5, 0.5]), 1, "query_id=1 highest_score=1.5"
    ),
    Case(
        "training",
        "own_positive_is_absent",
        _at(1, negative_item_ids=[3, 4]),
        1,
        "query_id=1 is_own_positive=True positive_item_id=4 negative_item_ids=[3, 4]",
    ),
]
# the table reranking has these rules, too, but one; in its lists of any length scores must not rise
CASES += [
    case._replace(suite="reranking")
    for case in CASES
    if case.suite == "training" and "negatives_per_query" not in case.rules and "n_scores=3" not in case.sample
]
CASES += [
    Case("reranking", "has_negatives", _at(1, negative_item_ids=[], negative_scores=[]), 1, "query_id=1 negatives=0"),
    Case("reranking", "negatives_are_distinct", _at(0, negative_item_ids=[6, 6]), 1, "query_id=0 repeated_negatives=1"),
    Case(
        "reranking",
        "hardest_negative_is_first",
        _at(0, negative_scores=[0.25, 0.5]),
        1,
        "query_id=0 largest_rise=0.25",
    ),
    Case(
        "reranking",
        "hardest_negative_is_first",
        _at(2, negative_item_ids=[7, 6, 4], negative_scores=[1.0, 0.5, 0.75]),
        1,
        "query_id=2 largest_rise=0.25",
    ),
]

CASES += [Case(*row) for row in evaluation_cases(_at)]


def _third_as(table: pl.DataFrame, query_id: int) -> pl.DataFrame:
    """Give query 2 another id."""
    return table.with_columns(query_id=pl.col("query_id").replace(2, query_id))


def _null_cases() -> list[Case]:
    """One null in every column that may hold none: in a row whose absence opens no gap."""
    rows = {"items": 7, "queries": 1, "pool": 8, "judge_scores": 2, "selection": 1, "negatives": 1}
    rows |= {"training": 1, "reranking": 1, "evaluated_queries": 0, "leaks": 0, "predictions": 2, "rankings": 6}
    more = {("negatives", "query_id"): " slots_per_query"}
    return [
        Case(
            suite,
            f"{column}_is_present{more.get((suite, column), '')}",
            _at(row, **{column: None}),
            1,
            f"{column}=null",
        )
        for suite, row in rows.items()
        for column in SUITES[suite].columns
        if column not in SUITES[suite].nullable
    ]


def _nan_cases() -> list[Case]:
    nan = float("nan")
    places = [("pool", "similarity", 8), ("selection", "positive_score", 1), ("negatives", "score", 1)]
    places += [("training", "positive_score", 1), ("reranking", "positive_score", 1)]
    places += [("judge_scores", column, 2) for column in ("yes_logit", "no_logit", "temperature", "score")]
    return [Case(suite, f"{column}_is_present", _at(row, **{column: nan}), 1, "null") for suite, column, row in places]


def _type_cases() -> list[Case]:
    """Every column in a type that differs as little as possible."""
    near = {
        pl.Int64: pl.Int32,
        pl.Int32: pl.Int64,
        pl.Float32: pl.Float64,
        pl.Boolean: pl.UInt8,
        pl.String: pl.Categorical,
        pl.List(pl.Int64): pl.Array(pl.Int64, 2),
        pl.List(pl.Float32): pl.Array(pl.Float32, 2),
    }
    return [
        Case(
            suite,
            f"{column}_type",
            lambda t, column=column, kind=near[kind]: t.with_columns(pl.col(column).cast(kind)),
            0,
            f"{column} is {near[kind]() if isinstance(near[kind], type) else near[kind]!s}",
        )
        for suite, spec in SUITES.items()
        for column, kind in spec.columns.items()
    ]


def _column_cases() -> list[Case]:
    lacking = [Case(suite, "columns", lambda t: t.drop(t.columns[-1]), 0, "missing: ") for suite in SUITES]
    return lacking + [Case(suite, "columns", lambda t: t.with_columns(x=1), 0, "unexpected: x") for suite in SUITES]


ALL_CASES = [*CASES, *_null_cases(), *_nan_cases(), *_type_cases(), *_column_cases()]


@pytest.mark.parametrize("case", ALL_CASES, ids=lambda case: f"{case.suite}-{case.rules.split()[0]}")
def test_broken_rule(case: Case, tables: Tables, data_root: Path, catalog_of: Callable[..., DataCatalog]) -> None:
    with pytest.raises(TableError) as caught:
        catalog_of(case.suite).save("checked", case.change(tables[case.suite]))

    assert not (data_root / "checked.parquet").exists()
    rules = case.rules.split()
    failures = {failure.rule: failure for failure in caught.value.verdict.failures}
    assert set(failures) == set(rules)
    assert failures[rules[0]].rows == case.rows
    # Great Expectations itself says so, too
    assert all(failure.found for failure in failures.values()), failures
    message = str(caught.value)
    assert f"{rules[0]}: {failures[rules[0]].meaning}" in message
    assert case.sample in message


def test_every_rule_has_a_case() -> None:
    tables = good_tables()
    rules = {(name, rule.name) for name, suite in SUITES.items() for rule in suite.all_rules(tables[name], helpers=())}
    rules |= {(name, suite.coverage.name) for name, suite in SUITES.items() if suite.coverage}
    rules -= {("selection", "query_is_not_skipped")}  # concerns two tables: test_no_query_is_selected_and_skipped
    assert rules == {(case.suite, rule) for case in ALL_CASES for rule in case.rules.split()}


@pytest.mark.parametrize("suite", SUITES)
def test_good_table_is_saved(
    suite: str, tables: Tables, data_root: Path, catalog_of: Callable[..., DataCatalog]
) -> None:
    catalog_of(suite).save("checked", tables[suite])

    assert pl.read_parquet(data_root / "checked.parquet").equals(tables[suite])


@pytest.mark.parametrize("suite", ["pool", "selection", "negatives"])
def test_empty_table_is_fine_where_nothing_is_missing(
    suite: str, tables: Tables, data_root: Path, catalog_of: Callable[..., DataCatalog]
) -> None:
    with pytest.raises(TableError, match=r"3 missing, for example: query_id=0 [|] query_id=1 [|] query_id=2"):
        catalog_of(suite).save("checked", tables[suite].clear())

    # nothing to find, everything skipped, nothing selected
    tables["candidates"].clear().write_parquet(data_root / FILES["candidates"])
    tables["queries"].select("query_id", reason=pl.lit("empty_pool")).write_parquet(data_root / FILES["skipped"])
    tables["selection"].clear().write_parquet(data_root / FILES["selection"])
    catalog_of(suite).save("checked", tables[suite].clear())
    assert pl.read_parquet(data_root / "checked.parquet").schema == tables[suite].schema


def test_a_query_without_another_candidate_needs_no_pool(
    tables: Tables, data_root: Path, catalog_of: Callable[..., DataCatalog]
) -> None:
    """Query 0 is item 0, its positive item 3; query 1 made the same item gives it the known positive 4."""
    first = tables["pool"].filter(pl.col("query_id") > 0)
    for ids, same_item, fine in [
        ([3], False, True),
        ([0, 3], False, True),
        ([3, 4], False, False),
        ([3, 4], True, True),
        ([0, 3, 4, 5], True, False),
    ]:
        pl.DataFrame({"item_id": ids}).write_parquet(data_root / FILES["candidates"])
        queries = edit(tables["queries"], 1, item_id=0) if same_item else tables["queries"]
        queries.write_parquet(data_root / FILES["queries"])
        if fine:
            catalog_of("pool").save("checked", first)
        else:
            with pytest.raises(TableError, match="1 missing, for example: query_id=0"):
                catalog_of("pool").save("checked", first)


def test_a_pair_with_an_error_needs_no_score(
    tables: Tables, data_root: Path, catalog_of: Callable[..., DataCatalog]
) -> None:
    error = {"query_id": [2], "item_id": [3], "is_positive": [False], "error": ["out of memory"]}
    pl.DataFrame(error).write_parquet(data_root / FILES["judge_errors"])
    catalog_of("judge_scores").save("checked", tables["judge_scores"].head(11))
    with pytest.raises(TableError, match="1 missing, for example: query_id=2 item_id=6"):
        catalog_of("judge_scores").save("checked", tables["judge_scores"].head(10))


def test_pools_judged_in_part_lack_as_many_members_as_is_said(
    tables: Tables, data_root: Path, catalog_of: Callable[..., DataCatalog]
) -> None:
    """Of the first query one member is left out, of the third two; positives never are."""
    coverage = tables["judge_coverage"].with_columns(judged=pl.Series([2, 3, 1], dtype=pl.Int32))
    coverage.write_parquet(data_root / FILES["judge_coverage"])
    scores = tables["judge_scores"].with_row_index("row")
    left_out = scores.filter(~pl.col("is_positive")).group_by("query_id", maintain_order=True).agg("row")["row"]
    rows = [left_out[0][1], left_out[2][0], left_out[2][2]]

    def without(*places: int) -> pl.DataFrame:
        return scores.filter(~pl.col("row").is_in(places)).drop("row")

    catalog_of("judge_scores").save("checked", without(*rows))
    with pytest.raises(TableError, match=r"(?s)every_pair_is_judged.*1 missing"):
        catalog_of("judge_scores").save("checked", without(*rows, left_out[1][0]))
    with pytest.raises(TableError, match=r"(?s)every_pair_is_judged.*1 missing"):
        catalog_of("judge_scores").save("checked", without(*rows, left_out[0][0]))
    positive = scores.filter("is_positive")["row"][0]
    with pytest.raises(TableError, match="one_positive_per_query"):
        catalog_of("judge_scores").save("checked", without(*rows[1:], positive))


def test_no_query_is_selected_and_skipped(
    tables: Tables, data_root: Path, catalog_of: Callable[..., DataCatalog]
) -> None:
    def skip(*query_ids: int) -> None:
        rows = pl.DataFrame({"query_id": query_ids, "reason": ["empty_pool"] * len(query_ids)})
        rows.write_parquet(data_root / FILES["skipped"])

    skip(2)
    catalog_of("selection").save("checked", tables["selection"].head(2))
    with pytest.raises(TableError) as caught:
        catalog_of("selection").save("checked", tables["selection"])
    (failure,) = caught.value.verdict.failures
    assert (failure.rule, failure.rows) == ("query_is_not_skipped", 1)
    assert failure.samples == ("query_id=2 is_skipped=True",)
    assert failure.found
    skip(2, 2)
    with pytest.raises(TableError, match=r"skipped\.parquet has a query_id twice"):
        catalog_of("selection").save("checked", tables["selection"].head(2))


@pytest.mark.parametrize("suite", ["pool", "judge_scores", "selection", "negatives"])
def test_half_of_the_queries_are_not_enough(suite: str, tables: Tables, catalog_of: Callable[..., DataCatalog]) -> None:
    with pytest.raises(
        TableError, match=f"{SUITES[suite].coverage.name}: .*\n +[0-9]+ missing, for example: query_id="
    ):
        catalog_of(suite).save("checked", tables[suite].filter(pl.col("query_id") < 2))


@pytest.mark.parametrize("suite", [name for name in SUITES if name not in ("training", "reranking")])
def test_row_order_does_not_matter(suite: str, tables: Tables, catalog_of: Callable[..., DataCatalog]) -> None:
    catalog_of(suite).save("checked", tables[suite].sample(fraction=1, shuffle=True, seed=3))


def test_no_threshold_means_no_limit(tables: Tables, data_root: Path, catalog_of: Callable[..., DataCatalog]) -> None:
    selection = tables["selection"].with_columns(threshold=pl.lit(None, dtype=pl.Float32))
    catalog_of("selection").save("checked", selection)
    selection.write_parquet(data_root / "05_model_input/selection.parquet")

    catalog_of("negatives").save("checked", edit(tables["negatives"], 0, score=0.99))


def test_unjudged_positive_may_lack(tables: Tables, data_root: Path, catalog_of: Callable[..., DataCatalog]) -> None:
    error = {"query_id": [0], "item_id": [3], "is_positive": [True], "error": ["out of memory"]}
    pl.DataFrame(error).write_parquet(data_root / FILES["judge_errors"])
    catalog_of("judge_scores").save("checked", tables["judge_scores"].slice(1))

    # a pair cannot have both a score and an error
    with pytest.raises(TableError, match="query_id=0 item_id=3 positives=1 positives_expected=0"):
        catalog_of("judge_scores").save("checked", tables["judge_scores"])


@pytest.mark.parametrize(
    ("text", "image", "modality"),
    [
        ("<|image_1|>\n", "img/1.png", "image"),
        ("<|image_1|>\nWhat is it?", "img/1.png", "image_text"),
        (" ", "img/1.png", "image"),
        ("<|image_1|>", "", "text"),
    ],
)
def test_modality_of_odd_texts(
    text: str, image: str, modality: str, tables: Tables, catalog_of: Callable[..., DataCatalog]
) -> None:
    catalog_of("items").save("checked", edit(tables["items"], 4, text=text, image=image, modality=modality))
    wrong = "image_text" if modality != "image_text" else "image"
    with pytest.raises(TableError, match=f"modality='{wrong}' modality_of_content='{modality}'"):
        catalog_of("items").save("checked", edit(tables["items"], 4, text=text, image=image, modality=wrong))


def test_slots_given_or_most_common(tables: Tables, catalog_of: Callable[..., DataCatalog]) -> None:
    catalog_of("negatives", slots=2).save("checked", tables["negatives"])
    with pytest.raises(TableError, match=r"6 of 6 rows break it, .* slots=2 slots_expected=10"):
        catalog_of("negatives", slots=10).save("checked", tables["negatives"])


@pytest.mark.parametrize(("column", "kind"), [("negative_item_ids", pl.Int32), ("negative_scores", pl.Float64)])
def test_lists_of_another_type_are_refused(
    column: str, kind: type[pl.DataType], tables: Tables, catalog_of: Callable[..., DataCatalog]
) -> None:
    """Great Expectations sees lists, polars sees of what."""
    with pytest.raises(TableError, match=rf"{column} is of type List\(.*\n +found: {column} is List\({kind()!s}\)"):
        catalog_of("training").save("checked", tables["training"].with_columns(pl.col(column).cast(pl.List(kind))))


def test_long_lists_are_cut_in_samples(tables: Tables, catalog_of: Callable[..., DataCatalog]) -> None:
    many = edit(tables["training"], 0, negative_item_ids=[99, *[6] * 40], negative_scores=[0.5] * 41)
    with pytest.raises(TableError, match=r"unknown_negatives=1 negative_item_ids=\[99(, 6){11}, \.\.\. 41 in all\]"):
        catalog_of("training").save("checked", many)


def test_refusal_is_an_error_of_ours_too(tables: Tables, catalog_of: Callable[..., DataCatalog]) -> None:
    with pytest.raises(DataError):
        catalog_of("pool").save("checked", edit(tables["pool"], 0, similarity=1.2))
