"""Every benchmark's layout on disk, made small, and what becomes of it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image

from unime_kedro.errors import DataError
from unime_kedro.evaluation.benchmarks import BENCHMARKS, load_benchmark
from unime_kedro.evaluation.benchmarks.captioned import MMEB_PROMPTS, RELEASE_PROMPTS
from unime_kedro.evaluation.tasks import OwnCandidates, SharedCandidates

PICTURE = RELEASE_PROMPTS.image_query


def picture(file: Path, shade: int = 0) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (shade, 0, 0)).save(file)


def own(task: Any) -> OwnCandidates:
    assert isinstance(task, OwnCandidates)
    return task


def shared(task: Any) -> SharedCandidates:
    assert isinstance(task, SharedCandidates)
    return task


def asked(task: OwnCandidates) -> list[tuple[str, list[str]]]:
    """What each query says or shows, and its candidates, spelled out."""
    texts = {row[0]: row[2] or row[1] for row in task.contents.select("content_id", "text", "image").iter_rows()}
    return [(texts[q], [texts[c] for c in cs]) for q, cs in task.queries.select("content_id", "candidates").iter_rows()]


def right(task: SharedCandidates) -> list[tuple[str, list[str]]]:
    """Every query's content and those of its right targets."""
    texts = {row[0]: row[2] or row[1] for row in task.contents.select("content_id", "text", "image").iter_rows()}
    targets = task.targets.select("content_id", "group").rows()
    return [
        (texts[content], [texts[one] for one, other in targets if other == group])
        for content, group in task.queries.select("content_id", "group").iter_rows()
    ]


# ---------------------------------------------------------------- MMEB


def write_set(root: Path, name: str, texts: list[list[str]] | None = None) -> None:
    texts = texts or [["yes", "no"], ["no", "yes"]]
    n = len(texts)
    (root / name).mkdir(parents=True, exist_ok=True)
    pl.DataFrame(
        {
            "qry_text": ["see"] * n,
            "qry_img_path": [f"{name}/{i}.png" for i in range(n)],
            "tgt_text": texts,
            "tgt_img_path": [[""] * len(row) for row in texts],
        }
    ).write_parquet(root / name / "test-00000-of-00001.parquet")


@pytest.fixture
def mmeb(tmp_path: Path) -> Path:
    for i, name in enumerate(("GQA", "CIRR", "VOC2007")):
        write_set(tmp_path, name)
        for j in range(2):
            picture(tmp_path / "eval_images" / name / f"{j}.png", 10 * i + j)
    (tmp_path / "NIGHTS").mkdir()  # a folder without files is a data set that is not there
    return tmp_path


def test_mmeb(mmeb: Path) -> None:
    loaded = load_benchmark("MMEB", mmeb)
    assert loaded.benchmark is BENCHMARKS["MMEB"]
    assert [task.dataset for task in loaded.tasks] == ["VOC2007", "GQA", "CIRR"]  # the declaration's order
    assert loaded.image_root == mmeb / "eval_images"
    assert len(loaded.missing) == 33
    assert loaded.missing[:2] == ["ImageNet-1K", "N24News"]
    assert not {"GQA", "CIRR", "VOC2007"} & set(loaded.missing)
    assert asked(own(loaded.tasks[1])) == [("GQA/0.png", ["yes", "no"]), ("GQA/1.png", ["no", "yes"])]
    assert own(loaded.tasks[1]).queries.select("query_id", "unit").rows() == [(0, 0), (1, 1)]
    assert loaded.notes == []


