"""Both notebooks executed on data that were mined and trained on for them, their numbers worked out another way."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import polars as pl
import pytest
import yaml
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parents[2]
PROBE = "PROBE:"

pytestmark = pytest.mark.slow


class World(NamedTuple):
    """A data root with mined negatives and a small ablation, and what makes programs use it."""

    data: Path
    artifacts: Path
    environment: dict[str, str]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("notebooks")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("UNIME_", "MLFLOW_", "KEDRO_ENV", "DVC_"))}
    environment = inherited | {
        "UNIME_DATA_ROOT": str(folder / "data"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "KEDRO_ENV": "smoke",
    }
    unime = "from unime_kedro.cli import main; main()"
    ablate = ["-c", unime, "ablate", "components", "--env=smoke", "--arms=in_batch,hard"]
    programs = (
        # the notebook needs no run of it
        (["-m", "kedro", "run", "--env=smoke", "--pipeline=mine"], {"UNIME_TRACKING": "off"}),
        (ablate, {}),
    )
    for program, variables in programs:
        settings = environment | {"KEDRO_DATASET_VALIDATION": "off"} | variables
        done = subprocess.run([sys.executable, *program], cwd=ROOT, env=settings, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    add_children_that_do_not_count(environment["MLFLOW_TRACKING_URI"])
    return World(folder / "data", folder / "mlartifacts", environment)


def add_children_that_do_not_count(uri: str) -> None:
    """Give an arm an older run of the same seed, and a newer one that did not end well."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("unime-kedro-smoke").experiment_id
    (real,) = client.search_runs(
        [experiment], "tags.`unime.ablation.arm` = 'hard' and tags.`unime.ablation.seed` = '1'"
    )
    wanted = ("mlflow.parentRunId", "unime.ablation", "unime.ablation.arm", "unime.ablation.seed")
    tags = {key: real.data.tags[key] for key in wanted}
    for start, status in ((real.info.start_time - 9_000, "FINISHED"), (real.info.start_time + 9_000, "FAILED")):
        run = client.create_run(experiment, start_time=start, tags=tags)
        client.log_metric(run.info.run_id, "trained/precision_at_1/all", 0.0)
        client.set_terminated(run.info.run_id, status)


def execute(name: str, world: World, probe: str = "{}") -> tuple[nbformat.NotebookNode, Any]:
    """Run a notebook in a kernel of its own; return it with its results, and the value of an expression at its end."""
    notebook = nbformat.read(ROOT / "notebooks" / name, as_version=4)
    code = f"import json\nprint({PROBE!r} + json.dumps({probe}, default=str))"
    notebook.cells.append(nbformat.v4.new_code_cell(code))
    run(notebook, world)
    text = "".join(output.get("text", "") for output in notebook.cells.pop()["outputs"])
    return notebook, json.loads(text.split(PROBE)[1])


def run(notebook: nbformat.NotebookNode, world: World) -> None:
    resources = {"metadata": {"path": str(ROOT / "notebooks")}}
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=resources).execute(env=world.environment)


