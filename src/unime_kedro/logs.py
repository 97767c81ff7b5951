"""Log output of the command line: rich on a terminal, one plain line per message everywhere else."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any


def configure_logging(project_path: Path) -> None:
    """Apply ``conf/logging.yml`` of a project, with the handler that suits where the output goes.

    Kedro itself reads the file from ``conf`` of the working directory before any code of ours runs; this also finds
    it when a command is given in a subfolder. A file that the user names in ``KEDRO_LOGGING_CONFIG`` is left alone.

    Args:
        project_path: The root of the Kedro project.
    """
    file = project_path / "conf" / "logging.yml"
    if os.environ.get("KEDRO_LOGGING_CONFIG") or not file.is_file():
        return
    import yaml
    from kedro.framework.project import LOGGING

    LOGGING.configure(choose_handler(yaml.safe_load(file.read_text(encoding="utf-8")), is_terminal()))
    # a node's error ends the run and is shown then; Kedro also logs it
    logging.getLogger("kedro.pipeline.node").addFilter(_below_error)
    for runner in ("sequential", "thread", "parallel"):
        logging.getLogger(f"kedro.runner.{runner}_runner").addFilter(resume_hint)


def _below_error(record: logging.LogRecord) -> bool:
    return record.levelno < logging.ERROR


class ResumeHint(logging.Filter):
    """Holds back what Kedro says about resuming a run when an error stopped it whose message says what to do.

    The five lines, with node names nobody gave, would stand above that message. They go to the file of the traceback.

    Attributes:
        text: What was held back.
    """

    text = ""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return False for a hint that is held back."""
        from unime_kedro.failures import is_self_explaining

        error = sys.exc_info()[1]  # Kedro gives the hint while it handles the error
        if record.levelno != logging.WARNING or error is None or not is_self_explaining(error):
            return True
        self.text = record.getMessage()
        return False


#: on the loggers of Kedro's runners
resume_hint = ResumeHint()


def is_terminal() -> bool:
    """Whether a person is watching: both output streams go to a terminal."""
    return sys.stdout.isatty() and sys.stderr.isatty()


def choose_handler(config: dict[str, Any], terminal: bool) -> dict[str, Any]:
    """Return a logging configuration whose ``console`` handler is ``terminal_handler`` on a terminal.

    Kedro accepts only handlers of ``logging`` and ``kedro.logging``, so that one class which decides by itself cannot
    be named in the file.
    """
    handlers = dict(config.get("handlers", {}))
    if terminal and "terminal_handler" in config:
        handlers["console"] = config["terminal_handler"]
    return {key: value for key, value in config.items() if key != "terminal_handler"} | {"handlers": handlers}
