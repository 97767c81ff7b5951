"""The Kedro project as an ablation sees it: its configuration under another data root and with other parameters."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unime_kedro.ablations.config import STAGES, Group, nested, read_groups
from unime_kedro.ablations.hashes import Hashes
from unime_kedro.config import check_parameters, data_root
from unime_kedro.errors import ConfigurationError
from unime_kedro.paths import project_root

if TYPE_CHECKING:
    from kedro.pipeline import Pipeline

#: moves all data of a run
DATA_VARIABLE = "UNIME_DATA_ROOT"


@dataclass(frozen=True)
class Resolved:
    """What a run would read from the configuration.

    Attributes:
        parameters: All sections, merged and resolved, as plain values.
        catalog: The configuration of every dataset, resolved.
        data_root: Absolute folder of its data.
    """

    parameters: dict[str, Any]
    catalog: dict[str, Any]
    data_root: Path


class Project:
    """The project around the working directory.

    Args:
        env: Kedro's environment; None for ``KEDRO_ENV``, or ``local``.
        root: The project's folder; None looks for it.
    """

    def __init__(self, env: str | None = None, root: Path | None = None) -> None:
        from kedro.framework.project import settings
        from kedro.framework.startup import bootstrap_project

        self.root = root or project_root()
        if not (self.root / "pyproject.toml").is_file():
            raise ConfigurationError(f"{self.root} is not the folder of this project, nor below it; change there first")
        bootstrap_project(self.root)
        self.env = env or os.environ.get("KEDRO_ENV") or None
        self.conf = self.root / settings.CONF_SOURCE
        if not (self.conf / (self.env or "base")).is_dir():
            there = ", ".join(sorted(folder.name for folder in self.conf.iterdir() if folder.is_dir()))
            raise ConfigurationError(f"--env={self.env}: there is no such folder in {self.conf}; there are {there}")
        self._settings = settings
        self.hashes = Hashes()

    def loader(self, runtime_params: Mapping[str, Any] | None = None) -> Any:
        """Return a configuration loader, as a Kedro session makes it."""
        return self._settings.CONFIG_LOADER_CLASS(
            conf_source=str(self.conf),
            env=self.env,
            runtime_params=dict(runtime_params or {}),
            **self._settings.CONFIG_LOADER_ARGS,
        )

    @cached_property
    def groups(self) -> dict[str, Group]:
        """All groups of ``ablations.yml``."""
        return read_groups(self.loader(), self.conf, self.env)

    def group(self, name: str) -> Group:
        """Return a group, or raise a ConfigurationError that names those there are."""
        if name not in self.groups:
            raise ConfigurationError(f"there is no group {name!r} in ablations.yml; there are {', '.join(self.groups)}")
        return self.groups[name]

    @cached_property
    def base(self) -> Resolved:
        """The configuration as it is, checked."""
        loader = self.loader()
        parameters = loader["parameters"]
        check_parameters(parameters, self.conf, self.env, {})
        return Resolved(parameters, loader["catalog"], data_root(loader, self.root).absolute())

    def resolve(self, overrides: Mapping[str, Any], folder: Path) -> Resolved:
        """Return the configuration of a run with other parameters and another data root; nothing is checked.

        Args:
            overrides: Values by dotted key.
            folder: The absolute data root of the run.

        Raises:
            ConfigurationError: The configuration does not let the data root be moved.
        """
        with _data_root_at(folder):
            loader = self.loader(nested(overrides))
            found = data_root(loader, self.root).absolute()
            if found != folder:
                raise ConfigurationError(
                    f"the data root cannot be moved, every arm would write into {found}: set it in conf/*/globals.yml "
                    f"as `data_root: ${{env:{DATA_VARIABLE},data}}`, not as a fixed path"
                )
            return Resolved(loader["parameters"], loader["catalog"], found)

    def stage(self, name: str) -> Pipeline:
        """Return the pipeline of a stage, or raise a ConfigurationError."""
        from kedro.framework.project import pipelines

        if name not in pipelines:
            raise ConfigurationError(f"there is no pipeline {name!r} in this project; stages are {', '.join(STAGES)}")
        return pipelines[name]

    def pipeline(self, stages: tuple[str, ...], until: str | None) -> Pipeline:
        """Return what a run of these stages runs, up to a dataset if one is named."""
        from kedro.pipeline import Pipeline

        whole = sum((self.stage(name) for name in stages), Pipeline([]))
        if until is None:
            return whole
        if until not in whole.all_outputs():
            raise ConfigurationError(f"no stage of {', '.join(stages)} makes the dataset {until!r}")
        return whole.to_outputs(until)


@contextmanager
def _data_root_at(folder: Path) -> Iterator[None]:
    before = os.environ.get(DATA_VARIABLE)
    os.environ[DATA_VARIABLE] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[DATA_VARIABLE]
        else:
            os.environ[DATA_VARIABLE] = before
