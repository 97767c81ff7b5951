"""The Kedro hook that tracks a run in MLflow."""

from __future__ import annotations

import atexit
import logging
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.framework.hooks import hook_impl

from unime_kedro.config import data_root
from unime_kedro.tracking import live
from unime_kedro.tracking.config import TrackingConfig
from unime_kedro.tracking.evidence import record_files, record_surroundings, store_pages
from unime_kedro.tracking.files import (
    CORPUS,
    FileRecord,
    Places,
    corpus_tag,
    hash_tags,
    input_records,
    input_tags,
    output_records,
    written_elsewhere,
)
from unime_kedro.tracking.metrics import (
    HISTORY,
    SUFFIX,
    clean_key,
    flat_parameters,
    history_points,
    metric_values,
    plain,
    text_values,
)
from unime_kedro.tracking.stage_runs import record_stage

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext
    from kedro.io import CatalogProtocol
    from kedro.pipeline import Pipeline
    from kedro.pipeline.node import Node

    from unime_kedro.tracking.run import TrackedRun

log = logging.getLogger(__name__)

#: a run with this id becomes the parent of ours in MLflow's list
PARENT_VARIABLE = "UNIME_PARENT_RUN_ID"


class TrackingHook:
    """Writes one MLflow run per pipeline run.

    Under Kedro's ParallelRunner nodes run in copies of this process, whose hooks do nothing; what they saved is read
    from disk at the end.

    Attributes:
        run: The run that is being written; None when there is none. Survives as :attr:`last` for the summary.
    """

    def __init__(self) -> None:
        self.run: TrackedRun | None = None
        self.last: TrackedRun | None = None
        self._owner = os.getpid()
        self._exit_registered = False
        self._start = 0.0
        self._began: dict[str, float] = {}
        self._saved: dict[str, None] = {}
        self._inputs: list[FileRecord] = []

    # ---------------------------------------------------------------- what a run is made of

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Check ``mlflow.yml``, whether or not tracking is on: a typo in it must not wait for the day it is."""
        from kedro.config import MissingConfigException

        loader = context.config_loader
        try:
            raw = loader["mlflow"]
        except (MissingConfigException, KeyError):
            raw = {}
        self._env = context.env or getattr(loader, "default_run_env", None) or "local"
        self._config = TrackingConfig.checked(raw, loader.conf_source, self._env)
        self._root = Path(context.project_path)
        self._data_root = data_root(loader, context.project_path)

    @hook_impl
    def after_catalog_created(self, conf_catalog: dict[str, Any], parameters: dict[str, Any]) -> None:
        """Keep the resolved configuration for the run's record."""
        self._catalog_config, self._parameters = conf_catalog, plain(parameters["parameters"])

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        """Open the run and record where everything comes from."""
        self.interrupted("the run before it in the same process was interrupted")
        self.last = None
        self._start, self._owner = time.time(), os.getpid()
        self._began, self._saved, self._inputs = {}, {}, []
        if not self._config.enabled:
            return
        self._pipeline = pipeline
        self._open(run_params, pipeline, catalog)

    def _open(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        import yaml

        from unime_kedro.tracking import orphans, provenance, run

        here = orphans.ProcessIdentity.current()
        config = provenance.resolved_config(self._parameters, self._catalog_config, self._root, self._data_root)
        tracking, name = self._config.tracking, pipeline_label(run_params)
        self.run = self.last = run.open_run(
            self._config.tracking_uri(self._root),
            self._root,
            tracking.experiment.name,
            provenance.named_by_dvc(tracking.run.name or name.strip("_")),
            here.tags() | self._tags(run_params, name, provenance.config_hash(config)),
        )
        live.attach(self.run)
        if not self._exit_registered:
            atexit.register(self.interrupted)
            self._exit_registered = True
        log.info("tracked as MLflow run %s (%s)", self.run.name, self.run.run_id)
        self._mark_orphans(here)
        self.run.params(flat_parameters(self._parameters, tracking.parameters.max_length))
        self._inputs = input_records(pipeline, catalog, self._places())
        self.run.tags(input_tags(self._inputs, catalog))
        self.run.text(yaml.safe_dump(config, sort_keys=True, allow_unicode=True), "config.yml")
        record_surroundings(self.run, self._root)
        self.run.flush()

    def _tags(self, run_params: dict[str, Any], name: str, config_hash: str) -> dict[str, str]:
        from unime_kedro.tracking import provenance

        command = provenance.command_line()
        tags = {
            "mlflow.source.name": command,
            "mlflow.source.type": "LOCAL",
            "mlflow.user": _user(),
            "config.hash": config_hash,
            "data.root": self._places().portable_root(),
            "kedro.command": command,
            "kedro.env": self._env,
            "kedro.pipeline": name,
            "kedro.session": str(run_params["run_id"]),
        }
        if parent := os.environ.get(PARENT_VARIABLE):
            tags["mlflow.parentRunId"] = parent
        tags |= provenance.git_tags(self._root) | provenance.code_tags(self._root)
        tags |= provenance.seed_tags(self._parameters)
        return tags | provenance.version_tags() | provenance.hardware_tags() | provenance.dvc_tags()

    def _mark_orphans(self, here: Any) -> None:
        from unime_kedro.tracking.orphans import mark_orphans

        assert self.run is not None
        try:
            dead = mark_orphans(self.run.client, self.run.experiment_id, here, self.run.run_id)
        except Exception as error:  # another run may be marking the same ones; nothing of ours depends on it
            log.warning("runs that died before this one could not be marked: %s", error)
            return
        if dead:
            log.warning("marked as KILLED, found dead: %s", ", ".join(dead))

    # ---------------------------------------------------------------- while it runs

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """Start the node's clock."""
        if self._tracking():
            self._began[node.name] = time.monotonic()

    @hook_impl
    def after_node_run(self, node: Node) -> None:
        """Record how long the node's function took, without loading and saving."""
        if self._tracking() and node.name in self._began:
            seconds = time.monotonic() - self._began.pop(node.name)
            # Kedro names a node without a name after its function and a hash: judge__b179fe28
            name = re.sub(r"__[0-9a-f]{8}$", "", node.name)
            self.run.metrics({clean_key(f"seconds/{name}"): seconds})  # type: ignore[union-attr]

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any) -> None:
        """Record metrics and draw plots as soon as they are there: a run that is killed later has them."""
        if not self._tracking():
            return
        self._saved[dataset_name] = None
        self._record(dataset_name, data)
        self._draw(dataset_name, data)

    def _record(self, dataset_name: str, data: Any) -> None:
        """Record the numbers and texts of metrics, histories, and the hash of the corpus; of other datasets nothing."""
        import json

        assert self.run is not None
        self.run.tags(corpus_tag(dataset_name, data))
        if dataset_name.endswith(HISTORY):
            self.run.history(live.unsent(history_points(dataset_name, data)))
            self.run.flush()
        if not dataset_name.endswith(SUFFIX):
            return
        self.run.tags(text_values(dataset_name, data))
        self.run.metrics(metric_values(dataset_name, data))
        text = json.dumps(plain(data), indent=1, ensure_ascii=False, default=str)
        self.run.text(text, f"metrics/{dataset_name}.json")
        self.run.flush()

    def _draw(self, dataset_name: str, data: Any) -> None:
        from unime_kedro.tracking.plots import figure_of

        draw = figure_of(dataset_name)
        if draw is None:
            return
        assert self.run is not None
        try:
            figure = draw(data)
        except Exception as error:  # a picture is not worth the hours that made the table
            log.warning("no plot of %s: %s: %s", dataset_name, type(error).__name__, error)
            return
        self.run.figure(figure, f"plots/{dataset_name}.png")

    # ---------------------------------------------------------------- how it ends

    @hook_impl
    def after_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        """End the run as FINISHED."""
        if self._tracking():
            self._collect_from_disk(pipeline, catalog)
            self._end("FINISHED", catalog)

    @hook_impl
    def on_pipeline_error(self, error: Exception, catalog: CatalogProtocol) -> None:
        """End the run as FAILED, with the error's text as a tag."""
        if self._tracking():
            self.failed(error, catalog)

    def failed(self, error: BaseException, catalog: CatalogProtocol | None = None) -> None:
        """End the open run, if any, as FAILED; for errors that Kedro tells no hook about."""
        if self._tracking():
            self.run.tags({"error": f"{type(error).__name__}: {error}"[:500]})  # type: ignore[union-attr]
            self._end("FAILED", catalog)

    def interrupted(self, how: str = "the process ended before the pipeline did") -> None:
        """End the open run, if any, as KILLED.

        Kedro calls no hook for KeyboardInterrupt, so the command line calls this, and the interpreter when it exits.
        """
        if self._tracking():
            self.run.tags({"unime.ended": how})  # type: ignore[union-attr]
            self._end("KILLED", None)

    def _end(self, status: str, catalog: CatalogProtocol | None) -> None:
        run, self.run = self.run, None
        assert run is not None
        live.detach()
        outputs = [] if catalog is None else output_records(self._saved, self._pipeline, catalog, self._places())
        run.tags(hash_tags(outputs))
        record_files(run, [*self._inputs, *outputs])
        if catalog is not None:
            store_pages(run, self._saved, catalog)
        if status == "FINISHED":
            record_stage(self._root, self._data_root, run.opened_id, outputs)
        run.metrics({"seconds": time.time() - self._start})
        run.end(status)

    def _collect_from_disk(self, pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        """Take over what other processes saved: files of this pipeline's outputs that are newer than its start."""
        for name in written_elsewhere(pipeline, catalog, self._start, self._saved):
            self._saved[name] = None
            if name.endswith((SUFFIX, HISTORY)) or name == CORPUS:
                self._record(name, catalog.load(name))

    def _places(self) -> Places:
        return Places(self._root, self._data_root)

    def _tracking(self) -> bool:
        """Whether there is an open run and this is the process that opened it, not a fork of it."""
        return self.run is not None and os.getpid() == self._owner


def pipeline_label(run_params: dict[str, Any]) -> str:
    """Return what was run in a word: ``mine``, ``ingest+pool``, ``__default__``."""
    return "+".join(sorted(run_params.get("pipeline_names") or ["__default__"]))


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except Exception:  # no entry in the user database and no variable, as in some containers
        return ""
