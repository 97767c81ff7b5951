"""Progress of long work: a bar with rate and time left on a terminal, plain log lines everywhere else."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

#: seconds between two log lines where there is no terminal
LOG_INTERVAL = 15.0


class Progress:
    """Counts finished units and shows them; made by :func:`progress`."""

    def __init__(self, description: str, total: int, unit: str) -> None:
        self.description, self.total, self.unit = description, total, unit
        self.done = 0
        self._skipped = 0
        self._start = self._last = time.monotonic()

    def advance(self, n: int = 1) -> None:
        """Count ``n`` more finished units."""
        self.done += n
        self._show()

    def skip(self, n: int) -> None:
        """Count ``n`` units that were already done before this run; they do not enter the rate."""
        self.done += n
        self._skipped += n
        self._show()

    @property
    def rate(self) -> float:
        """Units per second since the start, skipped ones not counted."""
        return (self.done - self._skipped) / max(time.monotonic() - self._start, 1e-9)

    def _show(self) -> None:
        now = time.monotonic()
        if now - self._last >= LOG_INTERVAL:
            self._last = now
            log.info("%s", self.line())

    def line(self) -> str:
        """Return the state as one line of text."""
        left = (self.total - self.done) / self.rate if self.rate > 0 else float("inf")
        share = self.done / self.total if self.total else 1.0
        wait = f"{left:,.0f} s left" if left != float("inf") else "time left unknown"
        return f"{self.description}: {self.done:,}/{self.total:,} {self.unit} ({share:.0%}), {self.rate:,.1f}/s, {wait}"


class _BarProgress(Progress):
    """A rich progress bar."""

    def __init__(self, description: str, total: int, unit: str) -> None:
        super().__init__(description, total, unit)
        from rich import progress as rp

        self._bar = rp.Progress(
            rp.TextColumn("{task.description}"),
            rp.BarColumn(),
            rp.MofNCompleteColumn(),
            rp.TextColumn(unit),
            rp.TextColumn("{task.fields[rate]}"),
            rp.TimeRemainingColumn(),
            transient=True,
        )
        self._task = self._bar.add_task(description, total=total, rate="")
        self._bar.start()

    def _show(self) -> None:
        self._bar.update(self._task, completed=self.done, rate=f"{self.rate:,.0f}/s")

    def close(self) -> None:
        self._bar.stop()


@contextmanager
def progress(description: str, total: int, unit: str = "items") -> Iterator[Progress]:
    """Show how far a loop is.

    Args:
        description: What is being done, for example ``"judging"``.
        total: How many units there are.
        unit: What is counted, in the plural.

    Yields:
        An object with ``advance(n)`` for work done now and ``skip(n)`` for work found done.
    """
    if sys.stderr.isatty() and sys.stdout.isatty():
        bar = _BarProgress(description, total, unit)
        try:
            yield bar
        finally:
            bar.close()
    else:
        yield Progress(description, total, unit)
