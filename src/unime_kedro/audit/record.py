"""What MLflow knows of a run, as plain data: the same whether it was read from a store or from a package."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from unime_kedro.errors import DataError, UnimeError
from unime_kedro.tracking.evidence import CHANGES, ENVIRONMENT, FILES
from unime_kedro.tracking.files import DATA_ROOT, FileRecord
from unime_kedro.tracking.metrics import metric_values

#: artifacts of a run that belong to its record, besides metrics/<dataset>.json
CONFIG, GROUP = "config.yml", "group.yml"
_METRICS = "metrics"


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
        config: ``config.yml``, None where the run has none.
        files: ``files.json``; None where the run has none, which is so before version 0.2.
        environment: Lines of ``environment.txt``.
        metrics_files: Dataset -> what it held, from ``metrics/<dataset>.json``.
        changes: ``git.diff``, "" where the tree was that of the commit.
        group: ``group.yml`` of an ablation's parent.
        children: Ids of child runs, in the order of their start.
        beginnings: Metrics under whose names a curve was recorded after a figure: that figure.
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
    children: list[str] = field(default_factory=list)
    beginnings: dict[str, float] = field(default_factory=dict)

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
    runs = [run for experiment in client.search_experiments() for run in _all_runs(client, experiment.experiment_id)]
    exact = [run for run in runs if run.info.run_id == name]
    found = exact or [run for run in runs if (len(name) >= 4 and run.info.run_id.startswith(name))]
    found = found or [run for run in runs if run.info.run_name == name]
    if len(found) == 1:
        return str(found[0].info.run_id)
    latest = sorted(found or runs, key=lambda run: run.info.start_time, reverse=True)[:8]
    known = "\n".join(f"  {run.info.run_id}  {run.info.status:8}  {run.info.run_name}" for run in latest)
    what = f"{len(found)} runs are called {name!r}; name one by its id" if found else f"there is no run {name!r}"
    raise UnknownRun(
        f"{what}. " + (f"The latest {'of them' if found else 'ones'}:\n{known}" if known else "No run is tracked here.")
    )


def _all_runs(client: Any, experiment: str) -> list[Any]:
    found, token = [], None
    while True:
        page = client.search_runs(
            [experiment], max_results=1000, page_token=token, order_by=["attributes.start_time ASC"]
        )
        found += page
        token = page.token
        if not token:
            return found


def read_record(client: Any, run_id: str) -> RunRecord:
    """Read a run with its artifacts; what it lacks is left empty."""
    run = client.get_run(run_id)
    names = {one.path for one in client.list_artifacts(run_id)}
    text = {name: _text(client, run_id, name) for name in (CONFIG, FILES, ENVIRONMENT, CHANGES, GROUP) if name in names}
    metrics = [one.path for one in client.list_artifacts(run_id, _METRICS)] if _METRICS in names else []
    saved = {Path(path).stem: _json(path, _text(client, run_id, path)) for path in metrics}
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
        config=_parsed(CONFIG, text, yaml.safe_load),
        files=_files(text),
        environment=text.get(ENVIRONMENT, "").splitlines(),
        metrics_files=saved,
        changes=text.get(CHANGES, ""),
        group=_parsed(GROUP, text, yaml.safe_load),
        children=[child.info.run_id for child in sorted(children, key=lambda child: child.info.start_time)],
        beginnings=_beginnings(client, run, saved),
    )


def _beginnings(client: Any, run: Any, saved: Mapping[str, Any]) -> dict[str, float]:
    """Return the first value of metrics that went on as a curve, of those whose last value is not the saved one."""
    found = {}
    for dataset, content in saved.items():
        for key, value in metric_values(dataset, content).items():
            if key in run.data.metrics and run.data.metrics[key] != value:
                points = client.get_metric_history(run.info.run_id, key)
                if len({point.step for point in points}) > 1:
                    found[key] = min(points, key=lambda point: (point.step, point.timestamp)).value
    return found


def _text(client: Any, run_id: str, path: str) -> str:
    """Read an artifact."""
    import tempfile

    # a bar for every file of a few kilobytes
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(client.download_artifacts(run_id, path, folder))
        return file.read_bytes().decode("utf-8", errors="surrogateescape")


def _parsed(name: str, texts: Mapping[str, str], parse: Any) -> Any:
    if name not in texts:
        return None
    try:
        return parse(texts[name])
    except (ValueError, yaml.YAMLError) as error:
        raise DataError(f"the run's artifact {name} cannot be read: {error}") from error


def _json(path: str, text: str) -> Any:
    return _parsed(path, {path: text}, json.loads)


def _files(texts: Mapping[str, str]) -> list[FileRecord] | None:
    found = _parsed(FILES, texts, json.loads)
    try:
        return None if found is None else [FileRecord(**one) for one in found]
    except TypeError as error:
        raise DataError(f"the run's artifact {FILES} is not what a run writes: {error}") from error
