"""The tracking store of the project, for commands that only read it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unime_kedro.tracking.config import TrackingConfig, sqlite_path
from unime_kedro.tracking.store import TrackingError, open_store

if TYPE_CHECKING:
    from kedro.config import AbstractConfigLoader


def tracking_uri(root: Path, env: str | None = None) -> str:
    """Return where the project's runs are kept, by ``mlflow.yml`` or ``MLFLOW_TRACKING_URI``."""
    config = read_config(loader_of(root, env), root, env)
    return config.tracking_uri(root)


def loader_of(root: Path, env: str | None, options: Mapping[str, Any] | None = None) -> AbstractConfigLoader:
    """Return a loader of a project's configuration, with parameters of the command line if there are some."""
    from kedro.config import OmegaConfigLoader

    from unime_kedro.settings import CONFIG_LOADER_ARGS

    arguments: dict[str, Any] = CONFIG_LOADER_ARGS  # type: ignore[assignment]
    return OmegaConfigLoader(str(root / "conf"), env=env, runtime_params=dict(options or {}), **arguments)


def read_config(loader: AbstractConfigLoader, root: Path, env: str | None) -> TrackingConfig:
    """Return the checked keys of ``mlflow.yml``.

    Raises:
        ConfigurationError: A key is wrong.
    """
    from kedro.config import MissingConfigException

    try:
        raw = loader["mlflow"]
    except (MissingConfigException, KeyError):
        raw = {}
    return TrackingConfig.checked(raw, root / "conf", env)


def open_client(uri: str) -> Any:
    """Return MLflow's client of a store with runs.

    Raises:
        TrackingError: There is no such store, or it does not answer.
    """
    file = sqlite_path(uri)
    if file is not None and not file.is_file():
        raise TrackingError(
            f"{file} does not exist: no run has been tracked there yet. MLFLOW_TRACKING_URI names another."
        )
    return open_store(uri)
