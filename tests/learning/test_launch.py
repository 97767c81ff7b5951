"""Trainings as child processes: how they are followed, how they fail, and how they end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unime_kedro.errors import ConfigurationError, DataError, ModelError, UnimeError
from unime_kedro.learning import launch
from unime_kedro.learning.launch import Placement, run_training
from unime_kedro.learning.worker_life import only_writer, process_start

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _toy_worker_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    monkeypatch.delenv("UNIME_LAUNCHER", raising=False)


def run(folder: Path, plan: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    """Run the toy training and return its events."""
    folder.mkdir(exist_ok=True)
    (folder / "plan.json").write_text(json.dumps(plan))
    events: list[dict[str, Any]] = []
    options = {"on_event": events.append, "module": "toy_worker", "poll_seconds": 0.05} | options
    run_training(folder, **options)
    return events


def failure(folder: Path, plan: dict[str, Any], **options: Any) -> UnimeError:
    with pytest.raises(UnimeError) as caught:
        run(folder, plan, **options)
    return caught.value


def values(events: list[dict[str, Any]]) -> list[tuple[int, int]]:
    return [(event["step"], event["value"]) for event in events]


def processes_of(folder: Path) -> dict[int, str]:
    """The processes of a running training, workers and what started them: id and start time."""
    ids = {pid for file in folder.glob("pids-*.json") for pid in json.loads(file.read_text()).values()}
    return {pid: start for pid in ids if pid != os.getpid() and (start := process_start(pid))}


def wait_until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        threading.Event().wait(0.02)
    return found


def gone(processes: dict[int, str]) -> bool:
    return all(process_start(pid) != start for pid, start in processes.items())


# ---------------------------------------------------------------------------------------------- one process


def test_one_process_is_followed_wherever_it_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("TOY_HOME", "kept")
    (tmp_path / "run").mkdir()
    events = run(Path("../run"), {"steps": 3})
    assert events == [{"step": step, "value": 0, "home": "kept"} for step in (1, 2, 3)]
    assert (tmp_path / "run/done-0").exists()
    header = (tmp_path / "run/worker.log").read_text()
    assert header.count("==== ") == 1
    assert f"-m toy_worker {tmp_path / 'run'}" in header
    run(tmp_path / "run", {"steps": 1})
    assert (tmp_path / "run/worker.log").read_text().startswith(header)  # added to, not replaced


def test_a_training_that_goes_on_tells_every_step_once(tmp_path: Path) -> None:
    """An earlier start came to step 5, its checkpoint is that of step 2; the steps after it are done again."""
    lines = [json.dumps({"step": step, "value": 7, "home": ""}) + "\n" for step in range(1, 6)]
    (tmp_path / "events.jsonl").write_text("".join(lines) + '{"step": 6, "val')
    assert values(run(tmp_path, {"steps": 4, "resume": 2})) == [(1, 7), (2, 7), (3, 0), (4, 0)]


def test_our_errors_keep_their_class_and_message(tmp_path: Path) -> None:
    error = failure(tmp_path, {"steps": 1, "then": {"0": "data_error"}})
    assert type(error) is DataError
    assert str(error) == "items.parquet, row 3: no text and no image; remove the row"
    assert "DataError: items.parquet, row 3" in (tmp_path / "worker.log").read_text()


def test_other_errors_name_the_file_with_the_traceback(tmp_path: Path) -> None:
    error = failure(tmp_path, {"steps": 1, "then": {"0": "zero_division"}})
    assert type(error) is ModelError
    log = tmp_path / "worker.log"
    assert str(error) == f"training failed: ZeroDivisionError: division by zero. The traceback is in {log}."
    assert 'in end\n    raise ZeroDivisionError("division by zero")' in log.read_text()


def test_errors_of_an_earlier_start_are_forgotten(tmp_path: Path) -> None:
    failure(tmp_path, {"steps": 1, "then": {"0": "data_error"}})
    (tmp_path / "errors/rank-5.json").write_text((tmp_path / "errors/rank-0.json").read_text())
    error = failure(tmp_path, {"steps": 1, "then": {"0": "status"}})
    assert "ended with status 7 without saying why" in str(error)
    assert "DataError" not in str(error)  # nor are the lines that the earlier start printed shown
    assert list((tmp_path / "errors").iterdir()) == []


def test_a_killed_process_is_told_with_what_to_do(tmp_path: Path) -> None:
    error = failure(tmp_path, {"steps": 1, "then": {"0": "kill"}})
    assert type(error) is ModelError
    pid = json.loads((tmp_path / "pids-0.json").read_text())["pid"]
    assert f"process {pid} was killed by SIGKILL. Most often the machine had no memory left" in str(error)
    assert "train.chunk smaller" in str(error)
    assert "goes on from the last checkpoint" in str(error)
    assert str(error).endswith(f"The last lines of {tmp_path / 'worker.log'}:\n" + str(error).splitlines()[-2] + "\n  about to be killed")  # fmt: skip


def test_a_worker_that_cannot_even_start_is_told_by_its_last_lines(tmp_path: Path) -> None:
    error = failure(tmp_path, {}, module="toy_worker_that_is_missing")
    assert "ended with status 1 without saying why" in str(error)
    assert "No module named toy_worker_that_is_missing" in str(error)


class Stop(KeyboardInterrupt):
    """As the command line raises for SIGTERM."""


@pytest.mark.parametrize("how", ["hang", "stubborn"])
def test_an_interrupt_ends_the_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(launch, "GRACE", 30.0 if how == "hang" else 0.2)
    seen: dict[int, str] = {}

    def stop(event: dict[str, Any]) -> None:
        seen.update(processes_of(tmp_path))
        raise Stop

    begin = time.monotonic()
    with pytest.raises(Stop):
        run(tmp_path, {"steps": 1, "then": {"0": how}}, on_event=stop)
    assert len(seen) == 1
    assert gone(seen)
    assert time.monotonic() - begin < 20


LAUNCH = """
import sys
from pathlib import Path
from unime_kedro.learning.launch import run_training

