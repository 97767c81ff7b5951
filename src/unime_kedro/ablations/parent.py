"""The MLflow run that a group's runs are the children of."""

from __future__ import annotations

import getpass
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unime_kedro.ablations.project import Project
from unime_kedro.ablations.state import write_json
from unime_kedro.tracking.evidence import record_surroundings
from unime_kedro.tracking.files import Places
from unime_kedro.tracking.hook import PARENT_VARIABLE
from unime_kedro.tracking.store import TrackingError, impatient, is_remote, open_store
from unime_kedro.tracking.unsent import Journal, open_unsent, sent_id, unsent_runs, unsent_uri

if TYPE_CHECKING:
    from unime_kedro.tracking.run import TrackedRun

#: tags of parents and children
GROUP, ARM, SEED = "unime.ablation", "unime.ablation.arm", "unime.ablation.seed"
#: tag of a parent: the parameters in which its arms may differ, with commas between them
KEYS = "unime.ablation.keys"


class Parent:
    """The parent run; does nothing where tracking is off.

    Args:
        project: The project.
        name: Name of the run.
        group: Name of the group.
        file: Remembers the run, so that a group that is continued stays one run.
        keys: The parameters in which its arms may differ.
    """

    def __init__(self, project: Project, name: str, group: str, file: Path, keys: Sequence[str] = ()) -> None:
        self._project, self._name, self._group, self._file, self._keys = project, name, group, file, keys
        self.run: TrackedRun | None = None

    def open(self) -> None:
        """Open the run of the last time again, or a new one.

        Raises:
            TrackingError: The store cannot be used.
        """
        from kedro.config import MissingConfigException

        from unime_kedro.tracking.config import TrackingConfig

        loader = self._project.loader()
        try:
            raw = loader["mlflow"]
        except (MissingConfigException, KeyError):
            raw = {}
        config = TrackingConfig.checked(raw, self._project.conf, self._project.env)
        if not config.enabled:
            return
        uri, tags = config.tracking_uri(self._project.root), self._tags()
        self.run = self._reopened(uri, config.tracking.experiment.name, tags)
        if self.run is None:
            from unime_kedro.tracking.provenance import named_by_dvc
            from unime_kedro.tracking.run import open_run

            name = named_by_dvc(self._name)
            self.run = open_run(uri, self._project.root, config.tracking.experiment.name, name, tags)
            write_json(self._file, {"run_id": self.run.run_id, "uri": _without_password(self.run.uri)})
        record_surroundings(self.run, self._project.root)

    def _reopened(self, uri: str, experiment: str, tags: dict[str, str]) -> TrackedRun | None:
        """Return the run of the last time, None where there is none (any more) in this store."""
        try:
            known = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        run_id = known.get("run_id")
        if known.get("uri") == _without_password(unsent_uri(self._project.root)):
            run_id = sent_id(self._project.root, run_id)
        elif known.get("uri") != _without_password(uri):
            return None
        if not run_id:
            return None
        from mlflow.exceptions import MlflowException

        from unime_kedro.tracking.run import TrackedRun

        try:
            client = open_store(uri)
            found = client.get_run(run_id)
        except (MlflowException, TrackingError):
            return None
        if found.info.lifecycle_stage == "deleted":
            return None
        journal = Journal(self._project.root, experiment, found.info.start_time, tags) if is_remote(uri) else None
        run = TrackedRun(client, uri, found.info.experiment_id, found.info.run_id, self._name, journal=journal)
        client.update_run(run.run_id, status="RUNNING")
        run.tags(tags)
        run.flush()
        return run

    def _tags(self) -> dict[str, str]:
        from unime_kedro.tracking import orphans, provenance

        command = provenance.command_line()
        user = ""
        with suppress(Exception):  # no entry in the user database and no variable, as in some containers
            user = getpass.getuser()
        return {
            **orphans.ProcessIdentity.current().tags(),
            "mlflow.source.name": command,
            "mlflow.source.type": "LOCAL",
            "mlflow.user": user,
            "kedro.command": command,
            "kedro.env": self._project.env or "local",
            GROUP: self._group,
            KEYS: ",".join(self._keys),
            "data.root": Places(self._project.root, self._project.base.data_root).portable_root(),
            **provenance.git_tags(self._project.root),
            **provenance.version_tags(),
            **provenance.hardware_tags(),
            **provenance.dvc_tags(),
        }

    def environment(self) -> dict[str, str]:
        """Return the variables that make other runs children of this one."""
        return {PARENT_VARIABLE: self.run.opened_id} if self.run else {}

    def child(self, options_file: Path, label: str, arm: str, seed: int) -> str | None:
        """Return the id of the child that a command has written, and name it in MLflow; None if there is none.

        Args:
            options_file: What the command was given as ``--config``; it occurs in the child's ``kedro.command``.
            label: How the child is called in MLflow's list.
            arm: Name of the arm.
            seed: Its seed.
        """
        if self.run is None:
            return None
        from unime_kedro.tracking.provenance import named_by_dvc

        try:
            with impatient():
                mine = [
                    (client, run)
                    for client, run in self._children(self.run)
                    if str(options_file) in run.data.tags.get("kedro.command", "")
                ]
                if not mine:
                    return None
                client, latest = max(mine, key=lambda pair: pair[1].info.start_time)
                child: str = latest.info.run_id
                client.update_run(child, name=named_by_dvc(label))
                for key, value in {GROUP: self._group, ARM: arm, SEED: str(seed)}.items():
                    client.set_tag(child, key, value)
        except Exception as error:  # the results are on disk; a name in MLflow is not worth them
            self.run._warn(error)
            return None
        return child

    def _children(self, parent: TrackedRun) -> list[tuple[Any, Any]]:
        """Return client and run of every child, also of those that could not reach the parent's server."""
        query = f"tags.`mlflow.parentRunId` = '{parent.opened_id}'"
        there = []
        try:
            there = parent.client.search_runs([parent.experiment_id], query, max_results=1000)
        except Exception as error:  # those that are kept here can be named nevertheless
            parent._warn(error)
        local = open_unsent(self._project.root)
        here = unsent_runs(local) if local is not None else []
        mine = [run for run in here if run.data.tags.get("mlflow.parentRunId") == parent.opened_id]
        return [(parent.client, run) for run in there] + [(local, run) for run in mine]

    def log(self, values: Mapping[str, float], files: list[Path], parameters: Mapping[str, Any]) -> None:
        """Write the table's figures, files and the group's definition to the run."""
        if self.run is None:
            return
        import yaml

        self.run.metrics(dict(values))
        self.run.flush()
        for file in files:
            self.run.file(file)
        self.run.text(yaml.safe_dump(dict(parameters), sort_keys=False, allow_unicode=True), "group.yml")

    def end(self, status: str) -> None:
        """End the run as FINISHED, FAILED or KILLED."""
        if self.run is not None:
            self.run.end(status)


def _without_password(uri: str) -> str:
    from unime_kedro.tracking.provenance import without_password

    return without_password(uri)
