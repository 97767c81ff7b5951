"""Do a run's configuration, its parameters in the database, its packages and its changes of code belong together?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from unime_kedro.audit.findings import FAIL, NOTE, PASS, Finding, Place
from unime_kedro.audit.record import CONFIG, RunRecord
from unime_kedro.tracking.evidence import CHANGES, ENVIRONMENT
from unime_kedro.tracking.files import DATA_ROOT
from unime_kedro.tracking.metrics import flat_parameters
from unime_kedro.tracking.provenance import config_hash, seed_tags

_CHANGED = "one of the two was changed after the run; do not trust it"
_NO_LIMIT = 10**9
#: mlflow.yml cuts no text shorter than this
_SHORTEST_CUT = 16


def check_configuration(record: RunRecord, place: Place) -> Iterator[Finding]:
    """Yield whether config.yml, its hash, the parameters in the database, packages and changes belong together."""
    if record.config is None:
        if not record.children:
            text = f"cannot be read: {reason}" if (reason := record.unreadable.get(CONFIG)) else "is gone"
            yield Finding("configuration", CONFIG, FAIL, text, "it was changed after the run; do not trust it")
        yield from _check_surroundings(record)
        return
    found, said = config_hash(record.config), record.tags.get("config.hash", "")
    if found == said:
        yield Finding("configuration", "config.yml", PASS, f"hashes to config.hash, {said[:12]}...")
    else:
        text = f"hashes to {found[:12]}..., config.hash says {said[:12] or 'nothing'}"
        yield Finding("configuration", "config.yml", FAIL, text, _CHANGED)
    yield _check_parameters(record)
    yield _check_seeds(record)
    yield from _check_surroundings(record)


def _check_parameters(record: RunRecord) -> Finding:
    assert record.config is not None
    wanted = flat_parameters(record.config.get("parameters") or {}, _NO_LIMIT)
    root = record.tags.get("data.root", "")
    longest = max((len(value) for value in record.params.values()), default=0)
    different = [key for key, value in wanted.items() if not _same(record.params.get(key), value, root, longest)]
    more = sorted(set(record.params) - set(wanted))
    if not different and not more:
        return Finding("configuration", "parameters", PASS, f"{len(wanted)} in the database are those of config.yml")
    first = (different or more)[0]
    text = f"{len(different) + len(more)} differ, first {first}: {_cut(record.params.get(first))} in the database, "
    return Finding("configuration", "parameters", FAIL, f"{text}{_cut(wanted.get(first))} in config.yml", _CHANGED)


def _same(said: str | None, value: str, data_root: str, longest: int) -> bool:
    """Whether a parameter is that of the configuration, which names no place of the machine; long ones are cut."""
    if said is None:
        return False
    relative = value.replace(DATA_ROOT, data_root)
    if said in (value, relative) or (DATA_ROOT in value and said.endswith(f"/{relative}")):
        return True
    is_cut = said.endswith("…") and len(said) == longest >= _SHORTEST_CUT
    return is_cut and any(len(text) > longest and text.startswith(said[:-1]) for text in (value, relative))


def _cut(value: str | None, limit: int = 60) -> str:
    if value is None:
        return "nothing"
    return repr(value if len(value) <= limit else f"{value[:limit]}...")


def _check_seeds(record: RunRecord) -> Finding:
    assert record.config is not None
    wanted = seed_tags(record.config.get("parameters") or {})
    said = {key: value for key, value in record.tags.items() if key.startswith("seed.")}
    different = sorted(key for key in {*wanted, *said} if wanted.get(key) != said.get(key))
    if not different:
        return Finding("configuration", "seeds", PASS, f"{len(wanted)} in the database are those of config.yml")
    first = different[0]
    text = f"{first}: {said.get(first)} in the database, {wanted.get(first)} in config.yml"
    return Finding("configuration", "seeds", FAIL, text, _CHANGED)


def _check_surroundings(record: RunRecord) -> Iterator[Finding]:
    tags = record.tags
    if record.environment or "environment.hash" in tags:
        text = "".join(f"{line}\n" for line in record.environment)
        digest = hashlib.sha256(text.encode("utf-8", errors="surrogateescape")).hexdigest()
        yield _hashed(ENVIRONMENT, "environment.hash", digest, tags)
    if record.changes or "git.diff.sha256" in tags:
        digest = hashlib.sha256(record.changes.encode("utf-8", errors="surrogateescape")).hexdigest()
        yield _hashed(CHANGES, "git.diff.sha256", digest, tags)
    if tags.get("git.dirty") == "true":
        out = tags.get("git.left_out")
        text = "files differed from the commit" + (f"; not recorded: {out}" if out else ", recorded in git.diff")
        yield Finding("configuration", "code", NOTE, text, "run again from a clean commit before you publish")
    elif record.changes:
        text = "git.diff holds changes, and git.dirty says that there were none"
        yield Finding("configuration", "code", FAIL, text, _CHANGED)


def _hashed(name: str, tag: str, digest: str, tags: dict[str, str]) -> Finding:
    if digest == tags.get(tag):
        return Finding("configuration", name, PASS, f"hashes to {tag}")
    return Finding("configuration", name, FAIL, f"does not hash to {tag}", _CHANGED)
