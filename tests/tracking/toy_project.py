"""A throwaway Kedro project with the project's own settings, and commands run in it as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

FILES = {
    "pyproject.toml": """
        [tool.kedro]
        package_name = "toy"
        project_name = "toy"
        kedro_init_version = "1.7.0"
        source_dir = "src"
    """,
    "src/toy/__init__.py": "",
    "src/toy/settings.py": """
        from unime_kedro.hooks import SummaryHook
        from unime_kedro.settings import CONFIG_LOADER_ARGS, DATA_CATALOG_CLASS, DISABLE_HOOKS_FOR_PLUGINS
        from unime_kedro.tracking.hook import TrackingHook

        tracking = TrackingHook()
        HOOKS = (tracking, SummaryHook(tracking))
    """,
    "src/toy/cli.py": """
        from unime_kedro.cli import cli, run_command

        run = run_command()
    """,
    "src/toy/nodes.py": """
        import os
        import signal
        import time

        import polars as pl
        from pydantic import BaseModel

        from unime_kedro.errors import DataError


        class Options(BaseModel):
            k: int
            rate: float
            names: list[str]
            delta: float | None = None
            seed: int = 0


        def double(raw: dict, options: Options) -> tuple[dict, dict]:
            metrics = {"queries": 3, "share": 0.25, "note": "text", "by": {"a b": 1.5, "c(d)": 2}}
            return {"n": raw["n"] * options.k}, metrics


        def finish(doubled: dict) -> tuple[str, pl.DataFrame, dict]:
            table = pl.DataFrame({"slot": [0, 1], "score": [0.25, 0.5], "origin": ["sampled", "fallback"]})
            return "<html></html>", table, {"queries": 1200, "false_negatives_dropped": 7, "false_negative_share": 0.05}


        def refuse(raw: dict) -> dict:
            raise DataError("items.parquet, row 3: no text and no image; remove the row")


        def crash(raw: dict) -> dict:
            return {"n": 1 / 0}


        def hang(raw: dict) -> dict:
            print("HANGING", flush=True)
            time.sleep(600)
            return raw


        def die(raw: dict) -> dict:
            os.kill(os.getpid(), signal.SIGKILL)
            return raw
    """,
    "src/toy/pipeline_registry.py": """
        from kedro.pipeline import node, pipeline

        from toy import nodes


        def register_pipelines():
            first = node(nodes.double, ["raw", "params:options"], ["doubled", "first_metrics"], name="double")
            last = node(nodes.finish, "doubled", ["gallery", "negatives", "select_metrics"], name="finish")
            return {
                "__default__": pipeline([first, last]),
                "mine": pipeline([first, last]),
                "first": pipeline([first]),
                "last": pipeline([last]),
                **{
                    name: pipeline([first, node(getattr(nodes, name), "doubled", "after", name=name)])
                    for name in ("refuse", "crash", "hang", "die")
                },
            }
    """,
    "conf/base/globals.yml": "data_root: ${env:UNIME_DATA_ROOT,data}",
    "conf/smoke/globals.yml": "data_root: ${env:UNIME_DATA_ROOT,data/smoke}",
    "conf/local/.gitkeep": "",
    "conf/base/parameters.yml": """
        options:
          k: 2
          rate: 1e-4
          names: [a, b]
          seed: 11
        long: "%s"
        empty: {}
        flag: true
    """
    % ("x" * 700),
    "conf/base/catalog.yml": """
        raw:
          type: unime_kedro.io.JsonFile
          filepath: ${globals:data_root}/raw.json
        doubled:
          type: unime_kedro.io.JsonFile
          filepath: ${globals:data_root}/doubled.json
        first_metrics:
          type: unime_kedro.io.JsonFile
          filepath: ${globals:data_root}/08_reporting/first_metrics.json
        select_metrics:
          type: unime_kedro.io.JsonFile
          filepath: ${globals:data_root}/08_reporting/select_metrics.json
        gallery:
          type: unime_kedro.io.TextFile
          filepath: ${globals:data_root}/08_reporting/gallery.html
        negatives:
          type: unime_kedro.io.ParquetTable
          filepath: ${globals:data_root}/negatives.parquet
    """,
}


_PRINT_MODULES = """
import sys
from kedro.framework.cli import main
sys.argv[0] = "kedro"
try:
    main()
