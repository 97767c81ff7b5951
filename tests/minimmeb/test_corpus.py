"""mini-MMEB: layout, repeatability, truth and splits."""

from __future__ import annotations

import hashlib
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from PIL import Image

from unime_kedro.minimmeb import scenes, texts
from unime_kedro.minimmeb.classes import object_classes, subgroup_members
from unime_kedro.minimmeb.corpus import folder_digest, write_corpus
from unime_kedro.minimmeb.tasks import TASKS, Query, Side, make_candidate, make_query, relevance, wrong_objects

SIZES = {"train_pairs": dict.fromkeys(TASKS, 12), "eval_queries": dict.fromkeys(TASKS, 4), "eval_candidates": 6}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("corpus") / "mini"
    write_corpus(root, seed=3, **SIZES)
    return root


def test_same_seed_same_bytes_other_seed_other_bytes(corpus, tmp_path):
    again = write_corpus(tmp_path / "again", seed=3, **SIZES)
    other = write_corpus(tmp_path / "other", seed=4, **SIZES)
    assert again["digest"] == folder_digest(corpus)
    assert other["digest"] != again["digest"]


def test_train_files_have_exactly_the_columns_of_mmeb_and_existing_pictures(corpus):
    for name, task in TASKS.items():
        frame = pl.read_parquet(corpus / "train" / name / "original-00000-of-00001.parquet")
        assert frame.columns == ["qry", "qry_image_path", "pos_text", "pos_image_path"]
        assert frame.height == 12
        for column, text in (("qry_image_path", "qry"), ("pos_image_path", "pos_text")):
            for path, words in frame.select(column, text).rows():
                assert (path != "") == ("<|image_1|>" in words)
                if path:
                    assert path.startswith(f"images/{name}/Train/")
                    size = (56, 56) if task.target == "crop" and column == "pos_image_path" else (112, 112)
                    assert Image.open(corpus / "train" / path).size == size


def _truth(corpus: Path, split: str):
    folder = corpus / "truth" / split
    contents = {(t, i): (m, set(o)) for t, i, m, o in pl.read_parquet(folder / "contents.parquet").iter_rows()}
    wants = {(t, i): (m, set(o)) for t, i, m, o in pl.read_parquet(folder / "wants.parquet").iter_rows()}
    return contents, wants


def _relevance(want, content) -> float:
    return len(want[1] & content[1]) / len(want[1] | content[1]) if want[0] == content[0] else 0.0


def test_every_training_positive_answers_its_query_fully(corpus):
    contents, wants = _truth(corpus, "train")
    for name in TASKS:
        for q, qi, p, pi in pl.read_parquet(corpus / "train" / name / "*.parquet").iter_rows():
            assert _relevance(wants[q, qi], contents[p, pi]) == 1.0


def test_evaluation_has_the_right_target_first_and_no_second_one(corpus):
    contents, wants = _truth(corpus, "eval")
    for name in TASKS:
        frame = pl.read_parquet(corpus / "eval" / name / "test-00000-of-00001.parquet")
        assert frame.columns == ["qry_text", "qry_img_path", "tgt_text", "tgt_img_path"]
        for q, qi, targets, images in frame.iter_rows():
            values = [_relevance(wants[q, qi], contents[t, i]) for t, i in zip(targets, images, strict=True)]
            assert len(values) == 6
            assert values[0] == 1.0
            assert max(values[1:]) < 1.0
            assert all((corpus / "eval" / "images" / path).is_file() for path in [qi, *images] if path)


def test_a_crop_is_cut_out_of_its_own_scene(corpus):
    frame = pl.read_parquet(corpus / "train" / "EmojiCrops" / "*.parquet")
    for scene_path, crop_path in frame.select("qry_image_path", "pos_image_path").rows():
        scene = np.asarray(Image.open(corpus / "train" / scene_path))
        crop = np.asarray(Image.open(corpus / "train" / crop_path))
        cells = [scene[r : r + 56, c : c + 56] for r in (0, 56) for c in (0, 56)]
        assert any(np.array_equal(crop, cell) for cell in cells)


def test_no_object_set_and_no_picture_is_in_two_splits(corpus):
    drawn = {split: set() for split in scenes.SPLIT_BUCKETS}
    for split in drawn:
        rng = np.random.default_rng(1)
        for _ in range(150):
            drawn[split] |= set(scenes.family(rng, split)) | {scenes.random_set(rng, 2, split)}
    for a, b in combinations(drawn.values(), 2):
        assert not a & b
    buckets = list(scenes.SPLIT_BUCKETS.values())
    assert sorted(i for part in buckets for i in part) == list(range(10))

    def hashes(part):
        return {hashlib.sha256(f.read_bytes()).hexdigest() for f in (corpus / part / "images").rglob("*.png")}

    assert not hashes("train") & hashes("eval")