def test_data_sets_by_name_and_other_pictures(mmeb: Path, tmp_path: Path) -> None:
    (mmeb / "eval_images").rename(tmp_path / "elsewhere")
    loaded = load_benchmark("MMEB", mmeb, tmp_path / "elsewhere", ["GQA", "CIRR"])
    assert ([task.dataset for task in loaded.tasks], loaded.missing) == (["GQA", "CIRR"], [])
    with pytest.raises(DataError, match=r"image root .*/eval_images is not a folder"):
        load_benchmark("MMEB", mmeb)


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        (["GQA", "NIGHTS"], r"Data set 'NIGHTS' of MMEB is not in .*Expected: <data set>/test-\*\.parquet"),
        (["GQQ"], r"MMEB has no data set 'GQQ'\. Did you mean 'GQA'"),
        ([], r"no data sets are asked for; leave datasets out"),
    ],
)
def test_data_sets_that_are_asked_for_and_not_there(mmeb: Path, datasets: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_benchmark("MMEB", mmeb, datasets=datasets)


def test_nothing_of_a_benchmark(tmp_path: Path) -> None:
    write_set(tmp_path, "Mine")
    with pytest.raises(DataError, match=r"None of MMEB's data sets is in .*It holds Mine\. It is published at https"):
        load_benchmark("MMEB", tmp_path)
    with pytest.raises(DataError, match=r"folder .*/none of MMEB does not exist\. Expected in it: <data set>/test-"):
        load_benchmark("MMEB", tmp_path / "none")


def test_an_undeclared_data_set_is_read_when_it_is_named(mmeb: Path) -> None:
    write_set(mmeb, "Mine")
    for j in range(2):
        picture(mmeb / "eval_images/Mine" / f"{j}.png", 90 + j)
    assert "Mine" not in [task.dataset for task in load_benchmark("MMEB", mmeb).tasks]
    loaded = load_benchmark("MMEB", mmeb, datasets=["Mine", "GQA"])
    assert [task.dataset for task in loaded.tasks] == ["GQA", "Mine"]


def test_a_benchmark_of_ones_own(mmeb: Path) -> None:
    (mmeb / "eval_images").rename(mmeb / "images")
    loaded = load_benchmark("my tests", mmeb)
    assert loaded.benchmark.name == "my tests"
    assert {one.group for one in loaded.benchmark.datasets} == {"unknown"}
    assert [task.dataset for task in loaded.tasks] == ["CIRR", "GQA", "VOC2007"]
    assert [(mean.name, mean.members) for mean in loaded.benchmark.means] == [("all", ("CIRR", "GQA", "VOC2007"))]
    assert loaded.missing == []
    with pytest.raises(DataError, match=r"no benchmark 'mmbe', and .*holds no <data set>/test-.*Did you mean 'MMEB'"):
        load_benchmark("mmbe", mmeb / "images")


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([["yes", "no"], []], r"row 1: .*Expected lists"),
        ([["yes", " "], ["a", "b"]], r"row 0: empty_target"),
    ],
)
def test_rows_that_cannot_be_scored(mmeb: Path, texts: list[list[str]], message: str) -> None:
    write_set(mmeb, "GQA", texts)
    with pytest.raises(DataError, match=r"GQA/test-00000-of-00001\.parquet, " + message):
        load_benchmark("MMEB", mmeb)


def test_queries_that_say_nothing_are_noted(mmeb: Path) -> None:
    write_set(mmeb, "GQA", [["yes", "no", "yes"], ["no"]])
    assert load_benchmark("MMEB", mmeb).notes == [
        "GQA: 1 of 2 queries can never be right, a wrong candidate having the right one's content.",
        "GQA: 1 of 2 queries can never be wrong, the right candidate being the only one.",
    ]


def test_mini_mmeb_by_its_own_folder_or_the_one_above(tmp_path: Path) -> None:
    write_set(tmp_path / "eval", "EmojiTwins")
    for j in range(2):
        picture(tmp_path / "eval/images/EmojiTwins" / f"{j}.png", j)
    for root in (tmp_path, tmp_path / "eval"):
        loaded = load_benchmark("mini-MMEB", root)
        assert ([task.dataset for task in loaded.tasks], len(loaded.missing)) == (["EmojiTwins"], 12)
        assert loaded.image_root == tmp_path / "eval/images"


# ---------------------------------------------------------------- captions


