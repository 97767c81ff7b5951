"""Parameters are checked before anything runs, and faults are told in plain words."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from kedro.config import OmegaConfigLoader
from pydantic import Field

import unime_kedro.parameters
from unime_kedro.config import check_parameters, data_root, environment_variable
from unime_kedro.errors import ConfigurationError
from unime_kedro.parameters import SECTIONS, Parameters
from unime_kedro.settings import CONFIG_LOADER_ARGS

ROOT = Path(__file__).resolve().parents[1]


class Inner(Parameters):
    rule: Literal["absolute", "none"]
    margin: float = Field(ge=0, le=1)


class Judge(Parameters):
    batch_size: int = Field(ge=1)
    share_prefix: bool
    rate: float = Field(gt=0)
    name: str = Field(min_length=1)
    datasets: list[str] | None
    filter: Inner


class Pool(Parameters):
    k: int = Field(lt=100)


GOOD: dict[str, Any] = {
    "judge": {
        "batch_size": 8,
        "share_prefix": True,
        "rate": 0.5,
        "name": "tiny",
        "datasets": None,
        "filter": {"rule": "none", "margin": 0.01},
    },
    "pool": {"k": 50},
}
FILES = {
    "base/parameters/judge.yml": """\
        # comment
        judge:
          batch_size: 8
          share_prefix: true
          rate: 0.5
          name: tiny
          datasets: null
          filter:
            rule: none
            margin: 0.01
        """,
    "base/parameters/pool.yml": "pool:\n  k: 50\n",
    "smoke/parameters.yml": "judge:\n  rate: 0.25\n  filter:\n    margin: 2\n",
    "local/.gitkeep": "",
}


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration of two small sections, whose models replace the project's."""
    from textwrap import dedent

    monkeypatch.setattr(unime_kedro.parameters, "SECTIONS", {"judge": Judge, "pool": Pool})
    for name, text in FILES.items():
        file = tmp_path / "conf" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text))
    return tmp_path / "conf"


def changed(**changes: Any) -> dict[str, Any]:
    """Return the good parameters with some of ``judge`` changed."""
    return GOOD | {"judge": GOOD["judge"] | changes}


def faults(raw: dict[str, Any], conf: Path, env: str | None = None, runtime: dict[str, Any] | None = None) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        check_parameters(raw, conf, env, runtime)
    first, *lines = str(caught.value).split("\n  ")
    assert first == f"{len(lines)} fault{'s' if len(lines) > 1 else ''} in the parameters, nothing was run:"
    return lines


def fault(raw: dict[str, Any], conf: Path, env: str | None = None, runtime: dict[str, Any] | None = None) -> str:
    (line,) = faults(raw, conf, env, runtime)
    return line


def test_good_parameters_pass(conf: Path) -> None:
    check_parameters(GOOD, conf)
    check_parameters(GOOD | {"_shared": {"anything": 1}}, conf)
    check_parameters(changed(rate=1), conf)  # a whole number is a number


def test_unknown_key_is_named_with_the_nearest_one_file_and_line(conf: Path) -> None:
    (conf / "smoke/parameters.yml").write_text("pool:\n  k: 1\njudge:\n\n  batch_sise: 4\n")
    assert fault(changed(batch_sise=4), conf, "smoke") == (
        "judge.batch_sise = 4: unknown key; did you mean judge.batch_size? [conf/smoke/parameters.yml, line 5]"
    )


def test_unknown_nested_key_and_one_that_is_near_to_nothing(conf: Path) -> None:
    raw = changed(filter={"rule": "none", "margin": 0, "marge": 1, "zzz": 2})
    assert faults(raw, conf) == [
        "judge.filter.marge = 1: unknown key; did you mean judge.filter.margin?",
        "judge.filter.zzz = 2: unknown key; known here: rule, margin",
    ]


def test_unknown_section(conf: Path) -> None:
    raw = GOOD | {"juge": {"batch_size": 1}}
    expected = "juge: unknown section; did you mean judge? [--params]"
    assert fault(raw, conf, runtime={"juge": {"batch_size": 1}}) == expected


def test_missing_section_and_missing_key_say_where_to_add_them(conf: Path) -> None:
    raw = changed()
    del raw["pool"], raw["judge"]["rate"], raw["judge"]["filter"]
    raw["judge"] = raw["judge"] | {"filter": {"rule": "none"}}
    assert faults(raw, conf) == [
        "pool: missing, the whole section; add `pool:` in conf/base/parameters/pool.yml",
        "judge.rate: missing, it has no default; add `rate:` under `judge:` in conf/base/parameters/judge.yml",
        "judge.filter.margin: missing, it has no default; add `margin:` under `judge.filter:` "
        "in conf/base/parameters/judge.yml",
    ]


