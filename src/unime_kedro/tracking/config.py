"""The keys of ``mlflow.yml``, checked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from unime_kedro.config import Sources, model_faults, raise_faults

#: values of UNIME_TRACKING that switch tracking off
OFF = frozenset({"off", "0", "false", "no"})


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Server(_Block):
    """Where runs are kept."""

    mlflow_tracking_uri: str | None = Field(
        default=None, description="null: sqlite in the project root, see tracking_uri()"
    )


class Experiment(_Block):
    """MLflow's group of runs."""

    name: str = Field(default="unime-kedro", min_length=1)


class RunName(_Block):
    """How runs are called."""

    name: str | None = Field(default=None, description="null: the pipelines' names")


class ParameterLimits(_Block):
    """How parameters are logged."""

    max_length: int = Field(
        default=500, ge=16, le=6000, description="characters of a value; MLflow takes 6,000 at most"
    )


class Tracking(_Block):
    """What is tracked, and under which names."""

    enabled: bool = True
    experiment: Experiment = Experiment()
    run: RunName = RunName()
    parameters: ParameterLimits = ParameterLimits()


class TrackingConfig(_Block):
    """The whole of ``mlflow.yml``; keys that are left out have the defaults shown here."""

    server: Server = Server()
    tracking: Tracking = Tracking()

    @classmethod
    def checked(cls, raw: dict[str, Any], conf_source: str | Path, env: str | None) -> TrackingConfig:
        """Return the configuration, or raise a ConfigurationError that names key, file and line of every fault."""
        raise_faults(model_faults(cls, raw, Sources(conf_source, env, None, "mlflow")), "settings of mlflow.yml")
        return cls.model_validate(raw)

    @property
    def enabled(self) -> bool:
        """Whether runs are tracked: ``tracking.enabled``, and not ``UNIME_TRACKING=off``."""
        return self.tracking.enabled and os.environ.get("UNIME_TRACKING", "").strip().lower() not in OFF

    def tracking_uri(self, root: Path) -> str:
        """Return where runs are kept.

        ``MLFLOW_TRACKING_URI`` wins over the file; with neither it is ``mlflow.db`` in the project root. The path of
        an sqlite file always becomes absolute (from ``root``): MLflow would start at the working directory. In an
        experiment of DVC that runs in a copy of the project (``--temp``, ``--queue``) it starts at the project's own
        root, so that the run outlives the copy.
        """
        uri = os.environ.get("MLFLOW_TRACKING_URI") or self.server.mlflow_tracking_uri or "sqlite:///mlflow.db"
        path = sqlite_path(uri)
        home = Path(os.environ.get("DVC_ROOT") or root)
        return uri if path is None else f"sqlite:///{home / path}"


def sqlite_path(uri: str) -> Path | None:
    """Return the file of an ``sqlite:///`` URI as it is written there; None for other URIs and for memory."""
    path = uri.removeprefix("sqlite:///").split("?")[0]
    return Path(path) if uri.startswith("sqlite:///") and path and path != ":memory:" else None
