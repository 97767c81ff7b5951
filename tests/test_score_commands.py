"""`unime benchmarks` and `unime scores import`, and the figures they show."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from unime_kedro.cli import main
from unime_kedro.errors import ConfigurationError, DataError
from unime_kedro.evaluation.benchmarks import BENCHMARKS
from unime_kedro.evaluation.benchmarks.imported import import_scores, wilson_interval

MMEB = BENCHMARKS["MMEB"]
#: meta-task -> right answers of 1,000 in (IND, OOD) data sets; every one of a meta-task and side the same
RIGHT = {"classification": (700, 500), "vqa": (600, 300), "retrieval": (800, 400), "visual_grounding": (900, 100)}


def unime(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    folder = tmp_path / "my-model"
    folder.mkdir()
    for one in MMEB.datasets:
        right = RIGHT[one.group][one.split == "OOD"]
        content = {"acc": right / 1000, "num_correct": right, "num_pred": 1000}
        (folder / f"{one.name}_score.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(autouse=True)
def _data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIME_DATA_ROOT", str(tmp_path / "data"))


#: by hand: (5*.7 + 5*.5)/10, (6*.6 + 4*.3)/10, (8*.8 + 4*.4)/12, (.9 + 3*.1)/4; IND: 5*.7 + 6*.6 + 8*.8 + .9 = 14.4 of
#: 20; OOD: 5*.5 + 4*.3 + 4*.4 + 3*.1 = 5.6 of 16; all: 20 of 36
MEANS = {
    "classification": 0.6,
    "vqa": 0.48,
    "retrieval": 8 / 12,
    "visual_grounding": 0.3,
    "IND": 0.72,
    "OOD": 0.35,
    "all": 20 / 36,
}


def test_means_of_imported_scores_by_hand(scores: Path, tmp_path: Path) -> None:
    done = unime("scores", "import", scores)
    assert done.exit_code == 0, done.output
    file = tmp_path / "data/08_reporting/imported_scores/my-model.json"
    document = json.loads(file.read_text())
    assert document["means"] == pytest.approx(MEANS)
    assert {key: document[key] for key in ("name", "benchmark", "source", "missing")} == {
        "name": "my-model",
        "benchmark": "MMEB",
        "source": str(scores),
        "missing": [],
    }
    assert document["datasets"]["GQA"]["value"] == 0.3
    assert document["datasets"]["GQA"]["n"] == 1000
    lines = [line.split() for line in done.output.splitlines()]
    assert ["my-model", "60.0", "48.0", "66.7", "30.0", "72.0", "35.0", "55.6"] in lines
    assert ["UniME-V2", "Qwen2-VL-2B", "62.1", "56.3", "68.0", "72.7", "67.4", "58.9", "63.6"] in lines
    assert ["GQA", "vqa", "OOD", "30.0", "27.2", "to", "32.9", "1,000"] in lines
    assert max(map(len, done.output.splitlines()[:-1])) <= 100  # the last one is a path
    assert f"wrote {file}" in done.output


def test_what_is_missing_has_no_mean(scores: Path, tmp_path: Path) -> None:
    (scores / "GQA_score.json").unlink()
    done = unime("scores", "import", scores, "--name", "org/model", "--out", tmp_path / "x.json")
    document = json.loads((tmp_path / "x.json").read_text())
    assert document["missing"] == ["GQA"]
    lost = {"vqa", "OOD", "all"}
    assert {name for name, value in document["means"].items() if value is None} == lost
    assert {n: v for n, v in document["means"].items() if v is not None} == pytest.approx(
        {name: value for name, value in MEANS.items() if name not in lost}
    )
    assert ["org/model", "60.0", "-", "66.7", "30.0", "72.0", "-", "-"] in [x.split() for x in done.output.splitlines()]
    assert "Missing: GQA. A mean with a missing data set is not computed" in done.output
    assert not (tmp_path / "data").exists()


def test_a_name_with_a_slash_is_a_file_all_the_same(scores: Path, tmp_path: Path) -> None:
    assert unime("scores", "import", scores, "--name", "../org/model").exit_code == 0
    assert [file.name for file in (tmp_path / "data/08_reporting/imported_scores").iterdir()] == ["-org-model.json"]


def test_flat_tables_and_other_benchmarks(tmp_path: Path) -> None:
    (tmp_path / "coco.csv").write_text("dataset,score\nCOCO_t2i,55.5\nCOCO_i2t,66.5\n")
    document = import_scores(tmp_path / "coco.csv", "COCO")
    assert document["name"] == "coco"
    assert document["datasets"] == {
        "COCO_i2t": {"value": 0.665, "n": None, "low": None, "high": None},
        "COCO_t2i": {"value": 0.555, "n": None, "low": None, "high": None},
    }
    assert (document["means"], document["missing"]) == ({}, [])
    output = unime("scores", "import", tmp_path / "coco.csv", "--benchmark=COCO").output
    assert ["COCO_i2t", "i2t", "-", "66.5", "-", "-"] in [line.split() for line in output.splitlines()]


def test_names_that_are_not_known(scores: Path) -> None:
    (scores / "GQA_score.json").rename(scores / "GQQ_score.json")
    with pytest.raises(DataError, match=r"MMEB has no data set 'GQQ'\. Did you mean 'GQA'"):
        import_scores(scores)
    with pytest.raises(ConfigurationError, match="Did you mean 'MMEB'"):
        import_scores(scores, "mmeb")
    done = unime("scores", "import", scores)
    assert (done.exit_code, done.output.splitlines()[0].startswith("Error: ")) == (1, True)
    assert not list(scores.parent.glob("data/**/*.json"))


@pytest.mark.parametrize(("correct", "n"), [(0, 10), (3, 10), (10, 10), (300, 1000)])
def test_wilson_interval_by_its_formula(correct: int, n: int) -> None:
    """Wilson 1927: (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n), z = 1.95996 at 95 %."""
    z, p = 1.959963984540054, correct / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = ((middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n))
    assert wilson_interval(correct, n) == pytest.approx((low, high), abs=1e-12)


def test_the_benchmarks_are_shown() -> None:
    lines = unime("benchmarks").output.splitlines()
    assert max(map(len, lines)) <= 100
    first = [line.split()[:2] for line in lines if line[:1].strip() and line.split()[0] in BENCHMARKS]
    assert first == [[name, str(len(one.datasets))] for name, one in BENCHMARKS.items()]
    place = lines[0].index("licence")
    assert {line.index("CC BY-NC 4.0") for line in lines if "CC BY-NC 4.0" in line} == {place}  # one column


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_data_sets_of_a_benchmark_are_shown(name: str) -> None:
    output = unime("benchmarks", name).output
    assert max(map(len, output.splitlines())) <= 100
    for one in BENCHMARKS[name].datasets:
        (line,) = (line for line in output.splitlines() if line.split()[:1] == [one.name])
        assert one.split is None or one.split in line
        assert one.citation.split(",")[0] in line


def test_a_benchmark_that_is_not_known() -> None:
    done = unime("benchmarks", "mini-mmeb")
    assert (done.exit_code, "Did you mean 'mini-MMEB'" in done.output) == (1, True)


def test_pictures_are_unpacked(tmp_path: Path) -> None:
    import io

    import polars as pl
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (4, 4)).save(stream, format="PNG")
    row: dict[str, Any] = {"image": [{"bytes": stream.getvalue(), "path": None}], "text": [["a"]]}
    pl.DataFrame(row).write_parquet(tmp_path / "test-0.parquet")
    done = unime("benchmarks", "--unpack", tmp_path, tmp_path / "out")
    assert "1 pictures with captions written to" in done.output
    assert (tmp_path / "out/images/000000.png").read_bytes() == stream.getvalue()
