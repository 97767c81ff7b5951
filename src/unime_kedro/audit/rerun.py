"""A run executed again in the tree of its commit, and what came out compared."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from unime_kedro.audit.checkout import NoCheckout, tree_of
from unime_kedro.audit.commit import options_of, tree_environment
from unime_kedro.audit.findings import FAIL, PASS, SKIP, Finding, Place
from unime_kedro.audit.record import RunRecord, located
from unime_kedro.audit.rerun_outputs import compare_output
from unime_kedro.tracking.files import CORPUS, DATA_ROOT

#: seconds that a run is given to end by itself when the audit is interrupted
_GRACE = 20.0
_LAST_LINES = 8
_RAW = "01_raw"


def check_rerun(record: RunRecord, place: Place, say: Callable[[str], None] = lambda text: None) -> Iterator[Finding]:
    """Run a run's command again and yield what differs; nothing of the project's data or runs is touched.

    Inputs below the data root are copied as they were recorded, from DVC's cache if they have changed since. What a
    run reads elsewhere it reads there again.

    Args:
        record: The run.
        place: Where its files are.
        say: Told what happens, since it may take as long as the run did.
    """
    command = shlex.split(record.tags.get("kedro.command", ""))
    if command[:2] != ["kedro", "run"]:
        text = "an ablation is run again arm by arm: audit its runs with --rerun"
        if command[:2] != ["unime", "ablate"]:
            text = f"{shlex.join(command) or 'no command'} cannot be run again; expected kedro run"
        yield Finding("rerun", "command", SKIP, text)
        return
    try:
        with tree_of(record, place.root) as tree, tempfile.TemporaryDirectory(prefix="unime-rerun-") as folder:
            data = _data_root(record, tree, Path(folder))
            if missing := _copy_inputs(record, place, data):
                remedy = "bring them back (dvc checkout, dvc pull) or make them again, and try again"
                text = f"{', '.join(missing)} are not there as they were read"
                yield Finding("rerun", "inputs", SKIP, f"not run: {text}", remedy)
                return
            words = _words(command, record, place, Path(folder))
            say(f"running {shlex.join(command)} again in {tree}")
            status, output = _run([sys.executable, "-m", "kedro", *words], tree, data, Path(folder) / "output.txt")
            if status:
                last = " | ".join(output.strip().splitlines()[-_LAST_LINES:])
                remedy = "what the run needs may be missing here: see packages above, and its inputs"
                yield Finding("rerun", "command", FAIL, f"ended with status {status}: {last}", remedy)
                return
            yield Finding("rerun", "command", PASS, shlex.join(command))
            for entry in record.side("output"):
                yield compare_output(entry, record, place, located(entry.path, tree, data))
    except NoCheckout as reason:
        yield Finding("rerun", "code", SKIP, f"not run: {reason}")


def _data_root(record: RunRecord, tree: Path, folder: Path) -> Path:
    """Return the new data root: at the same place in the tree, for paths that the command names, or else elsewhere."""
    name = Path(record.tags.get("data.root", "data"))
    data = folder / "data" if name.is_absolute() else tree / name
    data.mkdir(parents=True, exist_ok=True)
    return data


def _copy_inputs(record: RunRecord, place: Place, data: Path) -> list[str]:
    """Copy what lies in the data root, and return what is gone or has changed.

    Raw pictures are thousands of files with one digest, of which the corpus' file tells; they are linked as they are.
    """
    missing = []
    for entry in record.side("input"):
        inside = entry.path.startswith(f"{DATA_ROOT}/")
        target = located(entry.path, data, data)
        if entry.sha256 is None:  # too many files to know what they were
            if inside and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(place.find(entry))
        elif not (place.fetch(entry, target) if inside else place.is_unchanged(entry)):
            missing.append(entry.path)
    raw = place.data_root / _RAW
    if raw.is_dir() and not any(entry.dataset == CORPUS for entry in record.side("output")):
        target = data / _RAW
        target.mkdir(exist_ok=True)
        for one in sorted(raw.iterdir()):
            if not (target / one.name).exists():
                (target / one.name).symlink_to(one)
    return missing


def _words(command: Sequence[str], record: RunRecord, place: Place, folder: Path) -> list[str]:
    """Return the arguments, with a copy of the file of options if they name one, wherever the data are now."""
    words, is_next = [], False
    for word in command[1:]:
        name, sign, value = word.partition("=")
        is_option = name in ("--config", "-c")
        if is_next or (is_option and sign):
            file = _options_file(word if is_next else value, record, place, folder)
            word = file if is_next else f"--config={file}"
        is_next = is_option and not sign
        words.append(word)
    env = record.tags.get("kedro.env")
    if env and not any(word.startswith(("--env", "-e")) for word in words):
        words.append(f"--env={env}")
    return words


def _options_file(name: str, record: RunRecord, place: Place, folder: Path) -> str:
    import yaml

    file = folder / "options.yml"
    file.write_text(yaml.safe_dump({"run": options_of(name, record, place)}, sort_keys=False), encoding="utf-8")
    return str(file)


def _run(arguments: Sequence[str], tree: Path, data: Path, log: Path) -> tuple[int, str]:
    """Run a command to its end, in a session of its own; interrupted, all that it has started ends."""
    environment = {"OMP_NUM_THREADS": "1"} | tree_environment(tree, data)
    with log.open("wb") as output:
        process = subprocess.Popen(
            arguments,
            cwd=tree,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait()
        finally:
            _stop(process)
    return status, log.read_text(encoding="utf-8", errors="replace")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and those of its session, which is nothing to do where it has ended well."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
