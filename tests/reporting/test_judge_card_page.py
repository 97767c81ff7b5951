"""The judge card's page and figures show what they are given, and stand alone."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from report_tables import drawing, parsed

from unime_kedro.reporting.drawing import svg
from unime_kedro.reporting.judge_card import Card, fine, render_judge_card, yes_groups
from unime_kedro.reporting.judge_figures import movement_figure, yes_figure

#: dash and minus as they are on the keyboard
PLAIN = str.maketrans({"\N{EN DASH}": "-", "\N{MINUS SIGN}": "-"})


def interval(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high, "n": 9}


MOVED = {
    "mean_difference": 1.23e-7, "largest_difference": 0.4567, "spearman": 0.9876, "pool_members": 1234,
    "decisions_flipped": interval(0.0123, 0.011, 0.026), "negatives_kept": 0.87, "kappa": 0.654,
    "auc": interval(0.912, 0.85, 0.95), "auc_positives": interval(0.777, 0.7, 0.8), "yes_share": 0.111,
    "mean_shift": interval(-0.0321, -0.04, 0.00002),
}  # fmt: skip
STILL = MOVED | {"decisions_flipped": interval(0, 0, 0.1)}
YES = {
    "positives": 3, "positives_mean_score": 0.9, "positives_yes_share": 0.935, "positives_true_share": 1.0,
    "pool": 4567, "pool_mean_score": 0.045, "pool_yes_share": 0.0333,
}  # fmt: skip
RULE = {"margin": 0.01, "dropped": 321, "dropped_share": 0.042, "fallback_queries": 5, "duplicated_queries": 6}
METRICS: dict[str, Any] = {
    "truth": {
        "all": {
            "pairs": 4570, "true_share": 0.04, "auc": interval(0.991, 0.98, 0.995),
            "calibration_error": interval(0.021, 0.02, 0.022),
            "calibration_error_uncalibrated": interval(0.055, 0.05, 0.06),
        }
    },
    "yes": {"all": {"all": YES}, "meta_task": {"visual_grounding": YES}, "modalities": {"text to image_text": YES}},
    "rules": {"absolute": RULE | {"precision": 0.581, "recall": 0.958, "false_negatives_chosen": 61}, "none": RULE},
    "saved": STILL, "sample": {"auc": interval(0.95, 0.9, 0.99), "yes_share": 0.05},
    "noise": {"other batches": STILL, "bfloat16": MOVED}, "wordings": {"as_a_question": MOVED}, "second_judge": {},
}  # fmt: skip


@pytest.fixture(scope="module")
def card() -> Card:
    return Card(
        title="Judge <card>",
        facts={"Judge": "some/<model>", "Fingerprint": "abc"},
        notes=["not & this"],
        metrics=METRICS,
        wordings={"as_a_question": "Is it <what> is asked?"},
        rule="absolute",
        margin=0.01,
        level=0.9,
        svgs={name: svg(drawing(), name, name) for name in ("calibration", "movement", "yes")},
    )


def rows(html: str, section: str) -> list[list[str]]:
    """Return the words of every cell in the tables of a section, tags taken out, dashes plain."""
    part = re.search(rf'<section id="{section}">(.*?)</section>', html, re.DOTALL)
    assert part is not None
    text = part.group(1).translate(PLAIN)
    found = re.findall(r"<tr[^>]*>(.*?)</tr>", text, re.DOTALL)
    return [
        [re.sub(r"<[^>]+>", " ", cell).strip() for cell in re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL)]
        for row in found
    ][1:]


def test_the_page_stands_alone(card: Card) -> None:
    html = render_judge_card(card)
    parsed(html)
    assert not re.search(r"https?:|\ssrc=|@import|<script|<link|url\((?!data:|#)", html)
    for raw in ("<card>", "<model>", "<what>"):
        assert raw not in html
    assert "not &amp; this" in html
    assert "90 % interval" in html
    assert html.count("<svg") == 3
    assert render_judge_card(card) == html


def test_the_figures_stand_in_their_cells(card: Card) -> None:
    html = render_judge_card(card)
    assert rows(html, "truth") == [
        ["all", "4,570", "4.0", "0.991 0.980-0.995", "", "0.021 0.020-0.022", "0.055 0.050-0.060"]
    ]
    same, other, saved = rows(html, "noise")
    assert same == ["other batches", "1.2 · 10⁻⁷", "0.46", "0.988", "0 of 1,234", "87.0"]
    assert other[4] == "1.2 1.1-2.6"
    assert saved[0].startswith("saved scores")
    paper, wording = rows(html, "wording")
    assert paper[:4] == ["the paper's", "0.950 0.900-0.990", "", "5.0"]
    assert wording[:5] == [
        "as a question  Is it &lt;what&gt; is asked?", "0.912 0.850-0.950", "0.777 0.700-0.800", "11.1",
        "-0.032 -0.04 to 2.0 · 10⁻⁵",
    ]  # fmt: skip
    assert "13.0 % of the chosen negatives are others" in html
    assert rows(html, "yes")[1:] == [
        ["visual grounding", "3", "0.900", "93.5", "4,567", "0.045", "3.3", ""],
        ["text to image and text", "3", "0.900", "93.5", "4,567", "0.045", "3.3", ""],
    ]
    assert rows(html, "rules") == [
        ["absolute  in use", "0.01", "321", "4.2", "5", "6", "58.1", "95.8", "61"],
        ["none", "", "321", "4.2", "5", "6", "", "", ""],
    ]


def test_what_is_missing_is_said(card: Card) -> None:
    less = METRICS | {"truth": {}, "wordings": {}, "noise": {}, "second_judge": {"b/<judge>": MOVED}}
    html = render_judge_card(replace(card, metrics=less, svgs={}))
    for words in ("no known truth", "No other wording was tried"):
        assert words in html
    assert "No second judge" not in html
    assert "No second judge" in render_judge_card(card)
    assert rows(html, "second")[1][0] == "b/&lt;judge&gt;"
    assert rows(html, "second")[1][4] == "0.654"
    assert "Precision" not in html
    assert "<svg" not in html


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, ""), (0, "0"), (0.4567, "0.46"), (-0.0321, "-0.032"), (1.0, "1"), (0.00037, "0.00037"),
     (1.23e-7, "1.2 · 10⁻⁷"), (-9.99e-6, "-1.0 · 10⁻⁵")],
)  # fmt: skip
def test_numbers_of_any_size(value: float | None, words: str) -> None:
    assert fine(value).translate(PLAIN) == words


def test_movement_by_hand() -> None:
    base = [(0, 1, True, 0.5), (0, 2, False, 0.5), (0, 3, False, 0.5), (0, 4, False, None)]
    table = pl.DataFrame(
        [("reference", "as in use", *row) for row in base]
        + [("wording", "a_b", 0, 1, True, 0.5), ("wording", "a_b", 0, 2, False, 0.75), ("wording", "a_b", 0, 3, False, 0.4)]
        + [("noise", "x", 0, 2, False, 0.5), ("noise", "x", 0, 4, False, 0.9)],
        schema=["kind", "variant", "query_id", "item_id", "is_positive", "score"],
        orient="row",
    )  # fmt: skip
    (axes,) = movement_figure(table, 0.01).axes
    noise, wording, margin = axes.lines
    assert [noise.get_label(), wording.get_label()] == ["x", "a b (wording)"]
    np.testing.assert_allclose(noise.get_xydata(), [[1e-9, 1]])
    np.testing.assert_allclose(wording.get_xydata(), [[1e-9, 1], [0.1, 2 / 3], [0.25, 1 / 3]])
    assert margin.get_xdata() == [0.01, 0.01]
    assert len(movement_figure(table, None).axes[0].lines) == 2


def test_yes_by_hand() -> None:
    groups = yes_groups(METRICS["yes"])
    assert list(groups) == ["all pairs", "visual grounding", "text to image and text"]
    positives, members = yes_figure(groups).axes
    true, yes = positives.lines
    np.testing.assert_allclose(yes.get_xydata(), [[93.5, 2], [93.5, 1], [93.5, 0]])
    np.testing.assert_allclose(true.get_xdata(), [100] * 3)
    assert np.isnan(members.lines[0].get_xdata()).all()  # not known
    assert [text.get_text() for text in positives.get_yticklabels()] == list(groups)