finally:
    print(",".join(name for name in sys.modules if "." not in name))
"""


class Project:
    """A throwaway project on disk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name, text in FILES.items():
            self.write(name, text)
        self.write("data/raw.json", '{"n": 21}\n')
        self.write("conf/logging.yml", (ROOT / "conf/logging.yml").read_text(encoding="utf-8"))

    def write(self, name: str, text: str) -> Path:
        """Write a file of the project."""
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text).lstrip("\n"), encoding="utf-8")
        return file

    def environment(self, **variables: str) -> dict[str, str]:
        """Return the environment of a command: the caller's, without what would change where runs are kept."""
        dropped = ("MLFLOW_", "UNIME_", "KEDRO_")
        return {k: v for k, v in os.environ.items() if not k.startswith(dropped)} | {
            "OMP_NUM_THREADS": "1",
            **variables,
        }

    def kedro(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a kedro command in the project and return what it printed and how it ended."""
        command = [sys.executable, "-m", "kedro", *arguments]
        environment = self.environment(**variables)
        return subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    def kedro_modules(self, *arguments: str, **variables: str) -> tuple[str, set[str]]:
        """Run a kedro command that must succeed; return its output and the top-level modules it had imported."""
        command = [sys.executable, "-c", _PRINT_MODULES, *arguments]
        environment = self.environment(**variables)
        done = subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        output, _, modules = done.stdout.rstrip().rpartition("\n")
        return output, set(modules.split(","))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a kedro command and return at the first line of its standard output."""
        command = [sys.executable, "-m", "kedro", *arguments]
        process = subprocess.Popen(
            command, cwd=self.root, env=self.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line == "HANGING\n", line + process.stderr.read() if process.stderr else line
        return process

    def client(self, file: str = "mlflow.db") -> Any:
        """Return a client of the project's store."""
        from mlflow import MlflowClient

        return MlflowClient(f"sqlite:///{self.root / file}")

    def runs(self, experiment: str = "unime-kedro") -> list[Any]:
        """Return the runs of an experiment, the oldest first."""
        client = self.client()
        found = client.get_experiment_by_name(experiment)
        return list(client.search_runs([found.experiment_id], order_by=["attributes.start_time ASC"]))


def run_here(root: Path, pipeline: Any, *hooks: Any, env: str | None = None, catalog_class: Any = None) -> None:
    """Run a pipeline in this process: what KedroSession.run does, without its process-wide settings."""
    from kedro.config import OmegaConfigLoader
    from kedro.framework.context import KedroContext
    from kedro.framework.hooks import _create_hook_manager
    from kedro.framework.hooks.manager import _register_hooks
    from kedro.runner import SequentialRunner

    from unime_kedro.settings import CONFIG_LOADER_ARGS, DATA_CATALOG_CLASS

    manager = _create_hook_manager()
    _register_hooks(manager, hooks)
    loader = OmegaConfigLoader(str(root / "conf"), env=env, **CONFIG_LOADER_ARGS)
    context = KedroContext(root, loader, env, "toy", manager)
    manager.hook.after_context_created(context=context)
    catalog = context._get_catalog(catalog_class or DATA_CATALOG_CLASS)
    arguments = {"run_params": {"run_id": "s", "pipeline_names": ["here"]}, "pipeline": pipeline, "catalog": catalog}
    manager.hook.before_pipeline_run(**arguments)
    try:
        result = SequentialRunner().run(pipeline, catalog, manager)
    except Exception as error:
        manager.hook.on_pipeline_error(error=error, **arguments)
        raise
    manager.hook.after_pipeline_run(run_result=result, **arguments)
