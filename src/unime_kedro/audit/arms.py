"""Do the arms of an ablation differ in what they say, and in nothing else? Does its table follow from its runs?"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

from unime_kedro.ablations.parent import ARM, GROUP, KEYS, SEED
from unime_kedro.audit.arms_table import check_table
from unime_kedro.audit.findings import FAIL, NOTE, PASS, SKIP, Finding, Place
from unime_kedro.audit.record import GROUP as GROUP_FILE
from unime_kedro.audit.record import RunRecord
from unime_kedro.tracking.metrics import leaves

#: what differs between runs of one arm, where the group does not say
_SEED = "train.seed"
#: folders that shape what a run computes
_SHAPING = ("src", "conf", "models", "pyproject.toml")
_PARENT = "mlflow.parentRunId"


def check_arms(record: RunRecord, place: Place) -> Iterator[Finding]:
    """Yield what an ablation's runs have in common and what not; for its parent, and for each of its runs."""
    parent = record if record.children else place.records.get(record.tags.get(_PARENT, ""))
    if GROUP not in record.tags or parent is None:
        return
    runs = [place.records[run] for run in parent.children if run in place.records]
    arms = _latest(runs, record, _tuned(parent))
    if not arms:
        yield Finding("arms", parent.name, SKIP, "no finished run of the ablation is known")
        return
    if reason := parent.unreadable.get(GROUP_FILE):
        yield Finding("arms", GROUP_FILE, FAIL, f"cannot be read: {reason}", "it was changed after the run")
    yield from _same_code(arms, place)
    yield from _same_inputs(arms)
    yield _declared_only(arms, _declared(parent))
    yield _as_declared(parent, arms)
    yield _one_each(arms)
    if record is parent:
        yield from check_table(parent, arms, place)


def _tuned(parent: RunRecord) -> str:
    """Return the key that each arm may have its own best value of, "" if there is none."""
    return str(((parent.group or {}).get("tune") or {}).get("key", ""))


def _latest(runs: list[RunRecord], record: RunRecord, tuned: str) -> list[RunRecord]:
    """Return one finished run per arm, seed and tried value: the latest, or the one that the audit is about."""
    found: dict[tuple[str, str, str], RunRecord] = {}
    for run in runs:  # in the order of their start
        if ARM in run.tags and run.status == "FINISHED":
            key = run.tags[ARM], run.tags.get(SEED, ""), run.params.get(tuned, "")
            if found.get(key) is None or found[key].run_id != record.run_id:
                found[key] = run
    return list(found.values())


def _declared(parent: RunRecord) -> set[str]:
    """Return the keys that the group declares, with what --tune gave each arm."""
    group = parent.group or {}
    keys = {key for key in parent.tags.get(KEYS, "").split(",") if key} or set(group.get("keys", ()))
    return {*keys, group.get("seed_key", _SEED), *filter(None, [_tuned(parent)])}


def _declared_only(arms: list[RunRecord], declared: set[str]) -> Finding:
    flat = [_flat(run) for run in arms]
    different = {key for one in flat for key in one if any(other.get(key) != one[key] for other in flat)}
    wrong = sorted(key for key in different if not any(key == d or key.startswith(f"{d}.") for d in declared))
    if wrong:
        values = sorted({f"{one.get(wrong[0])!r}" for one in flat})
        text = f"arms differ in {', '.join(wrong)}, which the group does not declare ({wrong[0]}: {', '.join(values)})"
        return Finding("arms", "parameters", FAIL, text, "what is compared is not what the group says; run it again")
    shown = ", ".join(sorted(different & declared)) or "nothing"
    return Finding("arms", "parameters", PASS, f"{len(arms)} runs differ in {shown}, all declared")


def _flat(run: RunRecord) -> dict[str, Any]:
    """Return parameters by their own keys, and the catalog's entries, which must be the same in all arms."""
    config = run.config or {}
    catalog = {f"catalog.{key}": value for key, value in leaves(config.get("catalog") or {})}
    return dict(leaves(config.get("parameters") or {})) | catalog


