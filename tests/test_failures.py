"""Which errors are messages, and which keep their traceback."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unime_kedro.errors import DataError
from unime_kedro.failures import is_self_explaining, message_of, write_traceback


def test_messages_of_kedros_own_errors() -> None:
    from kedro.config import MissingConfigException
    from kedro.io import DatasetError
    from kedro.validation import CheckFailure, DataValidationError, ParameterValidationError

    assert message_of(ParameterValidationError("k: too large")) == "k: too large"
    assert message_of(MissingConfigException("no folder conf/x")) == "no folder conf/x"
    failure = CheckFailure("ranks", check="ranks_from_zero", failure_count=2, failure_examples=[7])
    invalid = DataValidationError("m", dataset_name="pool", mode="save", failures=[failure])
    assert "ranks_from_zero — 2 cases (e.g. 7)" in str(message_of(invalid))
    assert message_of(ValueError("Failed to find the pipeline named 'x'.")) == "Failed to find the pipeline named 'x'."
    assert message_of(ValueError("anything else")) is None
    assert message_of(DatasetError("of a library")) is None


def test_which_messages_are_all_there_is_to_know(tmp_path: Path) -> None:
    from kedro.config import MissingConfigException
    from kedro.validation import CheckFailure, DataValidationError, ParameterValidationError

    def wrapped(cause: Exception) -> BaseException:
        try:
            raise RuntimeError("Kedro wraps it") from cause
        except RuntimeError as error:
            return error

    mistakes = [DataError("x"), ParameterValidationError("x"), MissingConfigException("x")]
    mistakes += [ValueError("Failed to find the pipeline named 'x'.")]
    failure = CheckFailure("ranks", check="ranks_from_zero", failure_count=2, failure_examples=[7])
    table = DataValidationError("m", dataset_name="pool", mode="save", failures=[failure])
    others = [table, PermissionError(errno.EACCES, "no", "/x"), OSError(errno.ENOSPC, "full"), ValueError("any")]
    for error in mistakes:
        assert is_self_explaining(error), error
        assert is_self_explaining(wrapped(error)), error
    for error in others:
        assert not is_self_explaining(error), error
        assert not is_self_explaining(wrapped(error)), error


def test_traceback_and_note_are_written_below_the_command(tmp_path: Path) -> None:
    error = caught(lambda: 1 / 0)
    file = write_traceback(error, tmp_path / "new", "kedro run --pipeline=x", "resume here")
    assert file is not None
    head, *lines = file.read_text().splitlines()
    assert head.endswith("  kedro run --pipeline=x")
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-3:] == ["ZeroDivisionError: division by zero", "", "resume here"]
    assert (write_traceback(error, tmp_path, "c") or file).read_text().endswith("division by zero\n")


def test_error_raised_while_another_was_handled_is_found_unless_suppressed() -> None:
    def raise_both(suppress: bool) -> BaseException:
        try:
            try:
                raise DataError("first")
            except DataError:
                if suppress:
                    raise ValueError("second") from None
                raise ValueError("second")  # noqa: B904
        except ValueError as error:
            return error

    assert message_of(raise_both(suppress=False)) == "first"
    assert message_of(raise_both(suppress=True)) is None


def caught(work: Callable[[], object]) -> Exception:
    with pytest.raises(Exception) as error:  # noqa: PT011
        work()
    return error.value


def test_refusals_of_the_operating_system_name_path_reason_and_remedy(tmp_path: Path) -> None:
    import polars as pl

    (tmp_path / "file").write_text("x")
    message = message_of(caught((tmp_path / "file/folder").mkdir))
    assert str(message).startswith(f"{tmp_path}/file/folder: Not a directory. A file is where a folder is needed")
    assert "UNIME_DATA_ROOT" in str(message)
    denied = PermissionError(errno.EACCES, "Permission denied", "/locked/pool.parquet")
    assert str(message_of(denied)).startswith("/locked/pool.parquet: Permission denied. Make it readable and writable")
    table = pl.DataFrame({"a": [1]})
    message = message_of(caught(lambda: table.write_parquet(tmp_path / "none/a.parquet", mkdir=False)))
    assert str(message).startswith(f"{tmp_path}/none/a.parquet: No such file or directory. Check the path")
    assert message_of(OSError("an error of a library")) is None
    assert message_of(ConnectionResetError(errno.ECONNRESET, "reset by peer")) is None  # no path, nothing to free


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_a_full_disk_is_told_with_the_dataset_that_met_it() -> None:
    import polars as pl
    from kedro.io import AbstractDataset

    def text(data: str) -> None:
        with open("/dev/full", "w") as file:
            file.write(data)

    class Text(AbstractDataset[str, str]):
        def load(self) -> str:
            return ""

        def save(self, data: str) -> None:
            text(data)

        def _describe(self) -> dict[str, Any]:
            return {"filepath": "/dev/full"}

    full = "No space left on device. The disk is full: free some space"
    assert str(message_of(caught(lambda: text("x")))).startswith(full)
    assert str(message_of(caught(lambda: pl.DataFrame({"a": [1]}).write_parquet("/dev/full")))).startswith(full)
    message = str(message_of(caught(lambda: Text().save("x"))))
    assert message.startswith("Failed while saving data to dataset")
    assert "filepath='/dev/full'" in message
    assert full in message
    assert "\n" not in message


def test_fault_of_ours_while_a_refusal_was_handled_keeps_its_traceback() -> None:
    def clumsy() -> None:
        try:
            open("/no/such/file")  # noqa: SIM115
        except OSError:
            {}["missing"]  # type: ignore[index]

    assert message_of(caught(clumsy)) is None