@pytest.mark.parametrize(
    ("changes", "told", "line"),
    [
        ({"batch_size": "abc"}, 'judge.batch_size = "abc": expected a whole number', 3),
        ({"batch_size": "8"}, 'judge.batch_size = "8": expected a whole number (it is text, remove the quotes)', 3),
        ({"batch_size": 1.5}, "judge.batch_size = 1.5: expected a whole number", 3),
        ({"batch_size": True}, "judge.batch_size = true: expected a whole number", 3),
        ({"batch_size": None}, "judge.batch_size = null: expected a whole number", 3),
        ({"batch_size": 0}, "judge.batch_size = 0: expected at least 1", 3),
        ({"share_prefix": "yes"}, 'judge.share_prefix = "yes": expected true or false', 4),
        ({"rate": 0.0}, "judge.rate = 0.0: expected more than 0.0", 5),
        ({"rate": "1"}, 'judge.rate = "1": expected a number (it is text, remove the quotes)', 5),
        ({"name": ""}, 'judge.name = "": expected text that is not empty', 6),
        ({"name": 3}, "judge.name = 3: expected text", 6),
        ({"datasets": "VOC"}, 'judge.datasets = "VOC": expected a list', 7),
        ({"datasets": ["a", 3]}, "judge.datasets.1 = 3: expected text", None),  # no file has a list there
        ({"filter": None}, "judge.filter = null: expected a block of keys", 8),
        (
            {"filter": {"rule": "abs", "margin": 0}},
            "judge.filter.rule = \"abs\": expected one of 'absolute', 'none'",
            9,
        ),
    ],
)
def test_wrong_values_are_told_in_plain_words(changes: dict[str, Any], told: str, line: int | None, conf: Path) -> None:
    where = f" [conf/base/parameters/judge.yml, line {line}]" if line else ""
    assert fault(changed(**changes), conf) == told + where


def test_section_that_is_no_block(conf: Path) -> None:
    assert fault({**GOOD, "pool": None}, conf) == (
        "pool = null: expected a block of keys [conf/base/parameters/pool.yml, line 1]"
    )


def test_source_is_the_last_that_sets_the_key(conf: Path) -> None:
    wrong = changed(rate=-1.0, filter={"rule": "none", "margin": 2})
    assert faults(wrong, conf, "smoke") == [
        "judge.rate = -1.0: expected more than 0.0 [conf/smoke/parameters.yml, line 2]",
        "judge.filter.margin = 2: expected at most 1.0 [conf/smoke/parameters.yml, line 4]",
    ]
    assert faults(wrong, conf, "smoke", {"judge": {"rate": -1.0}})[0].endswith("[--params]")
    assert faults(wrong, conf)[0].endswith("[conf/base/parameters/judge.yml, line 5]")  # local sets nothing


def test_all_faults_of_all_sections_are_listed_at_once(conf: Path) -> None:
    raw = changed(batch_size=0, extra=1) | {"pool": {"k": 100}}
    assert [line.split(" = ")[0] for line in faults(raw, conf)] == ["judge.batch_size", "judge.extra", "pool.k"]


def test_faults_are_listed_in_one_order_whatever_that_of_the_files(conf: Path) -> None:
    raw = changed(batch_size=0) | {"pool": {"k": 100}, "b": 1, "a": 2}
    expected = faults(raw, conf)
    assert [line.split(" ")[0] for line in expected] == ["judge.batch_size", "pool.k", "a:", "b:"]
    assert faults(dict(reversed(raw.items())), conf) == expected


def test_long_values_are_shortened(conf: Path) -> None:
    line = fault(changed(batch_size="x" * 500), conf)
    assert "…: expected" in line
    assert len(line) < 200


# ---------------------------------------------------------------- through Kedro's configuration loader


def loader(conf: Path, env: str | None = None, runtime: dict[str, Any] | None = None) -> OmegaConfigLoader:
    return OmegaConfigLoader(str(conf), env=env, runtime_params=runtime, **CONFIG_LOADER_ARGS)


def test_environment_replaces_single_keys_and_params_win(conf: Path) -> None:
    raw = loader(conf, "smoke", {"judge": {"batch_size": 2}})["parameters"]
    assert raw["judge"] == GOOD["judge"] | {
        "batch_size": 2,
        "rate": 0.25,
        "filter": {"rule": "none", "margin": 2},
    }


@pytest.mark.parametrize("env", [None, "smoke", "paper"])
def test_shipped_parameters_are_right(env: str | None) -> None:
    raw = loader(ROOT / "conf", env)["parameters"]
    assert set(SECTIONS) <= set(raw)
    check_parameters(raw, ROOT / "conf", env)


@pytest.mark.parametrize(("env", "default"), [(None, "data"), ("smoke", "data/smoke")])
@pytest.mark.parametrize("value", [None, "", "elsewhere", "/mnt/big disk/unime-1_2"])
def test_data_root_of_the_shipped_configuration(
    env: str | None, default: str, value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UNIME_DATA_ROOT", raising=False)
    if value is not None:
        monkeypatch.setenv("UNIME_DATA_ROOT", value)
    config = loader(ROOT / "conf", env)
    assert data_root(config, "/project") == Path("/project") / (value or default)
    assert config["catalog"]["pool"]["filepath"] == f"{value or default}/03_primary/pool.parquet"


def test_data_root_without_globals(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNIME_DATA_ROOT", raising=False)
    assert data_root(loader(conf), "/project") == Path("/project/data")


def test_environment_variable_that_is_empty_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIME_X", "")
    assert environment_variable("UNIME_X", "data") == "data"
    monkeypatch.setenv("UNIME_X", "y")
    assert environment_variable("UNIME_X", "data") == "y"
    monkeypatch.delenv("UNIME_X")
    assert environment_variable("UNIME_X") is None
