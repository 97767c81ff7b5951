"""The judge store: append-only, safe against being killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import polars as pl
import pytest

from unime_kedro.errors import DataError
from unime_kedro.mining.store import SCHEMA, JudgeStore, judge_key

IDENTITY = {"model": "m", "prompt": "p"}


def rows(*found):
    return pl.DataFrame(found, schema=SCHEMA, orient="row")


def test_what_was_added_is_read_by_the_next_run(tmp_path):
    with JudgeStore(tmp_path, IDENTITY) as store:
        store.add(rows(("q1", "c1", 1.0, 0.5, "")))
        store.add(rows(("q1", "c2", 0.0, 2.0, ""), ("q2", "c1", None, None, "out of memory")))
    found = JudgeStore(tmp_path, IDENTITY).read().sort("query_key", "candidate_key")
    assert found.rows() == [
        ("q1", "c1", 1.0, 0.5, ""),
        ("q1", "c2", 0.0, 2.0, ""),
        ("q2", "c1", None, None, "out of memory"),
    ]


def test_a_score_wins_over_an_error_the_first_score_and_the_newest_error_count(tmp_path):
    for found in (
        ("q", "a", None, None, "first error"),
        ("q", "a", None, None, "second error"),
        ("q", "b", None, None, "an error"),
        ("q", "b", 1.0, 2.0, ""),
        ("q", "c", 3.0, 4.0, ""),
        ("q", "c", 5.0, 6.0, ""),
        ("q", "c", None, None, "later error"),
    ):
        with JudgeStore(tmp_path, IDENTITY) as store:
            store.add(rows(found))
    assert JudgeStore(tmp_path, IDENTITY).read().sort("candidate_key").rows() == [
        ("q", "a", None, None, "second error"),
        ("q", "b", 1.0, 2.0, ""),
        ("q", "c", 3.0, 4.0, ""),
    ]


def test_another_judge_has_another_store(tmp_path):
    with JudgeStore(tmp_path, IDENTITY) as store:
        store.add(rows(("q", "c", 1.0, 2.0, "")))
    assert JudgeStore(tmp_path, {**IDENTITY, "prompt": "other"}).read().is_empty()
    assert judge_key({"a": 1, "b": 2}) == judge_key({"b": 2, "a": 1})


def test_leftovers_of_a_killed_writer_are_not_read_and_damage_is_named(tmp_path):
    with JudgeStore(tmp_path, IDENTITY) as store:
        store.add(rows(("q", "c", 1.0, 2.0, "")))
    folder = tmp_path / judge_key(IDENTITY)
    (folder / ".shard-1.parquet.123.part").write_bytes(b"half")
    assert JudgeStore(tmp_path, IDENTITY).read().height == 1
    (folder / "shard-0.parquet").write_bytes(b"half")
    with pytest.raises(DataError, match=r"shard-0\.parquet.*Delete"):
        JudgeStore(tmp_path, IDENTITY).read()


def test_an_error_in_the_run_keeps_what_was_judged(tmp_path):
    def interrupted():
        with JudgeStore(tmp_path, IDENTITY, flush_seconds=1e9) as store:
            store.add(rows(("q", "c", 1.0, 2.0, "")))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert JudgeStore(tmp_path, IDENTITY).read().height == 1


WRITER = """
import sys, polars as pl
from pathlib import Path
from unime_kedro.mining.store import JudgeStore, SCHEMA
store = JudgeStore(Path(sys.argv[1]), {"model": "m", "prompt": "p"}, flush_seconds=0.0)
n = 0
while True:
    store.add(pl.DataFrame([(f"q{n}", f"c{i}", float(n), float(i), "") for i in range(50)], schema=SCHEMA, orient="row"))
    n += 1
"""


def test_sigkill_in_the_middle_of_writing_leaves_only_whole_shards(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)])
    folder = tmp_path / judge_key(IDENTITY)
    deadline = time.monotonic() + 60
    while len(list(folder.glob("shard-*"))) < 20 and time.monotonic() < deadline:
        os.sched_yield()
    process.send_signal(signal.SIGKILL)
    process.wait()
    found = JudgeStore(tmp_path, IDENTITY).read()
    assert found.height >= 1000
    per_query = found.group_by("query_key").agg(pl.len(), pl.col("yes_logit").n_unique())
    assert per_query["len"].unique().to_list() == [50]
    assert per_query["yes_logit"].unique().to_list() == [1]
