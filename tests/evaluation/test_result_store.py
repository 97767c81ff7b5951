"""Results are kept whole or not at all, under a name that changes with everything that they depend on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unime_kedro.errors import DataError
from unime_kedro.evaluation.result_store import Result, read_result, result_key, tasks_digest, write_result
from unime_kedro.evaluation.tasks import OwnCandidates, SharedCandidates

TABLE = pl.DataFrame({"query_id": [1, 2], "similarity": pl.Series([0.5, float("nan")], dtype=pl.Float32)})


def test_what_is_written_is_read(tmp_path):
    assert read_result(tmp_path, "key", ["one"]) is None
    write_result(tmp_path, "key", Result({"one": TABLE, "two": TABLE.head(1)}, {"seconds": 1.5}))
    found = read_result(tmp_path, "key", ["one", "two"])
    assert found is not None
    assert found.tables["one"].equals(TABLE)
    assert found.record == {"seconds": 1.5}
    assert read_result(tmp_path, "key", ["three"]) is None
    write_result(tmp_path, "key", Result({"one": TABLE.head(1)}, {}))
    again = read_result(tmp_path, "key", ["one"])
    assert again is not None
    assert again.tables["one"].height == 1
    assert read_result(tmp_path, "key", ["two"]) is None


@pytest.mark.parametrize("broken", ["one.parquet", "record.json"])
def test_a_damaged_result_counts_as_none(tmp_path, broken):
    write_result(tmp_path, "key", Result({"one": TABLE}, {}))
    file = tmp_path / "key" / broken
    file.write_bytes(file.read_bytes()[:-5])
    assert read_result(tmp_path, "key", ["one"]) is None


KILLED = """
import os, signal, sys
from pathlib import Path
import polars as pl
from unime_kedro.evaluation import result_store
flushed = result_store.flush
def flush(path):  # kill -9 when all files are written and nothing is renamed
    os.kill(os.getpid(), signal.SIGKILL)
result_store.flush = flush
result_store.write_result(Path(sys.argv[1]), "key", result_store.Result({"one": pl.DataFrame({"a": [1]})}, {}))
"""


def test_a_killed_writer_leaves_nothing_behind_that_counts(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env=os.environ, check=False)
    assert done.returncode == -signal.SIGKILL
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_dir()] == [".partial-key"]
    assert read_result(tmp_path, "key", ["one"]) is None
    write_result(tmp_path, "other", Result({"one": TABLE}, {}))
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry.is_dir()) == ["other"]


def test_keys_differ_with_their_parts():
    parts = {"model": "a", "top": 10}
    assert result_key(parts) == result_key(dict(reversed(parts.items())))
    assert len({result_key(parts), result_key({**parts, "top": 11}), result_key({**parts, "model": "b"})}) == 3


def task(**changes):
    contents = pl.DataFrame({"content_id": [0, 1, 2], "text": ["q", "", "c"], "image": ["", "1.png", None]})
    queries = pl.DataFrame({"query_id": [0, 1], "content_id": [0, 2], "candidates": [[1, 2], [2]], "unit": [0, 0]})
    return OwnCandidates(**{"dataset": "D", "contents": contents, "queries": queries, **changes})


def shared_task(**changes):
    contents = task().contents
    queries = pl.DataFrame({"query_id": [0, 1], "content_id": [0, 2], "group": [0, 1], "unit": [0, 1]})
    targets = pl.DataFrame({"target_id": [0, 1], "content_id": [1, 2], "group": [0, 1]})
    return SharedCandidates(**{"dataset": "S", "contents": contents, "queries": queries, "targets": targets, **changes})


@pytest.fixture
def pictures(tmp_path) -> Path:
    (tmp_path / "1.png").write_bytes(b"one")
    return tmp_path


def test_a_digest_changes_with_everything_that_scores_depend_on(pictures):
    own, shared = task(), shared_task()
    lists = pl.Series([[1], [2, 2]])  # the same candidates one after the other
    others = [
        [own],
        [own, shared],
        [task(dataset="E")],
        [task(contents=own.contents.with_columns(text=pl.Series(["q", "", "d"])))],
        [task(contents=own.contents.with_columns(content_id=pl.Series([0, 2, 1])))],
        [task(queries=own.queries.with_columns(candidates=pl.Series([[2, 1], [2]])))],
        [task(queries=own.queries.with_columns(candidates=lists))],
        [task(queries=own.queries.with_columns(unit=pl.Series([0, 1])))],
        [task(queries=own.queries.with_columns(query_id=pl.Series([0, 2])))],
        [shared],
        [shared_task(queries=shared.queries.with_columns(group=pl.Series([1, 1])))],
        [shared_task(targets=shared.targets.with_columns(group=pl.Series([1, 0])))],
    ]
    digests = [tasks_digest(tasks, pictures) for tasks in others]
    assert len(set(digests)) == len(others)
    (pictures / "1.png").write_bytes(b"two")
    assert tasks_digest([own], pictures) != digests[0]


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 99))
def test_a_digest_does_not_depend_on_order_or_place(tmp_path_factory, seed):
    first, second = tmp_path_factory.mktemp("a"), tmp_path_factory.mktemp("b")
    for folder in (first, second):
        (folder / "1.png").write_bytes(b"one")
    own, shared = task(), shared_task()
    mixed = task(
        contents=own.contents.sample(fraction=1, shuffle=True, seed=seed),
        queries=own.queries.sample(fraction=1, shuffle=True, seed=seed),
    )
    assert tasks_digest([own, shared], first) == tasks_digest([shared, mixed], second)


def test_a_picture_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"1\.png cannot be read: No such file"):
        tasks_digest([task()], tmp_path)
