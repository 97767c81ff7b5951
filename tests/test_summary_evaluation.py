"""The lines at the end of a run that evaluated models."""

from __future__ import annotations

from unime_kedro.summary import result_lines
from unime_kedro.summary_evaluation import evaluation_lines


def figure(value, measure="precision_at_1"):
    return {measure: {"value": value, "low": value - 0.02, "high": value + 0.03, "n": 5}}


METRICS = {
    "start": {
        "mini-MMEB": {"A": figure(0.1), "all": figure(0.515)},
        "Captions": {"i2t": figure(0.48, "recall_at_1"), "t2i": figure(0.454, "recall_at_1")},
        "_": {"embedded": True, "missing": {}, "excluded": {}},
    },
    "trained": {"mini-MMEB": {"A": figure(0.2), "all": figure(0.576)}, "_": {"missing": {}, "excluded": {}}},
}


def test_a_line_per_model_and_one_on_toys():
    assert result_lines({"evaluate": METRICS}) == [
        "  evaluate   start: mini-MMEB 0.515 (0.495 to 0.545); i2t 0.480 (0.460 to 0.510), t2i 0.454",
        "             (0.434 to 0.484)",
        "             trained: mini-MMEB 0.576 (0.556 to 0.606)",
        "  models     tiny and trained on synthetic data: these figures say nothing of real models",
    ]


def test_real_models_are_no_toys():
    real = {"real": {**METRICS["start"], "_": {"embedded": False}}}
    assert not any("tiny" in line for line in result_lines({"evaluate": real}))


def test_what_is_missing_and_left_out_is_said():
    facts = {
        "missing": {"MMEB": [f"set{i}" for i in range(8)]},
        "excluded": {"MMEB": {"set8": 3, "set9": 1200}},
    }
    unknown = {"precision_at_1": {"value": None, "low": None, "high": None, "missing": ["set0"]}}
    assert evaluation_lines({"mine": {"MMEB": {"set8": figure(0.5), "all": unknown}, "_": facts}}) == [
        ("evaluate", "mine: MMEB unknown, data sets are missing"),
        ("missing", "MMEB: set0, set1, set2, set3, set4, set5 and 2 more"),
        ("left out", "MMEB: 1,203 queries that were in the training data"),
    ]
