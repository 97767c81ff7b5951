"""Downloaded trees are looked at: what is whole, what is missing, what is damaged."""

from __future__ import annotations

import json
import os
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner
from published_rows import picture, train_rows  # type: ignore[import-not-found]

from unime_kedro.cli import main
from unime_kedro.errors import DataError
from unime_kedro.fetching.check import check_evaluation, check_training
from unime_kedro.fetching.counts import MMEB_EVAL_ROWS, MMEB_TRAIN_ROWS, ROWS_USED, Rows


def write_train(root: Path, **sizes: int) -> None:
    for name, n in sizes.items():
        name = name.replace("_VQA", "-VQA")
        (root / name).mkdir(parents=True)
        pl.DataFrame(train_rows(name, n)).write_parquet(root / name / "original-00000-of-00001.parquet")
        (root / "images" / name / "Train").mkdir(parents=True)
        for i in range(n):
            (root / "images" / name / "Train" / f"{i}.jpg").write_bytes(picture(i))


def change(root: Path, name: str, row: int, **values: object) -> None:
    file = root / name / "original-00000-of-00001.parquet"
    rows = pl.read_parquet(file).to_dicts()
    rows[row] |= values
    pl.DataFrame(rows).write_parquet(file)


def test_published_counts_sum_to_what_both_papers_say() -> None:
    """662,000 pairs are the first 50,000 of each; the hub's page rounds to three digits."""
    assert len(MMEB_TRAIN_ROWS) == 20
    low, high = (sum(min(getattr(n, end), ROWS_USED) for n in MMEB_TRAIN_ROWS.values()) for end in ("low", "high"))
    assert low <= 662_000 <= high
    assert high - low < 2_000
    assert MMEB_TRAIN_ROWS["A-OKVQA"] == Rows(17_025, 17_075)
    assert MMEB_TRAIN_ROWS["VisDial"] == Rows(123_250, 123_750)
    assert Rows(1000, 1000) == MMEB_EVAL_ROWS


def test_own_data_that_are_whole(tmp_path: Path) -> None:
    write_train(tmp_path, mine=12, other=5)
    report = check_training(tmp_path, tmp_path, "original", sample=4)
    assert report.problems == []
    assert report.datasets.drop("published").rows() == [("mine", 12, 12, 0, 4, 0), ("other", 5, 5, 0, 4, 0)]


def test_of_mmeb_all_data_sets_are_wanted_whole(tmp_path: Path) -> None:
    write_train(tmp_path, OK_VQA=6, NIGHTS=5)
    report = check_training(tmp_path, tmp_path, "original")
    missing, nights, vqa = report.problems
    assert missing.startswith("data sets missing: A-OKVQA, CIRR, ")
    assert nights == "NIGHTS: 5 rows, published: 15,925 to 15,975"
    assert vqa == "OK-VQA: 6 rows, published: 8,975 to 9,025"
    assert check_training(tmp_path, tmp_path, "original", ["NIGHTS"]).problems == [nights]


def test_what_is_damaged_is_named_with_file_and_row(tmp_path: Path) -> None:
    write_train(tmp_path, mine=8)
    folder = tmp_path / "images/mine/Train"
    (folder / "2.jpg").unlink()
    (folder / "3.jpg").write_bytes(picture(3)[:200])
    change(tmp_path, "mine", 4, qry_image_path="images/../../secret.jpg")
    change(tmp_path, "mine", 5, qry_image_path="", qry="<|image_1|>\nWhat?")
    change(tmp_path, "mine", 6, pos_text=" ")
    (tmp_path.parent / "secret.jpg").write_bytes(picture(1))
    report = check_training(tmp_path, tmp_path, "original")
    joined = "\n".join(report.problems)
    file = "mine/original-00000-of-00001.parquet"
    assert f"mine: 1 rows cannot be used, empty_positive: neither text nor image ({file} row 6)" in joined
    assert "placeholder_without_picture: qry has <|image_1|>, no picture" in joined
    assert f"({file} row 5)" in joined
    assert "mine: 2 pictures missing (images/../../secret.jpg, images/mine/Train/2.jpg)" in joined
    assert "mine: 1 pictures image_undecodable" in joined
    assert "images/mine/Train/3.jpg" in joined
    assert len(report.problems) == 4
    row = report.datasets.row(0, named=True)
    assert (row["pictures"], row["missing"], row["opened"], row["unreadable"]) == (7, 2, 5, 1)


