"""A run executed again in the tree of its commit, and what came out compared."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from unime_kedro.audit.checkout import NoCheckout, tree_of
from unime_kedro.audit.findings import FAIL, NOTE, PASS, SKIP, Finding, Place
from unime_kedro.audit.record import RunRecord, located
from unime_kedro.tracking.contents import contents_of
from unime_kedro.tracking.files import DATA_ROOT, FileRecord
from unime_kedro.tracking.metrics import SUFFIX, metric_values

#: how far figures may be from the recorded ones where bytes differ: other sums of floats, not other results
RELATIVE_TOLERANCE = 1e-6
_PAGES = (".html",)
_LAST_LINES = 12


def check_rerun(record: RunRecord, place: Place, say: Callable[[str], None] = lambda text: None) -> Iterator[Finding]:
    """Run a run's command again and yield what differs; nothing of the project's data or runs is touched.

    Inputs are copied as they are. Only those in the run's own data root: a run that reads elsewhere reads there again.

    Args:
        record: The run.
        place: Where its files are.
        say: Told what happens, since it may take as long as the run did.
    """
    command = shlex.split(record.tags.get("kedro.command", ""))
    if command[:2] != ["kedro", "run"] and command[:1] != ["unime"]:
        yield Finding("rerun", "command", SKIP, f"{shlex.join(command) or 'none'} is no command that can be run again")
        return
    if command[0] == "unime":
        yield Finding("rerun", "command", SKIP, "an ablation is run again arm by arm: audit its runs with --rerun")
        return
    missing = [one for one in record.side("input") if place.contents(place.find(one)) is None and one.sha256]
    if missing:
        yield Finding("rerun", "inputs", SKIP, f"{missing[0].path} is gone", "make it, or dvc checkout, and try again")
        return
    try:
        with tree_of(record, place.root) as tree, tempfile.TemporaryDirectory(prefix="unime-rerun-") as folder:
            data = Path(folder) / "data"
            _copy_inputs(record, place, data)
            say(f"running {shlex.join(command)} again in {tree}")
            done = _run(command, record, place, tree, data, Path(folder))
            if done.returncode:
                last = " | ".join(done.stdout.strip().splitlines()[-_LAST_LINES:])
                yield Finding("rerun", "command", FAIL, f"ended with status {done.returncode}: {last}")
                return
            yield Finding("rerun", "command", PASS, shlex.join(command))
            for entry in record.side("output"):
                yield _compared(entry, record, data, tree)
    except NoCheckout as reason:
        yield Finding("rerun", "code", SKIP, str(reason))


def _copy_inputs(record: RunRecord, place: Place, data: Path) -> None:
    """Copy what lies in the data root; of pictures only a digest is recorded, so all raw data are copied."""
    data.mkdir()
    for entry in record.side("input"):
        if entry.path.startswith(f"{DATA_ROOT}/"):
            source, target = place.find(entry), data / entry.path.removeprefix(f"{DATA_ROOT}/")
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, dirs_exist_ok=True)
            else:
                shutil.copyfile(source, target)
    raw = place.data_root / "01_raw"
    makes_corpus = any(entry.dataset == "corpus" for entry in record.side("output"))
    if raw.is_dir() and not makes_corpus:
        shutil.copytree(raw, data / "01_raw", dirs_exist_ok=True)


def _run(
    command: list[str], record: RunRecord, place: Place, tree: Path, data: Path, folder: Path
) -> subprocess.CompletedProcess[str]:
    dropped = ("DVC_", "MLFLOW_", "UNIME_", "KEDRO_")
    variables = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
    variables |= {
        "UNIME_DATA_ROOT": str(data),
        "UNIME_TRACKING": "off",
        "PYTHONPATH": str(tree / "src"),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
    }
    words = _with_options(command, record, place, folder)
    if record.tags.get("kedro.env") and not any(word.startswith(("--env", "-e")) for word in words):
        words.append(f"--env={record.tags['kedro.env']}")
    arguments = [sys.executable, "-m", "kedro", *words[1:]]
    return subprocess.run(
        arguments, cwd=tree, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )


def _with_options(command: list[str], record: RunRecord, place: Place, folder: Path) -> list[str]:
    """Return the command with its options file, if it names one, found wherever the data are now."""
    words = []
    for word in command:
        name, _, value = word.partition("=")
        if name == "--config" and value:
            file = located(value, place.root, place.data_root)
            if not file.is_file():
                raise NoCheckout(f"{file}, which the command names, is gone")
            copy = folder / file.name
            shutil.copyfile(file, copy)
            word = f"--config={copy}"
        words.append(word)
    return words


def _compared(entry: FileRecord, record: RunRecord, data: Path, tree: Path) -> Finding:
    subject, file = f"output {entry.dataset}", located(entry.path, tree, data)
    found = contents_of(file)
    if found is None:
        return Finding("rerun", subject, FAIL, f"{entry.path} was not written again")
    if found.sha256 == entry.sha256:
        same = "the same bytes" if entry.sha256 else "too many files to compare"
        return Finding("rerun", subject, PASS if entry.sha256 else SKIP, same)
    if entry.dataset.endswith(SUFFIX):
        return _figures(subject, metric_values(entry.dataset, json.loads(file.read_text(encoding="utf-8"))), record)
    if file.suffix in _PAGES:
        return Finding("rerun", subject, NOTE, "a page; it names commit and run, and differs by them")
    return Finding("rerun", subject, NOTE, "other bytes; its figures are compared by the metrics")


def _figures(subject: str, numbers: dict[str, float], record: RunRecord) -> Finding:
    """Compare figures; those that the record does not know are of the run itself, not of its result."""
    known = {key: value for key, value in numbers.items() if key in record.metrics}
    far = {key: _distance(value, record.metrics[key]) for key, value in known.items()}
    worst = max(far, key=lambda key: far[key], default=None)
    if worst is None or far[worst] <= RELATIVE_TOLERANCE:
        distance = f"{far[worst]:.1e}" if worst else "0"
        return Finding(
            "rerun", subject, PASS, f"{len(known)} figures within {RELATIVE_TOLERANCE:g} ({distance} at most)"
        )
    text = f"{sum(d > RELATIVE_TOLERANCE for d in far.values())} of {len(known)} figures are further off than "
    text += f"{RELATIVE_TOLERANCE:g}, most {worst}: {record.metrics[worst]:.6g} recorded, {known[worst]:.6g} again"
    return Finding(
        "rerun", subject, FAIL, text, "compare packages and hardware above; REPRODUCING.md says what may differ"
    )


def _distance(value: Any, said: Any) -> float:
    if value == said or (value != value and said != said):
        return 0.0
    distance = abs(value - said) / max(abs(said), 1e-12)
    return float(distance) if distance == distance else float("inf")
