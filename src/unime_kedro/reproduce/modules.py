"""Which files of the package a function depends on, followed through imports.

Imports are read from the source, wherever they stand: at the top, or inside functions, where heavy ones are put off
to. ``from package import name`` leads to the module that defines the name, not to everything else that the package
gathers: a parameter of the report must not count as an input of mining. What is imported for type checkers only does
not run and does not count. Modules that are started by name (``python -m``), templates and data files of the package
are found by the text constants that name them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

#: what a text must look like to name a file of the package
_FILE_NAME = re.compile(r"[\w-]{1,60}(\.[\w-]+)*\.(py|j2|csv|json|css)")
#: folders of the package whose files are named by texts
_TEMPLATES, _DATA = "io/templates", "data"


def files_behind(modules: Iterable[str], package_root: Path) -> list[Path]:
    """Return the files that running these modules depends on.

    Args:
        modules: Dotted names, such as those of the functions of nodes.
        package_root: Folder of the package; its name is the first part of the modules' names.

    Returns:
        Files below ``package_root``, sorted: the modules' own, those that they import, templates and data files.

    Raises:
        LookupError: If a module is not a file of the package.
    """
    waiting = [_file_of(name, package_root) for name in modules]
    found: set[Path] = set()
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += _used_by(file, package_root)
    return sorted(found)


def _file_of(module: str, root: Path) -> Path:
    file = _module_file(module, root)
    if file is None:
        raise LookupError(f"{module} is not a module of {root}")
    return file


def _module_file(module: str, root: Path) -> Path | None:
    """Return the file of a module or package of the package, None for anything else."""
    first, *rest = module.split(".")
    if first != root.name:
        return None
    path = root.joinpath(*rest)
    if rest and path.with_suffix(".py").is_file():
        return path.with_suffix(".py")
    return path / "__init__.py" if (path / "__init__.py").is_file() else None


@cache
def _used_by(file: Path, root: Path) -> tuple[Path, ...]:
    """Return the files of the package that one file refers to."""
    if file.suffix != ".py":
        return tuple(_named_templates(file, root))
    found: list[Path] = []
    for node in _running(_parsed(file)):
        if isinstance(node, ast.Import):
            found += [f for alias in node.names if (f := _module_file(alias.name, root))]
        elif isinstance(node, ast.ImportFrom):
            found += _imported_from(node, file, root)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found += _named(node.value, file, root)
    return tuple(dict.fromkeys(found))


@cache
def _parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield every node of a syntax tree but those for type checkers."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield other
                yield from _running(other)
            continue
        yield child
        yield from _running(child)


def _imported_from(node: ast.ImportFrom, file: Path, root: Path) -> list[Path]:
    module = node.module or ""
    if node.level:  # relative
        parts = [root.name, *file.relative_to(root).with_suffix("").parts]
        module = ".".join([*parts[: len(parts) - node.level], *([module] if module else [])])
    return [f for alias in node.names if (f := _defining_file(module, alias.name, root))]


def _defining_file(module: str, name: str, root: Path) -> Path | None:
    """Return the file that ``from module import name`` leads to."""
    if submodule := _module_file(f"{module}.{name}", root):
        return submodule
    file = _module_file(module, root)
    if file is None or file.name != "__init__.py":
        return file
    for node in _parsed(file).body:
        if isinstance(node, ast.ImportFrom) and not node.level and node.module:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _defining_file(node.module, alias.name, root) or file
    return file


def _named(text: str, file: Path, root: Path) -> list[Path]:
    """Return the file of the package that a text constant in ``file`` names, if it does."""
    if text.startswith(f"{root.name}."):
        module = _module_file(text, root)
        return [module] if module is not None else []
    if not _FILE_NAME.fullmatch(text):
        return []
    places = (root / _TEMPLATES / text, root / _DATA / text, file.with_name(text))
    return [place for place in places if place.is_file()]


def _named_templates(file: Path, root: Path) -> Iterator[Path]:
    """Yield the templates that a template includes or imports."""
    if file.suffix == ".j2":
        text = file.read_text(encoding="utf-8")
        for other in sorted((root / _TEMPLATES).glob("*.j2")):
            if other != file and other.name in text:
                yield other
