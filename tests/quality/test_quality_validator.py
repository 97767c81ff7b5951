"""The validator as a whole: its message, its options, big tables, and how it stands in Kedro's catalog."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from kedro.config import OmegaConfigLoader
from kedro.io import DataCatalog, DatasetError
from kedro.validation import validate_dataset
from quality_tables import FILES, REFERENCES, edit

from unime_kedro.errors import ConfigurationError, DataError
from unime_kedro.quality import TableError, TableValidator, data_docs_index
from unime_kedro.quality.suites import SUITES
from unime_kedro.settings import CONFIG_LOADER_ARGS

Tables = dict[str, pl.DataFrame]
PROJECT = Path(__file__).resolve().parents[2]


def _references(suite: str, data_root: Path) -> dict[str, str]:
    return {name: str(data_root / FILES[name]) for name in REFERENCES[suite]}


def test_message_in_full(tables: Tables, catalog_of: Callable[..., DataCatalog]) -> None:
    bad = edit(edit(tables["pool"], 0, similarity=1.2), 8, similarity=-7.0)
    with pytest.raises(TableError) as caught:
        catalog_of("pool").save("checked", edit(bad, 5, item_id=4))

    # 1 for the columns, 4 types, 4 nulls, 7 of the pool's own, 1 for missing rows, 1 that states the rows
    assert str(caught.value).splitlines() == [
        "Table 'checked' was refused on save: it breaks 2 of the 18 rules of suite 'pool'",
        "  1. similarity_is_a_cosine: similarity is a cosine, within [-1, 1] "
        "(ExpectColumnValuesToBeBetween of column similarity)",
        "     2 of 9 rows break it, for example: query_id=0 rank=0 item_id=6 similarity=1.2 | "
        "query_id=2 rank=2 item_id=3 similarity=-7.0",
        "  2. own_positive_is_absent: a query's own positive is never in its pool "
        "(ExpectColumnValuesToBeInSet of column is_own_positive)",
        "     1 of 9 rows break it, for example: query_id=1 rank=2 item_id=4 is_own_positive=True positive_item_id=4",
        "What to do: `kedro run --pipeline=pool` makes this table. If items or queries or candidates was made anew since, run the "
        "stages after it again, in order. Otherwise the stage is at fault: start from the rows above. "
        "KEDRO_DATASET_VALIDATION=off skips all checks.",
    ]


def test_failures_in_kedros_form(tables: Tables, catalog_of: Callable[..., DataCatalog]) -> None:
    bad = edit(tables["pool"], 0, similarity=1.2)
    result = validate_dataset(catalog_of("pool"), "checked", bad, on="save")

    assert result.status == "failed"
    (failure,) = result.failures
    assert failure.column == "similarity"
    assert failure.failure_count == 1
    assert failure.failure_examples == ["query_id=0 rank=0 item_id=6 similarity=1.2"]
    assert failure.check == (
        "similarity_is_a_cosine (ExpectColumnValuesToBeBetween): similarity is a cosine, within [-1, 1]"
    )
    assert "similarity=1.2" in str(result.message)


def test_error_survives_pickling(tables: Tables, catalog_of: Callable[..., DataCatalog]) -> None:
    with pytest.raises(TableError) as caught:
        catalog_of("pool").save("checked", edit(tables["pool"], 0, similarity=1.2))

    # Kedro's parallel runner sends errors between processes
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_at_most_five_samples(tables: Tables, catalog_of: Callable[..., DataCatalog]) -> None:
    with pytest.raises(TableError) as caught:
        catalog_of("pool").save("checked", tables["pool"].with_columns(item_id=pl.lit(99, dtype=pl.Int64)))

    failure = next(one for one in caught.value.verdict.failures if one.rule == "item_exists")
    assert failure.rows == 9
    assert len(failure.samples) == 5


def test_long_texts_are_cut_in_samples(tables: Tables, catalog_of: Callable[..., DataCatalog]) -> None:
    with pytest.raises(TableError, match=r"modality='x{37}\.\.\.'"):
        catalog_of("items").save("checked", edit(tables["items"], 5, modality="x" * 5000))


def test_warning_lets_the_table_pass(
    tables: Tables, data_root: Path, catalog_of: Callable[..., DataCatalog], caplog: pytest.LogCaptureFixture
) -> None:
    bad = edit(tables["pool"], 0, similarity=1.2)
    with caplog.at_level("WARNING", logger="kedro"):
        catalog_of("pool", severity="warn").save("checked", bad)

    assert pl.read_parquet(data_root / "checked.parquet").equals(bad)
    assert "query_id=0 rank=0 item_id=6 similarity=1.2" in caplog.text


def test_kedros_switch_skips_the_checks(
    tables: Tables, data_root: Path, catalog_of: Callable[..., DataCatalog], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEDRO_DATASET_VALIDATION", "off")
    catalog_of("pool").save("checked", edit(tables["pool"], 0, similarity=1.2))

    assert (data_root / "checked.parquet").exists()


@pytest.mark.parametrize(("reference", "stage"), [("items", "ingest"), ("queries", "ingest"), ("selection", "select")])
def test_missing_reference_names_its_stage(
    reference: str, stage: str, tables: Tables, data_root: Path, catalog_of: Callable[..., DataCatalog]
) -> None:
    (data_root / FILES[reference]).unlink()
    expected = (
        f"refers to table '{reference}', and .*{reference}.parquet does not exist. `kedro run --pipeline={stage}`"
    )
    with pytest.raises(TableError, match=expected):
        catalog_of("negatives").save("checked", tables["negatives"])

    assert not (data_root / "checked.parquet").exists()


def test_unreadable_reference(tables: Tables, data_root: Path, catalog_of: Callable[..., DataCatalog]) -> None:
    (data_root / FILES["queries"]).write_bytes(b"not parquet")
    with pytest.raises(TableError, match=r"queries.parquet cannot be read: .* `kedro run --pipeline=ingest`"):
        catalog_of("pool").save("checked", tables["pool"])


def test_reference_with_a_query_twice(tables: Tables, data_root: Path, catalog_of: Callable[..., DataCatalog]) -> None:
    pl.concat([tables["queries"], tables["queries"]]).write_parquet(data_root / FILES["queries"])
    with pytest.raises(TableError, match=r"queries.parquet has a query_id twice"):
        catalog_of("pool").save("checked", tables["pool"])


def test_not_a_table(tables: Tables, catalog_of: Callable[..., DataCatalog]) -> None:
    with pytest.raises(TableError, match=r"expected a polars DataFrame, got polars\.lazyframe\.frame\.LazyFrame"):
        catalog_of("items").save("checked", tables["items"].lazy())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"suite": "pol"}, "unknown suite 'pol'; did you mean 'pool'"),
        (
            {"suite": "pool", "references": {"items": "x"}},
            "'pool' needs references to items, queries, candidates, got items",
        ),
        ({"suite": "items", "references": {"queries": "x"}}, "'items' needs references to no table, got queries"),
        ({"suite": "items", "slots": 10}, "for suite 'negatives' only"),
        ({"suite": "items", "max_rows": 0}, "max_rows=0: expected a count of at least 1"),
    ],
)
def test_wrong_options(options: dict, message: str, tables: Tables, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=message):
        TableValidator(**options)
    validator = {"class": "unime_kedro.quality.TableValidator", "options": options}
    entry = {"type": "unime_kedro.io.ParquetTable", "filepath": str(tmp_path / "t.parquet"), "validator": validator}
    with pytest.raises(DatasetError, match=message):
        DataCatalog.from_config({"t": entry}).save("t", tables["items"])


def _wide_pool(data_root: Path, queries: int, k: int) -> pl.DataFrame:
    """Write a corpus in which query i has the positive k + i; return its pool, items 0..k-1 for every query."""
    ids = pl.int_range(queries, eager=True)
    table = pl.DataFrame({"query_id": ids, "item_id": ids + k, "positive_item_id": ids + k})
    table.write_parquet(data_root / FILES["queries"])
    pl.DataFrame({"item_id": pl.int_range(queries + k, eager=True)}).write_parquet(data_root / FILES["items"])
    ranks = pl.DataFrame({"rank": pl.int_range(k, dtype=pl.Int32, eager=True)})
    rows = pl.DataFrame({"query_id": ids}).join(ranks, how="cross")
    similarity = (1 - pl.col("rank") / k).cast(pl.Float32)
    return rows.select("query_id", "rank", item_id=pl.col("rank").cast(pl.Int64), similarity=similarity)


def test_last_row_of_a_big_table_is_caught(data_root: Path) -> None:
    pool = _wide_pool(data_root, queries=5_000, k=50)
    validator = TableValidator("pool", _references("pool", data_root))
    good = validator.check(pool)
    assert (good.success, good.rows, good.rows_checked) == (True, 250_000, 200_000)

    bad = validator.check(edit(pool, 249_999, item_id=5_049))
    assert (bad.rows, bad.rows_checked) == (250_000, 200_001)
    (failure,) = bad.failures
    assert failure.rule == "own_positive_is_absent"
    assert failure.samples == ("query_id=4999 rank=49 item_id=5049 is_own_positive=True positive_item_id=5049",)
    assert failure.found


def test_far_apart_equals_are_caught(data_root: Path) -> None:
    """The rows shown hold one of the two equal keys only, unless both break the rule."""
    pool = _wide_pool(data_root, queries=100, k=10)
    pl.DataFrame({"item_id": [*range(110), 109]}).write_parquet(data_root / FILES["items"])
    items = pl.DataFrame(
        {
            "item_id": range(1_000),
            "text": ["a"] * 1_000,
            "image": [""] * 1_000,
            "content_key": ["key-0", *(f"key-{i}" for i in range(1, 999)), "key-0"],
            "modality": ["text"] * 1_000,
        }
    )
    verdict = TableValidator("items", max_rows=10).check(items)
    (failure,) = verdict.failures
    assert (verdict.rows_checked, failure.rule, failure.rows) == (11, "content_key_is_unique", 2)
    assert failure.samples[1] == "item_id=999 content_key_occurrences=2"
    assert TableValidator("pool", _references("pool", data_root), max_rows=10).check(pool).rows_checked == 10


def test_rows_that_break_the_same_rule_are_counted_but_not_all_shown(data_root: Path) -> None:
    pool = _wide_pool(data_root, queries=100, k=10)
    late = pl.col("query_id") >= 50
    pool = pool.with_columns(
        similarity=pl.when(late).then(pl.lit(2.0, dtype=pl.Float32)).otherwise("similarity"),
        item_id=pl.when(pl.col("query_id") == 99).then(pl.col("item_id") + 5_000).otherwise("item_id"),
    )
    verdict = TableValidator("pool", _references("pool", data_root), max_rows=20).check(pool)

    # the first 20 rows, the first 20 of 500 with a wrong similarity, all 10 of the unknown items
    assert verdict.rows_checked == 50
    assert {one.rule: one.rows for one in verdict.failures} == {"similarity_is_a_cosine": 500, "item_exists": 10}


def test_data_is_returned_as_it_is(tables: Tables) -> None:
    assert TableValidator("items").validate(tables["items"]) is tables["items"]


def test_relative_paths_start_at_the_project_root(
    tables: Tables, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (data_root / "pyproject.toml").write_text("[tool.kedro]\n")
    monkeypatch.chdir(data_root / "02_intermediate")
    assert TableValidator("queries", {"items": FILES["items"]}).check(tables["queries"]).success
    with pytest.raises(DataError, match=r"nowhere.parquet does not exist"):
        TableValidator("queries", {"items": "nowhere.parquet"}).check(tables["queries"])


def _project_catalog(**runtime_params: object) -> dict[str, Any]:
    loader = OmegaConfigLoader(str(PROJECT / "conf"), runtime_params=runtime_params, **CONFIG_LOADER_ARGS)
    return loader["catalog"]


def test_slots_follow_the_parameters() -> None:
    for runtime, slots in [({}, 10), ({"select": {"negatives": 5}}, 5), ({"select": {"step": 3}}, 10)]:
        loader = OmegaConfigLoader(str(PROJECT / "conf"), runtime_params=runtime, **CONFIG_LOADER_ARGS)
        assert loader["parameters"]["select"]["negatives"] == slots
        assert _project_catalog(**runtime)["negatives"]["validator"]["options"]["slots"] == slots


def test_catalog_of_the_project_guards_every_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNIME_DATA_ROOT", raising=False)
    entries = _project_catalog()
    for name in SUITES:
        validator = entries[name]["validator"]
        assert validator["class"] == "unime_kedro.quality.TableValidator"
        assert validator["on"] == ["save"]
        options = validator["options"]
        assert options["suite"] == name
        assert options.get("references", {}) == {other: entries[other]["filepath"] for other in REFERENCES[name]}
        assert PROJECT / options["data_docs"] / "index.html" == data_docs_index(PROJECT / "data")
        TableValidator(**options)
