"""What MLflow knows of a run, as plain data: the same whether it was read from a store or from a package."""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from unime_kedro.errors import DataError, UnimeError
from unime_kedro.tracking.evidence import CHANGES, ENVIRONMENT, FILES
from unime_kedro.tracking.files import DATA_ROOT, FileRecord
from unime_kedro.tracking.unsent import all_runs

#: artifacts of a run that belong to its record, besides metrics/<dataset>.json
CONFIG, GROUP = "config.yml", "group.yml"
_METRICS = "metrics"
#: key of an ablation's table: the column whose differences it has
COMPARED = "compared"
#: characters of an id that are enough to name a run
_SHORTEST_PREFIX = 4


class UnknownRun(UnimeError):
    """There is no such run."""


@dataclass(frozen=True)
class RunRecord:
    """A run of ``kedro run``, or the parent of an ablation's runs.

    Attributes:
        run_id, name, status, experiment: As MLflow has them.
        start, end: Milliseconds since 1970; ``end`` is None for a run that has not ended.
        tags, params: As MLflow has them.
        metrics: Last values.
        curves: Metric -> (step, value) of every time it was recorded, in the order of steps. Empty if not read.
        config: ``config.yml``, None where the run has none.
        files: ``files.json``; None where the run has none, which is so before version 0.2.
        environment: Lines of ``environment.txt``.
        metrics_files: Dataset -> what it held, from ``metrics/<dataset>.json``.
        changes: ``git.diff``, "" where the tree was that of the commit.
        group: ``group.yml`` of an ablation's parent.
        table: What an ablation's parent has shown, ``<group>.json``.
        children: Ids of child runs, in the order of their start.
        pages: File name -> sha256 of the other artifacts at the top, which are pages for people.
        unreadable: Artifacts that are not what a run writes, with why; their content is missing above.
    """

    run_id: str
    name: str
    status: str
    experiment: str
    start: int
    end: int | None
    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, float]
    config: dict[str, Any] | None = None
    files: list[FileRecord] | None = None
    environment: list[str] = field(default_factory=list)
    metrics_files: dict[str, Any] = field(default_factory=dict)
    changes: str = ""
    group: dict[str, Any] | None = None
    table: dict[str, Any] | None = None
    children: list[str] = field(default_factory=list)
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    pages: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)

    @property
    def commit(self) -> str:
        """The commit, "" where none is known."""
        return self.tags.get("mlflow.source.git.commit", "")

    def side(self, side: str) -> list[FileRecord]:
        """Return the files of one side, ``input`` or ``output``."""
        return [one for one in self.files or [] if one.side == side]

    def to_json(self) -> dict[str, Any]:
        """Return plain values; numbers that JSON has no word for become texts."""
        found = asdict(self)
        found["files"] = None if self.files is None else [one._asdict() for one in self.files]
        found["metrics"] = {key: _word(value) for key, value in self.metrics.items()}
        found["curves"] = {key: [[step, _word(v)] for step, v in points] for key, points in self.curves.items()}
        return found

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> RunRecord:
        """Return the record that :meth:`to_json` gave.

        Raises:
            DataError: It is no such thing.
        """
        try:
            values = dict(found)
            values["files"] = None if values["files"] is None else [FileRecord(**one) for one in values["files"]]
            values["metrics"] = {key: float(value) for key, value in values["metrics"].items()}
            curves = values["curves"].items()
            values["curves"] = {key: [(int(step), float(v)) for step, v in points] for key, points in curves}
            return cls(**values)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"this is no record of a run: {error!r}") from error


