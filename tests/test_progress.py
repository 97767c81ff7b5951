"""Progress: what a terminal and a log file are shown."""

from __future__ import annotations

import logging
import os
import pty
import subprocess
import sys

from unime_kedro import progress as module
from unime_kedro.paths import project_root, resolve


class Clock:
    """Stands in for the time module: one second per look."""

    now = 0.0

    def monotonic(self) -> float:
        self.now += 1.0
        return self.now


def test_lines_give_share_rate_and_time_left_of_work_done_now(monkeypatch, caplog):
    monkeypatch.setattr(module, "time", Clock())
    monkeypatch.setattr(module, "LOG_INTERVAL", 3.0)
    level = caplog.at_level(logging.INFO, logger=module.__name__)  # whatever the process set before
    with level, module.progress("judging", total=100, unit="pairs") as bar:
        bar.skip(40)
        for _ in range(4):
            bar.advance(5)
    # started at second 1; one look per call and per rate: the second line is due when three seconds have passed
    assert caplog.messages
    first = caplog.messages[0]
    assert first.startswith("judging: ")
    assert "/100 pairs (" in first
    assert "s left" in first
    assert bar.done == 60
    assert bar.rate < 20  # the 40 skipped ones do not count


def test_rate_counts_only_what_was_done_now(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    bar = module.Progress("judging", 100, "pairs")  # looks at second 1
    bar.done, bar._skipped = 70, 50
    clock.now = 10.0  # the next look is at second 11: ten seconds after the start
    assert bar.rate == 2.0
    clock.now = 10.0
    assert bar.line().startswith("judging: 70/100 pairs (70%), ")


SCRIPT = """
from unime_kedro.progress import progress
with progress("embedding", 50, "items") as bar:
    for _ in range(50): bar.advance()
    print(type(bar).__name__)
"""


def test_a_terminal_gets_a_bar_and_a_pipe_does_not():
    piped = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert piped.stdout.split() == ["Progress"]
    main, side = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=side, stderr=side, stdin=side)
    os.close(side)
    shown = b""
    while True:
        try:
            part = os.read(main, 4096)
        except OSError:
            break
        if not part:
            break
        shown += part
    assert process.wait() == 0
    assert b"_BarProgress" in shown
    assert b"embedding" in shown


def test_relative_paths_start_at_the_project_root(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text("[tool.kedro]\n")
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert project_root() == tmp_path
    assert resolve("data/x") == tmp_path / "data/x"
    assert resolve(tmp_path / "y") == tmp_path / "y"
