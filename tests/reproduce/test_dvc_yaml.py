"""The generator of dvc.yaml on the project itself, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from kedro.pipeline import Pipeline, node

from unime_kedro.cli import main
from unime_kedro.errors import ConfigurationError
from unime_kedro.reproduce.dvc_yaml import difference, dvc_yaml, project_stages, write_dvc_yaml
from unime_kedro.reproduce.stages import Source, Stage, add_named, check_one_writer, stages_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def stages() -> dict[str, dict[str, Any]]:
    return yaml.safe_load(dvc_yaml(ROOT))["stages"]


def depending_on(stages: dict[str, dict[str, Any]], file: str) -> set[str]:
    return {name for name, stage in stages.items() if f"src/unime_kedro/{file}" in stage["deps"]}


# ---------------------------------------------------------------- the project's own


def test_the_committed_file_is_up_to_date():
    assert difference(ROOT) == ""


def test_every_stage_runs_in_the_base_environment_whatever_the_users_variables_say(stages, monkeypatch, tmp_path):
    assert all(stage["cmd"].startswith("env -u UNIME_DATA_ROOT ") for stage in stages.values())
    assert all(" --env=base" in stage["cmd"] for stage in stages.values())
    monkeypatch.setenv("UNIME_DATA_ROOT", str(tmp_path))
    assert yaml.safe_load(dvc_yaml(ROOT))["stages"] == stages


def test_a_stage_reads_what_the_one_before_it_wrote(stages):
    written = {
        str(path if isinstance(path, str) else next(iter(path))): name
        for name, s in stages.items()
        for side in ("outs", "metrics", "plots")
        for path in s.get(side, [])
    }
    assert written["data/03_primary/pool.parquet"] == "pool"
    assert "data/03_primary/pool.parquet" in stages["judge"]["deps"]
    for name, stage in stages.items():
        data = {dep for dep in stage["deps"] if dep.startswith("data/")}
        arms = {dep for dep in data if dep.startswith("data/ablations/")}
        assert data - arms <= set(written), name  # nothing is read from below data/ that no stage writes
    assert not any(dep.endswith("mini_mmeb") for stage in stages.values() for dep in stage["deps"])


def test_parameters_are_those_of_the_nodes(stages):
    params = {file: keys for entry in stages["pool"]["params"] for file, keys in entry.items()}
    assert params == {
        "conf/base/globals.yml": ["data_root"],
        "conf/base/parameters/ingest.yml": ["ingest.image_root"],
        "conf/base/parameters/pool.yml": ["pool"],
    }
    select = {file: keys for entry in stages["select"]["params"] for file, keys in entry.items()}
    assert select["conf/base/parameters/ingest.yml"] == ["ingest.image_root"]
    assert select["conf/base/parameters/judge.yml"] == ["judge"]


def test_a_shared_function_is_a_dependency_of_every_user_and_of_nobody_else(stages):
    users = depending_on(stages, "mining/lineage.py")
    assert {"pool", "judge", "select", "train", "train_arm"} <= users
    assert not users & {"demo", "ingest"}
    assert "train" in depending_on(stages, "learning/gradient_cache.py")  # run by a child process
    assert not depending_on(stages, "learning/gradient_cache.py") & {"demo", "ingest", "pool", "judge", "select"}
    assert not depending_on(stages, "tracking/hook.py") & {"demo", "ingest", "pool", "judge", "select", "train"}


def test_experiments_can_set_what_ablations_vary():
    """`dvc exp run -S FILE:KEY=VALUE` reads the file with OmegaConf, which knows nothing of Kedro's references."""
    groups = yaml.safe_load((ROOT / "conf/base/ablations.yml").read_text())
    sections = {key.split(".")[0] for group in groups.values() for key in group["keys"]}
    assert {"train", "select", "judge"} <= sections
    for section in sections:
        assert "${" not in (ROOT / f"conf/base/parameters/{section}.yml").read_text()


def test_arms_depend_on_their_own_lines_alone(stages):
    arm = stages["train_arm"]
    params = {file: keys for entry in arm["params"] for file, keys in entry.items()}
    assert params["conf/base/ablations.yml"] == ["components.arms.${item.arm}", "components.common"]
    assert arm["matrix"] == {"arm": ["combined", "hard", "in_batch", "soft", "soft_warm"], "seed": [1]}
    assert "data/ablations/components/${item.arm}/seed-${item.seed}/arm.json" in arm["outs"]
    assert not any(out.endswith("/06_models/training") for out in arm["outs"])  # work, not a result
    table = [dep for dep in stages["ablation"]["deps"] if dep.startswith("data/")]
    assert "data/ablations/components/hard/seed-1/arm.json" in table
    assert "data/ablations/components/hard/seed-1/08_reporting/trained_metrics.json" in table


def test_the_smoke_environment_has_its_own_file(tmp_path):
    runner = CliRunner()
    out = tmp_path / "smoke.yaml"
    assert runner.invoke(main, ["dvc-yaml", "--env=smoke", f"--out={out}"]).output == f"{out}: written\n"
    smoke = yaml.safe_load(out.read_text())["stages"]
    assert "data/smoke/03_primary/pool.parquet" in smoke["judge"]["deps"]
    params = {file: keys for entry in smoke["pool"]["params"] for file, keys in entry.items()}
    assert params["conf/smoke/parameters.yml"] == ["pool"]
    assert params["conf/smoke/globals.yml"] == ["data_root"]
    assert {"conf/smoke/parameters.yml", "conf/base/parameters/judge.yml"} & {
        f for e in smoke["judge"]["params"] for f in e
    } == {"conf/base/parameters/judge.yml"}
    assert smoke["train_arm"]["matrix"]["arm"] == ["hard", "in_batch", "soft"]


