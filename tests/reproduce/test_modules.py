"""Which files a module depends on, in a package made up by hand."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from unime_kedro.reproduce.modules import files_behind

FILES = {
    "__init__.py": "",
    "node.py": """
        from typing import TYPE_CHECKING

        from toy.shared import add
        from toy.gathered import Wanted
        if TYPE_CHECKING:
            from toy.typed import Type
        else:
            from toy.untyped import Type

        def run():
            import toy.late.inner as inner
            from toy.late import sibling
            return "page.html.j2", "names.csv", "toy.started", "not.there"
    """,
    "shared.py": "from . import relative\nimport json",
    "relative.py": "from .relative_too import x",
    "relative_too.py": "",
    "gathered/__init__.py": "from toy.gathered.wanted import Wanted\nfrom toy.gathered.other import Other",
    "gathered/wanted.py": "class Wanted: ...",
    "gathered/other.py": "class Other: ...",
    "typed.py": "",
    "untyped.py": "",
    "late/__init__.py": "",
    "late/inner.py": "",
    "late/sibling.py": "from toy.node import run",  # a circle
    "started.py": "import toy.started_by",
    "started_by.py": "",
    "io/templates/page.html.j2": "{% include 'part.j2' %}",
    "io/templates/part.j2": "",
    "io/templates/elsewhere.j2": "",
    "data/names.csv": "",
    "data/unnamed.csv": "",
    "unused.py": "from toy.shared import add",
}


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        file = tmp_path / "toy" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text))
    return tmp_path / "toy"


def behind(toy: Path, *modules: str) -> set[str]:
    return {file.relative_to(toy).as_posix() for file in files_behind(modules, toy)}


def test_imports_are_followed_wherever_they_stand(toy):
    expected = {
        "node.py", "shared.py", "relative.py", "relative_too.py",  # at the top, and relative ones
        "gathered/wanted.py",  # what a package gathers counts one by one
        "untyped.py",  # but what is for type checkers does not run
        "late/inner.py", "late/sibling.py",  # inside a function
        "io/templates/page.html.j2", "io/templates/part.j2", "data/names.csv",  # named by a text
        "started.py", "started_by.py",  # started as a process
    }  # fmt: skip
    assert behind(toy, "toy.node") == expected


def test_what_nothing_leads_to_does_not_count(toy):
    assert behind(toy, "toy.shared") == {"shared.py", "relative.py", "relative_too.py"}
    assert behind(toy, "toy.unused") == {"unused.py", "shared.py", "relative.py", "relative_too.py"}
    assert behind(toy, "toy.gathered") == {"gathered/__init__.py", "gathered/wanted.py", "gathered/other.py"}


def test_files_come_in_order_and_once(toy):
    files = files_behind(["toy.unused", "toy.shared", "toy.shared"], toy)
    assert files == sorted(set(files))


def test_a_module_that_is_not_of_the_package_is_an_error(toy):
    with pytest.raises(LookupError, match="numpy is not a module of"):
        files_behind(["numpy"], toy)


def test_what_is_read_is_what_python_imports():
    """All modules of the package that a process has loaded after running a node's imports are found."""
    import subprocess
    import sys

    import unime_kedro

    root = Path(unime_kedro.__file__).parent
    code = (
        "import sys, unime_kedro.mining.store, unime_kedro.io.datasets; "
        "print(*[m.__file__ for n, m in sys.modules.items() if n.startswith('unime_kedro.')])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    found = set(files_behind(["unime_kedro.mining.store", "unime_kedro.io.datasets"], root))
    assert {Path(f) for f in loaded if Path(f).name != "__init__.py"} <= found