def write_csv(file: Path, rows: list[tuple[str, list[str], str]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["raw", "sentids", "split", "filename", "img_id"])
        writer.writerows([json.dumps(texts), "[]", split, name, 0] for name, texts, split in rows)


CAPTIONED = [("a.jpg", ["A.", "aa"], "test"), ("x.jpg", ["x"], "train"), ("b.jpg", ["B.", "bb"], "test")]
I2T = [("a.jpg", ["A.", "aa"]), ("b.jpg", ["B.", "bb"])]
T2I = [("A.", ["a.jpg"]), ("aa", ["a.jpg"]), ("B.", ["b.jpg"]), ("bb", ["b.jpg"])]


@pytest.mark.parametrize(
    ("name", "file", "folder"),
    [
        ("Flickr30K", "flickr_annotations_30k.csv", "flickr30k-images"),
        ("COCO", "test_5k_mscoco_2014.csv", "images_mscoco_2014_5k_test"),
    ],
)
def test_captions_both_ways(tmp_path: Path, name: str, file: str, folder: str) -> None:
    write_csv(tmp_path / file, CAPTIONED)
    for i, one in enumerate(("a.jpg", "b.jpg")):
        picture(tmp_path / folder / one, i)
    loaded = load_benchmark(name, tmp_path)
    i2t, t2i = (shared(task) for task in loaded.tasks)
    assert (i2t.dataset, t2i.dataset) == (f"{name}_i2t", f"{name}_t2i")
    assert (right(i2t), right(t2i)) == (I2T, T2I)
    assert i2t.targets["target_id"].to_list() == [0, 1, 2, 3]
    assert t2i.queries["unit"].to_list() == [0, 0, 1, 1]  # the picture
    words = i2t.contents.filter(pl.col("image") != "")["text"].unique().to_list()
    assert words == t2i.contents.filter(pl.col("image") != "")["text"].unique().to_list() == [PICTURE]
    assert loaded.image_root == tmp_path / folder
    published = {"Flickr30K": "1,000", "COCO": "5,000"}[name]
    assert loaded.notes == [
        f"{name}_{way}: it has 2 pictures, the published set {published}." for way in ("i2t", "t2i")
    ]
    (one,) = load_benchmark(name, tmp_path, datasets=[f"{name}_t2i"]).tasks
    assert one.dataset == f"{name}_t2i"


def test_karpathys_own_file_and_five_captions_of_coco(tmp_path: Path) -> None:
    images = [
        {
            "filepath": "val2014",
            "filename": "a.jpg",
            "split": "test",
            "sentences": [{"raw": f"c{i}"} for i in range(7)],
        },
        {"filepath": "train2014", "filename": "x.jpg", "split": "restval", "sentences": [{"raw": "x"}]},
    ]
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": images, "dataset": "coco"}))
    picture(tmp_path / "val2014/a.jpg")
    loaded = load_benchmark("COCO", tmp_path)
    assert right(shared(loaded.tasks[0])) == [("val2014/a.jpg", ["c0", "c1", "c2", "c3", "c4"])]
    assert "COCO_i2t: 1 of 1 queries can never be wrong, the right candidate being the only one." in loaded.notes


def test_other_prompts(tmp_path: Path) -> None:
    write_csv(tmp_path / "annotations.csv", CAPTIONED)
    for i, one in enumerate(("a.jpg", "b.jpg")):
        picture(tmp_path / "images" / one, i)
    t2i = shared(load_benchmark("Flickr30K", tmp_path, prompts=MMEB_PROMPTS).tasks[1])
    assert t2i.contents["text"][0] == "Find me an everyday image that matches the given caption: A.\n"
    assert t2i.contents["text"][-1] == "<|image_1|>\nRepresent the given image.\n"
    emoji = shared(load_benchmark("EmojiCaptions", tmp_path).tasks[0])
    assert emoji.contents["text"][0] == "<|image_1|>\nFind an image caption describing the given image.\n"
    (tmp_path / "images/b.jpg").unlink()
    with pytest.raises(DataError, match=r"b\.jpg cannot be used: image_missing"):
        load_benchmark("EmojiCaptions", tmp_path)


def test_captions_that_no_embedder_can_tell_apart(tmp_path: Path) -> None:
    rows = [("a.jpg", ["same", "own"], "test"), ("b.jpg", ["same"], "test"), ("c.jpg", ["same"], "test")]
    write_csv(tmp_path / "annotations.csv", rows)
    for i, (name, _, _) in enumerate(rows):
        picture(tmp_path / "images" / name, i)
    # picture a has a caption of its own; every caption finds one picture, whatever the others say
    assert load_benchmark("EmojiCaptions", tmp_path).notes == [
        "EmojiCaptions_i2t: 2 of 3 queries can never be right, a wrong candidate having the right one's content."
    ]


def test_pictures_inside_parquet_files_are_pointed_out(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/test-00000-of-00001.parquet").write_bytes(b"")
    with pytest.raises(DataError, match=r"None of COCO's.*written out by: unime benchmarks --unpack"):
        load_benchmark("COCO", tmp_path)


def test_sharegpt4v(tmp_path: Path) -> None:
    name = "share-captioner_coco_lcs_sam_1246k_1107.json"
    entries = [
        {"image": f"sam/images/{i}.jpg", "conversations": [{"value": "?"}, {"value": f"Long\n{i}"}]} for i in range(3)
    ]
    for folder in ("", "sharegpt4v"):
        root = tmp_path / (folder or "flat")
        (root / folder).mkdir(parents=True)
        (root / folder / name).write_text(json.dumps(entries))
        for i in range(3):
            picture(root / f"sam/images/{i}.jpg", i)
        loaded = load_benchmark("ShareGPT4V", root)
        assert loaded.image_root == root
        assert right(shared(loaded.tasks[0])) == [(f"sam/images/{i}.jpg", [f"Long {i}"]) for i in range(3)]


def test_urban1k(tmp_path: Path) -> None:
    for number in (221, 30):
        picture(tmp_path / f"Urban1k/image/{number}.jpg", number % 200)
        (tmp_path / "Urban1k/caption").mkdir(exist_ok=True)
        (tmp_path / f"Urban1k/caption/{number}.txt").write_text(f"Street {number}.\nmore")
    for root in (tmp_path, tmp_path / "Urban1k"):
        loaded = load_benchmark("Urban1K", root)
        assert loaded.image_root == tmp_path / "Urban1k/image"
        assert right(shared(loaded.tasks[1])) == [("Street 30.", ["30.jpg"]), ("Street 221.", ["221.jpg"])]
    (tmp_path / "Urban1k/image/30.jpg").unlink()
    with pytest.raises(DataError, match=r"caption/30\.txt has no partner; expected .*/image/30\.jpg"):
        load_benchmark("Urban1K", tmp_path)


# ---------------------------------------------------------------- SugarCrepe


def test_sugarcrepe(tmp_path: Path) -> None:
    entries = {str(i): {"filename": f"{i % 2}.jpg", "caption": f"c{i}", "negative_caption": f"n{i}"} for i in range(3)}
    (tmp_path / "data").mkdir()
    for name in ("swap_att", "add_obj"):
        (tmp_path / "data" / f"{name}.json").write_text(json.dumps(entries))
    for i in range(2):
        picture(tmp_path / f"val2017/{i}.jpg", i)
    loaded = load_benchmark("SugarCrepe", tmp_path)
    assert [task.dataset for task in loaded.tasks] == ["swap_att", "add_obj"]
    assert loaded.missing == ["replace_obj", "replace_att", "replace_rel", "swap_obj", "add_att"]
    task = own(loaded.tasks[0])
    assert asked(task) == [("0.jpg", ["c0", "n0"]), ("1.jpg", ["c1", "n1"]), ("0.jpg", ["c2", "n2"])]
    first, second, third = task.queries["unit"].to_list()
    assert (first == third, first == second) == (True, False)  # entries of one picture are one unit
    assert loaded.notes == []


def test_a_change_that_changes_nothing_is_noted(tmp_path: Path) -> None:
    entries = {"0": {"filename": "0.jpg", "caption": "c", "negative_caption": "c"}}
    (tmp_path / "swap_att.json").write_text(json.dumps(entries))
    picture(tmp_path / "images/0.jpg")
    (note,) = load_benchmark("EmojiCrepe", tmp_path).notes
    assert note == "swap_att: 1 of 1 queries can never be right, a wrong candidate having the right one's content."


def test_what_is_loaded_can_be_scored(mmeb: Path) -> None:
    import numpy as np

    from unime_kedro.evaluation.scoring import score_tasks

    def embed(contents: list[Any]) -> Any:  # pictures and "yes" point one way, "no" another
        says_no = np.array([content.text == "no" for content in contents])
        return np.stack([~says_no, says_no], axis=1).astype(np.float32)

    loaded = load_benchmark("MMEB", mmeb, datasets=["GQA"])
    found = score_tasks(loaded.tasks, embed, loaded.image_root).predictions
    assert found["correct"].to_list() == [True, False]