def test_a_drift_ends_with_status_1_and_its_difference(tmp_path):
    file = tmp_path / "dvc.yaml"
    write_dvc_yaml(ROOT, file=file)
    runner = CliRunner()
    assert runner.invoke(main, ["dvc-yaml", "--check", f"--out={file}"]).exit_code == 0
    text = file.read_text()
    file.write_text(text.replace("    - data/03_primary/pool_origin.json\n", "", 1))
    found = runner.invoke(main, ["dvc-yaml", "--check", f"--out={file}"])
    assert found.exit_code == 1
    changed = [line for line in found.output.splitlines() if line.startswith(("+ ", "- ", "+  ", "-  "))]
    assert changed == ["+    - data/03_primary/pool_origin.json"]
    assert "`unime dvc-yaml` writes it anew" in found.output
    assert file.read_text() != text  # a check changes nothing


def test_order_of_the_file_does_not_depend_on_the_hash_seed():
    code = "from pathlib import Path; from unime_kedro.reproduce.dvc_yaml import dvc_yaml; print(hash(dvc_yaml(Path('.').resolve()).encode()))"
    code = code.replace("hash(", "__import__('zlib').crc32(")
    found = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True,
            env={**__import__("os").environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(found) == 1


# ---------------------------------------------------------------- made up by hand


def first(x: int) -> int:
    return x


def second(y: int) -> int:
    return y


def source(catalog: dict[str, Any], tmp_path: Path, parameters: dict[str, Any] | None = None) -> Source:
    places = {"conf/base/parameters.yml": {key: f"{value}" for key, value in (parameters or {}).items()}}
    package = ROOT / "src/unime_kedro"

    class Fake(Source):
        def code(self, modules):
            return set()

    return Fake(tmp_path, "base", catalog, parameters or {}, places, package)


def entry(path: str, **metadata: Any) -> dict[str, Any]:
    return {"type": "unime_kedro.io.JsonFile", "filepath": path, **({"metadata": metadata} if metadata else {})}


A, B = node(first, "raw", "a", name="first"), node(second, ["a"], "b", name="second")


def test_a_node_is_run_by_one_stage(tmp_path):
    pipelines = {"one": Pipeline([A]), "both": Pipeline([A, B])}
    one, both = stages_of(
        pipelines, ["one", "both"], source({"a": entry("d/a"), "b": entry("d/b"), "raw": entry("d/raw")}, tmp_path)
    )
    assert (one.deps, one.outs) == ({"d/raw"}, {"d/a": "out"})
    assert (both.deps, both.outs) == ({"d/a"}, {"d/b": "out"})
    assert both.command.endswith("--pipeline=both --nodes=second")


def test_what_a_dataset_is_to_dvc(tmp_path):
    catalog = {
        "a": entry("d/a", dvc="none"),
        "b_metrics": entry("d/m"),
        "b_history": entry("d/h"),
        "p": entry("d/p", dvc="page"),
    }
    nodes = Pipeline([node(first, "raw", name, name=name) for name in catalog])
    (stage,) = stages_of({"x": nodes}, ["x"], source(catalog, tmp_path))
    assert stage.outs == {"d/m": "metric", "d/h": "plot", "d/p": "page"}
    catalog["a"]["metadata"]["dvc"] = "cached"
    with pytest.raises(ConfigurationError, match="a: metadata dvc is 'cached'; expected out"):
        stages_of({"x": nodes}, ["x"], source(catalog, tmp_path))


def test_two_writers_of_one_file_are_an_error():
    stages = [Stage("x", "", outs={"d/models": "out"}), Stage("y", "", outs={"d/models/small": "out"})]
    with pytest.raises(ConfigurationError, match=r"stages x and y both write d/models/small \(as d/models\)"):
        check_one_writer(stages)
    check_one_writer([Stage("x", "", outs={"d/m": "out"}), Stage("y", "", outs={"d/mm": "out"})])


def test_data_outside_of_the_project_are_an_error(tmp_path):
    with pytest.raises(ConfigurationError, match="/elsewhere/a lies outside of the project"):
        stages_of({"x": Pipeline([A])}, ["x"], source({"a": entry("/elsewhere/a")}, tmp_path))


def test_a_path_in_a_parameter_leads_to_the_stage_that_writes_it(tmp_path):
    catalog = {"a": entry("d/a.json", dvc_with=["d/pictures"]), "b": entry("d/b")}
    parameters = {"s": {"root": "d/pictures/small", "model": "d/elsewhere", "url": "https://d/a"}}
    reader = node(lambda s: s, "params:s", "b", name="reader")
    stages = stages_of(
        {"one": Pipeline([A]), "two": Pipeline([reader])}, ["one", "two"], source(catalog, tmp_path, parameters)
    )
    add_named(stages, source(catalog, tmp_path, parameters))
    assert stages[0].outs == {"d/a.json": "out", "d/pictures": "out"}
    assert stages[1].deps == {"d/a.json"}  # which speaks for the pictures
    assert stages[1].params == {"conf/base/parameters.yml": {"s"}}


def test_who_reads_a_folder_depends_on_what_stages_write_there(tmp_path):
    stages = [Stage("x", "", outs={"d/tables/a.json": "out"}), Stage("y", "", deps={"d/tables", "d/free"})]
    add_named(stages, source({}, tmp_path))
    assert stages[1].deps == {"d/tables/a.json", "d/free"}


def test_the_generator_sees_all_pipelines_that_have_nodes():
    from kedro.framework.project import pipelines

    names = {stage.name for stage in project_stages(ROOT)}
    wanted = {"demo", "ingest", "pool", "judge", "select", "train", "rerank", "evaluate", "judge_card", "report"}
    assert names == {name for name in wanted if pipelines[name].nodes} | {"train_arm", "ablation"}
