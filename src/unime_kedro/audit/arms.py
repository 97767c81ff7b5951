"""Do the arms of an ablation differ in what they say, and in nothing else? Does its table follow from its runs?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from unime_kedro.ablations.parent import ARM, GROUP, KEYS, SEED
from unime_kedro.audit.findings import FAIL, NOTE, PASS, SKIP, Finding, Place
from unime_kedro.audit.metrics import equal
from unime_kedro.audit.record import RunRecord
from unime_kedro.tracking.metrics import clean_key, leaves

#: what differs between runs of one arm, and the keys that only say how something is done
_ALWAYS = {"train.seed"}
_PARENT = "mlflow.parentRunId"


def check_arms(record: RunRecord, place: Place) -> Iterator[Finding]:
    """Yield what an ablation's runs have in common and what not; for its parent, and for each of its runs."""
    parent = record if record.children else place.records.get(record.tags.get(_PARENT, ""))
    if GROUP not in record.tags or parent is None:
        return
    runs = [place.records[run] for run in parent.children if run in place.records]
    arms = [run for run in runs if ARM in run.tags and run.status == "FINISHED"]
    if not arms:
        yield Finding("arms", parent.name, SKIP, "no finished run of the ablation is known")
        return
    yield from _same_code(arms)
    yield from _same_inputs(arms)
    yield _declared_only(arms, _declared(parent, arms))
    yield _one_each(arms)
    if record is parent:
        yield from _table(parent, arms)


def _declared(parent: RunRecord, arms: list[RunRecord]) -> set[str]:
    """Return the keys that the group declares, with what --tune gave each arm."""
    group = parent.group or {}
    keys = {key for key in parent.tags.get(KEYS, "").split(",") if key} or set(group.get("keys", ()))
    tuned = (group.get("tune") or {}).get("key")
    return keys | _ALWAYS | ({tuned} if tuned else set())


def _declared_only(arms: list[RunRecord], declared: set[str]) -> Finding:
    flat = [dict(leaves((run.config or {}).get("parameters") or {})) for run in arms]
    different = {key for one in flat for key in one if any(other.get(key) != one[key] for other in flat)}
    wrong = sorted(key for key in different if not any(key == d or key.startswith(f"{d}.") for d in declared))
    if wrong:
        values = sorted({f"{one.get(wrong[0])!r}" for one in flat})
        text = f"arms differ in {', '.join(wrong)}, which the group does not declare ({wrong[0]}: {', '.join(values)})"
        return Finding("arms", "parameters", FAIL, text, "what is compared is not what the group says; run it again")
    shown = ", ".join(sorted(different & declared)) or "nothing"
    return Finding("arms", "parameters", PASS, f"{len(arms)} runs differ in {shown}, all declared")


def _same_code(arms: list[RunRecord]) -> Iterator[Finding]:
    for what, tag in (
        ("commit", "mlflow.source.git.commit"),
        ("changes", "git.diff.sha256"),
        ("packages", "environment.hash"),
    ):
        values = {run.tags.get(tag, "") for run in arms}
        if len(values) == 1:
            yield Finding("arms", what, PASS, f"the same in {len(arms)} runs")
        else:
            first = sorted(value[:12] or "(none)" for value in values)
            remedy = "run the arms that are older again: remove their folders, and unime ablate"
            yield Finding("arms", what, FAIL, f"{len(values)} different ones: {', '.join(first)}", remedy)


def _same_inputs(arms: list[RunRecord]) -> Iterator[Finding]:
    """Yield inputs that are not the same bytes in all arms, of those that all of them read."""
    inputs = [{one.dataset: one.sha256 for one in run.side("input")} for run in arms]
    names = set.intersection(*(set(one) for one in inputs)) if inputs else set()
    wrong = sorted(name for name in names if len({one[name] for one in inputs}) > 1)
    if wrong:
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


def _table(parent: RunRecord, arms: list[RunRecord]) -> Iterator[Finding]:
    """Compare the figures of the ablation's table to the metrics of its runs."""
    latest: dict[tuple[str, str], RunRecord] = {}
    for run in arms:  # in the order of their start
        latest[run.tags[ARM], run.tags.get(SEED, "")] = run
    columns: Mapping[str, Any] = ((parent.group or {}).get("results") or {}).get("columns") or {}
    checked, wrong = 0, []
    for arm in sorted({arm for arm, _ in latest}):
        for name, column in columns.items():
            said = parent.metrics.get(clean_key(f"{parent.tags[GROUP]}/{arm}/{name}_mean"))
            values = [_value(run, column) for (one, _), run in latest.items() if one == arm]
            known = [value for value in values if value is not None]
            if said is None or not known or len(known) != len(values):
                continue
            checked += 1
            if not equal(said, sum(known) / len(known)):
                wrong.append(f"{arm} {name}: {said:.6g} in the database, {sum(known) / len(known):.6g} from its runs")
    if wrong:
        yield Finding(
            "arms", "table", FAIL, f"{len(wrong)} figures differ, first {wrong[0]}", "unime ablate --table=only"
        )
    elif checked:
        yield Finding("arms", "table", PASS, f"{checked} figures are the means of their runs'")


def _value(run: RunRecord, column: Mapping[str, Any]) -> float | None:
    """Return a run's figure of a column: the mean of its keys, which are those of trained_metrics."""
    keys = [clean_key(f"trained/{key}") for key in column.get("keys", ())]
    values = [run.metrics.get(key) for key in keys]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
