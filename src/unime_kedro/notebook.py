"""The project as a notebook sees it: catalog, parameters and settings, without the noise of a command line."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from unime_kedro.paths import project_root

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext


def project_context(start: Path | None = None, env: str | None = None) -> KedroContext:
    """Return the Kedro context of the project around a notebook; nothing is run, and no MLflow run is opened.

    The environment is that of ``KEDRO_ENV`` unless one is given, the data root that of ``UNIME_DATA_ROOT``, both as for
    ``kedro run``. Log lines below WARNING are not shown.

    Args:
        start: A folder in the project; None: the working directory, which is the notebook's own.
        env: Kedro's environment.

    Raises:
        ConfigurationError: A parameter is wrong.
    """
    # MLflow and others bring progress bars that want a widget of the notebook
    warnings.filterwarnings("ignore", message="IProgress not found")
    root = project_root(start)
    settings = root / "conf" / "logging.yml"
    quiet = "KEDRO_LOGGING_CONFIG" not in os.environ and settings.is_file()
    if quiet:  # Kedro looks for the file in the working directory, and says so when it is not there
        os.environ["KEDRO_LOGGING_CONFIG"] = str(settings)
    try:
        from kedro.framework.session import KedroSession
        from kedro.framework.startup import bootstrap_project
    finally:
        if quiet:
            del os.environ["KEDRO_LOGGING_CONFIG"]
    bootstrap_project(root)
    for name in ("kedro", "unime_kedro"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with KedroSession.create(project_path=root, env=env, save_on_close=False) as session:
        context: KedroContext = session.load_context()  # type: ignore[attr-defined]  # typed as its base class
        return context
