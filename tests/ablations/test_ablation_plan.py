"""Groups, their faults, and the plan of their runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ablation_project import COMPONENTS, AblationProject
from hypothesis import given
from hypothesis import strategies as st

from unime_kedro.ablations.config import Group, nested
from unime_kedro.ablations.plan import Plan, Variant, differences, make_plan
from unime_kedro.ablations.project import Project
from unime_kedro.ablations.tuning import choose, gather, read_tuned, tuned_overrides
from unime_kedro.errors import ConfigurationError, DataError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AblationProject:
    """A project with the real pipelines, configured in this process."""
    for name in ("UNIME_DATA_ROOT", "KEDRO_ENV"):
        monkeypatch.delenv(name, raising=False)
    made = AblationProject(tmp_path / "made", package="unime_kedro")
    monkeypatch.chdir(made.root)
    return made


def plan_of(made: AblationProject, group: str = "components", **overrides: object) -> Plan:
    project = Project(root=made.root)
    found = project.group(group)
    return make_plan(project, group, [Variant(arm, overrides, arm, arm) for arm in found.arms], found.seeds)


def group_of(made: AblationProject, text: str) -> None:
    made.write("conf/base/ablations.yml", text)


@pytest.mark.parametrize("env", [None, "smoke", "paper"])
def test_the_groups_of_this_project_are_valid_in_every_environment(env: str | None, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    groups = Project(env).groups
    assert set(groups) >= {"components", "negatives", "temperature", "judge_temperature", "filter", "judge"}
    for name, group in groups.items():
        if name in ("negatives", "temperature", "judge_temperature"):
            assert {key.split(".")[0] for key in group.keys} == {"train"}, "the same mined negatives for all arms"


def test_figures_are_those_of_the_paper(monkeypatch) -> None:
    """Against the text of the paper's tables 4, 5, 6 and 10, as written in the method."""
    monkeypatch.chdir(ROOT)
    groups, paper = Project().groups, Project("paper").groups
    figures = {name: groups[name].paper.figures for name in ("components", "negatives", "temperature")}
    tables = {
        "components": "in_batch 60.1/63.4/82.2/60.0; hard 61.6/68.9/89.8/63.7; soft 63.6/72.1/93.4/64.1",
        "negatives": "4 61.3/69.2/91.0/62.4; 6 61.8/70.8/91.7/61.2; 8 63.6/72.1/93.4/64.1; 10 63.0/72.0/93.4/63.4",
        "temperature": "0.03 61.9/70.6/92.0/65.8; 0.02 63.6/72.1/93.4/64.1; 0.01 62.1/70.1/91.1/66.5",
        "judge": "qwen2_5_vl_7b 63.6/72.1/93.4/64.1; internvl3_8b 58.5/70.2/91.3/64.1; internvl3_14b 63.2/72.9/93.1/63.2",
    }
    for name, text in tables.items():
        wanted = {row.split()[0]: [float(x) for x in row.split()[1].split("/")] for row in text.split("; ")}
        assert (figures | {"judge": paper["judge"].paper.figures})[name] == wanted, name


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds: [1, 2]", "seed: [1, 2]", r"components.seed = \[1, 2\]: unknown key; did you mean components.seeds\?"),
        ("{train.loss.kind: hard}", "{train.steps: 3}", r"arms.hard: train.steps is not among the keys .* line 7\]"),
        ("{train.loss.kind: hard}", "{train.loss.kind: in_batch}", "components.arms.hard: the same as in_batch"),
        ("keys: [train.loss.kind]", "keys: [demo.seed]", "demo.seed cannot be set here"),
        ("hard: [61.6, 68.9]", "soft: [61.6, 68.9]", "figures.soft: there is no such arm; there are in_batch, hard"),
        ("hard: [61.6, 68.9]", "hard: [61.6]", "figures.hard: 1 figures for 2 columns"),
        ("key: train.learning_rate", "key: train.loss", "sets train.loss.kind and train.loss"),
        ("seeds: [5, 6]", "seeds: [5, 5]", r"components.tune: a seed is named twice"),
        ("        hard: {", "        tune: {", "the name is taken"),
    ],
)
def test_faults_of_a_group_are_named(project: AblationProject, old: str, new: str, message: str) -> None:
    assert COMPONENTS.count(old) == 1
    group_of(project, COMPONENTS.replace(old, new))
    with pytest.raises(ConfigurationError, match=message) as caught:
        _ = Project(root=project.root).groups
    assert "conf/base/ablations.yml, line" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "{train.loss.kind: hard}",
            "{train.loss.kind: hrd}",
            r"expected one of .*; arm hard of components \[conf/base/ablations.yml, line 7\]",
        ),
        (
            "train.loss.kind",
            "train.loss.knd",
            r"train.loss.knd = .*: unknown key; did you mean train.loss.kind\?; arm in_batch",
        ),
        ("train.loss.kind", "train.loss.kind.x", r"train.loss.kind = .*; arm"),
    ],
)
def test_wrong_parameters_of_an_arm_are_found_before_anything_runs(project, old, new, message) -> None:
    group_of(project, COMPONENTS.replace(old, new))
    with pytest.raises(ConfigurationError, match=message):
        plan_of(project)
    assert not (project.root / "data/ablations").exists()


