"""The command lines, in this process where that is enough and as commands where it is not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from unime_kedro import __version__
from unime_kedro.cli import RunFailed, cli, guarded, main, run_command
from unime_kedro.errors import DataError, ModelError
from unime_kedro.hooks import ParameterCheckHook, check_writable

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder: error logs go there, and the project's logging is not applied to this process."""
    monkeypatch.chdir(tmp_path)


# ---------------------------------------------------------------- kedro run


def test_kedro_finds_our_run_with_all_of_its_own_options() -> None:
    from kedro.framework.cli.project import run as kedro_run
    from kedro.framework.cli.utils import find_run_command

    ours = find_run_command("unime_kedro")
    assert cli.get_command(click.Context(cli), "run") is ours is run_command()
    assert ours.params == kedro_run.params  # type: ignore[attr-defined]
    assert ours.callback is not kedro_run.callback  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "passed"),
    [
        ({"pipeline": "mine", "pipelines": []}, {"pipeline": None, "pipelines": ["mine"]}),
        ({"pipeline": None, "pipelines": ["a", "b"]}, {"pipeline": None, "pipelines": ["a", "b"]}),
        ({"pipeline": "a", "pipelines": ["b"]}, {"pipeline": "a", "pipelines": ["b"]}),  # Kedro refuses this itself
        ({"pipeline": None, "pipelines": []}, {"pipeline": None, "pipelines": []}),
    ],
)
def test_old_spelling_of_pipeline_is_passed_on_as_the_new_one(options: dict[str, Any], passed: dict[str, Any]) -> None:
    assert guarded(lambda **given: given)(**options) == passed


def test_readable_error_becomes_a_message_with_its_traceback_in_a_file(tmp_path: Path) -> None:
    def fail(**options: Any) -> None:
        try:
            raise DataError("pool.parquet: row 3 has no item")
        except DataError as error:
            raise RuntimeError("Kedro wraps it") from error

    with pytest.raises(RunFailed) as caught:
        guarded(fail)()
    assert caught.value.exit_code == 1
    assert caught.value.message == "pool.parquet: row 3 has no item"
    assert "RuntimeError: Kedro wraps it" in Path("data/08_reporting/last_error.log").read_text()


def test_readable_error_that_may_be_ours_names_the_file_of_its_traceback() -> None:
    def fail(**options: Any) -> None:
        raise PermissionError(13, "Permission denied", "/locked/pool.parquet")

    with pytest.raises(RunFailed) as caught:
        guarded(fail)()
    file = Path("data/08_reporting/last_error.log")
    assert caught.value.message.startswith("/locked/pool.parquet: Permission denied. ")
    assert caught.value.message.endswith(f"\n(traceback: {file})")
    assert "PermissionError" in file.read_text()


def test_other_errors_pass_unchanged(tmp_path: Path) -> None:
    def fail(**options: Any) -> None:
        raise ZeroDivisionError("a fault of ours")

    with pytest.raises(ZeroDivisionError):
        guarded(fail)()
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_end_with_their_exit_code(
    number: signal.Signals, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(**options: Any) -> None:
        os.kill(os.getpid(), number)
        # not signal.pause: where another thread takes the signal, the main thread would wait for a second one for ever
        for _ in range(1000):
            threading.Event().wait(0.01)

    before = signal.getsignal(signal.SIGTERM)
    # a shell starts what runs in the background with SIGINT ignored
    keyboard = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as caught:
            guarded(stopped)()
    finally:
        signal.signal(signal.SIGINT, keyboard)
    assert caught.value.code == code
    assert "Interrupted." in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


# ---------------------------------------------------------------- the project's own commands


def kedro(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("UNIME_", "KEDRO_", "MLFLOW_"))}
    command = [sys.executable, "-m", "kedro", *arguments]
    environment |= {"UNIME_TRACKING": "off", **variables}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_wrong_parameters_stop_the_run_before_anything_is_loaded(tmp_path: Path) -> None:
    params = "--params=judge.batch_size=abc,judge.batch_sise=8,select.filter.margin=7"
    done = kedro("run", "--pipeline=ingest", params, UNIME_DATA_ROOT=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "Error: 3 faults in the parameters, nothing was run:",
        '  judge.batch_size = "abc": expected a whole number [--params]',
        "  judge.batch_sise = 8: unknown key; did you mean judge.batch_size? [--params]",
        "  select.filter.margin = 7: expected at most 1.0 [--params]",
    ]
    assert done.stdout == ""


