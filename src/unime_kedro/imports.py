"""Importing large libraries a little faster."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports() -> Iterator[None]:
    """Collect no garbage while a large library is imported.

    An import makes hundreds of thousands of objects that stay. Looking through them for garbage, again and again as
    their number grows, took a fifth of the CPU time of importing MLflow.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
