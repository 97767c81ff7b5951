"""Which errors are shown to the user as a short message, and where their traceback goes instead."""

from __future__ import annotations

import errno
import os
import re
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
_FULL = (errno.ENOSPC, errno.EDQUOT)
#: what to do about a refusal of the operating system
_REMEDIES = {
    **dict.fromkeys(
        _FULL,
        "The disk is full: free some space, or use another one (UNIME_DATA_ROOT moves the data); "
        "then give the same command again.",
    ),
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS),
        "Make it readable and writable for you, or use another place (UNIME_DATA_ROOT moves the data).",
    ),
    **dict.fromkeys(
        (errno.ENOTDIR, errno.EEXIST, errno.EISDIR),
        "A file is where a folder is needed, or the other way round: move it away, or use another place "
        "(UNIME_DATA_ROOT moves the data).",
    ),
}
_ANY_REMEDY = "Check the path where it is set; that of all data is UNIME_DATA_ROOT."


def message_of(error: BaseException) -> str | None:
    """Return the message a user can act on, None for an error that needs its traceback.

    Looked for in the error and in those that caused it: Kedro wraps what a dataset or a check raises. Readable are
    our own errors, failed checks of tables and typed parameters, mistakes in names and files of configuration, and
    what the operating system refuses.
    """
    return next((text for link in _chain(error) if (text := _own_message(link))), None) or system_message(error)


def is_self_explaining(error: BaseException) -> bool:
    """Return whether a readable error's message is all there is to know, so that nobody needs to see its traceback.

    True for our own errors and for mistakes in names, parameters and files of configuration. A refusal of the operating
    system and a table that fails its checks may also be a fault of ours.
    """
    from kedro.validation import DataValidationError, ValidationConfigurationError

    told = next((link for link in _chain(error) if _own_message(link)), None)
    return told is not None and not isinstance(told, (DataValidationError, ValidationConfigurationError))


def system_message(error: BaseException) -> str | None:
    """Return the path, the reason and what to do, if an error was caused by the operating system; else None.

    Only refusals that name a path count, and a full disk, which is often told of without one. An error that merely
    came up while such a one was handled is a fault of ours.
    """
    saved = ""
    for link in _chain(error, handled=False):
        number, path = _refusal(link)
        if path or number in _FULL:
            place = f"{path}: " if path else saved
            return f"{place}{os.strerror(number)}. {_REMEDIES.get(number, _ANY_REMEDY)}"
        saved = f"{link} ".splitlines()[0].strip() + " "  # Kedro's error names the dataset and its file
    return None


def _refusal(error: BaseException) -> tuple[int, str | None]:
    """Return the operating system's error number, 0 if it is none, and the path that was refused, if known."""
    if isinstance(error, OSError) and error.errno:
        path = error.filename
        return error.errno, os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else None
    if not isinstance(error, OSError) and not type(error).__module__.startswith("polars"):
        return 0, None
    # polars, which is written in Rust: "Not a directory (os error 20): /a/b", and its own class for a full disk
    found = re.search(r"\(os error (\d+)\)(?:: (\S.*))?$", str(error))
    return (int(found[1]), found[2]) if found else (0, None)


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


def _chain(error: BaseException, handled: bool = True) -> Iterator[BaseException]:
    """Yield an error and, innermost last, those it was raised from and, if ``handled``, while handling."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (link.__context__ if handled and not link.__suppress_context__ else None)


def write_traceback(error: BaseException, folder: Path, command: str, note: str = "") -> Path | None:
    """Write the full traceback and a note to ``last_error.log`` in a folder; None when that is impossible."""
    file = folder / "last_error.log"
    moment = datetime.now().astimezone().isoformat(timespec="seconds")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = without_password("".join(traceback.format_exception(error)))
        file.write_text(f"{moment}  {command}\n{text}" + (f"\n{note}\n" if note else ""), encoding="utf-8")
    except OSError:
        return None
    return file