def _word(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def located(path: str, root: Path, data_root: Path) -> Path:
    """Return where a recorded path lies.

    Args:
        path: As in :class:`.FileRecord`.
        root: The project root.
        data_root: What ``<data root>`` stands for.
    """
    if path == DATA_ROOT or path.startswith(f"{DATA_ROOT}/"):
        return data_root / path.removeprefix(DATA_ROOT).lstrip("/")
    return root / path


def find_run(client: Any, name: str) -> str:
    """Return the id of a run that is named by its id, the first characters of it, or its name.

    Raises:
        UnknownRun: None or several have it; lists what there is.
    """
    runs = all_runs(client)
    exact = [run for run in runs if run.info.run_id == name]
    found = exact or [run for run in runs if len(name) >= _SHORTEST_PREFIX and run.info.run_id.startswith(name)]
    found = found or [run for run in runs if run.info.run_name == name]
    if len(found) == 1:
        return str(found[0].info.run_id)
    latest = sorted(found or runs, key=lambda run: run.info.start_time, reverse=True)[:8]
    known = "\n".join(f"  {run.info.run_id}  {run.info.status:8}  {run.info.run_name}" for run in latest)
    what = f"{len(found)} runs are called {name!r}; name one by its id" if found else f"there is no run {name!r}"
    raise UnknownRun(
        f"{what}. " + (f"The latest {'of them' if found else 'ones'}:\n{known}" if known else "No run is tracked here.")
    )


def read_record(client: Any, run_id: str, *, curves: bool = True) -> RunRecord:
    """Read a run with its artifacts; what it lacks is left empty.

    Args:
        client: MLflow's client of the store that it is in.
        run_id: Its id.
        curves: Whether every value of every metric is read, which is a question per metric.
    """
    run = client.get_run(run_id)
    names = [one.path for one in client.list_artifacts(run_id) if not one.is_dir]
    there = _Artifacts(client, run_id)
    table = f"{run.data.tags.get('unime.ablation', '')}.json"
    wanted = {CONFIG, FILES, ENVIRONMENT, CHANGES, GROUP, table} & set(names)
    parts = {name: there.text(name) for name in sorted(wanted)}
    saved = [one.path for one in client.list_artifacts(run_id, _METRICS)]
    metrics = {Path(path).stem: there.parsed(path, there.text(path), json.loads) for path in saved}
    children = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'", max_results=1000)
    return RunRecord(
        run_id=run.info.run_id,
        name=run.info.run_name,
        status=run.info.status,
        experiment=client.get_experiment(run.info.experiment_id).name,
        start=run.info.start_time,
        end=run.info.end_time,
        tags=dict(run.data.tags),
        params=dict(run.data.params),
        metrics=dict(run.data.metrics),
        config=there.parsed(CONFIG, parts.get(CONFIG), _mapping),
        files=there.parsed(FILES, parts.get(FILES), _files),
        environment=parts.get(ENVIRONMENT, "").splitlines(),
        metrics_files={name: content for name, content in metrics.items() if content is not None},
        changes=parts.get(CHANGES, ""),
        group=there.parsed(GROUP, parts.get(GROUP), _mapping),
        table=there.parsed(table, parts.get(table), _table),
        children=[child.info.run_id for child in sorted(children, key=lambda child: child.info.start_time)],
        curves={key: _curve(client, run_id, key) for key in sorted(run.data.metrics)} if curves else {},
        pages={name: hashlib.sha256(there.data(name)).hexdigest() for name in names if name.endswith(_PAGES)},
        unreadable=there.unreadable,
    )


#: pages at the top of a run's artifacts
_PAGES = (".html",)


def _curve(client: Any, run_id: str, key: str) -> list[tuple[int, float]]:
    """Return a metric's values in the order in which MLflow calls one the last."""
    points = client.get_metric_history(run_id, key)
    return [(one.step, one.value) for one in sorted(points, key=_order)]


def _order(point: Any) -> tuple[int, int, float]:
    return point.step, point.timestamp, point.value


class _Artifacts:
    """Reads artifacts of a run, and remembers which are not what a run writes."""

    def __init__(self, client: Any, run_id: str) -> None:
        self._client, self._run_id = client, run_id
        self.unreadable: dict[str, str] = {}

    def data(self, path: str) -> bytes:
        """Return an artifact's bytes."""
        # a bar for every file of a few kilobytes
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        with tempfile.TemporaryDirectory() as folder:
            return Path(self._client.download_artifacts(self._run_id, path, folder)).read_bytes()

    def text(self, path: str) -> str:
        """Return an artifact's text; bytes that are none stay recognisable."""
        return self.data(path).decode("utf-8", errors="surrogateescape")

    def parsed(self, path: str, text: str | None, parse: Callable[[str], Any]) -> Any:
        """Return what a text says, None if there is none or it cannot be read."""
        try:
            return None if text is None else parse(text)
        except (ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
            self.unreadable[path] = " ".join(str(error).split())[:120]
            return None


def _mapping(text: str) -> dict[str, Any]:
    found = yaml.safe_load(text)
    if not isinstance(found, dict):
        raise ValueError(f"expected keys and values, found {type(found).__name__}")
    return found


def _table(text: str) -> dict[str, Any]:
    """Return an ablation's table, and by name its first column, which is the one compared: JSON may lose the order."""
    found: dict[str, Any] = json.loads(text)
    return found | {COMPARED: next(iter(found["columns"]), "")}


def _files(text: str) -> list[FileRecord]:
    return [FileRecord(**one) for one in json.loads(text)]
