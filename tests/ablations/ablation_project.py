"""A throwaway project with the real parameters and two small stages, and `unime ablate` run in it as a user would."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

FILES = {
    "src/small/__init__.py": "",
    "src/small/settings.py": """
        from unime_kedro.run_locks import RunLocksHook
        from unime_kedro.settings import CONFIG_LOADER_ARGS, DATA_CATALOG_CLASS
        from unime_kedro.tracking.hook import TrackingHook

        HOOKS = (RunLocksHook(), TrackingHook())
    """,
    "src/small/cli.py": """
        from unime_kedro.cli import cli, run_command

        run = run_command()
    """,
    "src/small/nodes.py": '''
        """Right and wrong answers that follow from loss kind, seed and learning rate by rules a test can follow."""

        import os
        import subprocess
        import time

        import polars as pl

        from unime_kedro.errors import DataError
        from unime_kedro.parameters import SelectParameters, TrainParameters


        def sift(pool: dict, select: SelectParameters) -> tuple[dict, dict]:
            kept = [score for score in pool["scores"] if select.filter.rule == "none" or score < 0.5]
            return {"kept": kept}, {"kept": len(kept), "share": len(kept) / len(pool["scores"])}


        def fit(negatives: dict, train: TrainParameters) -> tuple[dict, dict]:
            name = f"{train.loss.kind}-{train.seed}"
            if os.environ.get("SMALL_HANG"):
                child = subprocess.Popen(["sleep", "600"])
                with open(os.environ["SMALL_HANG"], "w") as pipe:
                    pipe.write(f"{os.getpid()} {child.pid}\\n")
                time.sleep(600)
            if os.environ.get("SMALL_CRASH") == name:
                raise DataError(f"row 7 of {name} is bad; remove it")
            best = {"in_batch": 1e-3, "hard": 3e-4, "soft": 3e-4}.get(train.loss.kind, 1e-3)
            metrics = {"loss": 0.5, "validation_precision_at_1": 0.5 - abs(train.learning_rate - best)}
            return metrics, train.model_dump(mode="json")


        def test(train_metrics: dict, negatives: dict, train: TrainParameters) -> tuple[pl.DataFrame, dict]:
            # of 4 queries of a and 2 of b, right are: in_batch 1 and 1; hard (and any other) 2 and 1; seed 2: all of b
            right = {"a": 1 if train.loss.kind == "in_batch" else 2, "b": 2 if train.seed == 2 else 1}
            rows = [("t", d, i, i < right[d]) for d, n in (("a", 4), ("b", 2)) for i in range(n)]
            table = pl.DataFrame(rows, schema=["benchmark", "dataset", "query_id", "correct"], orient="row")
            shares = {d: right[d] / n for d, n in (("a", 4), ("b", 2))}
            metrics = {f"precision_at_1/{d}": share for d, share in shares.items()}
            return table, metrics | {"precision_at_1/all": sum(shares.values()) / 2, "loss": 9.0}
    ''',
    "src/small/pipeline_registry.py": """
        from kedro.pipeline import Pipeline, node

        from small import nodes


        def register_pipelines():
            select = Pipeline([node(nodes.sift, ["pool", "params:select"], ["negatives", "select_metrics"])])
            train = Pipeline(
                [
                    node(nodes.fit, ["negatives", "params:train"], ["train_metrics", "seen"]),
                    node(nodes.test, ["train_metrics", "negatives", "params:train"], ["trained_predictions", "trained_metrics"]),
                ]
            )
            return {"select": select, "train": train, "__default__": select + train}
    """,
    "conf/local/.gitkeep": "",
    "conf/base/globals.yml": "{data_root: '${env:UNIME_DATA_ROOT,data}', negatives: 10}",
}
CATALOG = {
    "pool": "03_primary/pool.json",
    "negatives": "05_model_input/negatives.json",
    "select_metrics": "08_reporting/select_metrics.json",
    "train_metrics": "08_reporting/train_metrics.json",
    "seen": "08_reporting/seen.json",
    "trained_metrics": "08_reporting/trained_metrics.json",
    "trained_predictions": "07_model_output/trained_predictions.parquet",
}
COMPONENTS = """
    components:
      title: Components
      seeds: [1, 2]
      keys: [train.loss.kind]
      arms:
        in_batch: {train.loss.kind: in_batch}
        hard: {train.loss.kind: hard}
      tune: {key: train.learning_rate, values: [1.0e-3, 3.0e-4], seeds: [5, 6]}
      paper:
        table: Table 4
        model: Qwen2-VL-2B
        columns: [MMEB, short]
        figures: {in_batch: [60.1, 63.4], hard: [61.6, 68.9]}
"""


class AblationProject:
    """A throwaway project on disk, its inputs made."""

    def __init__(self, root: Path, package: str = "small") -> None:
        self.root = root
        shutil.copytree(ROOT / "conf/base/parameters", root / "conf/base/parameters")
        for name, text in FILES.items():
            self.write(name, text)
        self.write("conf/base/catalog.yml", self.catalog())
        self.write("conf/base/ablations.yml", COMPONENTS)
        names = {"package_name": package, "project_name": "small", "kedro_init_version": "1.7.0", "source_dir": "src"}
        self.write("pyproject.toml", "[tool.kedro]\n" + "\n".join(f'{k} = "{v}"' for k, v in names.items()))
        self.write("data/03_primary/pool.json", json.dumps({"scores": [0.1, 0.2, 0.9]}))
        self.write("data/05_model_input/negatives.json", json.dumps({"kept": [0.1, 0.2]}))
        self.write("data/01_raw/corpus.json", "{}")
        (root / "models").symlink_to(ROOT / "models")

    @staticmethod
    def catalog(**moved: str) -> str:
        """Return the catalog, some of its files elsewhere."""
        entries = {}
        for name, file in CATALOG.items():
            kind = "ParquetTable" if file.endswith("parquet") else "JsonFile"
            place = moved.get(name, "${globals:data_root}/" + file)
            entries[name] = {"type": f"unime_kedro.io.{kind}", "filepath": place}
        return json.dumps(entries)

    def write(self, name: str, text: str) -> Path:
        """Write a file of the project."""
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text).lstrip("\n"), encoding="utf-8")
        return file

    def environment(self, **variables: str) -> dict[str, str]:
        """Return the environment of a command, tracking off unless it is asked for."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "UNIME_", "KEDRO_", "SMALL_"))}
        return {**kept, "OMP_NUM_THREADS": "1", "UNIME_TRACKING": "off", **variables}

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of `unime ablate`."""
        return [sys.executable, "-c", "from unime_kedro.cli import main; main()", "ablate", *arguments]

    def ablate(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run `unime ablate` and return what it printed and how it ended."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.root,
            env=self.environment(**variables),
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    def run_folder(self, arm: str, seed: int, group: str = "components") -> Path:
        """Return the folder of a run."""
        return self.root / "data/ablations" / group / arm / f"seed-{seed}"

    def json(self, name: str) -> Any:
        """Return what a JSON file of the project holds."""
        return json.loads((self.root / name).read_text(encoding="utf-8"))
