"""Is the configuration that a run recorded the one it ran with, and the one of its commit?"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unime_kedro.audit.checkout import NoCheckout, tree_of
from unime_kedro.audit.findings import FAIL, NOTE, PASS, SKIP, Finding, Place
from unime_kedro.audit.record import RunRecord, located
from unime_kedro.tracking.files import DATA_ROOT
from unime_kedro.tracking.metrics import flat_parameters, leaves, plain
from unime_kedro.tracking.provenance import config_hash
from unime_kedro.tracking.surroundings import environment_tags

_CHANGED = "one of the two was changed after the run; do not trust it"
_NO_LIMIT = 10**9


def check_configuration(record: RunRecord, place: Place) -> Iterator[Finding]:
    """Yield whether config.yml, its hash, the parameters in the database, packages and changes belong together."""
    if record.config is None:
        if not record.children:
            yield Finding("configuration", "config.yml", FAIL, "the run recorded no configuration")
        return
    found, said = config_hash(record.config), record.tags.get("config.hash", "")
    if found == said:
        yield Finding("configuration", "config.yml", PASS, f"hashes to config.hash, {said[:12]}...")
    else:
        text = f"hashes to {found[:12]}..., config.hash says {said[:12] or 'nothing'}"
        yield Finding("configuration", "config.yml", FAIL, text, _CHANGED)
    yield _check_parameters(record)
    yield from _check_surroundings(record)


def _check_parameters(record: RunRecord) -> Finding:
    assert record.config is not None
    wanted = flat_parameters(record.config.get("parameters") or {}, _NO_LIMIT)
    root = record.tags.get("data.root", "")
    different = [key for key, value in wanted.items() if not _same(record.params.get(key), value, root)]
    more = sorted(set(record.params) - set(wanted))
    if not different and not more:
        return Finding("configuration", "parameters", PASS, f"{len(wanted)} in the database are those of config.yml")
    first = (different or more)[0]
    text = f"{len(different) + len(more)} differ, first {first}: {record.params.get(first)!r} in the database, "
    return Finding("configuration", "parameters", FAIL, f"{text}{wanted.get(first)!r} in config.yml", _CHANGED)


def _same(said: str | None, value: str, data_root: str) -> bool:
    """Whether a parameter is that of the configuration, which names no place of the machine; long ones are cut."""
    if said is None:
        return False
    relative = value.replace(DATA_ROOT, data_root)
    if said in (value, relative) or (DATA_ROOT in value and said.endswith(f"/{relative}")):
        return True
    return said.endswith("…") and any(text.startswith(said[:-1]) for text in (value, relative))


def _check_surroundings(record: RunRecord) -> Iterator[Finding]:
    if record.environment:
        text = "".join(f"{line}\n" for line in record.environment)
        good = environment_tags(text, Path("/nowhere"))["environment.hash"] == record.tags.get("environment.hash")
        what = "hashes to environment.hash" if good else "does not hash to environment.hash"
        yield Finding("configuration", "environment.txt", PASS if good else FAIL, what, "" if good else _CHANGED)
    if record.changes or "git.diff.sha256" in record.tags:
        digest = hashlib.sha256(record.changes.encode("utf-8", errors="surrogateescape")).hexdigest()
        good = digest == record.tags.get("git.diff.sha256")
        what = f"{'hashes' if good else 'does not hash'} to git.diff.sha256"
        yield Finding("configuration", "git.diff", PASS if good else FAIL, what, "" if good else _CHANGED)
    if record.tags.get("git.dirty") == "true":
        out = record.tags.get("git.left_out")
        text = "files differed from the commit" + (f"; not recorded: {out}" if out else ", recorded in git.diff")
        yield Finding("configuration", "code", NOTE, text, "run again from a clean commit before you publish")


def check_commit(record: RunRecord, place: Place) -> Iterator[Finding]:
    """Yield whether the configuration is what the files of the run's commit say, key by key."""
    if record.config is None:
        return
    subject = f"commit {record.commit[:12] or '(none)'}"
    try:
        options = runtime_options(record, place)
        with tree_of(record, place.root) as tree:
            resolved = _resolved(tree, record, options)
    except NoCheckout as reason:
        yield Finding("configuration", subject, SKIP, f"not compared: {reason}")
        return
    recorded = _flat({"parameters": record.config.get("parameters"), "catalog": record.config.get("catalog")})
    different = sorted(key for key, value in resolved.items() if recorded.get(key, value) != value)
    different += sorted(key for key in recorded if key.startswith("catalog.") and key not in resolved)
    if not different:
        yield Finding("configuration", subject, PASS, f"its files give the {len(resolved)} recorded values")
        return
    first = different[0]
    values = f"{recorded.get(first)!r} recorded, {resolved.get(first)!r} there"
    text = f"{len(different)} values differ, first {first}: {values}"
    yield Finding("configuration", subject, FAIL, text, "the run was made with other files or options than it says")


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
            found |= _options_file(located(value, place.root, place.data_root))
    return found


def _options_file(file: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise NoCheckout(f"{file}, which the command names, cannot be read: {error.strerror}") from error
    options: dict[str, Any] = (content or {}).get("run", {}).get("params") or {}
    return options


def _resolved(tree: Path, record: RunRecord, options: Mapping[str, Any]) -> dict[str, Any]:
    from unime_kedro.tracking.opening import loader_of
    from unime_kedro.tracking.provenance import resolved_config

    root = record.tags.get("data.root", "data")
    # a place that is nobody's, so that what follows from it can be told from other texts
    data_root = tree / "data-of-the-run"
    with _variables(tree, data_root):
        loader = loader_of(tree, record.tags.get("kedro.env"), options)
        config = resolved_config(_typed(loader["parameters"]), loader["catalog"], tree, data_root)
    return _flat(config, {root: DATA_ROOT} if not Path(root).is_absolute() else {})


def _typed(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters as Kedro hands them on: typed sections have defaults and what follows from other keys."""
    from pydantic import ValidationError

    from unime_kedro.parameters import SECTIONS

    found = dict(parameters)
    for name, model in SECTIONS.items():
        try:
            found[name] = plain(model.model_validate(found[name])) if name in found else None
        except ValidationError as error:
            raise NoCheckout(f"section {name} of its parameters is none that this version reads: {error}") from error
    return {name: value for name, value in found.items() if value is not None}


@contextmanager
def _variables(tree: Path, data_root: Path) -> Iterator[None]:
    before = os.environ.get("UNIME_DATA_ROOT")
    os.environ["UNIME_DATA_ROOT"] = str(data_root)
    try:
        yield
    finally:
        os.environ.pop("UNIME_DATA_ROOT", None)
        if before is not None:
            os.environ["UNIME_DATA_ROOT"] = before


def _flat(config: Mapping[str, Any], places: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return dotted keys with JSON values, so that tuples are lists and 1.0 is 1.0."""
    found = {}
    for key, value in leaves(json.loads(json.dumps(config, default=str))):
        for place, name in (places or {}).items():
            if isinstance(value, str) and (value == place or value.startswith(f"{place}/")):
                value = name + value[len(place) :]
        found[key] = value
    return found
