"""Files are the old or the new ones: after errors, and after real SIGKILLs at the worst moments."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from unime_kedro.atomic import atomic_write, save_parquet


def hidden(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name.startswith("."))


def run_and_expect_kill(code: str, *args: str) -> None:
    """Run Python code that is expected to die of SIGKILL."""
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_success_replaces_the_file_with_usual_permissions(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "file.txt"
    with atomic_write(path) as temporary:
        assert temporary.parent == path.parent
        temporary.write_text("one")
        assert not path.exists()
    with atomic_write(path) as temporary:
        temporary.write_text("two")
        assert path.read_text() == "one"
    assert path.read_text() == "two"
    assert hidden(path.parent) == []
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_no_temporary(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write() -> None:
        with atomic_write(path) as temporary:
            temporary.write_text("half of the ne")
            raise error

    with pytest.raises(error):
        write()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


KILL_WHILE_WRITING = """
import os, signal, sys
from unime_kedro.atomic import atomic_write
with atomic_write(sys.argv[1]) as temporary:
    with open(temporary, "wb") as file:
        file.write(b"half")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
"""

# dies in ParquetTable.save when the new file is complete, just before it takes the old one's place
KILL_BEFORE_REPLACE = """
import os, signal, sys
import polars as pl
from unime_kedro.io import ParquetTable
os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)
ParquetTable(sys.argv[1]).save(pl.DataFrame({"a": range(100_000)}))
"""

# dies just after: the folder is not yet flushed, the new file must be there and whole
KILL_AFTER_REPLACE = """
import os, signal, sys
import polars as pl
from unime_kedro.io import ParquetTable
replace = os.replace
os.replace = lambda *names: (replace(*names), os.kill(os.getpid(), signal.SIGKILL))
ParquetTable(sys.argv[1]).save(pl.DataFrame({"a": range(100_000)}))
"""


def test_killed_half_way_leaves_the_old_file_and_the_next_write_cleans_up(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    run_and_expect_kill(KILL_WHILE_WRITING, str(path))
    assert path.read_bytes() == b"old"
    assert len(hidden(tmp_path)) == 1
    with atomic_write(tmp_path / "file.bin2") as temporary:  # another file's writer leaves it alone
        temporary.write_bytes(b"x")
    assert len(hidden(tmp_path)) == 1
    with atomic_write(path) as temporary:
        temporary.write_bytes(b"new")
    assert path.read_bytes() == b"new"
    assert hidden(tmp_path) == []


def test_killed_while_saving_a_table_leaves_the_old_table(tmp_path: Path) -> None:
    path, old = tmp_path / "table.parquet", pl.DataFrame({"a": [1, 2, 3]})
    save_parquet(old, path)
    run_and_expect_kill(KILL_BEFORE_REPLACE, str(path))
    assert pl.read_parquet(path).equals(old)
    run_and_expect_kill(KILL_AFTER_REPLACE, str(path))
    assert pl.read_parquet(path)["a"].to_list() == list(range(100_000))
    save_parquet(old, path)
    assert os.listdir(tmp_path) == ["table.parquet"]


def test_killed_at_any_moment_the_table_is_one_of_those_saved(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    code = """
import sys
import polars as pl
from unime_kedro.io import ParquetTable
table = ParquetTable(sys.argv[1])
for version in range(10**9):
    table.save(pl.DataFrame({"version": [version] * 20_000}))
    print(version, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        finished = [int(next(child.stdout)) for _ in range(5)][-1]
        child.kill()
    assert child.returncode == -signal.SIGKILL
    versions = pl.read_parquet(path)["version"]
    assert len(versions) == 20_000
    assert versions.n_unique() == 1
    assert versions[0] >= finished


def test_a_living_writers_temporary_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    with atomic_write(path) as slow:
        slow.write_text("slow")
        with atomic_write(path) as fast:
            fast.write_text("fast")
        assert path.read_text() == "fast"
        assert slow.read_text() == "slow"
    assert path.read_text() == "slow"
    assert hidden(tmp_path) == []


def test_names_that_look_like_patterns(tmp_path: Path) -> None:
    path = tmp_path / "a[1]*.parquet"
    (tmp_path / ".a1x.parquet.0.part").write_text("a stranger's file")
    save_parquet(pl.DataFrame({"a": [1]}), path)
    assert hidden(tmp_path) == [".a1x.parquet.0.part"]
    assert path.exists()


def test_equal_tables_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_parquet(pl.DataFrame({"a": range(50_000), "b": [str(i % 7) for i in range(50_000)]}), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
