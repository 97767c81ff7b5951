"""--config and --params together, for `kedro run` and `unime plan`."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from unime_kedro.cli import guarded
from unime_kedro.errors import ConfigurationError
from unime_kedro.planning.options import merged, run_options

FILE = """
run:
  env: paper
  pipelines: train,evaluate
  params:
    train: {model: a/b, lora: {rank: 8, alpha: 16}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "variant.yml"
    path.write_text(FILE)
    return path


def test_the_command_line_wins_key_by_key(file: Path) -> None:
    found = run_options(None, "", "train.lora.rank=4,ingest.root=/data", file)
    assert found.env == "paper"
    assert found.pipelines == ("train", "evaluate")
    assert found.params == {
        "train": {"model": "a/b", "lora": {"rank": 4, "alpha": 16}},
        "ingest": {"root": "/data"},
    }
    assert run_options("smoke", "mine", "", file)[:2] == ("smoke", ("mine",))
    assert run_options(None, "", "", None) == (None, (), {})


def test_values_have_the_types_that_kedro_gives_them() -> None:
    found = run_options(None, "", "a.b=1,a.c=1.0e-4,a.d=null,a.e=true,a.f=x=y", None).params
    assert found == {"a": {"b": 1, "c": 1e-4, "d": None, "e": True, "f": "x=y"}}
    assert merged("a.b=1,a.c=2", {"a": {"c": 3}}) == {"a": {"b": 1, "c": 3}}, "text as Kedro's own files may have it"


@pytest.mark.parametrize("text", ["a: 1\n", "run: train\n", ""])
def test_a_file_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.yml").write_text(text)
    with pytest.raises(ConfigurationError, match=r"x\.yml: expected a block `run:`"):
        run_options(None, "", "", tmp_path / "x.yml")


def test_params_that_are_none_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="'b' is not of the form key=value"):
        run_options(None, "", "a=1,b", None)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ([], {"train": {"model": "a/b", "lora": {"rank": 8, "alpha": 16}}}),
        (["--params=train.lora.rank=4"], {"train": {"model": "a/b", "lora": {"rank": 4, "alpha": 16}}}),
    ],
)
def test_kedro_run_keeps_the_files_parameters(
    file: Path, given: list[str], wanted: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With Kedro's own options; without our wrapper the second case would lose model and alpha."""
    from kedro.framework.cli.project import run as kedro_run

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("unime_kedro.cli._configure_logging", lambda: None)
    seen: dict[str, Any] = {}
    command = copy.copy(kedro_run)
    command.callback = guarded(seen.update)
    done = CliRunner().invoke(command, [f"--config={file}", *given], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert seen["params"] == wanted
    assert (seen["env"], seen["pipelines"]) == ("paper", ["train", "evaluate"])