def test_arms_that_differ_in_another_key_are_refused(project: AblationProject) -> None:
    """A parameter that follows another by interpolation is a difference that no arm names."""
    file = project.root / "conf/base/parameters/train.yml"
    file.write_text(file.read_text().replace("batch: 32", "batch: ${train.negatives}"))
    group_of(
        project,
        """
        negatives:
          title: Numbers
          seeds: [1]
          keys: [train.negatives]
          arms: {"16": {train.negatives: 16}, "32": {train.negatives: 32}}
        """,
    )
    with pytest.raises(ConfigurationError, match=r"train.batch is 16 in 16 and 32 in 32 \(seed 1\)"):
        plan_of(project, "negatives")


def test_seeds_and_places_are_no_difference_and_digests_tell_work_apart(project: AblationProject) -> None:
    plan = plan_of(project)
    assert plan.stages == ("train",)
    assert [(run.variant.arm, run.seed) for run in plan.runs] == [
        *(("in_batch", 1), ("hard", 1), ("in_batch", 2), ("hard", 2))
    ]
    assert len({run.digest for run in plan.runs}) == 4
    assert str(project.root) not in json.dumps(plan.runs[0].parameters)
    assert [run.digest for run in plan_of(project).runs] == [run.digest for run in plan.runs]
    assert plan.runs[0].digest != plan_of(project, **{"train.learning_rate": 0.5}).runs[0].digest
    before = plan.runs[0].digest
    file = project.root / "conf/base/parameters/pretrain.yml"  # no stage of this group reads it
    file.write_text(file.read_text().replace("test_seed: 20261", "test_seed: 1"))
    assert plan_of(project).runs[0].digest == before
    project.write("data/05_model_input/negatives.json", "{}")
    changed = plan_of(project).runs[0]
    assert (changed.digest != before, changed.inputs["negatives"] != plan.runs[0].inputs["negatives"]) == (True, True)


def test_an_arm_runs_from_the_first_stage_that_its_group_touches(project: AblationProject) -> None:
    text = COMPONENTS.replace("keys: [train.loss.kind]", "keys: [train.loss.kind]\n      common: {%s}")
    for key, stages in {
        "judge.temperature: 1.0": ("judge", "select", "train"),
        "select.step: 3": ("select", "train"),
        "train.steps: 3": ("train",),
    }.items():
        group_of(project, text % key)
        assert plan_of(project).stages == stages


def test_missing_inputs_are_named_with_the_command_that_makes_them(project: AblationProject) -> None:
    (project.root / "data/05_model_input/negatives.json").unlink()
    with pytest.raises(DataError, match=r"negatives.json does not exist; `kedro run --pipeline=mine` makes it"):
        plan_of(project)


def test_arms_whose_model_is_not_there_are_listed(project: AblationProject) -> None:
    fake = project.write("fake/config.json", '{"model_type": "bert", "architectures": ["BertModel"]}').parent
    group_of(
        project,
        f"""
        judge:
          title: Judges
          seeds: [1]
          keys: [judge.model]
          arms:
            tiny: {{judge.model: models/tiny-judge}}
            gone: {{judge.model: models/none-such}}
            other: {{judge.model: {fake}}}
        """,
    )
    plan = plan_of(project, "judge")
    assert [run.variant.arm for run in plan.runs] == ["tiny"]
    assert "there is no model folder" in plan.not_runnable["gone"]
    assert "a BertModel (model_type bert); adapters exist for" in plan.not_runnable["other"]


