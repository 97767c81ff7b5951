"""Figures of a run, and figures of its result."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unime_kedro.io.datasets import JsonFile
from unime_kedro.io.run_figures import is_of_a_run, merge, split

NAMES = st.sampled_from(["precision_at_1", "seconds", "pairs_per_second", "auc/all", "reused", "model", "loss"])
LEAVES = st.one_of(st.integers(), st.text(max_size=3), st.none())
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=4)),
    max_leaves=12,
)


@pytest.mark.parametrize(
    "name",
    [
        "seconds",
        "validation_seconds",
        "pairs_per_second",
        "peak_memory_gb",
        "seconds/judge",
        "reused",
        "run_tokens",
        "index_reason",
    ],
)
def test_of_a_run(name):
    assert is_of_a_run(name)


@pytest.mark.parametrize(
    "name", ["precision_at_1", "precision_at_1/seconds", "secondsight", "tokens", "rewritten", "loss"]
)
def test_of_a_result(name):
    assert not is_of_a_run(name)


@given(TREES)
def test_what_is_divided_can_be_put_together(tree):
    result, of_run = split(tree)
    assert merge(result, of_run) == tree
    assert not any(name in json.dumps(result) for name in ('"seconds"', '"reused"', '"pairs_per_second"'))


def write(folder, seconds, accuracy):
    file = JsonFile(filepath=str(folder / "x_metrics.json"))
    file.save({"a": {"accuracy": accuracy, "seconds": seconds}, "rows": [{"step": 1}, {"step": 2, "seconds": seconds}]})
    return file


def test_equal_results_are_equal_files_whatever_time_they_took(tmp_path):
    texts = set()
    for seconds in (1.5, 2.5):
        file = write(tmp_path, seconds, 0.5)
        texts.add((tmp_path / "x_metrics.json").read_text())
        assert file.load()["a"] == {"accuracy": 0.5, "seconds": seconds}
        assert file.load()["rows"] == [{"step": 1}, {"step": 2, "seconds": seconds}]
    assert len(texts) == 1
    assert json.loads(texts.pop()) == {"a": {"accuracy": 0.5}, "rows": [{"step": 1}, {"step": 2}]}


def test_figures_of_another_run_are_not_put_in(tmp_path):
    write(tmp_path, 1.5, 0.5)
    kept = (tmp_path / "x_metrics.json").read_bytes()
    file = write(tmp_path, 2.5, 0.6)
    (tmp_path / "x_metrics.json").write_bytes(kept)  # as `dvc checkout` does
    assert file.load() == json.loads(kept)


def test_a_file_of_another_kind_is_left_whole(tmp_path):
    file = JsonFile(filepath=str(tmp_path / "mined.json"))
    file.save({"seconds": 1})
    assert (tmp_path / "mined.json").read_text() == '{\n "seconds": 1\n}\n'
    assert not (tmp_path / "run_figures").exists()
