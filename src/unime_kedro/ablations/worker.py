"""The process of one run: ``python -m unime_kedro.ablations.worker run --config=...`` is ``kedro run --config=...``.

It ends when the process that started it does, however that ended: its standard input is a pipe whose other end only
that process holds, and which the operating system closes with it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading


def _end_with_parent() -> None:
    """Wait until standard input is closed, then interrupt this process and those it has started."""
    # os.read and not sys.stdin.read: the latter holds a lock that the interpreter wants when it exits
    while os.read(0, 1):
        pass
    if os.getpgrp() == os.getpid():  # started by runner.py, and not by hand from a shell's group of processes
        os.killpg(os.getpid(), signal.SIGTERM)
    else:
        os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Run Kedro's command line with the arguments of this process."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.argv[0] = "kedro"  # the name under which MLflow records the command
    from kedro.framework.cli import main as kedro

    kedro()


if __name__ == "__main__":
    main()
