"""Where relative paths start.

Configuration holds paths relative to the project (so that a configuration hash means the same on every machine and
inside DVC's temporary copies); they become absolute here, at the moment of use.
"""

from __future__ import annotations

from pathlib import Path


def project_root(start: Path | None = None) -> Path:
    """Return the nearest folder at or above ``start`` (default: the working directory) that is a Kedro project.

    Falls back to the working directory, so that the library also works outside a project.
    """
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        file = folder / "pyproject.toml"
        if file.is_file() and "[tool.kedro]" in file.read_text(encoding="utf-8"):
            return folder
    return here


def in_project(path: str | Path) -> str:
    """Return a path as :func:`resolve` finds it again in any copy of the project: relative where it lies below."""
    full, root = resolve(path), project_root()
    return full.relative_to(root).as_posix() if full.is_relative_to(root) else str(full)


def resolve(path: str | Path) -> Path:
    """Return ``path`` as an absolute path; relative ones start at the project root."""
    path = Path(path).expanduser()
    return path if path.is_absolute() else project_root() / path
