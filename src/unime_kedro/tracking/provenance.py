"""Where a result comes from: code, configuration, data, software and machine, as tags of a run."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from unime_kedro.tracking.metrics import plain
from unime_kedro.tracking.surroundings import RESULTS

#: what shapes results, from the project root
CODE = ("src", "conf", "models", "pyproject.toml", "constraints.txt")
#: packages whose versions are recorded, if they are installed
PACKAGES = (
    "unime-kedro", "kedro", "polars", "pyarrow", "numpy", "torch", "transformers", "faiss-cpu", "faiss-gpu-cu12",
    "vllm", "mlflow", "great-expectations",
)  # fmt: skip


def git_tags(root: Path) -> dict[str, str]:
    """Return the commit, and whether files differ from it; empty outside a repository or without git."""
    command = ["git", "status", "--porcelain=v2", "--branch"]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    lines = done.stdout.splitlines()
    commit = next((line.split()[-1] for line in lines if line.startswith("# branch.oid ")), "")
    results = tuple(f"{before}{name}" for name in RESULTS for before in " /")
    dirty = any(not line.startswith("#") and not line.endswith(results) for line in lines)
    tags = {"git.dirty": str(dirty).lower()}
    return tags | {"mlflow.source.git.commit": commit} if commit and commit != "(initial)" else tags


def code_tags(root: Path) -> dict[str, str]:
    """Return the last commit that changed what runs; empty outside a repository or without git.

    A commit of documents or of results, such as ``dvc.lock``, comes after it and changes nothing that a result depends
    on: what states this commit, and not the latest, stays the same on both sides of it.
    """
    command = ["git", "log", "--max-count=1", "--format=%H", "--", *CODE]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"git.code": commit} if (commit := done.stdout.strip()) else {}


def code_commit(tags: Mapping[str, Any]) -> str:
    """Return the commit of the code from a run's tags: :func:`code_tags`', that of :func:`git_tags` in older runs."""
    return str(tags.get("git.code") or tags.get("mlflow.source.git.commit") or "")


def command_line() -> str:
    """Return the command as typed: ``kedro run --pipeline=mine``; for other programs the program's name."""
    program, *arguments = sys.argv or [""]
    name = Path(program).name.split()[-1:] or ["python"]  # Kedro calls itself "python -m kedro" when it is run so
    return shlex.join([*name, *arguments])


def version_tags() -> dict[str, str]:
    """Return ``version.<package>`` of Python and of the packages that shape results; nothing is imported for it."""
    tags = {"version.python": platform.python_version()}
    for package in PACKAGES:
        try:
            tags[f"version.{package}"] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return tags


def hardware_tags() -> dict[str, str]:
    """Return processor, usable cores, memory in GiB and, where the driver names them, GPUs."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0
    tags = {"hardware.cpu": _cpu_model(), "hardware.cores": str(cores)}
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        tags["hardware.memory_gib"] = f"{memory:.1f}"
    except (OSError, ValueError):
        pass
    cards = [_field(file, "Model") for file in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))]
    return tags | ({"hardware.gpu": ", ".join(filter(None, cards))} if cards else {})


def dvc_tags() -> dict[str, str]:
    """Return stage and experiment of the ``dvc`` command that this process is part of, if it is."""
    names = {"dvc.stage": "DVC_STAGE", "dvc.exp": "DVC_EXP_NAME"}
    return {tag: value for tag, name in names.items() if (value := os.environ.get(name))}


def named_by_dvc(name: str) -> str:
    """Return the name of a run, with the name of DVC's experiment if it is part of one: ``train (warm-soil)``."""
    experiment = dvc_tags().get("dvc.exp")
    return f"{name} ({experiment})" if experiment else name


def _cpu_model() -> str:
    return _field(Path("/proc/cpuinfo"), "model name") or platform.processor() or platform.machine()


def _field(file: Path, name: str) -> str:
    """Return the value of the first ``name : value`` line of a file under /proc, "" if there is none."""
    try:
        with file.open(encoding="utf-8", errors="replace") as lines:
            return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "")
    except OSError:
        return ""


def seed_tags(parameters: Mapping[str, Any], prefix: str = "seed") -> dict[str, str]:
    """Return ``seed.<block>`` for every parameter called ``seed``, at any depth."""
    tags: dict[str, str] = {}
    for key, value in parameters.items():
        if key == "seed":
            tags[prefix] = str(value)
        elif isinstance(value, Mapping):
            tags |= seed_tags(value, f"{prefix}.{key}")
    return tags


def resolved_config(
    parameters: Mapping[str, Any], catalog: Mapping[str, Any], root: Path, data_root: Path
) -> dict[str, Any]:
    """Return parameters and catalog without anything that depends on where this copy of the project lies.

    Args:
        parameters: All parameters, typed ones included.
        catalog: The catalog's configuration, as Kedro resolved it.
        root: The project root; paths below it become relative.
        data_root: The absolute data root; paths below it begin with ``<data root>``.
    """
    relative = [str(data_root.relative_to(root))] if data_root.is_relative_to(root) else []
    places = dict.fromkeys([str(data_root), *relative], "<data root>") | {str(root): "."}
    config = {"parameters": plain(parameters), "catalog": plain(catalog)}
    portable: dict[str, Any] = _portable(config, places)
    return portable


def _portable(value: Any, places: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _portable(inner, places) for key, inner in value.items()}
    if isinstance(value, list):
        return [_portable(inner, places) for inner in value]
    if isinstance(value, str):
        for place, name in places.items():
            if value == place or value.startswith(place.rstrip("/") + "/"):
                return (name + value[len(place.rstrip("/")) :]).removeprefix("./")
    return value


def config_hash(config: Mapping[str, Any]) -> str:
    """Return the sha256 of the canonical JSON (sorted keys, no blanks) of a configuration."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def without_password(uri: str) -> str:
    """Return a URI, or a text that holds some, with passwords replaced by ``***``."""
    return re.sub(r"(?<=://)([^/@:\s]*):[^/@\s]*@", r"\1:***@", uri)
