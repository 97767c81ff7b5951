"""mini-MMEB: layout, repeatability, truth and splits."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from PIL import Image

from unime_kedro.minimmeb import texts
from unime_kedro.minimmeb.classes import object_classes
from unime_kedro.minimmeb.corpus import folder_digest, write_corpus
from unime_kedro.minimmeb.tasks import (
    TASKS,
    TRAIN_TASKS,
    Query,
    Side,
    draw_query,
    hard_objects,
    make_candidate,
    relevance,
    wrong_objects,
)

SIZES = {
    "train_pairs": dict.fromkeys(TRAIN_TASKS, 12),
    "eval_queries": dict.fromkeys(TASKS, 4),
    "validation_queries": dict.fromkeys(TRAIN_TASKS, 3),
    "eval_candidates": 6,
    "caption_images": 5,
    "compositional_entries": 3,
}


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
    for name, task in TRAIN_TASKS.items():
        frame = pl.read_parquet(corpus / "train" / name / "original-00000-of-00001.parquet")
        assert frame.columns == ["qry", "qry_image_path", "pos_text", "pos_image_path"]
        assert frame.height == 12
        for column, text in (("qry_image_path", "qry"), ("pos_image_path", "pos_text")):
            for path, words in frame.select(column, text).rows():
                assert (path != "") == ("<|image_1|>" in words)
                if path:
                    assert path.startswith(f"images/{name}/Train/")
                    size = (56, 56) if task.target == "crop" and column == "pos_image_path" else (112, 112)
                    size = (64, 64) if name == "EasyVQA" else size
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
    for name in TRAIN_TASKS:
        for q, qi, p, pi in pl.read_parquet(corpus / "train" / name / "*.parquet").iter_rows():
            assert _relevance(wants[q, qi], contents[p, pi]) == 1.0


@pytest.mark.parametrize(("part", "tasks", "queries"), [("eval", TASKS, 4), ("validation", TRAIN_TASKS, 3)])
def test_evaluation_has_the_right_target_first_and_no_second_one(corpus, part, tasks, queries):
    contents, wants = _truth(corpus, part)
    assert {folder.name for folder in (corpus / part).iterdir()} == {*tasks, "images"}
    for name in tasks:
        frame = pl.read_parquet(corpus / part / name / "test-00000-of-00001.parquet")
        assert frame.height == queries
        assert frame.columns == ["qry_text", "qry_img_path", "tgt_text", "tgt_img_path"]
        for q, qi, targets, images in frame.iter_rows():
            values = [_relevance(wants[q, qi], contents[t, i]) for t, i in zip(targets, images, strict=True)]
            assert len(values) == 6
            assert values[0] == 1.0
            assert max(values[1:]) < 1.0
            assert all((corpus / part / "images" / path).is_file() for path in [qi, *images] if path)


def test_validation_changes_no_byte_of_what_was_there_without_it(corpus, tmp_path):
    without = write_corpus(tmp_path / "mini", seed=3, **{**SIZES, "validation_queries": {}})
    files = {f.relative_to(tmp_path / "mini").as_posix() for f in (tmp_path / "mini").rglob("*") if f.is_file()}
    there = {f.relative_to(corpus).as_posix() for f in corpus.rglob("*") if f.is_file()}
    assert files == {f for f in there if not f.startswith(("validation/", "truth/validation/"))}
    for file in files - {"manifest.json"}:
        assert (tmp_path / "mini" / file).read_bytes() == (corpus / file).read_bytes()
    assert without["validation_queries"] == {}
    assert without["pictures"] == sum(f.endswith(".png") for f in files)


def test_validation_is_read_as_evaluation_is(corpus):
    from unime_kedro.io.mmeb_eval import read_eval_sets

    sets = read_eval_sets(corpus / "validation", corpus / "validation" / "images")
    assert [one.dataset for one in sets] == sorted(TRAIN_TASKS)
    assert [one.queries["candidates"].list.len().to_list() for one in sets] == [[6] * 3] * 7


def test_a_crop_is_cut_out_of_its_own_scene(corpus):
    frame = pl.read_parquet(corpus / "train" / "EmojiCrops" / "*.parquet")
    for scene_path, crop_path in frame.select("qry_image_path", "pos_image_path").rows():
        scene = np.asarray(Image.open(corpus / "train" / scene_path))
        crop = np.asarray(Image.open(corpus / "train" / crop_path))
        cells = [scene[r : r + 56, c : c + 56] for r in (0, 56) for c in (0, 56)]
        assert any(np.array_equal(crop, cell) for cell in cells)


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
    assert sum(demo["train_pairs"].values()) >= 3000
    assert set(demo["train_pairs"]) == set(TRAIN_TASKS)
    assert set(demo["eval_queries"]) == set(TASKS)
    assert min(demo["eval_queries"].values()) >= 100
    assert set(demo["validation_queries"]) == set(TRAIN_TASKS)
    assert min(demo["validation_queries"].values()) >= 50
    assert 20 <= demo["eval_candidates"] <= 200
    for tasks in (TRAIN_TASKS.values(), [t for t in TASKS.values() if t.unseen]):
        assert {t.meta_task for t in tasks} == {"classification", "vqa", "retrieval", "visual_grounding"}
    assert {t.unseen for t in TASKS.values()} == {"", "rendering", "question form", "combinations"}


def test_relevance_by_hand():
    query = Query(Side("find", None, (1, 2, 3)), "text", (1, 2, 3))
    for objects, value in [((1, 2, 3), 1.0), ((1, 2), 2 / 3), ((1, 2, 9), 0.5), ((1, 8, 9), 0.2), ((7, 8, 9), 0.0)]:
        assert relevance(query, Side("c", None, objects)) == pytest.approx(value)
    assert relevance(Query(query.side, "image", (1, 2, 3)), Side("c", None, (1, 2, 3))) == 0.0


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize("split", ["train", "novel"])
def test_wrong_objects_never_answer_fully_and_right_ones_always_do(task, split):
    rng = np.random.default_rng(0)
    if task.ask == "real" and split == "novel":
        pytest.skip("real questions have no object classes")
    for _ in range(100):
        query = draw_query(task, rng, split)
        assert relevance(query, make_candidate(task, rng, wrong_objects(task, rng, query))) < 1
        assert relevance(query, make_candidate(task, rng, query.want_objects)) == 1
        hard = hard_objects(task, rng, query)
        if task.target in ("caption", "scene"):  # exactly one thing wrong
            assert len(hard) == len(query.want_objects) == len(set(hard) & set(query.want_objects)) + 1
        else:
            assert len(hard) == 1
            assert hard != query.want_objects
        if split == "novel":
            assert min(hard) >= 160


def test_names_always_follow_a_space_and_articles_agree():
    rng = np.random.default_rng(0)
    names = {word for c in object_classes() for word in c.words}
    for _ in range(300):
        objects = tuple(int(i) for i in rng.choice(160, size=int(rng.integers(1, 4)), replace=False))
        for text in (texts.caption(rng, objects), texts.label(rng, objects[0])):
            words = text.replace(",", "").split(" ")
            assert words[0] not in names
            for article, word in pairwise(words):
                if word in names and article in ("a", "an"):
                    assert (article == "an") == (word[0] in "aeiou")
            assert {w for w in words if w in names} <= {word for i in objects for word in object_classes()[i].words}


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
    only = {"train_pairs": {}, "eval_queries": {}, "validation_queries": {name: 1}}
    with pytest.raises(ConfigurationError, match=rf"161: .*{name}.*set demo\.validation_queries of this data set to 0"):
        write_corpus(tmp_path / "mini", seed=3, **only, eval_candidates=161)
    assert list(tmp_path.iterdir()) == []
    write_corpus(tmp_path / "mini", seed=3, **sizes, eval_candidates=160)
    found = pl.read_parquet(tmp_path / f"mini/eval/{name}/test-00000-of-00001.parquet")
    assert found["tgt_text"].list.len().to_list() == [160]


def test_scenes_have_enough_candidates_and_data_sets_left_out_do_not_count(tmp_path):
    sizes = {"train_pairs": {}, "eval_queries": {"EmojiScenes_i2t": 1, "EmojiObjects": 0}}
    write_corpus(tmp_path / "mini", seed=3, **sizes, eval_candidates=200)
    found = pl.read_parquet(tmp_path / "mini/eval/EmojiScenes_i2t/test-00000-of-00001.parquet")
    assert found["tgt_text"].list.len().to_list() == [200]


def test_what_cannot_be_made_is_an_error_before_anything_is_written(tmp_path):
    from unime_kedro.errors import ConfigurationError

    for key, sizes, message in (
        ("train_pairs", {"Nope": 1}, r"demo\.train_pairs: Nope is unknown; expected only EmojiObjects"),
        ("eval_queries", {"Nope": 1}, r"demo\.eval_queries: Nope is unknown"),
        ("validation_queries", {"Nope": 1}, r"demo\.validation_queries: Nope is unknown"),
        ("validation_queries", {"EmojiChoice": 1}, r"EmojiChoice is out of distribution and has no validation queries"),
        ("train_pairs", {"EasyVQA": 99_999}, r"demo\.train_pairs: EasyVQA = 99,999: expected at most 3,\d\d\d"),
        ("eval_queries", {"EasyVQA": 99_999}, r"demo\.eval_queries: EasyVQA = 99,999: expected at most 2,\d\d\d"),
        ("validation_queries", {"EasyVQA": 9_999}, r"validation_queries: EasyVQA = 9,999: expected at most 1,\d\d\d"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            write_corpus(
                tmp_path / "mini", seed=1, eval_candidates=2, **{"train_pairs": {}, "eval_queries": {}, key: sizes}
            )
    assert list(tmp_path.iterdir()) == []


def test_the_order_of_the_parameters_changes_nothing_and_none_writes_nothing(tmp_path):
    names = ["EmojiTwins", "EasyVQA", "EmojiObjects"]
    digests = []
    for i, order in enumerate((names, names[::-1])):
        sizes = {"train_pairs": dict.fromkeys(order, 3), "eval_queries": dict.fromkeys(order, 2) | {"EmojiCrops": 0}}
        digests.append(write_corpus(tmp_path / str(i), seed=1, **sizes, eval_candidates=3)["digest"])
    assert digests[0] == digests[1]
    assert sorted(f.name for f in (tmp_path / "0/eval").iterdir()) == [*sorted(names), "images"]


def test_somebody_elses_partial_folder_is_not_deleted(tmp_path):
    from unime_kedro.errors import DataError

    own = tmp_path / "mini.partial/notes.txt"
    own.parent.mkdir()
    own.write_text("mine")
    with pytest.raises(DataError, match=r"notes\.txt"):
        write_corpus(tmp_path / "mini", seed=1, **SIZES)
    assert own.read_text() == "mine"


def test_crops_of_the_querys_own_picture_are_cut_out_of_it(tmp_path):
    sizes = {"train_pairs": {}, "eval_queries": {"EmojiCrops": 20}, "eval_candidates": 10}
    write_corpus(tmp_path / "mini", seed=3, **sizes)
    cut_wrong = 0
    for query, targets in (
        pl.read_parquet(tmp_path / "mini/eval/EmojiCrops/*.parquet").select("qry_img_path", "tgt_img_path").rows()
    ):
        scene = np.asarray(Image.open(tmp_path / "mini/eval/images" / query))
        cells = {scene[r : r + 56, c : c + 56].tobytes() for r in (0, 56) for c in (0, 56)}
        exact = [np.asarray(Image.open(tmp_path / "mini/eval/images" / t)).tobytes() in cells for t in targets]
        assert exact[0]
        cut_wrong += any(exact[1:])
    assert cut_wrong >= 15  # so that equal pixels alone do not give the answer


def test_the_target_is_not_simply_what_is_most_like_the_other_candidates(tmp_path):
    sizes = {"train_pairs": {}, "eval_queries": {"EmojiScenes_t2i": 100}, "eval_candidates": 20}
    write_corpus(tmp_path / "mini", seed=3, **sizes)
    contents, _ = _truth(tmp_path / "mini", "eval")
    found = 0
    for words, images in (
        pl.read_parquet(tmp_path / "mini/eval/EmojiScenes_t2i/*.parquet").select("tgt_text", "tgt_img_path").rows()
    ):
        sets = [contents[pair][1] for pair in zip(words, images, strict=True)]
        likeness = [sum(len(a & b) / len(a | b) for b in sets) for a in sets]
        found += int(np.argmax(likeness)) == 0
    assert found < 60  # 92 when all near misses are made from the target


def test_out_of_distribution_sets_have_no_training_pairs(tmp_path):
    from unime_kedro.errors import ConfigurationError

    with pytest.raises(ConfigurationError, match=r"train_pairs: TwemojiCrops is out of distribution"):
        write_corpus(tmp_path / "mini", seed=1, train_pairs={"TwemojiCrops": 1}, eval_queries={}, eval_candidates=2)


def test_candidates_of_a_query_differ_and_many_are_shared_between_queries(tmp_path):
    sizes = {"train_pairs": {}, "eval_queries": {"EmojiScenes_t2i": 30, "EasyVQA": 30}, "eval_candidates": 21}
    write_corpus(tmp_path / "mini", seed=3, **sizes)
    contents, _ = _truth(tmp_path / "mini", "eval")
    scenes_set = pl.read_parquet(tmp_path / "mini/eval/EmojiScenes_t2i/*.parquet")
    for texts_, images in scenes_set.select("tgt_text", "tgt_img_path").rows():
        sets = {frozenset(contents[pair][1]) for pair in zip(texts_, images, strict=True)}
        assert len(sets) == 21
    # ten near misses of its own and the target are drawn, the other ten are another query's
    assert scenes_set["tgt_img_path"].explode().n_unique() == 30 * 11
    real = pl.read_parquet(tmp_path / "mini/eval/EasyVQA/*.parquet")
    assert real["tgt_text"].list.n_unique().to_list() == [20] * 30
    assert real["qry_img_path"].n_unique() == 30
