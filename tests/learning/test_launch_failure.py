"""Which of several errors is the one to tell."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from unime_kedro.errors import DataError, ModelError, UnimeError
from unime_kedro.learning.launch_failure import End, failure_of, read_ends
from unime_kedro.learning.worker_errors import WorkerError, is_lost_connection, read_errors, recorded, write_error

KILLED, STOPPED = -signal.SIGKILL, -signal.SIGTERM


def error(rank: int, kind: str = "ValueError", message: str = "bad", time: float = 1.0, secondary: bool = False) -> WorkerError:  # fmt: skip
    return WorkerError(rank, kind, message, "Traceback", time, secondary)


def reason(tmp_path: Path, errors: list[WorkerError], ends: list[End], processes: int = 2) -> UnimeError:
    for one in errors:
        write_error(tmp_path, one)
    log = tmp_path / "worker.log"
    log.write_text("of an earlier start\n" + "\n".join(f"line {i}" for i in range(20)) + "\n")
    return failure_of(read_errors(tmp_path, processes), ends, processes=processes, log=log, begin=20)


def test_the_earliest_error_is_told(tmp_path: Path) -> None:
    both = [error(0, "ValueError", "later", 2.0), error(1, "DataError", "items.parquet, row 3", 1.5)]
    found = reason(tmp_path, both, [End(0, 1, 10), End(1, 1, 11)])
    assert (type(found), str(found)) == (DataError, "items.parquet, row 3 (rank 1)")


def test_a_lost_connection_is_never_the_reason_when_there_is_another(tmp_path: Path) -> None:
    both = [error(0, "RuntimeError", "Connection closed by peer", 1.0, True), error(1, "ValueError", "bad", 5.0)]
    assert "ValueError: bad (rank 1)" in str(reason(tmp_path, both, [End(0, 1, 10), End(1, 1, 11)]))


def test_a_killed_process_comes_before_the_connections_lost_to_it(tmp_path: Path) -> None:
    lost = [error(rank, "RuntimeError", "Connection closed by peer", 1.0, True) for rank in (0, 2)]
    found = reason(tmp_path, lost, [End(0, 1, 10, 5), End(1, KILLED, 11, 5), End(2, 1, 12, 5)], processes=3)
    assert type(found) is ModelError
    assert "rank 1 (process 11) was killed by SIGKILL" in str(found)


def test_processes_that_torchrun_ended_are_not_the_reason(tmp_path: Path) -> None:
    """It asks the others to end when one has failed, and kills those that do not within 30 seconds."""
    ends = [End(2, STOPPED, 12, 100), End(0, KILLED, 10, 131), End(1, 3, 11, 100)]
    assert "rank 1 (process 11) ended with status 3" in str(reason(tmp_path, [], ends, processes=3))
    lost = [error(1, "RuntimeError", "Connection reset by peer", 1.0, True)]
    assert "rank 2 (process 12) was killed by SIGTERM" in str(reason(tmp_path, lost, ends, processes=3))


def test_a_connection_lost_to_another_machine_says_where_to_look(tmp_path: Path) -> None:
    found = reason(tmp_path, [error(0, "RuntimeError", "Connection closed by peer", 1.0, True)], [End(0, 1, 10)])
    assert "Connection closed by peer (rank 0). The traceback is in" in str(found)
    assert "the log of that one's machine" in str(found)


@pytest.mark.parametrize("kind", ["torch.OutOfMemoryError", "MemoryError"])
def test_memory_that_ran_out_says_what_to_do(tmp_path: Path, kind: str) -> None:
    assert "Make train.chunk smaller. Then give" in str(reason(tmp_path, [error(0, kind)], []))


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (-signal.SIGBUS, "killed by SIGBUS. Most often the shared memory"),
        (-signal.SIGSEGV, "killed by SIGSEGV. Give the same command again"),
        (-signal.SIGTERM, "killed by SIGTERM. Something outside stopped it. Give"),
        (-50, "killed by signal 50. Give"),
        (1, "ended with status 1 without saying why"),
    ],
)
def test_every_end_has_words_and_the_last_lines_of_this_start(tmp_path: Path, code: int, text: str) -> None:
    found = str(reason(tmp_path, [], [End(0, code, 10)], processes=1))
    assert f"process 10 {text}" in found or f"process 10 was {text}" in found
    assert found.splitlines()[-12:] == [f"  line {i}" for i in range(8, 20)]
    assert "earlier start" not in found


def test_nothing_left_behind_is_told_as_such(tmp_path: Path) -> None:
    assert "without saying why" in str(reason(tmp_path, [], []))
    assert read_ends(tmp_path / "none.json") == []
    (tmp_path / "torn.json").write_text('[{"rank"')
    assert read_ends(tmp_path / "torn.json") == []


# ---------------------------------------------------------------------------------------------- what a worker writes


class Own(DataError):
    """A class of ours that errors.py does not know."""


@pytest.mark.parametrize(
    ("raised", "kind", "own"),
    [
        (DataError("a"), "DataError", DataError),
        (Own("a"), "DataError", DataError),
        (UnimeError("a"), "UnimeError", UnimeError),
        (ValueError("a"), "ValueError", None),
        (json.JSONDecodeError("a", "b", 0), "json.decoder.JSONDecodeError", None),
    ],
)
def test_the_kind_of_an_error_survives(tmp_path: Path, raised: Exception, kind: str, own: type | None) -> None:
    left: list[int] = []
    with recorded(tmp_path, 3, leave=left.append):
        raise raised
    assert left == [1]
    (found,) = read_errors(tmp_path, 4)
    assert (found.rank, found.type, found.own, found.message) == (3, kind, own, str(raised))
    assert "raise raised\n" in found.traceback
    assert read_errors(tmp_path, 3) == []  # of an earlier start with more processes


def test_work_that_ends_well_writes_nothing(tmp_path: Path) -> None:
    with recorded(tmp_path, 0, leave=pytest.fail):
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_error_that_cannot_be_written_still_ends_the_process(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "errors").write_text("a file where the folder should be")
    left: list[int] = []
    with recorded(tmp_path, 0, leave=left.append):
        raise DataError("row 3")
    assert left == [1]
    assert "DataError: row 3" in capsys.readouterr().err


def test_files_that_are_no_errors_are_left_out(tmp_path: Path) -> None:
    write_error(tmp_path, error(1))
    (tmp_path / "errors/rank-0.json").write_text('{"rank": 0}')
    assert [one.rank for one in read_errors(tmp_path, 2)] == [1]


def caused(outer: Exception, inner: Exception) -> Exception:
    outer.__cause__ = inner
    return outer


class DistNetworkError(RuntimeError):
    """Named as torch's."""


@pytest.mark.parametrize(
    ("raised", "lost"),
    [
        (RuntimeError("[pair.cc:553] Connection closed by peer [127.0.0.1]:9119"), True),
        (RuntimeError("Timed out waiting 60000ms for recv operation to complete"), True),
        (RuntimeError("NCCL communicator was aborted on rank 1"), True),
        (ConnectionResetError("reset"), True),
        (DistNetworkError("anything"), True),
        (caused(ModelError("step 3 failed"), RuntimeError("write: Broken pipe")), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (DataError("row 3: the connection closed early"), False),
        (caused(DataError("row 3"), ValueError("x")), False),
    ],
)
def test_lost_connections_are_told_from_other_errors(raised: Exception, lost: bool) -> None:
    assert is_lost_connection(raised) is lost
