"""The command lines, in this process where that is enough and as commands where it is not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from unime_kedro import __version__
from unime_kedro.cli import RunFailed, cli, guarded, main, run_command
from unime_kedro.errors import DataError
from unime_kedro.failures import message_of

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
    file = Path("data/08_reporting/last_error.log")
    assert caught.value.message == f"pool.parquet: row 3 has no item\n(traceback: {file})"
    assert "RuntimeError: Kedro wraps it" in file.read_text()


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
        signal.pause()  # never reached, or ended by the signal

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught:
        guarded(stopped)()
    assert caught.value.code == code
    assert "Interrupted." in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


def test_messages_of_kedros_own_errors() -> None:
    from kedro.config import MissingConfigException
    from kedro.io import DatasetError
    from kedro.validation import CheckFailure, DataValidationError, ParameterValidationError

    assert message_of(ParameterValidationError("k: too large")) == "k: too large"
    assert message_of(MissingConfigException("no folder conf/x")) == "no folder conf/x"
    failure = CheckFailure("ranks", check="ranks_from_zero", failure_count=2, failure_examples=[7])
    invalid = DataValidationError("m", dataset_name="pool", mode="save", failures=[failure])
    assert "ranks_from_zero — 2 cases (e.g. 7)" in str(message_of(invalid))
    assert message_of(ValueError("Failed to find the pipeline named 'x'.")) == "Failed to find the pipeline named 'x'."
    assert message_of(ValueError("anything else")) is None
    assert message_of(DatasetError("of a library")) is None


def test_error_raised_while_another_was_handled_is_found_unless_suppressed() -> None:
    def raise_both(suppress: bool) -> BaseException:
        try:
            try:
                raise DataError("first")
            except DataError:
                if suppress:
                    raise ValueError("second") from None
                raise ValueError("second")  # noqa: B904
        except ValueError as error:
            return error

    assert message_of(raise_both(suppress=False)) == "first"
    assert message_of(raise_both(suppress=True)) is None


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
        f"(traceback: {tmp_path}/08_reporting/last_error.log)",
    ]
    assert done.stdout == ""


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
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"items.parquet", "queries.parquet", "negatives.parquet", "violations.parquet"}


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


def test_unime_starts_without_kedro_or_anything_heavy() -> None:
    script = "import sys; sys.argv = ['unime', '--version']\nfrom unime_kedro.cli import main\ntry: main()\nfinally: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    version, modules = done.stdout.splitlines()
    assert version == f"unime-kedro, version {__version__}"
    assert not {"kedro", "polars", "pydantic", "torch", "mlflow", "rich"} & set(modules.split())
