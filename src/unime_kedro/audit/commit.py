"""Is the configuration that a run recorded the one that the files of its commit give?"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from unime_kedro.audit.checkout import NoCheckout, tree_of
from unime_kedro.audit.findings import FAIL, PASS, SKIP, Finding, Place
from unime_kedro.audit.record import RunRecord, located
from unime_kedro.tracking.metrics import leaves

#: variables that say where and how something is run here, not in a tree of another commit
_HERE = ("DVC_", "MLFLOW_", "UNIME_", "KEDRO_", "GIT_")
_SCRIPT = Path(__file__).with_name("resolve_in_tree.py")
_LIMIT = 300


def check_commit(record: RunRecord, place: Place) -> Iterator[Finding]:
    """Yield whether the configuration is what the files of the run's commit say, key by key.

    Kedro resolves it in a worktree of that commit, by that commit's code, with the run's environment and options.
    """
    if record.config is None:
        return
    subject = f"commit {record.commit[:12] or '(none)'}"
    try:
        options = runtime_options(record, place)
        with tree_of(record, place.root) as tree:
            resolved = _flat(_resolved(tree, record, options))
    except NoCheckout as reason:
        yield Finding("configuration", subject, SKIP, f"not compared: {reason}")
        return
    recorded = _flat(record.config)
    different = sorted(key for key in {*resolved, *recorded} if recorded.get(key, _LACKS) != resolved.get(key, _LACKS))
    if not different:
        yield Finding("configuration", subject, PASS, f"its files give the {len(resolved)} recorded values")
        return
    first = different[0]
    values = f"{recorded.get(first, _LACKS)!r} recorded, {resolved.get(first, _LACKS)!r} there"
    text = f"{len(different)} values differ, first {first}: {values}"
    remedy = "the run was made with other files or options than it says"
    if record.tags.get("kedro.env", "local") == "local":
        remedy += "; conf/local is in no commit, use another environment for runs that others shall check"
    yield Finding("configuration", subject, FAIL, text, remedy)


_LACKS = "(nothing)"


def runtime_options(record: RunRecord, place: Place) -> dict[str, Any]:
    """Return the parameters that the run's command set, nested.

    Raises:
        NoCheckout: The command names a file that is gone.
    """
    from kedro.framework.cli.utils import _split_params

    found: dict[str, Any] = {}
    words = shlex.split(record.tags.get("kedro.command", ""))
    for number, word in enumerate(words):
        name, _, value = word.partition("=")
        if name in ("--params", "--config", "-c") and not value and number + 1 < len(words):
            value = words[number + 1]
        if name == "--params":
            found |= _split_params(None, None, value)  # type: ignore[arg-type]
        elif name in ("--config", "-c"):
            found |= options_of(value, record, place).get("params") or {}
    return found


def options_of(name: str, record: RunRecord, place: Place) -> dict[str, Any]:
    """Return what the file of ``--config`` says of the run; of an arm whose file is gone, what its group declares.

    Raises:
        NoCheckout: Neither is there.
    """
    import yaml

    file = located(name, place.root, place.data_root)
    try:
        options: dict[str, Any] = (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get("run") or {}
    except OSError as error:
        if declared := _declared(record, place):
            return declared
        raise NoCheckout(f"{file}, which the command names, cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, AttributeError) as error:
        raise NoCheckout(f"{file}, which the command names, is no file of options") from error
    return options


def _declared(record: RunRecord, place: Place) -> dict[str, Any]:
    from unime_kedro.ablations.config import nested
    from unime_kedro.ablations.parent import ARM, SEED

    parent = place.records.get(record.tags.get("mlflow.parentRunId", ""))
    group = parent.group if parent is not None else None
    arm, seed = record.tags.get(ARM), record.tags.get(SEED)
    if not group or seed is None or arm not in group["arms"]:
        return {}
    overrides = {**group["common"], **group["arms"][arm], group["seed_key"]: int(seed)}
    return {"pipelines": record.tags.get("kedro.pipeline", "").replace("+", ","), "params": nested(overrides)}


def tree_environment(tree: Path, data_root: str | Path) -> dict[str, str]:
    """Return variables for a process that works in the tree of another commit, by its code, untracked."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(_HERE)}
    return kept | {"UNIME_DATA_ROOT": str(data_root), "UNIME_TRACKING": "off", "PYTHONPATH": str(tree / "src")}


def _resolved(tree: Path, record: RunRecord, options: Mapping[str, Any]) -> dict[str, Any]:
    environment = tree_environment(tree, record.tags.get("data.root", "data"))
    with tempfile.TemporaryDirectory(prefix="unime-audit-") as folder:
        file = Path(folder) / "config.json"
        tags = record.tags
        words = [tags.get("kedro.env", ""), tags.get("kedro.pipeline", "__default__"), json.dumps(options), str(file)]
        done = subprocess.run(
            [sys.executable, "-P", str(_SCRIPT), *words], cwd=tree, env=environment, capture_output=True, text=True
        )
        if done.returncode or not file.is_file():
            last = " ".join((done.stderr.strip().splitlines() or ["it wrote nothing"])[-1].split())
            raise NoCheckout(f"its code could not resolve its configuration here: {last[:_LIMIT]}")
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return config


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted keys with JSON values, so that tuples are lists."""
    return dict(leaves(json.loads(json.dumps(config, default=str))))
