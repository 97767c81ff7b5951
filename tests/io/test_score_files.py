"""Score files of other programs: fractions and percentages, and what contradicts itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unime_kedro.errors import DataError
from unime_kedro.io import score_files
from unime_kedro.io.score_files import Score, read_scores

KNOWN = ("GQA", "CIRR", "MSCOCO")


def put(folder: Path, name: str, **content: Any) -> None:
    (folder / f"{name}_score.json").write_text(json.dumps(content))


def test_fractions_and_percentages_by_their_counts(tmp_path: Path) -> None:
    put(tmp_path, "GQA", acc=0.667, num_correct=2, num_pred=3)
    put(tmp_path, "CIRR", acc=66.7, num_correct=2, num_pred=3)
    put(tmp_path, "MSCOCO", acc=0.0, num_correct=0, num_pred=7)
    (tmp_path / "GQA_pred.txt").write_text("other files are left alone")
    assert read_scores(tmp_path, KNOWN) == {
        "CIRR": Score(2 / 3, 2, 3),
        "GQA": Score(2 / 3, 2, 3),
        "MSCOCO": Score(0.0, 0, 7),
    }


def test_a_percentage_below_one_is_told_by_its_counts(tmp_path: Path) -> None:
    put(tmp_path, "GQA", acc=0.5, num_correct=5, num_pred=1000)
    put(tmp_path, "CIRR", acc=1, num_correct=4, num_pred=4)
    assert read_scores(tmp_path, KNOWN) == {"GQA": Score(0.005, 5, 1000), "CIRR": Score(1.0, 4, 4)}


def test_without_counts_the_others_tell(tmp_path: Path) -> None:
    put(tmp_path, "GQA", acc=0.5)
    assert read_scores(tmp_path, KNOWN)["GQA"] == Score(0.5, None, None)
    put(tmp_path, "CIRR", acc=40.0)  # above 1: all are percentages
    assert read_scores(tmp_path, KNOWN)["GQA"] == Score(0.005, None, None)
    put(tmp_path, "CIRR", acc=0.4, num_correct=2, num_pred=5)  # a fraction by its counts: all are fractions
    assert read_scores(tmp_path, KNOWN)["GQA"] == Score(0.5, None, None)
    put(tmp_path, "MSCOCO", acc=55.0)
    with pytest.raises(DataError, match=r"MSCOCO_score\.json, key acc: 55\.0; expected a share from 0 to 1, as in"):
        read_scores(tmp_path, KNOWN)


@pytest.mark.parametrize(
    ("score", "correct", "n"), [(0.312, 65, 208), (0.001, 1, 2000), (6.2, 1, 16), (31.2, 5, 16), (18.8, 3, 16)]
)
def test_a_score_rounded_at_the_half_is_the_share_of_its_counts(score: float, correct: int, n: int) -> None:
    given_ = score_files._given("file", score, correct, n)
    assert score_files._score(given_, "fraction") == Score(correct / n, correct, n)


@given(st.integers(1, 5000), st.data(), st.sampled_from([1.0, 100.0]), st.sampled_from([3, 4, 16]))
def test_any_count_comes_back_from_its_rounded_score(n: int, data: st.DataObject, unit: float, digits: int) -> None:
    correct = data.draw(st.integers(0, n))
    decimals = digits if unit == 1 else max(1, digits - 2)
    given_ = score_files._given("file", round(unit * correct / n, decimals), correct, n)
    assert given_.unit in ("", "fraction" if unit == 1 else "percent") or correct / n < 0.002
    found = score_files._score(given_, "fraction")
    assert found == Score(correct / n, correct, n)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"acc": 0.6, "num_correct": 2, "num_pred": 5}, r"0\.6, but num_correct / num_pred is 2 / 5 = 0\.4000"),
        ({"acc": 41, "num_correct": 2, "num_pred": 5}, r"41, but num_correct / num_pred"),
        ({"acc": 0.5, "num_correct": 6, "num_pred": 5}, r"6 of 5 are right"),
        ({"acc": 0.0, "num_correct": 0, "num_pred": 0}, r"0 of 0 are right"),
        ({"acc": 0.5, "num_correct": 1.5, "num_pred": 3}, r"num_correct is 1\.5; expected a whole number"),
        ({"acc": 0.5, "num_correct": -1, "num_pred": 3}, r"num_correct is -1; expected a whole number"),
        ({"acc": True}, r"True; expected a number"),
        ({"acc": "0.5"}, r"'0\.5'; expected a number"),
        ({"acc": float("nan")}, r"nan; expected a number"),
        ({"acc": -0.1}, r"-0\.1; expected a share from 0 to 1, or a percentage"),
        ({"acc": 101}, r"101; expected a share"),
        ({"hit@1": 0.5}, r'expected \{"acc"'),
    ],
)
def test_files_that_cannot_be(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    put(tmp_path, "CIRR", acc=0.5, num_correct=1, num_pred=2)
    put(tmp_path, "GQA", **content)
    with pytest.raises(DataError, match=r"GQA_score\.json.*" + message):
        read_scores(tmp_path, KNOWN)


def test_places_without_scores(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no <data set>_score\.json"):
        read_scores(tmp_path, KNOWN)
    with pytest.raises(DataError, match=r"nothing does not exist"):
        read_scores(tmp_path / "nothing", KNOWN)
    (tmp_path / "GQA_score.json").write_text("{")
    with pytest.raises(DataError, match=r"GQA_score\.json is not a readable JSON file"):
        read_scores(tmp_path, KNOWN)


@pytest.mark.parametrize(
    ("text", "scores"),
    [
        ("dataset,score\nGQA,50.5\nCIRR,0.4\n", {"GQA": 0.505, "CIRR": 0.004}),
        ("model,dataset,acc\nx,GQA,0.5\nx,CIRR,N/A\n", {"GQA": 0.5}),
        ("experiment,GQA,CIRR,checkpoint\nrun,0.5,,default\n", {"GQA": 0.5}),
        ("GQA,Mine\n50,60\n", {"GQA": 0.5, "Mine": 0.6}),
    ],
)
def test_flat_tables(tmp_path: Path, text: str, scores: dict[str, float]) -> None:
    file = tmp_path / "scores.csv"
    file.write_text(text)
    assert {name: score.value for name, score in read_scores(file, KNOWN).items()} == pytest.approx(scores)


def test_a_flat_table_with_counts(tmp_path: Path) -> None:
    file = tmp_path / "scores.csv"
    file.write_text("dataset,score,num_correct,num_pred\nGQA,33.3,1,3\nCIRR,50,,\n")
    assert read_scores(file, KNOWN) == {"GQA": Score(1 / 3, 1, 3), "CIRR": Score(0.5, None, None)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dataset,score\nGQA,0.5\nGQA,0.6\n", r"row 1, column dataset: 'GQA' stands there twice"),
        ("dataset,score\nGQA,high\n", r"row 0, column score: 'high'; expected a number"),
        ("dataset,score\nGQA,\n", r"holds no score"),
        ("dataset,score,num_correct,num_pred\nGQA,0.5,a,3\n", r"row 0, column num_correct: 'a'"),
        ("GQA,CIRR\n1,2\n3,4\n", r"has 2 rows and the columns GQA, CIRR; expected the columns dataset and score"),
        ("GQA,CIRR\nhigh,2\n", r"column GQA: 'high'; expected a number"),
    ],
)
def test_tables_that_cannot_be(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "scores.csv"
    file.write_text(text)
    with pytest.raises(DataError, match=r"scores\.csv.*" + message):
        read_scores(file, KNOWN)
