"""Errors of workers, carried home in what they return.

Ray Data keeps only the text of an exception that a worker raises, tries its constructor again for ever, and prints
both. So ours do not raise: they return what went wrong, and it is raised where the run is.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from unime_kedro.errors import ConfigurationError, DataError, ModelError, UnimeError

_OURS = {kind.__name__: kind for kind in (ConfigurationError, DataError, ModelError)}
_KEPT = "What was done before is kept; run again to go on from there."


def pack(error: Exception) -> str:
    """Put an error into words that :func:`unpack` makes an error of again."""
    kind = next((kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _OURS), "")
    where = "" if kind else "".join(traceback.format_exception(error))
    words = str(error) if kind else f"{type(error).__name__}: {error}"
    return json.dumps({"kind": kind, "words": words, "where": where})


def unpack(text: str) -> UnimeError:
    """Return the error that was packed; one that is not ours becomes a :class:`ModelError` with its words.

    Its traceback is the new error's note.
    """
    found = json.loads(text)
    if found["kind"]:
        return _OURS[found["kind"]](found["words"])
    error = ModelError(f"a worker of the Ray cluster failed: {found['words']}. {_KEPT}")
    error.add_note(found["where"])
    return error


def tried(call: Callable[..., Any], *arguments: Any) -> tuple[Any, str]:
    """Return what a call returns and "", or None and the error that it raised, packed."""
    try:
        return call(*arguments), ""
    except Exception as error:
        return None, pack(error)


@contextmanager
def ray_errors() -> Iterator[None]:
    """Word what Ray itself raises."""
    import ray.exceptions

    try:
        yield
    except ray.exceptions.RayError as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"the Ray cluster failed: {type(error).__name__}: {first} {_KEPT}") from error
