"""The figures that a reproduction is about, compared, shown and written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from unime_kedro.errors import ConfigurationError, DataError
from unime_kedro.paths import project_root
from unime_kedro.reproduce import results, results_command

EXPECTED = """\
# a remark that stays
- title: Counts
  figures:
  - name: pairs
    file: data/a.json
    key: pairs
    tolerance: 0
    value: 12
  - name: "area"  # of the curve
    file: data/a.json
    key: truth/auc
    tolerance: 0.01
    value: 0.5
- title: Arms
  note: Two of them.
  figures:
  - {name: "hard: P@1", file: data/b.json, key: arms/hard/figures/1, tolerance: 0.02, percent: true, value: 0.61,
     paper: 63.6, paper_source: table 4}
  - {name: "soft: P@1", file: data/b.json, key: arms/soft/figures/1, tolerance: 0.02, percent: true}
"""
ARMS = [{"arm": "soft", "figures": {"1": 0.5}}, {"arm": "hard", "figures": {"1": 0.63}}]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "expected.yml").write_text(EXPECTED)
    (tmp_path / "REPRODUCING.md").write_text(f"before\n{results.BEGIN}\nold\n{results.END}\nafter\n")
    put(tmp_path, "a", {"pairs": 12, "truth": {"auc": 0.5}})
    put(tmp_path, "b", {"arms": ARMS})
    monkeypatch.setattr("unime_kedro.paths.project_root", lambda: tmp_path)
    return tmp_path


def put(root: Path, name: str, content: object) -> None:
    (root / f"data/{name}.json").write_text(json.dumps(content))


def verdicts(root: Path) -> list[str]:
    compared = results.compare(results.read_expected(root / "expected.yml"), root)
    return [one.verdict for group in compared for one in group]


def check(*options: str) -> tuple[int, str]:
    done = CliRunner().invoke(results_command.check_results_command, list(options))
    return done.exit_code, done.output


def test_same_within_and_nothing_to_compare(root):
    assert verdicts(root) == ["same", "same", "within", "unknown"]  # .63 of .61 +- .02: the edge is within


@pytest.mark.parametrize(
    ("content", "verdict"),
    [
        ({"pairs": 12, "truth": {"auc": 0.51}}, ["same", "within"]),
        ({"pairs": 12, "truth": {"auc": 0.489}}, ["same", "outside"]),
        ({"pairs": 13, "truth": {"auc": 0.5}}, ["outside", "same"]),
        ({"pairs": 12}, ["same", "missing"]),
        ({"pairs": None, "truth": {"auc": 0.5}}, ["missing", "same"]),
        ({"pairs": 12, "truth": 0.5}, ["same", "missing"]),
    ],
)
def test_one_that_is_off_or_not_there(root, content, verdict):
    put(root, "a", content)
    assert verdicts(root)[:2] == verdict
    code, output = check()
    assert code == (1 if {"outside", "missing"} & set(verdict) else 0)
    assert ("OUTSIDE" in output) == ("outside" in verdict)
    assert ("MISSING" in output) == ("missing" in verdict)


def test_a_missing_file_is_a_missing_figure(root):
    (root / "data/b.json").unlink()
    assert verdicts(root)[2:] == ["missing", "missing"]
    code, output = check()
    assert code == 1
    assert "2 of 4 figures are missing, first arms/hard/figures/1 of data/b.json" in output


@pytest.mark.parametrize("value", ['"12"', "true", "NaN", "[1]"])
def test_what_is_no_number_is_refused(root, value):
    (root / "data/a.json").write_text(f'{{"pairs": {value}, "truth": {{"auc": 0.5}}}}')
    with pytest.raises(DataError, match=r"data/a\.json, pairs: .*; expected a number"):
        verdicts(root)


def test_a_broken_file_says_how_to_get_it_back(root):
    (root / "data/a.json").write_text('{"pairs": 1')
    code, output = check()
    assert code == 1
    assert "a.json is no JSON" in output
    assert "dvc checkout" in output


def test_writing_keeps_remarks_and_makes_the_table(root):
    put(root, "a", {"pairs": 1234, "truth": {"auc": 0.25}})
    assert check("--write") == (0, "wrote expected.yml and the tables of REPRODUCING.md\n")
    text = (root / "expected.yml").read_text()
    assert text.startswith("# a remark that stays\n")
    assert "# of the curve" in text
    assert [f.value for group in results.read_expected(root / "expected.yml") for f in group.figures] == [
        1234, 0.25, 0.63, 0.5,
    ]  # fmt: skip
    page = (root / "REPRODUCING.md").read_text()
    assert page.startswith(f"before\n{results.BEGIN}\n")
    assert page.endswith(f"{results.END}\nafter\n")
    assert "old" not in page
    assert "| pairs | 1,234 | exact |" in page
    assert "| area | 0.2500 | ± 0.0100 |" in page
    assert "| hard: P@1 | 63.0 | ± 2.0 | 63.6 (table 4) | -0.6 |" in page
    assert "| soft: P@1 | 50.0 | ± 2.0 | - | - |" in page
    assert verdicts(root) == ["same"] * 4
    code, output = check()
    assert code == 0
    assert "Reproduced: 4 of 4 figures are the same, 0 within tolerance." in output
    again = (text, page)
    check("--write")
    assert ((root / "expected.yml").read_text(), (root / "REPRODUCING.md").read_text()) == again


def test_nothing_is_written_from_half_a_run(root):
    put(root, "b", {"arms": ARMS[:1]})
    code, output = check("--write")
    assert code == 1
    assert "data/b.json has no arms/hard/figures/1 (1 figures are missing here)" in output
    assert (root / "expected.yml").read_text() == EXPECTED


def test_the_page_needs_its_marks(root):
    (root / "REPRODUCING.md").write_text("nothing\n")
    assert "lacks the lines" in check("--write")[1]
    assert (root / "expected.yml").read_text() == EXPECTED


def test_json(root):
    code, output = check("--json")
    found = json.loads(output)
    assert (code, found["reproduced"]) == (0, True)
    assert found["figures"][2] == {
        "group": "Arms", "name": "hard: P@1", "file": "data/b.json", "key": "arms/hard/figures/1",
        "tolerance": 0.02, "expected": 0.61, "here": 0.63, "verdict": "within",
    }  # fmt: skip


def test_faults_of_the_list_are_named(root):
    (root / "expected.yml").write_text(
        EXPECTED.replace("tolerance: 0\n", "tolerance: -1\n").replace("key: pairs", "kez: pairs")
    )
    with pytest.raises(ConfigurationError, match=r"(?s)has 3 faults:.*figures\.0\.key.*figures\.0\.tolerance.*kez"):
        verdicts(root)
    (root / "expected.yml").unlink()
    with pytest.raises(ConfigurationError, match="is missing"):
        verdicts(root)


def test_the_project_lists_figures_of_stages_that_dvc_runs():
    """Every file of the real list is made by a stage, and has its values and its table."""
    import yaml

    root = project_root()
    groups = results.read_expected(root / "expected.yml")
    stages = yaml.safe_load((root / "dvc.yaml").read_text())["stages"].values()
    made = {
        path if isinstance(path, str) else next(iter(path))
        for stage in stages
        for kind in ("outs", "metrics", "plots")
        for path in stage.get(kind, ())
    }
    assert {figure.file for group in groups for figure in group.figures} <= made
    page = (root / "REPRODUCING.md").read_text()
    assert page.split(results.BEGIN)[1].split(results.END)[0].strip() == results.markdown(groups).strip()