def test_places_that_cannot_be_moved_are_refused(project: AblationProject) -> None:
    project.write("conf/base/catalog.yml", project.catalog(trained_metrics="/somewhere/metrics.json"))
    with pytest.raises(ConfigurationError, match=r"trained_metrics is written to /somewhere/metrics\.json, outside"):
        plan_of(project)
    project.write("conf/base/catalog.yml", project.catalog())
    project.write("conf/local/globals.yml", "data_root: fixed")
    with pytest.raises(ConfigurationError, match="the data root cannot be moved"):
        plan_of(project)


SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
KEYS = st.text("abc", min_size=1, max_size=2)


@given(st.dictionaries(st.lists(KEYS, min_size=1, max_size=1).map("".join), SCALARS, max_size=4))
def test_nested_values_differ_from_themselves_in_nothing(flat) -> None:
    values = nested({f"x.{key}": value for key, value in flat.items()})
    assert differences(values, values) == []
    assert [key for key, *_ in differences({}, values)] == sorted(f"x.{key}" for key in flat)


def test_differences_tell_types_and_absent_keys_apart() -> None:
    one, other = {"a": {"b": 1, "c": [1]}, "d": True}, {"a": {"b": 1.0, "c": [1]}, "d": 1, "e": None}
    assert differences(one, other) == [("a.b", 1, 1.0), ("d", True, 1), ("e", "(not set)", None)]


# ---------------------------------------------------------------- tuning

TUNE = {"key": "train.learning_rate", "values": [3, 1, 2], "seeds": [5, 6]}
GROUP = Group.model_validate(
    {
        "title": "t",
        "seeds": [1],
        "keys": ["train.loss.kind"],
        "arms": {"a": {}, "b": {"train.loss.kind": "hard"}},
        "tune": TUNE,
    }
)


def test_the_best_mean_wins_and_of_equal_ones_the_smaller_value() -> None:
    scores = {
        "a": {3: {5: 0.5, 6: 0.7}, 1: {5: 0.1, 6: 0.9}, 2: {5: 0.6, 6: 0.6}},
        "b": {3: {5: 0.4}, 1: {5: 0.3}, 2: {5: 0.2}},
    }
    scores["a"] = {value: {s: round(x, 1) for s, x in by.items()} for value, by in scores["a"].items()}
    scores["a"][1][6] = 0.5
    found = choose(scores)
    assert {arm: tuned.value for arm, tuned in found.items()} == {"a": 2, "b": 3}  # a: .6, .3, .6


def test_an_arm_that_has_not_tried_everything_is_not_tuned() -> None:
    class Run:
        def __init__(self, arm: str, value: int, seed: int) -> None:
            self.variant, self.seed, self.label = Variant(arm, {TUNE["key"]: value}, "", arm), seed, arm

    metrics = {"metrics": {"validation_precision_at_1": 0.5}}
    runs = [Run("a", v, s) for v in TUNE["values"] for s in TUNE["seeds"]] + [Run("b", 3, 5)]
    whole, problems = gather(GROUP, [(run, metrics) for run in runs])
    assert (list(whole), problems) == (["a"], ["b: not all values were tried with all seeds"])


def test_values_of_another_search_are_refused(project: AblationProject) -> None:
    made = Project(root=project.root)
    entry = {
        "command": "c", "date": "d", "key": "train.learning_rate", "values": [1.0e-3, 3.0e-4], "seeds": [5, 6],
        "metric": "validation_precision_at_1", "arms": {"hard": {"value": 1.0e-3, "scores": {}}},
    }  # fmt: skip
    file = project.write("conf/base/ablations_tuned.yml", json.dumps({"components": entry}))
    group = made.group("components")
    with pytest.raises(ConfigurationError, match="in_batch not tuned, other arms are"):
        tuned_overrides(made, "components", group)
    entry["arms"]["in_batch"] = {"value": 3.0e-4, "scores": {}}
    file.write_text(json.dumps({"components": entry}))
    assert tuned_overrides(made, "components", group)["in_batch"] == {"train.learning_rate": 3.0e-4}
    file.write_text(json.dumps({"components": {**entry, "seeds": [5]}}))
    with pytest.raises(ConfigurationError, match="tuned by another search"):
        tuned_overrides(made, "components", group)
    file.write_text("components: 3")
    with pytest.raises(ConfigurationError, match="is not what"):
        read_tuned(file)
    assert list(Project(root=project.root).groups) == ["components"]  # the file of tuned values is none of groups