def test_an_interrupted_writer_leaves_the_old_corpus_and_no_half_of_a_new_one(corpus, tmp_path):
    root = tmp_path / "mini"
    write_corpus(root, seed=3, **SIZES)
    before = folder_digest(root)
    calls = iter(range(5))

    def interrupt():
        if next(calls, None) is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_corpus(root, seed=9, **SIZES, advance=interrupt)
    assert folder_digest(root) == before


def test_the_base_configuration_is_large_enough():
    conf = Path(__file__).parents[2] / "conf/base/parameters/demo.yml"
    demo = yaml.safe_load(conf.read_text())["demo"]
    assert sum(demo["train_pairs"].values()) >= 1500
    assert len({TASKS[name].meta_task for name in demo["train_pairs"]}) >= 3


def test_relevance_by_hand():
    query = Query(Side("find", None, (1, 2, 3)), "text", (1, 2, 3))
    for objects, value in [((1, 2, 3), 1.0), ((1, 2), 2 / 3), ((1, 2, 9), 0.5), ((1, 8, 9), 0.2), ((7, 8, 9), 0.0)]:
        assert relevance(query, Side("c", None, objects)) == pytest.approx(value)
    assert relevance(Query(query.side, "image", (1, 2, 3)), Side("c", None, (1, 2, 3))) == 0.0


def test_wrong_objects_never_answer_fully_and_right_ones_always_do():
    rng = np.random.default_rng(0)
    for task in TASKS.values():
        for _ in range(200):
            query = make_query(task, rng, scenes.random_set(rng, int(rng.integers(2, 4)), "train"))
            assert relevance(query, make_candidate(task, rng, wrong_objects(task, rng, query))) < 1
            assert relevance(query, make_candidate(task, rng, query.want_objects)) == 1


def test_names_always_follow_a_space_and_articles_agree():
    rng = np.random.default_rng(0)
    names = {c.name for c in object_classes()}
    for _ in range(300):
        objects = tuple(int(i) for i in rng.choice(160, size=int(rng.integers(1, 4)), replace=False))
        for text in (texts.caption(rng, objects), texts.label(rng, objects[0])):
            words = text.replace(",", "").split(" ")
            assert words[0] not in names
            for article, word in pairwise(words):
                if word in names and article in ("a", "an"):
                    assert (article == "an") == (word[0] in "aeiou")
            assert {w for w in words if w in names} <= {object_classes()[i].name for i in objects}


def test_classes_are_distinct_and_look_alikes_share_a_subgroup():
    classes = object_classes()
    assert len({c.name for c in classes}) == len({c.hexcode for c in classes}) == 160
    for index, others in subgroup_members().items():
        assert index not in others
        assert all(classes[o].subgroup == classes[index].subgroup for o in others)
    assert object_classes(200)[:160] != ()


def test_files_of_others_are_never_deleted(tmp_path):
    from unime_kedro.errors import DataError

    root = tmp_path / "mini"
    write_corpus(root, seed=3, **SIZES)
    own = root / "train/MyData/original-0.parquet"
    own.parent.mkdir()
    own.write_bytes(b"mine")
    with pytest.raises(DataError, match=r"MyData/original-0\.parquet"):
        write_corpus(root, seed=4, **SIZES)
    assert own.read_bytes() == b"mine"
    own.unlink()
    own.parent.rmdir()
    assert write_corpus(root, seed=4, **SIZES)["digest"] == folder_digest(root)


def test_the_manifest_comes_with_the_corpus(corpus):
    from unime_kedro.minimmeb.corpus import read_manifest

    assert read_manifest(corpus)["digest"] == folder_digest(corpus)
    assert read_manifest(corpus / "nothing") == {}


@pytest.mark.parametrize("name", ["EmojiObjects", "EmojiCrops"])
def test_more_candidates_than_there_are_is_an_error_before_anything_is_written(name, tmp_path):
    from unime_kedro.errors import ConfigurationError

    sizes = {"train_pairs": {name: 1}, "eval_queries": {name: 1}}
    with pytest.raises(ConfigurationError, match=rf"demo\.eval_candidates = 161: expected at most 160.*{name}"):
        write_corpus(tmp_path / "mini", seed=3, **sizes, eval_candidates=161)
    assert list(tmp_path.iterdir()) == []
    write_corpus(tmp_path / "mini", seed=3, **sizes, eval_candidates=160)
    found = pl.read_parquet(tmp_path / f"mini/eval/{name}/test-00000-of-00001.parquet")
    assert found["tgt_text"].list.len().to_list() == [160]


def test_scenes_have_enough_candidates_and_data_sets_left_out_do_not_count(tmp_path):
    sizes = {"train_pairs": {}, "eval_queries": {"EmojiScenes_i2t": 1, "EmojiObjects": 0}}
    write_corpus(tmp_path / "mini", seed=3, **sizes, eval_candidates=200)
    found = pl.read_parquet(tmp_path / "mini/eval/EmojiScenes_i2t/test-00000-of-00001.parquet")
    assert found["tgt_text"].list.len().to_list() == [200]