def test_the_sample_is_by_data_set_and_repeats(tmp_path: Path) -> None:
    write_train(tmp_path, a=10, b=3)
    (tmp_path / "images/a/Train/7.jpg").write_bytes(b"no picture")
    found = [
        check_training(tmp_path, tmp_path, "original", sample=5, seed=seed).problems for seed in (1, 1, 2, 3, 4, 5)
    ]
    assert found[0] == found[1]
    assert {len(problems) for problems in found} == {0, 1}, "seen in some samples, not in others"


def test_evaluation_rows(tmp_path: Path) -> None:
    (tmp_path / "OVEN").mkdir()
    rows = [
        {
            "qry_text": "<|image_1|> which?",
            "qry_img_path": "OVEN/1.jpg",
            "tgt_text": ["a", "b"],
            "tgt_img_path": ["", "x/2.jpg"],
        },
        {"qry_text": "what?", "qry_img_path": "", "tgt_text": ["a"], "tgt_img_path": ["", ""]},
    ]
    pl.DataFrame(rows).write_parquet(tmp_path / "OVEN/test-00000-of-00001.parquet")
    (tmp_path / "images/OVEN").mkdir(parents=True)
    (tmp_path / "images/OVEN/1.jpg").write_bytes(picture(1))
    report = check_evaluation(tmp_path, tmp_path / "images")
    joined = "\n".join(report.problems)
    assert "data sets missing: " in joined
    assert "OVEN: 1 rows, published: 1,000" in joined
    assert "unequal_lists" in joined
    assert "OVEN: 1 pictures missing (x/2.jpg)" in joined


def test_the_command_finds_out_what_it_is_given(tmp_path: Path) -> None:
    write_train(tmp_path, mine=4)
    done = CliRunner().invoke(main, ["check-data", str(tmp_path)])
    assert (done.exit_code, done.output.splitlines()[-1]) == (0, "nothing is wrong"), done.output
    assert "read as train" in done.output
    (tmp_path / "images/mine/Train/1.jpg").unlink()
    done = CliRunner().invoke(main, ["check-data", str(tmp_path), "--json"])
    assert done.exit_code == 1
    document = json.loads(done.output)
    assert document["problems"] == ["mine: 1 pictures missing (images/mine/Train/1.jpg)"]
    assert document["datasets"][0]["missing"] == 1


def test_a_folder_of_nothing_known_says_what_was_expected(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["check-data", str(tmp_path)])
    assert done.exit_code == 1
    assert "holds neither <data set>/original-*.parquet nor <data set>/test-*.parquet" in done.output
    done = CliRunner().invoke(main, ["check-data", str(tmp_path / "none")])
    assert "there is no folder" in done.output
    with pytest.raises(DataError, match="No data sets found"):
        check_training(tmp_path, tmp_path, "original")


def test_other_benchmarks_are_read_as_evaluation_reads_them(tmp_path: Path) -> None:
    root = tmp_path / "urban1k"
    for kind in ("caption", "image"):
        (root / "Urban1k" / kind).mkdir(parents=True)
    for i in range(3):
        (root / f"Urban1k/caption/{i}.txt").write_text(f"street {i}\n")
        (root / f"Urban1k/image/{i}.jpg").write_bytes(picture(i))
    done = CliRunner().invoke(main, ["check-data", str(root)])
    assert done.exit_code == 0, done.output
    assert "read as Urban1K" in done.output
    assert "note: " in done.output, "3 pictures are not the published 1,000"
    (root / "Urban1k/image/1.jpg").unlink()
    done = CliRunner().invoke(main, ["check-data", str(root)])
    assert done.exit_code == 1
    assert "PROBLEM" in done.output


def test_what_ingest_of_an_environment_reads_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIME_DATA_ROOT", str(tmp_path))
    write_train(tmp_path / "01_raw/MMEB-train", OK_VQA=3)
    done = CliRunner().invoke(main, ["check-data", "--env=paper", "--json"])
    assert "KEDRO_ENV" not in os.environ
    assert json.loads(done.output)["folder"] == str(tmp_path / "01_raw/MMEB-train")
