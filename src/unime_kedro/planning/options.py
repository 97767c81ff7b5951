"""Options of a run, given on the command line or in a file, as ``kedro run`` takes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from unime_kedro.errors import ConfigurationError

if TYPE_CHECKING:
    import click


class RunOptions(NamedTuple):
    """What a run would be started with.

    Attributes:
        env: Kedro's environment.
        pipelines: Their names.
        params: Parameters, nested; the command line wins over the file, key by key.
    """

    env: str | None
    pipelines: tuple[str, ...]
    params: dict[str, Any]


def run_options(env: str | None, pipelines: str, params: str, config: Path | None) -> RunOptions:
    """Join the options of the command line and of a ``--config`` file.

    Args:
        env: ``--env``.
        pipelines: ``--pipeline``, names with commas between them.
        params: ``--params``, as Kedro takes them.
        config: The file; None for none.

    Raises:
        ConfigurationError: The file is not one of ``kedro run``, or ``--params`` is not of the form key=value.
    """
    file = {} if config is None else read_run_file(config)
    named = pipelines or file.get("pipelines") or file.get("pipeline") or ""
    names = named if isinstance(named, list) else [part.strip() for part in str(named).split(",") if part.strip()]
    return RunOptions(env or file.get("env"), tuple(names), merged(file.get("params"), _split(params)))


def read_run_file(file: Path) -> dict[str, Any]:
    """Return the section ``run`` of a ``--config`` file.

    Raises:
        ConfigurationError: It has none.
    """
    from omegaconf import OmegaConf

    found = OmegaConf.to_container(OmegaConf.load(file), resolve=True)
    run = found.get("run") if isinstance(found, dict) else None
    if not isinstance(run, dict):
        raise ConfigurationError(f"{file}: expected a block `run:` with the options of kedro run, such as `env: paper`")
    return {str(key): value for key, value in run.items()}


def merged(file: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Put the parameters of the command line over those of a file, key by key at every depth.

    Args:
        file: Nested values, text as ``--params`` takes it, or None.
        given: Nested values.
    """
    from omegaconf import OmegaConf

    below = _split(file) if isinstance(file, str) else (file or {})
    return OmegaConf.to_container(OmegaConf.merge(below, given))  # type: ignore[return-value]


def params_over_file(context: click.Context | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``kedro run`` takes for ``params`` where a ``--config`` file has some, too.

    Kedro would drop the file's as soon as ``--params`` names a single one.

    Args:
        context: Of the command; None outside of one.
        options: Of the command.
    """
    below = (context.default_map or {}).get("params") if context is not None else None
    return {"params": merged(below, options.get("params") or {})} if below else {}


def _split(params: str) -> dict[str, Any]:
    from omegaconf import OmegaConf

    parts = [part.strip() for part in params.split(",") if part.strip()]
    for part in parts:
        if "=" not in part or part.startswith("="):
            raise ConfigurationError(f"--params: {part!r} is not of the form key=value")
    return OmegaConf.to_container(OmegaConf.from_dotlist(parts))  # type: ignore[return-value]
