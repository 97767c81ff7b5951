"""Flat names and values."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from unime_kedro.tracking.metrics import clean_key, flat_parameters, history_points, metric_values, text_values


class Filter(BaseModel):
    rule: str = "absolute"
    margin: float = 0.01


class Select(BaseModel):
    negatives: int = 10
    filter: Filter = Filter()
    datasets: list[str] | None = None


def test_typed_and_plain_parameters_become_dotted_texts() -> None:
    parameters = {"select": Select(), "demo": {"train": {"VOC": 5}, "none": {}}, "list": [1, "a", None], "on": False}
    assert flat_parameters(parameters, 500) == {
        "select.negatives": "10",
        "select.filter.rule": "absolute",
        "select.filter.margin": "0.01",
        "select.datasets": "null",
        "demo.train.VOC": "5",
        "demo.none": "{}",
        "list": '[1, "a", null]',
        "on": "false",
    }


def test_values_longer_than_the_limit_are_cut_to_it() -> None:
    flat = flat_parameters({"exact": "x" * 20, "long": "x" * 21}, 20)
    assert flat == {"exact": "x" * 20, "long": "x" * 19 + "…"}


def test_metrics_get_their_stage_and_only_numbers_are_taken() -> None:
    data = {
        "auc": 0.9,
        "n": 3,
        "ok": True,
        "why": "text",
        "none": None,
        "list": [1],
        "by": {"VOC2007": 0.1, "x": {"y": 2}},
    }
    assert metric_values("truth_metrics", data) == {
        "truth/auc": 0.9,
        "truth/n": 3.0,
        "truth/by/VOC2007": 0.1,
        "truth/by/x/y": 2.0,
    }
    assert metric_values("truth_metrics", [1, 2]) == {}
    assert text_values("truth_metrics", data) == {"truth.why": "text"}
    assert text_values("truth_metrics", [1, 2]) == {}


def test_a_figure_with_its_interval_is_three_metrics() -> None:
    figure = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 100}
    chance = {"value": 0.1, "low": None, "high": None, "n": 100}
    data = {"start": {"MMEB": {"all": {"precision_at_1": figure, "chance": chance}}}, "low": 1}
    assert metric_values("evaluate_metrics", data) == {
        "evaluate/start/MMEB/all/precision_at_1": 0.5,
        "evaluate/start/MMEB/all/precision_at_1_low": 0.25,
        "evaluate/start/MMEB/all/precision_at_1_high": 0.75,
        "evaluate/start/MMEB/all/chance": 0.1,
        "evaluate/low": 1.0,
    }


def test_a_history_is_numbers_by_name_and_step_whatever_the_order() -> None:
    rows = [
        {"step": 20, "loss": 0.5, "by": {"vqa": 0.25}, "note": "text", "ok": True, "none": None},
        {"step": 10, "loss": 2, "a/b": 1.5},
        {"step": 20, "loss": 0.75},  # told again: the last counts
        {"loss": 9.0},
        {"step": 1.5, "loss": 9.0},
        {"step": True, "loss": 9.0},
        "no row",
    ]
    assert history_points("train_history", rows) == [
        ("train/a/b", 10, 1.5),
        ("train/by/vqa", 20, 0.25),
        ("train/loss", 10, 2.0),
        ("train/loss", 20, 0.75),
    ]
    assert history_points("train_history", {"step": 1, "loss": 2.0}) == []
    assert history_points("train_history", []) == []


@given(st.text(max_size=300))
def test_every_name_becomes_one_that_mlflow_takes(text: str) -> None:
    from mlflow.utils.validation import _validate_metric_name, _validate_param_name

    _validate_metric_name(clean_key(text))
    _validate_param_name(clean_key(text))


@given(st.from_regex(r"[a-zA-Z0-9_.\- :]{1,20}(/[a-zA-Z0-9_.\- :]{1,20})?", fullmatch=True))
def test_names_that_mlflow_takes_stay_as_they_are(name: str) -> None:
    parts = name.split("/")
    if not any(part in (".", "..") for part in parts):
        assert clean_key(name) == name


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
names = st.text(alphabet="abcxyz_", min_size=1, max_size=5)


@given(
    st.dictionaries(
        names, st.recursive(scalars, lambda inner: st.dictionaries(names, inner, max_size=4), max_leaves=12)
    )
)
def test_no_parameter_is_lost_and_each_can_be_read_back(parameters: dict) -> None:
    flat = flat_parameters(parameters, 6000)
    leaves = 0
    stack = [((), parameters)]
    while stack:
        path, value = stack.pop()
        if isinstance(value, dict) and (value or not path):
            stack += [((*path, key), inner) for key, inner in value.items()]
            continue
        leaves += 1
        text = flat[".".join(path)]
        assert text == value if isinstance(value, str) else json.loads(text) == value
    assert len(flat) == leaves
