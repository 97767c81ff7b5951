"""Run every measurement of benchmarks/README.md, one after the other: `make bench` (two hours).

Nothing else should run on the machine; the ratios are of runs within one process or one script.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
SCRIPTS = (
    ("bench_cli.py", "mine"),
    ("bench_cli.py", "select"),
    ("bench_judge.py",),
    ("bench_select.py",),
    ("bench_pool.py",),
    ("bench_index.py", "--kinds", "flat,ivf"),
    ("bench_exports.py",),
    ("bench_train.py",),
    ("bench_train_memory.py",),
    ("bench_evaluate.py",),
    ("check_statistics.py",),
)


def main() -> None:
    for script, *arguments in SCRIPTS:
        start = time.perf_counter()
        print(f"== {script} {' '.join(arguments)}", flush=True)
        subprocess.run([sys.executable, str(HERE / script), *arguments], check=True)
        print(f"   ({time.perf_counter() - start:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