def _as_declared(parent: RunRecord, arms: list[RunRecord]) -> Finding:
    """Return whether every run has the values that the group declares for its arm, and the seed that it is named by."""
    group = parent.group or {}
    wrong = []
    for run in arms:
        declared = {**group.get("common", {}), **group.get("arms", {}).get(run.tags[ARM], {})}
        declared[group.get("seed_key", _SEED)] = run.tags.get(SEED)
        found = _flat(run)
        wrong += [
            f"{run.name}: {key} is {found.get(key)!r}, declared {value!r}"
            for key, value in declared.items()
            if key != _tuned(parent) and not isinstance(value, Mapping) and str(found.get(key)) != str(value)
        ]
    if wrong:
        remedy = "it is not what the group says; run it again, or unime ablate --table=only for another group"
        return Finding("arms", "declared", FAIL, f"{len(wrong)} values differ, first {wrong[0]}", remedy)
    what = "values and seeds" if group else "seeds"
    return Finding("arms", "declared", PASS, f"{len(arms)} runs have the {what} that the group declares")


def _same_code(arms: list[RunRecord], place: Place) -> Iterator[Finding]:
    for what, tag in (
        ("commit", "mlflow.source.git.commit"),
        ("changes", "git.diff.sha256"),
        ("packages", "environment.hash"),
    ):
        values = sorted({run.tags.get(tag, "") for run in arms})
        first = ", ".join(value[:12] or "(none)" for value in values)
        if len(values) == 1:
            yield Finding("arms", what, PASS, f"the same in {len(arms)} runs")
        elif what == "commit" and _is_same_code(values, place):
            text = f"{len(values)} different ones with the same {', '.join(_SHAPING)}: {first}"
            yield Finding("arms", what, NOTE, text)
        else:
            remedy = "run the arms that are older again: remove their folders, and unime ablate"
            yield Finding("arms", what, FAIL, f"{len(values)} different ones: {first}", remedy)


def _is_same_code(commits: list[str], place: Place) -> bool:
    """Whether commits differ in nothing that shapes a run, as those that DVC's results are committed in do."""
    command = ["git", "diff", "--quiet", commits[0]]
    try:
        done = [
            subprocess.run([*command, other, "--", *_SHAPING], cwd=place.root, capture_output=True, timeout=60)
            for other in commits[1:]
        ]
    except (OSError, subprocess.SubprocessError):
        return False
    return all(commits) and not any(one.returncode for one in done)


def _same_inputs(arms: list[RunRecord]) -> Iterator[Finding]:
    """Yield inputs that are not the same bytes in all arms, of those that all of them read."""
    inputs = [{one.dataset: one.sha256 for one in run.side("input")} for run in arms]
    names = set.intersection(*(set(one) for one in inputs)) if inputs else set()
    wrong = sorted(name for name in names if len({one[name] for one in inputs}) > 1)
    if not names:
        yield Finding("arms", "inputs", SKIP, "the runs recorded no files")
    elif wrong:
        text = f"arms read different {', '.join(wrong)}"
        yield Finding("arms", "inputs", FAIL, text, "run the arms again on one mined data set")
    else:
        yield Finding("arms", "inputs", PASS, f"{len(names)} inputs are the same in {len(arms)} runs")


def _one_each(arms: list[RunRecord]) -> Finding:
    """Return whether every arm has every seed once; a run that was made again counts by its latest."""
    seeds: dict[str, set[str]] = {}
    for run in arms:
        seeds.setdefault(run.tags[ARM], set()).add(run.tags.get(SEED, ""))
    every = set.union(*seeds.values())
    lacking = sorted(f"{arm} {', '.join(sorted(every - found))}" for arm, found in seeds.items() if found != every)
    if lacking:
        return Finding(
            "arms", "seeds", NOTE, f"arms lack seeds: {'; '.join(lacking)}", "unime ablate runs what is missing"
        )
    return Finding("arms", "seeds", PASS, f"{len(seeds)} arms with seeds {', '.join(sorted(every))}")