@pytest.mark.parametrize(("place", "reason"), [("file", "it is a file"), ("file/below", "Not a directory")])
def test_data_root_that_cannot_be_made_stops_the_run_before_anything_is_opened(
    tmp_path: Path, place: str, reason: str
) -> None:
    (tmp_path / "file").write_text("x")
    store = f"sqlite:///{tmp_path}/mlflow.db"
    root = str(tmp_path / place)
    done = kedro("run", "--pipeline=select", UNIME_DATA_ROOT=root, UNIME_TRACKING="on", MLFLOW_TRACKING_URI=store)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: the data root {root} cannot be used, nothing was run: {reason}. ")
    assert "UNIME_DATA_ROOT" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_data_root_is_made_and_left_empty(tmp_path: Path) -> None:
    check_writable(tmp_path / "a/b")
    assert list((tmp_path / "a/b").iterdir()) == []


def run_before(pipeline: str, tmp_path: Path, **models: str) -> None:
    """Do what is done before a pipeline of the project runs, with other models."""
    from unime_kedro.pipeline_registry import register_pipelines

    hook = ParameterCheckHook()
    hook._data_root = tmp_path / "data"
    hook._parameters = {"pool": {"model": "models/tiny"}, "judge": {"model": "models/tiny"}}
    hook._parameters |= {section: {"model": model} for section, model in models.items()}
    hook.before_pipeline_run(register_pipelines()[pipeline])


@pytest.mark.parametrize(
    ("pipeline", "models", "stopped_by"),
    [
        ("mine", {"judge": "models/nope"}, "judge"),
        ("mine", {"pool": "./nope"}, "pool"),
        ("pool", {"pool": "models/nope"}, "pool"),
        ("judge", {"judge": "models/empty"}, "judge"),
        ("judge", {"pool": "models/nope"}, None),
        ("pool", {"judge": "models/nope"}, None),
        ("select", {"judge": "models/nope"}, None),  # only names the judge
        ("ingest", {"judge": "models/nope", "pool": "models/nope"}, None),
        ("mine", {"judge": "Qwen/Qwen2.5-VL-7B-Instruct", "pool": "TIGER-Lab/VLM2Vec-Qwen2VL-7B"}, None),
    ],
)
def test_missing_model_folder_stops_the_pipelines_that_load_it(
    tmp_path: Path, pipeline: str, models: dict[str, str], stopped_by: str | None
) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.kedro]\n")
    for name in ("tiny", "empty"):
        (tmp_path / "models" / name).mkdir(parents=True)
    (tmp_path / "models/tiny/config.json").write_text("{}")
    if stopped_by is None:
        run_before(pipeline, tmp_path, **models)
        return
    with pytest.raises(ModelError, match=rf"^{stopped_by}\.model, nothing was run: ") as error:
        run_before(pipeline, tmp_path, **models)
    assert Path(models[stopped_by]).name in str(error.value)
    assert not (tmp_path / "data").exists()


def test_a_damaged_calibration_is_found_before_anything_runs(tmp_path: Path) -> None:
    folder = tmp_path / "models/own"
    folder.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text("[tool.kedro]\n")
    (folder / "config.json").write_text("{}")
    (folder / "judge_calibration.json").write_text('{"temperature": -1}')
    hook = ParameterCheckHook()
    hook._data_root = tmp_path / "data"
    from unime_kedro.pipeline_registry import register_pipelines

    hook._parameters = {"pool": {"model": str(folder)}, "judge": {"model": str(folder), "temperature": "model"}}
    with pytest.raises(
        ModelError, match=r"judge\.model, nothing was run: .*judge_calibration\.json has temperature -1"
    ):
        hook.before_pipeline_run(register_pipelines()["judge"])
    hook._parameters["judge"]["temperature"] = 1.0  # a number needs no calibration
    hook.before_pipeline_run(register_pipelines()["judge"])


def test_missing_judge_is_found_before_the_corpus_is_made(tmp_path: Path) -> None:
    done = kedro("run", "--pipeline=mine", "--params=judge.model=models/nope", UNIME_DATA_ROOT=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: judge.model, nothing was run: there is no model folder {ROOT}/models/nope.")
    assert [path.name for path in tmp_path.rglob("*")] == ["08_reporting", "last_error.log"]


def test_own_data_that_are_not_there_are_found_before_anything_is_opened(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/mlflow.db"
    root = tmp_path / "nope"
    params = f"--params=ingest.root={root}"
    variables = {"UNIME_TRACKING": "on", "MLFLOW_TRACKING_URI": store, "UNIME_DATA_ROOT": str(tmp_path / "data")}
    done = kedro("run", "--pipeline=mine", params, **variables)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "Error: 1 fault in the parameters, nothing was run:",
        f"  ingest.root = {root}: there is no such folder; expected the folder that holds "
        "<data set>/original-*.parquet [--params]",
    ]
    assert done.stdout == ""
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "08_reporting", "last_error.log"]