run_training(Path(sys.argv[1]), processes=int(sys.argv[2]), module="toy_worker", on_event=lambda e: print("EVENT", flush=True))
"""


def launched(folder: Path, processes: int, plan: dict[str, Any]) -> subprocess.Popen[str]:
    """Start a launcher and return it when its training has begun."""
    folder.mkdir(exist_ok=True)
    (folder / "plan.json").write_text(json.dumps(plan))
    command = [sys.executable, "-c", LAUNCH, str(folder), str(processes)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line == "EVENT\n", line + process.stderr.read() if process.stderr else line
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate(timeout=30)


def test_when_the_launcher_is_killed_its_worker_ends_and_the_next_training_may_begin(tmp_path: Path) -> None:
    process = launched(tmp_path, 1, {"steps": 1, "then": {"0": "hang"}})
    workers = processes_of(tmp_path)
    workers.pop(process.pid)
    assert len(workers) == 1
    end(process)
    assert values(run(tmp_path, {"steps": 2})) == [(1, 0), (2, 0)]  # waits for the lock, if need be
    wait_until(lambda: gone(workers))


def test_a_second_launcher_of_the_same_run_is_refused_and_does_no_harm(tmp_path: Path) -> None:
    process = launched(tmp_path, 1, {"steps": 1, "then": {"0": "hang"}})
    try:
        error = failure(tmp_path, {"steps": 1, "then": {"0": "hang"}})
        assert f"another training is writing to {tmp_path} (pid {process.pid} on {socket.gethostname()})" in str(error)
        assert (tmp_path / "worker.log").read_text().count("==== ") == 1
    finally:
        end(process)


def test_a_worker_waits_for_the_lock_no_longer_than_it_says(tmp_path: Path) -> None:
    with only_writer(tmp_path), pytest.raises(ModelError, match=f"another training .* \\(pid {os.getpid()} on "):  # noqa: SIM117
        with only_writer(tmp_path, wait_seconds=0.2):
            pass
    with only_writer(tmp_path, wait_seconds=0):
        pass


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"processes": 0}, "processes \\(0\\)"),
        ({"machines": 2, "machine_rank": 2, "address": "a:1"}, "machine_rank is 2; .* from 0 to 1"),
        ({"machine_rank": 1}, "machine_rank is 1; .* from 0 to 0"),
        ({"machines": 2}, "address is None; .* host:port"),
        ({"machines": 2, "address": "10.0.0.1"}, "address is '10.0.0.1'; .* host:port"),
        ({"machines": 2, "address": "10.0.0.1:99999"}, "host:port"),
    ],
)
def test_placements_that_cannot_be_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Placement(**given)


def test_ranks_are_counted_over_all_machines(tmp_path: Path) -> None:
    place = Placement(processes=4, machines=3, machine_rank=2, address="[fe80::1]:29500")
    assert (place.world, list(place.ranks)) == (12, [8, 9, 10, 11])
    assert place.file(tmp_path, "worker.log") == tmp_path / "worker-2.log"
    command = place.command(tmp_path, "m", tmp_path / "e.json")
    assert command[command.index("--master-addr") + 1] == "fe80::1"
    assert Placement(2).file(tmp_path, "worker.log") == tmp_path / "worker.log"


# ---------------------------------------------------------------------------------------------- several processes


@pytest.mark.slow
def test_two_processes_work_together_and_one_of_them_tells(tmp_path: Path) -> None:
    assert values(run(tmp_path, {"steps": 3}, processes=2)) == [(1, 1), (2, 1), (3, 1)]  # 0 + 1
    assert {file.name for file in tmp_path.glob("done-*")} == {"done-0", "done-1"}


@pytest.mark.slow
def test_the_error_of_one_of_two_processes_is_that_of_the_run(tmp_path: Path) -> None:
    error = failure(tmp_path, {"steps": 1, "then": {"1": "data_error"}}, processes=2)
    assert type(error) is DataError
    assert str(error) == "items.parquet, row 3: no text and no image; remove the row (rank 1)"


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_is_the_reason_and_not_the_connection_to_it(tmp_path: Path, rank: int) -> None:
    error = failure(tmp_path, {"steps": 1, "then": {str(rank): "kill"}}, processes=2)
    assert type(error) is ModelError
    pid = json.loads((tmp_path / f"pids-{rank}.json").read_text())["pid"]
    assert f"rank {rank} (process {pid}) was killed by SIGKILL" in str(error)
    for file in (tmp_path / "errors").glob("rank-*.json"):  # of the other one, if torchrun was not faster
        assert json.loads(file.read_text())["secondary"] is True


@pytest.mark.slow
def test_an_interrupt_ends_all_processes(tmp_path: Path) -> None:
    seen: dict[int, str] = {}

    def stop(event: dict[str, Any]) -> None:
        seen.update(processes_of(tmp_path))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, {"steps": 1, "then": {"0": "hang"}}, processes=2, on_event=stop)
    assert len(seen) == 3  # two workers and torchrun
    assert gone(seen)


@pytest.mark.slow
def test_when_the_launcher_is_killed_all_processes_end(tmp_path: Path) -> None:
    process = launched(tmp_path, 2, {"steps": 1, "then": {"0": "stubborn", "1": "stubborn"}})
    workers = processes_of(tmp_path)
    assert len(workers) == 3
    end(process)
    wait_until(lambda: gone(workers))


@pytest.mark.slow
def test_when_torchrun_is_killed_its_workers_end(tmp_path: Path) -> None:
    seen: dict[int, str] = {}

    def kill(event: dict[str, Any]) -> None:
        seen.update(processes_of(tmp_path))
        os.kill(json.loads((tmp_path / "pids-0.json").read_text())["agent"], signal.SIGKILL)

    error = failure(tmp_path, {"steps": 1, "then": {"0": "stubborn"}}, processes=2, on_event=kill)
    assert "was killed by SIGKILL" in str(error)
    assert len(seen) == 3
    wait_until(lambda: gone(seen))


def on_two_machines(folders: list[Path], plan: dict[str, Any]) -> list[Any]:
    """Start the same run as on two machines and return the events, or the error, of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    results: list[Any] = [None, None]

    def machine(rank: int) -> None:
        try:
            results[rank] = run(folders[rank], plan, machines=2, machine_rank=rank, address=address)
        except UnimeError as error:
            results[rank] = error

    threads = [threading.Thread(target=machine, args=(rank,)) for rank in (1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    return results


@pytest.mark.slow
def test_two_machines_have_a_log_each_in_a_folder_that_they_share(tmp_path: Path) -> None:
    first, _ = on_two_machines([tmp_path, tmp_path], {"steps": 2})
    assert values(first) == [(1, 1), (2, 1)]
    assert {file.name for file in tmp_path.glob("done-*")} == {"done-0", "done-1"}
    assert {file.name for file in tmp_path.glob("*.log")} == {"worker.log", "worker-1.log"}


@pytest.mark.slow
def test_the_error_on_one_machine_ends_the_other_too(tmp_path: Path) -> None:
    """Nothing is shared, so the first machine knows only that the connection is lost."""
    first, second = on_two_machines([tmp_path / "a", tmp_path / "b"], {"steps": 1, "then": {"1": "data_error"}})
    assert (tmp_path / "a/pids-0.json").exists()  # rank 0 runs on machine 0, though machine 1 was started first
    assert type(second) is DataError
    assert str(second) == "items.parquet, row 3: no text and no image; remove the row (rank 1)"
    assert type(first) is ModelError
    assert "Another process ended first; on several machines the log of that one's machine tells why." in str(first)
