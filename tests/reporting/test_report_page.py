"""The report's page: it stands alone, says what is missing, and shows what it is given."""

from __future__ import annotations

import re

import pytest
from report_tables import DOCUMENT, FOUND, drawing, figure, parsed

from unime_kedro.reporting.ablations import ablation
from unime_kedro.reporting.cases import Pair
from unime_kedro.reporting.comparisons import by_pair, comparison_rows
from unime_kedro.reporting.drawing import svg
from unime_kedro.reporting.page import SECTIONS, Content, count_table, main_figures, number, render_report, source_lines
from unime_kedro.reporting.results import results_tables

FACE = {"parts": ["a <b>cat</b>"], "image": "", "picture": None}
CARD = {"place": 0, "position": 1, "similarity": 0.5, "right": True, "parts": [], "image": "x.png", "picture": "r0p0"}
VIEW = {
    "benchmark": "B", "dataset": "D<1>", "query_id": 7, "query": FACE, "target": FACE,
    "models": [
        {"model": "new", "reranked": True, "right_place": 0, "n": 10, "candidates": [CARD]},
        {"model": "old", "reranked": False, "right_place": None, "n": 10, "candidates": [{**CARD, "right": False}]},
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def content() -> Content:
    rows = comparison_rows(FOUND, "new", "old", "B")
    part = {"a": {"precision_at_1": figure(0.5, 0.45, 0.55, 1234)}, "all": {"precision_at_1": figure(0.25, 0.2, 0.3)}}
    metrics = {"new": {"mini-MMEB": part}}
    names = ["differences_1", "ablation_g", "judge_scores", "train_curves", "projection"]
    return Content(
        title="A <report>",
        facts={"Command": "kedro run --pipeline=report", "Commit": "abc & more"},
        notes=["tiny <models>"],
        models={"new": {"folder": "f", "fingerprint": "123", "reranker": "", "reranker_fingerprint": ""}},
        results=results_tables(metrics, {"mini-MMEB": ["all"]}, {"mini-MMEB": {"Theirs": {"all": 63.6}}}, {}),
        paper="The paper, Table 1",
        differences=by_pair(rows),
        ablations=[ablation(DOCUMENT)],
        gaps={"new": {"distance": 0.5, "spread": 0.25, "texts": 3, "pictures": 4}},
        projected="3 texts and 4 pictures.",
        cases=[{"pair": Pair("new", "old", rows, rows, 41, 0, 100), "wins": [VIEW], "losses": []}],
        leakage=count_table({"D": {"queries": 2, "targets": {"exact": 1, "near": 0}}, "hash_distance": 4}),
        judge_card={"roc auc": 0.9712345},
        svgs={name: svg(drawing(), name, name) for name in names},
        sources={section.id: [f"from {section.id} <&>"] for section in SECTIONS},
        pictures=[("r0p0", "data:image/png;base64,AAAA")],
    )  # fmt: skip


def test_the_page_stands_alone(content: Content) -> None:
    html = render_report(content)
    root = parsed(html)
    assert not re.search(r"https?:|\ssrc=|@import|<script|<link|url\((?!data:|#)", html)
    links = {link.attrs["href"] for link in root.find("a")}
    assert links == {f"#{section.id}" for section in SECTIONS} | {"judge_card.html"}
    for raw in ("<report>", "<models>", "<b>cat", "D<1>", "<&>"):
        assert raw not in html
    assert root.find("h1")[0].text == "A <report>"
    assert root.find("p", "note")[0].text == "tiny <models>"
    assert html.count("data:image") == 1
    assert render_report(content) == html


def test_every_section_says_where_it_is_from(content: Content) -> None:
    root = parsed(render_report(content))
    for section in SECTIONS:
        (element,) = root.find("section", id=section.id)
        assert f"from {section.id} <&>" in element.text
        assert not element.find("p", "absent")


def test_an_empty_page_names_a_command_for_each_section() -> None:
    root = parsed(render_report(Content("R", {})))
    for section in SECTIONS:
        (element,) = root.find("section", id=section.id)
        assert element.text == f"{section.title} {section.absent} To change that: {section.command}"
        assert "absent" in root.find("a", href=f"#{section.id}")[0].attrs["class"]
    assert not root.find("svg")
    assert not root.find("table")


def cells(element) -> list[list[str]]:
    return [[cell.text for cell in row.find("td")] for row in element.find("tr") if row.find("td")]


def test_figures_in_percent_with_their_intervals(content: Content) -> None:
    (section,) = parsed(render_report(content)).find("section", id="results")
    models, means, single = section.find("table")
    assert cells(models) == [["new", "f", "123", ""]]
    ours, rule, theirs = cells(means)
    assert (ours, theirs) == (["new", "25.0 20.0\u201330.0"], ["Theirs", "63.6"])
    assert rule[0].startswith("The paper, Table 1: other models, other data")
    assert [row.attrs.get("class") for row in means.find("tbody")[0].find("tr")] == [None, "rule", "paper"]
    assert cells(single) == [["a", "1,234", "50.0 45.0\u201355.0"]]


def test_differences_with_tests_and_what_could_be_found(content: Content) -> None:
    (section,) = parsed(render_report(content)).find("section", id="differences")
    rows = cells(section.find("table")[0])
    assert rows[0] == ["b", "20", "90.0", "50.0", "+40.0", "+30.0 to +50.0", ".001", ".003", "± 10.0"]
    assert rows[2][4:8] == ["-20.0", "-30.0 to -10.0", ".010", ".020"]
    assert rows[3] == ["all", "60", "60.0", "50.0", "+10.0", "+5.0 to +15.0", ".002", "", "± 6.0"]
    marked = [cell.text for cell in section.find("td", "mark")]
    assert marked == ["+40.0", "-20.0"]
    assert "correction for 3 data sets" in section.text


def test_ablations_with_the_papers_difference(content: Content) -> None:
    (section,) = parsed(render_report(content)).find("section", id="ablations")
    assert cells(section.find("table")[0]) == [
        ["base", "1, 2", "50.0", "1.0", "", "", ""],
        ["soft", "1, 2", "53.0", "2.0", "+3.0", "+1.0 to +5.0", "+3.5"],
        ["new", "1", "40.0", "", "-10.0", "", ""],
    ]
    assert "commit 0123456789, 0123456789 (changed); read: pool ffffffffffff" in section.text


def test_a_case_with_what_the_reranker_moved(content: Content) -> None:
    (section,) = parsed(render_report(content)).find("section", id="cases")
    kinds = [heading.text for heading in section.find("h4")]
    assert kinds == [
        "new right, old wrong 1 of 41 such queries; 100 queries in all",
        "old right, new wrong 0 of 0 such queries; 100 queries in all",
    ]
    new, old = section.find("div", "ranking")
    assert new.text == "new right ; the reranker's order 1. was 2. right cos 0.500"
    assert old.text == "old wrong , no right one among the first 10 1. cos 0.500"
    assert new.find("li", "right")
    assert not old.find("li", "right")
    assert new.find("span", "picture")[0].attrs["class"] == "picture r0p0"


def test_leakage_and_judge_card(content: Content) -> None:
    root = parsed(render_report(content))
    (leakage,), (card,) = (root.find("section", id=name) for name in ("leakage", "judge-card"))
    assert cells(leakage.find("table")[0]) == [["D", "2", "1"]]
    assert "Hash distance: 4." in leakage.text
    assert "Zero throughout, and left out: targets near." in leakage.text
    assert card.find("dl")[0].text == "roc auc 0.9712"


def test_nested_counts_become_rows() -> None:
    found = count_table(
        {"mini": {"A": {"queries": 1, "t": {"near": 2, "far": 0}}, "B": {"queries": 3, "share": 0.5}}, "note": "x"}
    )
    assert found.columns == ["queries", "t near", "share"]
    assert found.rows == [("mini / A", [1, 2, None]), ("mini / B", [3, None, 0.5])]
    assert (found.facts, found.zero) == ({"note": "x"}, ["t far"])
    assert count_table({"D": {"exact": 1}}).rows == [("D", [1])]


def test_the_outer_figures_of_a_card_are_shown() -> None:
    nested = {"noise": {"max": 0.1}, "roc_auc": 0.9, "model": "a1b2", "ok": True, "pairs": 12}
    assert main_figures(nested) == {"roc auc": 0.9, "pairs": 12}


@pytest.mark.parametrize(
    ("value", "shown"), [(3, "3"), (12345.0, "12,345"), (0.12345, "0.1235"), (None, ""), ("x", "x"), (1e-7, "1e-07")]
)
def test_numbers(value: object, shown: str) -> None:
    assert number(value) == shown


def test_sources_name_run_commit_and_data() -> None:
    origins = {
        "predictions": {
            "sha256": "ab" * 32, "command": "kedro run --pipeline=evaluate", "commit": "0123456789abcdef", "dirty": True,
            "seeds": {"evaluate": "0"}, "inputs": {"items": "cd" * 32},
        },
        "rankings": {"sha256": "ef" * 32},
    }  # fmt: skip
    assert source_lines(origins, ["gone", "rankings", "predictions"]) == [
        "rankings (sha256 efefefefefef): written by a run that is not in the tracking store",
        "predictions (sha256 abababababab): kedro run --pipeline=evaluate; commit 0123456789, changed files; "
        "seeds: evaluate 0; read: items cdcdcdcdcdcd",
    ]