def test_pictures_are_looked_for_beside_own_pairs(tmp_path: Path) -> None:
    """ingest.root alone is enough: every node that reads pictures gets it as image_root."""
    from kedro.config import OmegaConfigLoader
    from kedro.framework.context import KedroContext
    from kedro.framework.hooks import _create_hook_manager
    from kedro.framework.hooks.manager import _register_hooks

    from unime_kedro.settings import CONFIG_LOADER_ARGS, DATA_CATALOG_CLASS

    def image_root(**ingest: str) -> Any:
        loader = OmegaConfigLoader(str(ROOT / "conf"), runtime_params={"ingest": ingest}, **CONFIG_LOADER_ARGS)
        manager = _create_hook_manager()
        _register_hooks(manager, (ParameterCheckHook(),))
        context = KedroContext(ROOT, loader, None, "unime_kedro", manager)
        manager.hook.after_context_created(context=context)
        return context._get_catalog(DATA_CATALOG_CLASS).load("params:ingest.image_root")

    assert image_root(root="/data/MMEB-train") == "/data/MMEB-train"
    assert image_root(root="/data/MMEB-train", image_root="/pictures") == "/pictures"
    assert image_root().endswith("01_raw/mini_mmeb/train")


def test_looking_for_models_imports_nothing_heavy() -> None:
    script = "import sys, unime_kedro.mllm.adapters; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "numpy", "polars"} & set(done.stdout.split())


def test_unknown_pipeline_is_one_clean_message(tmp_path: Path) -> None:
    done = kedro("run", "--pipeline=mien", UNIME_DATA_ROOT=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("Error: Failed to find the pipeline named 'mien'.")
    assert "mine" in done.stderr
    assert "Traceback" not in done.stderr
    assert "deprecated" not in done.stderr + done.stdout


# ---------------------------------------------------------------- unime


def release_file(folder: Path) -> Path:
    """Write two queries in the release's format; of their four negatives one is above 0.9 - 0.01."""
    rows = [
        {
            "query_text": f"query {i}",
            "query_image": "",
            "pos_text": f"positive {i}",
            "pos_image": "",
            "query_pos_scores": 0.9,
            "hard_negatives": [[f"negative {i}", ""], ["shared", ""]],
            "hard_negatives_scores": [score, 0.2],
        }
        for i, score in enumerate((0.1, 0.895))
    ]
    file = folder / "release.json"
    file.write_text(json.dumps(rows))
    return file


def test_import_release_reports_and_writes_tables(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["import-release", str(release_file(tmp_path)), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "2 rows, 4 negatives (2 per row), 7 distinct items" in done.output
    assert "violations: 1" in done.output
    written = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    tables = {f"{name}.parquet" for name in ("items", "queries", "judge_scores", "negatives", "violations")}
    assert written == tables | {"judge_origin.json"}


def test_import_release_without_out_writes_nothing(tmp_path: Path) -> None:
    file = release_file(tmp_path)
    assert CliRunner().invoke(main, ["import-release", str(file)]).exit_code == 0
    assert list(tmp_path.iterdir()) == [file]


def test_import_release_of_another_file_is_a_clean_error(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('[{"query_text": 1}]')
    done = CliRunner().invoke(main, ["import-release", str(tmp_path / "x.json")])
    assert done.exit_code == 1
    assert done.output.startswith("Error: ")
    assert "x.json" in done.output


def test_import_release_to_an_impossible_place_is_a_clean_error(tmp_path: Path) -> None:
    file = release_file(tmp_path)
    done = CliRunner().invoke(main, ["import-release", str(file), "--out", str(file / "out")])
    assert done.exit_code == 1
    assert "Not a directory" in done.output
    assert isinstance(done.exception, SystemExit)


def test_unime_starts_without_kedro_or_anything_heavy() -> None:
    script = "import sys; sys.argv = ['unime', '--version']\nfrom unime_kedro.cli import main\ntry: main()\nfinally: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    version, modules = done.stdout.splitlines()
    assert version == f"unime-kedro, version {__version__}"
    assert not {"kedro", "polars", "pydantic", "torch", "mlflow", "rich"} & set(modules.split())
