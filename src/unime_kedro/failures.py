"""Which errors are shown to the user as a short message, and where their traceback goes instead."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from unime_kedro.errors import UnimeError
from unime_kedro.tracking.provenance import without_password

#: how the bare ValueErrors begin that Kedro raises for names given to --pipeline, --nodes, --from-inputs and so on
_NAMING_ERRORS = (
    "Failed to find the pipeline named",
    "Pipeline input(s)",
    "Pipeline does not contain",
    "Duplicate keys found",
)


def message_of(error: BaseException) -> str | None:
    """Return the message a user can act on, None for an error that needs its traceback.

    Looked for in the error and in those that caused it: Kedro wraps what a dataset or a check raises. Readable are
    our own errors, failed checks of tables and typed parameters, and mistakes in names and files of configuration.
    """
    return next((text for link in _chain(error) if (text := _own_message(link))), None)


def _own_message(error: BaseException) -> str | None:
    from kedro.config import MissingConfigException
    from kedro.validation import DataValidationError, ParameterValidationError, ValidationConfigurationError

    text = str(error).strip()
    readable = (UnimeError, DataValidationError, ParameterValidationError, ValidationConfigurationError)
    if isinstance(error, (*readable, MissingConfigException)):
        return text or type(error).__name__
    if isinstance(error, ValueError) and text.startswith(_NAMING_ERRORS):
        return text
    return text if text.startswith("Invalid YAML or JSON file") else None  # PyYAML's error, worded by Kedro


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and, innermost last, those it was raised from or while handling."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def write_traceback(error: BaseException, folder: Path, command: str) -> Path | None:
    """Write the full traceback to ``last_error.log`` in a folder; None when that is impossible."""
    file = folder / "last_error.log"
    moment = datetime.now().astimezone().isoformat(timespec="seconds")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = without_password("".join(traceback.format_exception(error)))
        file.write_text(f"{moment}  {command}\n{text}", encoding="utf-8")
    except OSError:
        return None
    return file
