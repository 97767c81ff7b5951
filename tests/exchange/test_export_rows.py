"""Mined rows and the formats made of them, against values worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mined_tables import ITEMS, POSITIVE_SCORES, QUERIES, tables

from unime_kedro.errors import ConfigurationError, DataError
from unime_kedro.exchange.commands import FORMAT_NAMES
from unime_kedro.exchange.formats import FORMATS, HAS_TAG, NEEDS_WORDS
from unime_kedro.exchange.rows import NO_NEGATIVES, NO_POSITIVE_SCORE, TOO_FEW, MinedRows, mined_rows
from unime_kedro.exchange.writing import export


def rows_of(**options) -> MinedRows:
    return mined_rows(**tables(), **options)


def read_lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]


def test_rows_equal_a_slow_loop():
    found = rows_of()
    expected = []
    for query_id, item, positive, members in sorted(QUERIES):
        if members:
            expected.append(
                {
                    "query_id": query_id,
                    "dataset": "D",
                    "query_text": ITEMS[item][0],
                    "query_image": ITEMS[item][1],
                    "positive_id": positive,
                    "positive_text": ITEMS[positive][0],
                    "positive_image": ITEMS[positive][1],
                    "positive_score": POSITIVE_SCORES[query_id],
                    "negative_ids": [m for m, *_ in members],
                    "negative_texts": [ITEMS[m][0] for m, *_ in members],
                    "negative_images": [ITEMS[m][1] for m, *_ in members],
                    "negative_scores": [s for _, s, _ in members],
                }
            )
    assert sorted(found.frame.columns) == sorted(expected[0])
    assert found.frame.select(expected[0].keys()).to_dicts() == expected
    assert found.left_out == {NO_NEGATIVES: 1}


def test_negatives_are_the_first_slots_and_fallbacks_may_be_left_out():
    found = rows_of(count=2, fallback=False, image_root=Path("/pictures"))
    assert found.frame["negative_ids"].to_list() == [[2, 3], [1, 6]]
    assert found.frame["negative_images"].to_list() == [["/pictures/c2.png", "/pictures/c3.png"], ["", ""]]
    assert found.frame["query_image"].to_list() == ["/pictures/q0.png", ""]
    assert found.left_out == {NO_NEGATIVES: 2}
    assert rows_of(count=4).left_out == {NO_NEGATIVES: 1, TOO_FEW: 3}


def test_a_positive_without_a_score_is_counted():
    given = tables()
    scores = given["judge_scores"]
    given["judge_scores"] = scores.filter(~(pl.col("is_positive") & (pl.col("query_id") == 1)))
    found = mined_rows(**given)
    assert found.frame["query_id"].to_list() == [0, 3]
    assert found.left_out == {NO_NEGATIVES: 1, NO_POSITIVE_SCORE: 1}


@pytest.mark.parametrize(("table", "keep", "told"), [
    ("items", pl.col("item_id") != 2, "negatives.parquet: 3 rows name items that items.parquet does not have"),
    ("items", pl.col("item_id") != 0, "the query of query_id 0 is an item"),
    ("queries", pl.col("query_id") != 3, "query_id 3 is not in queries.parquet"),
])  # fmt: skip
def test_tables_that_do_not_belong_together_are_refused(table, keep, told):
    given = tables()
    given[table] = given[table].filter(keep)
    with pytest.raises(DataError, match=told):
        mined_rows(**given)


def test_ms_swift_has_one_tag_for_every_picture_beside_it():
    table = FORMATS["ms-swift"][0](rows_of(image_root=Path("/p"))).tables[""]
    first, second, _ = table.to_dicts()
    assert first["messages"] == [{"role": "user", "content": "<image>\nWhich colour?"}]
    assert first["images"] == ["/p/q0.png"]
    assert first["positive_messages"] == [[{"role": "user", "content": 'red, not "blue"'}]]
    assert first["positive_images"] == [[]]
    assert [message["content"] for (message,) in first["negative_messages"]] == ["<image>", "<image> a crop", "<image>"]
    assert first["negative_images"] == [["/p/c2.png"], ["/p/c3.png"], ["/p/c2.png"]]
    assert second["images"] == []
    assert second["negative_images"] == [[], [], []]
    assert {m["role"] for (m,) in second["negative_messages"]} == {"user"}
    reranking = FORMATS["ms-swift-reranker"][0](rows_of()).tables[""].to_dicts()
    assert {m["role"] for (m,) in reranking[1]["negative_messages"] + reranking[1]["positive_messages"]} == {
        "assistant"
    }
    assert reranking[1]["messages"][0]["role"] == "user"


@given(st.lists(st.sampled_from(["a", "<|image_1|>", "<image>", "<video>", "\n", "<|image_1|> b"]), max_size=3))
def test_ms_swift_tags_and_pictures_are_as_many_whatever_the_words(parts):
    given = tables()
    words = "".join(parts) or "w"
    given["items"] = given["items"].with_columns(
        text=pl.when(pl.col("item_id") == 3).then(pl.lit(words)).otherwise("text")
    )
    found = FORMATS["ms-swift"][0](mined_rows(**given))
    assert (HAS_TAG in found.left_out) == ("<image>" in words or "<video>" in words)
    for row in found.tables[""].to_dicts():
        texts = [row["messages"], *row["positive_messages"], *row["negative_messages"]]
        pictures = [row["images"], *row["positive_images"], *row["negative_images"]]
        if "<|image_1|><|image_1|>" not in words and words.count("<|image_1|>") < 2:
            assert [m["content"].count("<image>") for (m,) in texts] == [len(one) for one in pictures]


def test_sentence_transformers_rows_are_as_wide_as_the_shortest():
    given = tables()
    given["negatives"] = given["negatives"].filter(~((pl.col("query_id") == 1) & (pl.col("slot") == 2)))
    exported = FORMATS["sentence-transformers"][0](mined_rows(**given))
    table = exported.tables[""]
    assert table.columns == ["anchor", "positive", "negative_1", "negative_2", "label"]
    assert table["label"].to_list() == [[0.875, 0.25, 0.5], [0.625, 0.125, 0.0], [0.375, 1.0, 1.0]]
    assert table["negative_1"].to_list()[0] == {"text": None, "image": {"bytes": None, "path": "c2.png"}}
    assert table["anchor"].to_list()[1] == {"text": ITEMS[4][0], "image": None}
    assert exported.pictures == ["anchor", "positive", "negative_1", "negative_2"]
    words = FORMATS["sentence-transformers"][0](mined_rows(**tables(words_alone=True)))
    assert words.tables[""]["positive"].to_list() == ['red, not "blue"', "słoń 🐘", "słoń 🐘"]
    assert words.pictures == []


def test_tevatron_names_documents_that_are_in_its_corpus_once():
    exported = FORMATS["tevatron"][0](rows_of())
    train, corpus = exported.tables["train.jsonl"], exported.tables["corpus.jsonl"]
    assert train.row(0, named=True) == {
        "query_id": "0",
        "query_text": "Which colour?",
        "query_image": "q0.png",
        "positive_document_ids": ["1"],
        "negative_document_ids": ["2", "3", "2"],
        "positive_scores": [0.875],
        "negative_scores": [0.25, 0.5, 0.25],
    }
    assert corpus["docid"].to_list() == ["1", "2", "3", "4", "5", "6", "7"]
    assert corpus.row(2, named=True) == {"docid": "3", "text": "a crop", "image": "c3.png"}
    assert corpus["image"].null_count() == 5


def test_formats_of_words_leave_out_queries_with_a_picture_anywhere():
    for name in ("flag-embedding", "tevatron-text"):
        exported = FORMATS[name][0](rows_of())
        assert exported.left_out == {NO_NEGATIVES: 1, NEEDS_WORDS: 2}
        assert len(exported.tables[""]) == 1
    assert FORMATS["flag-embedding"][0](rows_of()).tables[""].to_dicts() == [
        {
            "query": ITEMS[4][0],
            "pos": ["słoń 🐘"],
            "neg": ['red, not "blue"', "query of nothing", "query of a fallback"],
            "pos_scores": [0.625],
            "neg_scores": [0.125, 0.0, 0.75],
        }
    ]
    (row,) = FORMATS["tevatron-text"][0](rows_of()).tables[""].to_dicts()
    assert row["positive_passages"] == [{"docid": "5", "text": "słoń 🐘"}]
    assert [p["docid"] for p in row["negative_passages"]] == ["1", "6", "7"]


def test_files_do_not_depend_on_how_many_rows_are_written_at_a_time(tmp_path, monkeypatch):
    whole = export(rows_of(), "ms-swift", tmp_path / "a.jsonl")[0][0]
    monkeypatch.setattr("unime_kedro.exchange.writing._SLICE", 1)
    parts = export(rows_of(), "ms-swift", tmp_path / "b.jsonl")[0][0]
    assert whole.read_bytes() == parts.read_bytes()
    assert len(read_lines(whole)) == 3


def test_a_file_stays_when_there_is_nothing_to_put_into_it(tmp_path):
    file = tmp_path / "x.jsonl"
    file.write_text("old")
    only_pictures = rows_of().only(pl.col("query_id") == 0, "not asked for")
    with pytest.raises(DataError, match=r"nothing is left to export as flag-embedding.*a picture"):
        export(only_pictures, "flag-embedding", file)
    assert file.read_text() == "old"
    with pytest.raises(ConfigurationError, match=r"expected .*x\.parquet"):
        export(rows_of(), "sentence-transformers", file)
    with pytest.raises(ConfigurationError, match="name a folder"):
        export(rows_of(), "tevatron", file)


def test_the_command_line_knows_every_format():
    assert tuple(FORMATS) == FORMAT_NAMES
