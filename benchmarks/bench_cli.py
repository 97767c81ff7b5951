"""What whole commands cost: CPU, wall clock and memory of `kedro run`, measured from outside.

    python benchmarks/bench_cli.py select     # smoke data: tracking and validation off, then both on
    python benchmarks/bench_cli.py mine       # mini-MMEB from nothing: drawing, embedding, judging, selecting

Data, tracking database and Data Docs go to a temporary folder; the project's own are not touched.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run(arguments: list[str], **environment: str) -> dict[str, float]:
    """Run one kedro command; returns wall and CPU seconds of it and its children."""
    start = time.perf_counter()
    command = [str(Path(sys.executable).with_name("kedro")), "run", *arguments]
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment}, stdout=output, stderr=output)
        _, status, used = os.wait4(process.pid, 0)  # of this process and the children it waited for
        wall = time.perf_counter() - start
        if status:
            output.seek(0)
            raise SystemExit(output.read()[-4000:])
    cpu = used.ru_utime + used.ru_stime
    return {"wall_seconds": round(wall, 2), "cpu_seconds": round(cpu, 2), "peak_gb": round(used.ru_maxrss / 2**20, 2)}


def bench_select(folder: str) -> dict[str, dict[str, float]]:
    """Measure `kedro run --env=smoke --pipeline=select` with everything off and with everything on."""
    shared = {"UNIME_DATA_ROOT": f"{folder}/data", "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    off = {"UNIME_TRACKING": "off", "KEDRO_DATASET_VALIDATION": "off"}
    run(["--env=smoke", "--pipeline=mine"], **shared)  # also makes the tracking database
    select = ["--env=smoke", "--pipeline=select"]
    quiet = [run(select, **shared, **off) for _ in range(3)]
    full = [run(select, **shared) for _ in range(3)]

    def best(runs: list[dict[str, float]]) -> dict[str, float]:
        return min(runs, key=lambda found: found["cpu_seconds"])

    return {"tracking_and_validation_off": best(quiet), "tracking_and_validation_on": best(full)}


def bench_mine(folder: str) -> dict[str, float]:
    """Measure `kedro run --pipeline=mine` on mini-MMEB, from an empty data folder."""
    return run(
        ["--pipeline=mine"],
        UNIME_DATA_ROOT=f"{folder}/data",
        MLFLOW_TRACKING_URI=f"sqlite:///{folder}/mlflow.db",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["select", "mine"])
    with tempfile.TemporaryDirectory() as folder:
        found = {"select": bench_select, "mine": bench_mine}[parser.parse_args().what](folder)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
