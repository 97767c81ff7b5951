"""The picture of the pipelines: what it shows, and that no line or box hides another."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from kedro.pipeline import Pipeline, node

from unime_kedro.cli import main
from unime_kedro.reproduce.diagram import Rail, Row, diagram
from unime_kedro.reproduce.diagram_command import FILE, picture
from unime_kedro.reproduce.diagram_svg import svg, text_width
from unime_kedro.reproduce.dvc_yaml import STAGES

ROOT = Path(__file__).resolve().parents[2]
SPACE = "{http://www.w3.org/2000/svg}"


def same(*values):
    return values


def file(name: str, **more: object) -> dict:
    return {"type": "x", "filepath": f"/data/{name}", **more}


# ---------------------------------------------------------------- what is drawn


def small() -> tuple[list[Row], list[Rail]]:
    first = Pipeline([node(same, "raw", ["a", "b", "a_metrics", "notes"], name="make")])
    again = first + Pipeline([node(same, ["a", "params:x", "memory"], ["model", "page"])])
    last = Pipeline(
        [
            node(same, ["a", "b", "model"], "inner", name="one", tags=["optional_inputs"]),
            node(same, ["inner", "b"], "end", name="two"),
        ]
    )
    catalog = {
        **{name: file(f"02/{name}.parquet") for name in ("raw", "a", "b", "notes", "inner", "end", "a_metrics")},
        "model": file("06_models/model.json"),
        "page": file("08/page.html", metadata={"dvc": "page"}),
        "memory": {"type": "y"},
    }
    return diagram({"first": first, "again": again, "last": last}, ["first", "again", "last"], catalog)


def test_rails_join_what_one_stage_wrote_and_others_read():
    rows, rails = small()
    assert rails == [
        Rail(("a",), "table", 0, {1: False, 2: True}),
        Rail(("b",), "table", 0, {2: False}),  # one of its two readers cannot do without it
        Rail(("model",), "model", 1, {2: True}),
    ]
    assert [row.name for row in rows] == ["first", "again", "last"]


def test_what_no_other_stage_reads_stands_at_its_row_pages_last():
    rows, _ = small()
    # what goes from node to node of one stage and is saved is written, too
    assert [row.leaves for row in rows] == [
        (("notes", "table"),),
        (("page", "page"),),
        (("inner", "table"), ("end", "table")),
    ]


def test_a_node_belongs_to_the_first_stage_that_runs_it_and_loses_its_hash():
    rows, _ = small()
    assert [row.nodes for row in rows] == [("make",), ("same",), ("one", "two")]


def test_the_projects_rails_are_what_dvc_says_of_files():
    """dvc.yaml names files where the picture names datasets; both must know the same readers."""
    from unime_kedro.ablations.project import Project

    catalog = Project("base", ROOT).base.catalog
    from kedro.framework.project import pipelines

    _, rails = diagram(pipelines, STAGES, catalog)
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    deps = {name: set(stages[name]["deps"]) for name in STAGES}
    for rail in rails:
        for dataset in rail.datasets:
            path = (ROOT / catalog[dataset]["filepath"]).relative_to(ROOT).as_posix()
            readers = {STAGES[reader] for reader in rail.readers}
            depending = {name for name in STAGES if path in deps[name]}
            # to DVC the corpus file speaks for the pictures as well, which more stages look at
            assert depending >= readers if dataset == "corpus" else depending == readers, dataset
    assert {"items", "pool", "negatives", "trained_model"} <= {name for rail in rails for name in rail.datasets}


# ---------------------------------------------------------------- the committed picture


def test_the_committed_picture_is_up_to_date_wherever_the_data_lie(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    committed = (ROOT / FILE).read_text(encoding="utf-8")
    assert picture(ROOT) == committed, "run `make picture`"
    monkeypatch.setenv("UNIME_DATA_ROOT", str(tmp_path))
    assert picture(ROOT) == committed


def test_the_command_draws_and_checks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(ROOT)
    out = tmp_path / "p.svg"
    check = ["picture", "--check", "--out", str(out)]
    assert CliRunner().invoke(main, check).exit_code == 1
    assert CliRunner().invoke(main, ["picture", "--out", str(out)]).exit_code == 0
    assert CliRunner().invoke(main, check).exit_code == 0
    out.write_text(out.read_text().replace("judge_scores", "judge_score"))
    refused = CliRunner().invoke(main, check)
    assert refused.exit_code == 1
    assert "`unime picture` draws it anew" in refused.output
    assert "judge_score<" in out.read_text()  # a check changes nothing


def test_the_picture_names_every_stage_and_follows_dark_mode():
    text = (ROOT / FILE).read_text(encoding="utf-8")
    words = {element.text for element in ElementTree.fromstring(text).iter(f"{SPACE}text")}
    assert words >= set(STAGES) | {"items", "judge_scores", "negatives", "report", "gallery"}
    assert "@media (prefers-color-scheme: dark)" in text
    assert str(ROOT) not in text


# ---------------------------------------------------------------- where it is drawn


class Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float


class Line(NamedTuple):
    x: float
    top: float
    bottom: float


def drawn(text: str) -> list[tuple[Box, Line, list[str]]]:
    """Return box, line and words of every rail."""
    found = []
    for group in ElementTree.fromstring(text).iter(f"{SPACE}g"):
        line = group.find(f"{SPACE}path")
        if line is None:
            continue  # the legend
        rect = group.find(f"{SPACE}rect")
        assert rect is not None
        x, y, width, height = (float(rect.get(key, "")) for key in ("x", "y", "width", "height"))
        numbers = re.fullmatch(r"M([\d.]+) ([\d.]+)V([\d.]+)", line.get("d", ""))
        assert numbers is not None
        words = [element.text or "" for element in group.iter(f"{SPACE}text")]
        found.append((Box(x, y, x + width, y + height), Line(*map(float, numbers.groups())), words))
    return found


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[Row], list[Rail]]:
    n = draw(st.integers(2, 7))
    rows = [Row(f"s{i}", ("node",) * draw(st.integers(1, 4)), ()) for i in range(n)]
    rails = []
    for maker in sorted(draw(st.lists(st.integers(0, n - 2), max_size=9))):
        readers = draw(st.sets(st.integers(maker + 1, n - 1), min_size=1))
        names = draw(st.lists(st.text("abcimw_", min_size=1, max_size=18), min_size=1, max_size=3))
        rails.append(Rail(tuple(names), "table", maker, dict.fromkeys(readers, draw(st.booleans()))))
    return rows, rails


@given(graphs())
def test_no_box_covers_another_box_or_line_and_no_two_lines_are_one(graph):
    rows, rails = graph
    places = drawn(svg(rows, rails, "t"))
    assert len(places) == len(rails)
    for (box, line, _), (other, theirs, _) in combinations(places, 2):
        apart = box.right < other.left or other.right < box.left or box.bottom < other.top or other.bottom < box.top
        assert apart
        if line.x == theirs.x:
            assert line.bottom < theirs.top or theirs.bottom < line.top
        else:
            assert abs(line.x - theirs.x) > 29.8  # coordinates have one decimal
    for i, (box, _, words) in enumerate(places):
        assert max(text_width(word, 12.5) for word in words) < box.right - box.left
        for j, (_, line, _) in enumerate(places):
            crossed = box.left <= line.x <= box.right and line.top <= box.bottom and line.bottom >= box.top
            assert not crossed or i == j


@given(graphs())
def test_there_is_a_dot_on_its_line_for_every_reader(graph):
    rows, rails = graph
    root = ElementTree.fromstring(svg(rows, rails, "t"))
    groups = [group for group in root.iter(f"{SPACE}g") if group.find(f"{SPACE}path") is not None]
    stage_rows = [
        float(e.get("y", "")) + float(e.get("height", "")) / 2
        for e in root.iter(f"{SPACE}rect")
        if e.get("width") == "150"
    ]
    for group, rail in zip(groups, rails, strict=True):
        heights = [float(e.get("cy", "")) for e in group.iter(f"{SPACE}circle")]
        nearest = [min(range(len(rows)), key=lambda row: abs(stage_rows[row] - y)) for y in heights]
        assert nearest == sorted(rail.readers)
        hollow = [e.get("class") == "maybe" for e in group.iter(f"{SPACE}circle")]
        assert hollow == [rail.readers[number] for number in sorted(rail.readers)]


def test_words_are_escaped():
    text = svg(
        [Row("a<b", ("n&m",), (("x>y", "page"),)), Row("c", ("n",), ())],
        [Rail(("<i>",), "table", 0, {1: False})],
        "<t>",
    )
    words = {element.text for element in ElementTree.fromstring(text).iter(f"{SPACE}text")}
    assert {"a<b", "n&m", "x>y", "<i>"} <= words
