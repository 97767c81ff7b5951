"""The configuration of the run that is planned: resolved and checked as `kedro run` does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unime_kedro.config import Sources, check_parameters, data_root, fill_in
from unime_kedro.errors import ConfigurationError
from unime_kedro.parameters import SECTIONS
from unime_kedro.paths import resolve

if TYPE_CHECKING:
    from unime_kedro.parameters import Parameters

#: pipelines that cost something, in the order in which they run -> what of them is planned
COSTLY: dict[str, tuple[str, ...]] = {
    "mine": ("embed", "judge"),
    "pool": ("embed",),
    "judge": ("judge",),
    "train": ("train",),
    "rerank": ("rerank",),
    "evaluate": ("evaluate",),
}
#: from raw pairs to the table of results
ALL = ("mine", "train", "rerank", "evaluate")


@dataclass(frozen=True)
class Settings:
    """What a run would be started with.

    Attributes:
        env: Kedro's environment, None for ``local``.
        pipelines: Names of the pipelines.
        raw: All sections of the parameters, as plain values.
        catalog: Configuration of every dataset.
        data_root: Absolute folder of the data.
        sources: Where values come from.
    """

    env: str | None
    pipelines: tuple[str, ...]
    raw: dict[str, Any]
    catalog: dict[str, Any]
    data_root: Path
    sources: Sources

    def section(self, name: str) -> Any:
        """Return a typed section of the parameters."""
        model: type[Parameters] = SECTIONS[name]
        return model.model_validate(self.raw[name])

    def place(self, dataset: str) -> Path:
        """Return the file or folder of a dataset of the catalog."""
        return resolve(self.catalog[dataset]["filepath"])

    @property
    def stages(self) -> list[str]:
        """What is planned, in order, once each."""
        return list(dict.fromkeys(stage for name in self.pipelines for stage in COSTLY[name]))


def read_settings(
    env: str | None,
    pipelines: tuple[str, ...] = ALL,
    params: Mapping[str, Any] | None = None,
    root: Path | None = None,
) -> Settings:
    """Resolve and check the configuration of a run.

    Args:
        env: Kedro's environment; None for ``KEDRO_ENV``, or ``local``.
        pipelines: What would be run; empty for everything from raw pairs to the table of results.
        params: Values of ``--params``, nested.
        root: The project's folder; None looks for it.

    Raises:
        ConfigurationError: Names every fault of the parameters, or an unknown pipeline.
    """
    from unime_kedro.ablations.project import Project

    for name in pipelines:
        if name not in COSTLY:
            raise ConfigurationError(f"--pipeline={name}: nothing to plan; expected {', '.join(COSTLY)}")
    project = Project(env, root)
    loader = project.loader(params)
    raw = loader["parameters"]
    check_parameters(raw, project.conf, project.env, loader.runtime_params)
    return Settings(
        project.env,
        tuple(pipelines) or ALL,
        fill_in(raw),
        loader["catalog"],
        data_root(loader, project.root).absolute(),
        Sources(project.conf, project.env, loader.runtime_params, "parameters"),
    )
