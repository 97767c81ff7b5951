"""Nodes that can do without some of their inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kedro.io import DatasetError
from kedro.pipeline import Pipeline, node
from kedro.runner import SequentialRunner

from unime_kedro.catalog import Catalog
from unime_kedro.optional_inputs import TAG, OptionalInputsHook


def json_file(path: Path) -> dict[str, Any]:
    return {"type": "unime_kedro.io.JsonFile", "filepath": str(path), "made_by": "evaluate"}


def run(folder: Path, *nodes: Any) -> tuple[Any, Catalog]:
    names = ("scores", "history", "report")
    catalog = Catalog.from_config({name: json_file(folder / f"{name}.json") for name in names})
    pipeline = Pipeline(nodes)
    OptionalInputsHook().before_pipeline_run(pipeline, catalog)
    SequentialRunner().run(pipeline, catalog)
    return catalog.load("report"), catalog


def both(scores: Any, history: Any) -> list[Any]:
    return [scores, history]


REPORT = node(both, ["scores", "history"], "report", tags=[TAG])


def test_what_is_missing_is_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "history.json").write_text("[3]")
    assert run(tmp_path, REPORT)[0] == [None, [3]]
    assert "Replacing" not in caplog.text


def test_what_is_made_in_the_same_run_comes_first(tmp_path: Path) -> None:
    # the node that makes it is named last: Kedro orders them by the dataset's name, as two entries would not let it
    found, catalog = run(tmp_path, REPORT, node(lambda: {"x": 1}, None, "scores"))
    assert found == [{"x": 1}, None]
    assert type(catalog.get("scores")).__name__ == "JsonFile"  # and is guarded as ever when it is saved


def test_other_nodes_still_need_their_inputs(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="kedro run --pipeline=evaluate"):
        run(tmp_path, node(both, ["scores", "history"], "report"))


def test_the_registered_report_has_the_tag_and_its_inputs_are_in_the_catalog() -> None:
    from unime_kedro.pipelines.report import create_pipeline

    nodes = create_pipeline().nodes
    assert len(nodes) == 4
    assert all(TAG in one.tags for one in nodes)


def test_settings_register_the_hook_before_tracking() -> None:
    from unime_kedro.settings import HOOKS

    names = [type(hook).__name__ for hook in HOOKS]
    assert names.index("OptionalInputsHook") < names.index("TrackingHook")