def outputs(notebook: nbformat.NotebookNode, kind: str) -> list[str]:
    """Return all results of a MIME type."""
    found = [o.get("data", {}) for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    return [data[kind] for data in found if kind in data]


def noise(notebook: nbformat.NotebookNode) -> list[str]:
    """Return what was printed: log lines, warnings, progress bars."""
    found = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    return [o["text"] for o in found if o["output_type"] == "stream"]


def rows(file: Path) -> list[dict[str, Any]]:
    return pl.read_parquet(file).to_dicts()


# ---------------------------------------------------------------- mined negatives


@pytest.fixture(scope="module")
def mined(world: World) -> tuple[nbformat.NotebookNode, Any]:
    probe = "{'by_task': by_task.to_dicts(), 'quality': filter_quality.to_dicts(), 'members': members.height}"
    return execute("01_look_at_mined_negatives.ipynb", world, probe)


def test_the_counts_by_task_are_those_of_the_selection(world: World, mined: Any) -> None:
    of = {row["query_id"]: row for row in rows(world.data / "02_intermediate/queries.parquet")}
    expected: dict[str, list[int]] = {}
    for row in rows(world.data / "05_model_input/selection.parquet"):
        counts = expected.setdefault(of[row["query_id"]]["dataset"], [0, 0, 0, 0])
        fallback = row["outcome"] == "fallback"
        for place, value in enumerate((1, row["pool_size"], row["dropped_false_negative"], fallback)):
            counts[place] += value
    shown = {
        row["dataset"]: [row["queries"], row["members"], row["dropped"], row["fallbacks"]]
        for row in mined[1]["by_task"]
    }
    assert shown == expected
    for row in mined[1]["by_task"]:
        assert row["dropped_share"] == pytest.approx(row["dropped"] / row["members"])


def test_the_filters_precision_and_recall_are_those_of_a_loop_over_pairs(world: World, mined: Any) -> None:
    tasks = {row["query_id"]: row["meta_task"] for row in rows(world.data / "02_intermediate/queries.parquet")}
    limits = {row["query_id"]: row["threshold"] for row in rows(world.data / "05_model_input/selection.parquet")}
    pairs = rows(world.data / "03_primary/pool_relevance.parquet")
    truth = {(row["query_id"], row["item_id"]): row["relevance"] for row in pairs}
    negatives = rows(world.data / "05_model_input/negatives.parquet")
    sampled = {(row["query_id"], row["item_id"]) for row in negatives if row["origin"] == "sampled"}
    counted: dict[str, dict[str, int]] = {}
    for row in rows(world.data / "03_primary/judge_scores.parquet"):
        if row["is_positive"]:
            continue
        query, pair = row["query_id"], (row["query_id"], row["item_id"])
        right, dropped = truth[pair] == 1, row["score"] > limits[query]
        kinds = {"right": right, "dropped": dropped, "both": right and dropped}
        kinds |= {"chosen": pair in sampled, "wrong": right and pair in sampled, "members": True}
        for name in (tasks[query], "all"):
            counts = counted.setdefault(name, dict.fromkeys(kinds, 0))
            for kind, is_so in kinds.items():
                counts[kind] += is_so
    shown = {row["meta_task"]: row for row in mined[1]["quality"]}
    assert shown.keys() == counted.keys()
    assert mined[1]["members"] == counted["all"]["members"]
    for name, counts in counted.items():
        assert shown[name]["precision"] == pytest.approx(counts["both"] / counts["dropped"]), name
        assert shown[name]["recall"] == pytest.approx(counts["both"] / counts["right"]), name
        assert shown[name]["in_pool"] == pytest.approx(counts["right"] / counts["members"]), name
        assert shown[name]["among_chosen"] == pytest.approx(counts["wrong"] / counts["chosen"]), name
    metrics = json.loads((world.data / "08_reporting/truth_metrics.json").read_text())
    assert shown["all"]["precision"] == pytest.approx(metrics["filter_precision"])
    assert shown["all"]["hardness"] == pytest.approx(metrics["hardness_chosen"])


def test_figures_and_cards_are_shown_and_nothing_is_printed(world: World, mined: Any) -> None:
    notebook = mined[0]
    assert noise(notebook) == []
    assert len(outputs(notebook, "image/png")) == 2
    grids = [html for html in outputs(notebook, "text/html") if ">query " in html]
    assert len(grids) == 4 + 2  # one per meta-task; dropped though wrong, chosen though right
    assert all('src="data:image/' in html for html in grids)
    headings = [text for text in outputs(notebook, "text/markdown") if text.startswith("### ")]
    assert headings == ["### classification", "### retrieval", "### visual_grounding", "### vqa"]
    # the first query of the first grid stands with the negative in its slot 0
    items = {row["item_id"]: row for row in rows(world.data / "02_intermediate/items.parquet")}
    query = int(grids[0].split(">query ")[1].split("<")[0])
    first = next(
        row
        for row in rows(world.data / "05_model_input/negatives.parquet")
        if row["query_id"] == query and row["slot"] == 0
    )
    assert f"score {round(first['score'], 3)} · rank " in grids[0]
    assert items[first["item_id"]]["text"].replace("<|image_1|>", "").strip() in grids[0]


# ---------------------------------------------------------------- ablations


@pytest.fixture(scope="module")
def compared(world: World) -> tuple[nbformat.NotebookNode, Any]:
    probe = (
        "{'runs': runs.to_dicts(), 'differing': differing, 'unexpected': unexpected, 'agrees': agrees,"
        " 'differences': differences.to_dicts(), 'curves': [[*key, found] for key, found in curves.items()]}"
    )
    return execute("02_compare_ablations.ipynb", world, probe)


def arm_folder(world: World, arm: str, seed: int) -> Path:
    return world.data / f"ablations/components/{arm}/seed-{seed}"


def run_of(world: World, arm: str, seed: int) -> str:
    file = arm_folder(world, arm, seed) / "run_figures/arm.json"
    return json.loads(file.read_text())["figures"]["mlflow_run_id"]


def test_the_runs_are_those_of_the_arms_folders(world: World, compared: Any) -> None:
    shown = {(row["arm"], row["seed"]): row for row in compared[1]["runs"]}
    assert list(shown) == [("in_batch", 1), ("in_batch", 2), ("hard", 1), ("hard", 2)]
    for (arm, seed), row in shown.items():
        record = json.loads((arm_folder(world, arm, seed) / "arm.json").read_text())
        assert row["run"] == run_of(world, arm, seed)
        assert row["P@1"] == pytest.approx(record["metrics"]["precision_at_1/all"])
    assert len({row["negatives"] for row in shown.values()}) == 1


def test_the_arms_differ_in_loss_and_seed_alone(compared: Any) -> None:
    assert compared[1]["differing"] == ["train.loss.kind", "train.seed"]
    assert compared[1]["unexpected"] == []
    assert any("Nothing else differs." in text for text in outputs(compared[0], "text/markdown"))


def macro_mean(file: Path) -> float:
    """Return Precision@1, the mean over data sets, by a loop."""
    found: dict[str, list[bool]] = {}
    for row in rows(file):
        found.setdefault(row["dataset"], []).append(row["correct"])
    return statistics.fmean(sum(right) / len(right) for right in found.values())


def test_the_difference_is_that_of_the_predictions(world: World, compared: Any) -> None:
    (row,) = compared[1]["differences"]
    assert row["arm"] == "hard"
    file = "07_model_output/trained_predictions.parquet"
    gaps = [
        100 * (macro_mean(arm_folder(world, "hard", s) / file) - macro_mean(arm_folder(world, "in_batch", s) / file))
        for s in (1, 2)
    ]
    assert row["difference"] == pytest.approx(statistics.fmean(gaps))
    assert row["by_seed"] == pytest.approx(gaps, abs=0.005)
    assert row["low"] < row["difference"] < row["high"]
    table = json.loads((world.data / "08_reporting/ablations/components.json").read_text())
    written = next(arm for arm in table["arms"] if arm["arm"] == "hard")["difference"]
    assert [row["low"], row["high"]] == pytest.approx([100 * written["low"], 100 * written["high"]])
    assert compared[1]["agrees"] is True
    assert any("wrote says the same." in text for text in outputs(compared[0], "text/markdown"))


def test_the_curves_are_those_of_the_histories(world: World, compared: Any) -> None:
    for arm, seed, found in compared[1]["curves"]:
        history = json.loads((arm_folder(world, arm, seed) / "08_reporting/train_history.json").read_text())
        for name in ("loss", "validation_precision_at_1"):
            points = {row["step"]: row[name] for row in history if name in row}
            assert found[f"train/{name}"] == [sorted(points), pytest.approx([points[step] for step in sorted(points)])]


def test_there_are_a_forest_plot_and_curves_and_nothing_is_printed(compared: Any) -> None:
    assert noise(compared[0]) == []
    assert len(outputs(compared[0], "image/png")) == 2


@contextmanager
def changed(file: Path, text: bytes) -> Iterator[None]:
    before = file.read_bytes()
    file.write_bytes(text)
    try:
        yield
    finally:
        file.write_bytes(before)


def test_another_parameter_is_named_and_other_predictions_are_refused(world: World) -> None:
    folder = arm_folder(world, "hard", 2)
    run_id = run_of(world, "hard", 2)
    (config,) = world.artifacts.rglob(f"{run_id}/**/config.yml")
    values = yaml.safe_load(config.read_text())
    values["parameters"]["train"]["batch"] = 9
    predictions = folder / "07_model_output/trained_predictions.parquet"
    table = pl.read_parquet(predictions).with_columns(correct=~pl.col("correct"))
    other = predictions.with_name("other.parquet")
    table.write_parquet(other)
    notebook = nbformat.read(ROOT / "notebooks/02_compare_ablations.ipynb", as_version=4)
    with (
        changed(config, yaml.safe_dump(values).encode()),
        changed(predictions, other.read_bytes()),
        pytest.raises(CellExecutionError, match=f"{predictions} is not what run {run_id} wrote"),
    ):
        run(notebook, world)
    assert any("**Not allowed to differ: train.batch.**" in text for text in outputs(notebook, "text/markdown"))


def test_without_an_ablation_it_says_what_to_do(world: World) -> None:
    notebook = nbformat.read(ROOT / "notebooks/02_compare_ablations.ipynb", as_version=4)
    elsewhere = world._replace(environment=world.environment | {"UNIME_ABLATION": "negatives"})
    with pytest.raises(CellExecutionError, match=r"no finished ablation 'negatives'.*unime ablate negatives"):
        run(notebook, elsewhere)
