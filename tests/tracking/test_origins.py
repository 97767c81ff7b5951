"""Which tracked run wrote a file: looked up by what is in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kedro.pipeline import node, pipeline
from toy_project import Project, run_here

from unime_kedro.errors import DataError
from unime_kedro.tracking import live
from unime_kedro.tracking.hook import TrackingHook
from unime_kedro.tracking.origins import Origins

CATALOG = """
    raw: {type: unime_kedro.io.JsonFile, filepath: data/raw.json}
    scores: {type: unime_kedro.io.JsonFile, filepath: data/scores.json}
    report: {type: unime_kedro.io.TextFile, filepath: data/report.html}
    report_figures: {type: unime_kedro.io.optional.FigureFolder, filepath: data/figures}
"""


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("UNIME_TRACKING", "UNIME_PARENT_RUN_ID", "UNIME_DATA_ROOT", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    live.detach()
    yield
    live.detach()


def run(project: Project, *nodes: Any) -> None:
    project.write("conf/base/catalog.yml", CATALOG)
    run_here(project.root, pipeline(list(nodes)), TrackingHook())


def test_the_run_that_wrote_a_file_is_found(project: Project) -> None:
    file = project.root / "data" / "scores.json"
    found: list[dict[str, Any]] = []

    def look(_: Any) -> str:
        found.append(Origins({"scores": str(file), "gone": str(file.with_name("gone.json"))}).load())
        return "<html></html>"

    run(project, node(lambda raw: {"a": 1}, "raw", "scores", name="score"))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    run(project, node(look, "raw", "report", name="report"))
    (first,) = (one for one in project.runs() if "output.scores.sha256" in one.data.tags)
    (origins,) = found
    assert list(origins) == ["scores"]
    one = origins["scores"]
    assert (one["sha256"], one["command"]) == (digest, first.data.tags["kedro.command"])
    assert one["commit"] == first.data.tags.get("mlflow.source.git.commit", "")
    assert one["inputs"] == {"raw": first.data.tags["input.raw.sha256"]}

    # the same name with other bytes: no run wrote those
    file.write_text(json.dumps({"a": 2}))
    import os

    os.utime(file, (0, 0))
    run(project, node(look, "raw", "report", name="report"))
    assert found[1] == {"scores": {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}}


def test_a_file_of_this_very_run_is_its_own(project: Project) -> None:
    found: list[dict[str, Any]] = []

    def look(_: Any) -> str:
        found.append(Origins({"scores": str(project.root / "data" / "scores.json")}).load())
        return ""

    run(project, node(lambda raw: [1], "raw", "scores", name="score"), node(look, "scores", "report", name="report"))
    (only,) = project.runs()
    assert found[0]["scores"]["command"] == only.data.tags["kedro.command"]


def test_without_tracking_only_the_hash_is_known(tmp_path: Path) -> None:
    file = tmp_path / "scores.json"
    file.write_bytes(b"[]")
    assert Origins({"scores": str(file)}).load() == {"scores": {"sha256": hashlib.sha256(b"[]").hexdigest()}}
    with pytest.raises(Exception, match="only read") as error:
        Origins({}).save({})
    assert isinstance(error.value.__cause__, DataError)


def test_page_and_figures_become_artifacts(project: Project) -> None:
    def make(_: Any) -> tuple[str, dict[str, bytes]]:
        return "<html>r</html>", {"b": b"png b", "a": b"png a"}

    run(project, node(make, "raw", ["report", "report_figures"], name="report"))
    (only,) = project.runs()
    names = {file.path for file in project.client().list_artifacts(only.info.run_id)}
    assert {"report.html", "figures"} <= names
    figures = [file.path for file in project.client().list_artifacts(only.info.run_id, "figures")]
    assert figures == ["figures/a.png", "figures/b.png"]
