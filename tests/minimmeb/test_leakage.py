"""Nothing alike is on two sides of a split: by content hash, by name, by cluster of look-alikes."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections import defaultdict
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from unime_kedro.minimmeb import easyvqa, scenes
from unime_kedro.minimmeb.classes import (
    all_classes,
    clusters,
    eligible,
    metadata,
    novel_classes,
    object_classes,
    subgroup_members,
)
from unime_kedro.minimmeb.corpus import write_corpus
from unime_kedro.minimmeb.pairs import draw_queries
from unime_kedro.minimmeb.tasks import TASKS, TRAIN_TASKS
from unime_kedro.minimmeb.words import LOOK_ALIKES, SYNONYMS

SPLITS = [*scenes.SPLIT_BUCKETS, scenes.COMBINATIONS]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("corpus") / "mini"
    sizes = {"train_pairs": dict.fromkeys(TRAIN_TASKS, 60), "eval_queries": dict.fromkeys(TASKS, 12)}
    sizes["validation_queries"] = dict.fromkeys(TRAIN_TASKS, 12)
    write_corpus(root, seed=5, **sizes, eval_candidates=8, caption_images=20, compositional_entries=5)
    return root


def _sets(split: str) -> set[tuple[int, ...]]:
    rng = np.random.default_rng(1)
    found: set[tuple[int, ...]] = set()
    for _ in range(150):
        found |= set(scenes.family(rng, split)) | {scenes.random_set(rng, 2, split)}
    return {objects for objects in found if len(objects) > 1}


def test_splits_share_no_set_and_no_set_of_look_alikes():
    drawn = {split: _sets(split) for split in SPLITS}
    alike = {
        split: {tuple(sorted(all_classes()[i].cluster for i in objects)) for objects in sets}
        for split, sets in drawn.items()
    }
    for a, b in combinations(SPLITS, 2):
        assert not drawn[a] & drawn[b]
        assert not alike[a] & alike[b]
    buckets = list(scenes.SPLIT_BUCKETS.values())
    assert sorted(i for part in buckets for i in part) == list(range(20))


def _training_sets(n: int) -> set[tuple[int, ...]]:
    """Replay what the tiny models are trained on; returns every set of several objects shown or named anywhere."""
    from unime_kedro.learning.tiny.alignment import _scene
    from unime_kedro.learning.tiny.embedder import _pairs
    from unime_kedro.learning.tiny.judge import BRANCHES, judge_row

    rng = np.random.default_rng(4)
    found = {_scene(rng).objects for _ in range(n)}
    for sides in _pairs(rng, n, "pretrain"):
        found |= {side.objects for side in sides}
    for task in TRAIN_TASKS.values():
        for _ in range(n // 8):
            row = judge_row(task, rng, "pretrain", BRANCHES, foreign=0.12)
            found |= {row.query.side.objects, row.query.want_objects} | {side.objects for side in row.candidates}
    return {tuple(sorted(objects)) for objects in found if len(objects) > 1}


def test_models_are_trained_on_nothing_but_their_split_right_or_wrong():
    seen = _training_sets(600)
    assert len(seen) > 1000
    assert all(scenes.in_split(objects, "pretrain") for objects in seen)


def test_the_split_of_a_candidate_tells_nothing_in_training():
    # a judge could learn "sets with a reserved pair are wrong" if only wrong candidates had them
    from unime_kedro.learning.tiny.judge import judge_row

    rng = np.random.default_rng(5)
    for name in ("EmojiScenes_i2t", "EmojiScenes_t2i", "EmojiTwins"):
        rows = [judge_row(TRAIN_TASKS[name], rng, "pretrain", 8, foreign=0.0) for _ in range(40)]
        for right in (True, False):
            sets = [
                c.objects
                for row in rows
                for c, r in zip(row.candidates, row.relevance, strict=True)
                if (r == 1) == right
            ]
            assert len(sets) == 160
            assert all(scenes.in_split(tuple(sorted(objects)), "pretrain") for objects in sets)


def test_no_class_is_a_kind_of_another():
    names = {c.name for c in all_classes()}
    for general, special in {
        "bird": "swan eagle duck parrot penguin flamingo",
        "dog": "poodle",
        "bread": "bagel pretzel",
        "chicken": "rooster",
        "deer": "moose",
        "mountain": "volcano",
        "melon": "watermelon",
        "train": "metro monorail",
        "bear": "panda",
        "watch": "stopwatch",
    }.items():
        assert general not in names or not set(special.split()) & names


def test_unseen_combinations_are_unseen_pair_by_pair():
    def pairs(sets):
        names = [[all_classes()[i].cluster for i in objects] for objects in sets]
        return {tuple(sorted(pair)) for found in names for pair in combinations(found, 2)}

    unseen = pairs(_sets(scenes.COMBINATIONS))
    assert len(unseen) > 200
    for split in scenes.SPLIT_BUCKETS:
        assert not unseen & pairs(_sets(split))


def test_novel_classes_are_unlike_every_seen_one():
    seen, novel = object_classes(), novel_classes()
    assert (len(seen), len(novel)) == (160, 40)
    assert [c.index for c in all_classes()] == list(range(200))
    assert not {c.cluster for c in seen} & {c.cluster for c in novel}
    assert not {c.hexcode for c in seen} & {c.hexcode for c in novel}
    assert not {word for c in seen for word in c.words} & {word for c in novel for word in c.words}
    for index, others in subgroup_members().items():
        assert index not in others
        for other in others:
            assert all_classes()[other].subgroup == all_classes()[index].subgroup
            assert (other >= 160) == (index >= 160)


def test_no_person_clock_face_arrow_or_flag_is_an_object():
    # the clusters of OpenMoji that are largest: hundreds of drawings that differ in a detail
    words = {word for c in all_classes() for word in c.words}
    assert not words & {"man", "woman", "person", "boy", "girl", "people", "arrow", "flag", "clock", "face"}
    assert all(c.group not in ("people-body", "smileys-emotion", "symbols", "flags") for c in all_classes())
    twins = [row for row in metadata() if "clock" in row["name"] or "arrow" in row["name"]]
    assert len(twins) > 30
    assert not {row["hexcode"] for row in twins} & {c.hexcode for c in all_classes()}


def test_word_lists_name_real_classes_and_tags():
    rows = {row["name"]: row for row in eligible()}
    for name, synonyms in SYNONYMS.items():
        assert set(synonyms) <= set(rows[name]["tags"].split("|")), name
        assert not set(synonyms) & set(rows), name
    every = [word for synonyms in SYNONYMS.values() for word in synonyms]
    assert len(every) == len(set(every))
    assert {name for group in LOOK_ALIKES for name in group} <= set(rows)
    for group in LOOK_ALIKES:
        assert len({clusters()[name] for name in group}) == 1
    assert sum(bool(c.synonyms) for c in object_classes()) >= 30


def _similarity(hexcodes: list[str]) -> np.ndarray:
    from unime_kedro.minimmeb.drawing import WHITE, _base

    small = [np.asarray(_base(code, "openmoji", WHITE).resize((16, 16)), float).ravel() for code in hexcodes]
    return np.corrcoef(np.stack(small))


def test_no_two_classes_are_nearly_equal_pixel_by_pixel_unless_in_one_cluster():
    locked, unlocked = (next(r["hexcode"] for r in metadata() if r["name"] == n) for n in ("locked", "unlocked"))
    assert _similarity([locked, unlocked])[0, 1] > 0.9  # the measure sees a pair that was left out for its likeness
    classes = all_classes()
    close = _similarity([c.hexcode for c in classes]) > 0.9
    for i, j in zip(*np.nonzero(np.triu(close, 1)), strict=True):
        assert classes[i].cluster == classes[j].cluster, (classes[i].name, classes[j].name)


def _hashes(folder: Path) -> dict[str, list[str]]:
    found = defaultdict(list)
    for file in sorted(folder.rglob("*.png")):
        found[hashlib.sha256(file.read_bytes()).hexdigest()].append(file.name)
    return found


def test_no_picture_of_training_is_in_any_evaluation(corpus):
    train = set(_hashes(corpus / "train"))
    validation = set(_hashes(corpus / "validation"))
    assert len(validation) > 200
    assert not train & validation
    for part in ("eval", "captions", "compositional"):
        evaluation = _hashes(corpus / part)
        assert evaluation
        assert not train & set(evaluation)
        assert not validation & set(evaluation)


def _rows_of_sets(corpus, part, table, column):
    frame = pl.read_parquet(corpus / "truth" / part / f"{table}.parquet")
    return {(text, tuple(ids)) for text, ids in frame.select("text", column).rows() if len(ids) > 1}


@pytest.mark.parametrize(("seen", "held"), [("train", "eval"), ("train", "validation"), ("validation", "eval")])
def test_no_object_set_and_no_caption_of_training_is_asked_in_evaluation(corpus, seen, held):
    train, evaluation = (_rows_of_sets(corpus, part, "wants", "want_objects") for part in (seen, held))
    assert not {ids for _, ids in train} & {ids for _, ids in evaluation}
    captions = {text for text, _ in _rows_of_sets(corpus, seen, "contents", "objects") | train if "|image" not in text}
    asked = {text for text, _ in evaluation if "|image" not in text}
    assert len(captions) > 50
    assert asked
    assert not captions & asked


def test_what_validation_asks_is_of_its_own_split(corpus):
    wanted = {ids for _, ids in _rows_of_sets(corpus, "validation", "wants", "want_objects")}
    assert len(wanted) > 15
    assert all(scenes.in_split(ids, "calibration") for ids in wanted)
    # what a picture shows is not in its query's truth: draw the queries again, and see that they are these
    for name, task in TRAIN_TASKS.items():
        rng = np.random.default_rng([5, zlib.crc32(f"validation/{name}".encode())])
        again = draw_queries(5, task, "calibration", 12, rng)
        frame = pl.read_parquet(corpus / "validation" / name / "*.parquet")
        assert frame["qry_text"].to_list() == [query.side.text for query in again]
        if task.ask == "real":
            pictures = {f"train/{i}" for i in range(3700, 4000)}
            assert {query.side.picture.source for query in again} <= pictures
            continue
        shown = {tuple(sorted(query.side.objects)) for query in again}
        assert all(scenes.in_split(objects, "calibration") for objects in shown)
        assert max(map(len, shown)) == (1 if task.ask == "object" else 3)


def test_what_is_out_of_distribution_is_not_looked_at_by_validation(corpus):
    folders = {folder.name for folder in (corpus / "validation").iterdir()}
    assert not folders & {name for name, task in TASKS.items() if task.unseen}
    objects = pl.read_parquet(corpus / "truth/validation/contents.parquet")["objects"].explode()
    assert not set(objects) & set(range(160, 200))


def test_real_questions_are_even_over_answers_and_pictures():
    rng = np.random.default_rng(1)
    drawn = easyvqa.draw_questions(rng, "eval", 130)
    assert len(set(drawn)) == 130
    assert sorted(np.unique([q.answer for q in drawn], return_counts=True)[1]) == [10] * 13
    assert len({q.picture for q in drawn}) == 130
    everything = sum(map(len, easyvqa.distinct_questions("eval").values()))
    assert len(set(easyvqa.draw_questions(rng, "eval", everything))) == everything
    with pytest.raises(ValueError, match=f"easy-VQA has {everything} questions in split eval, {everything + 1} were"):
        easyvqa.draw_questions(rng, "eval", everything + 1)


def test_real_questions_of_the_splits_are_about_different_pictures():
    pictures = {
        split: {q.picture for asked in easyvqa.questions(split).values() for q in asked}
        for split in scenes.SPLIT_BUCKETS
    }
    for a, b in combinations(pictures.values(), 2):
        assert not a & b
    sample = {split: {easyvqa.picture_bytes(p) for p in sorted(found)[:200]} for split, found in pictures.items()}
    for a, b in combinations(sample.values(), 2):
        assert not a & b


def test_what_a_real_picture_shows_agrees_with_its_pixels():
    colours = {"red": 0, "green": 1, "blue": 2}
    checked = 0
    for number in range(300):
        names = [easyvqa.answer_word(i) for i in easyvqa.looks(f"test/{number}")]
        for name in set(names) & set(colours):
            import io

            from PIL import Image

            pixels = np.asarray(Image.open(io.BytesIO(easyvqa.picture_bytes(f"test/{number}"))).convert("RGB"), float)
            background = pixels[0, 0]
            shape = pixels[np.abs(pixels - background).sum(axis=2) > 60]
            assert int(shape.mean(axis=0).argmax()) == colours[name]
            checked += 1
    assert checked > 50


def test_captions_have_flickr30k_layout_and_five_distinct_captions(corpus):
    frame = pl.read_csv(corpus / "captions/EmojiCaptions/annotations.csv")
    assert frame.columns == ["raw", "sentids", "split", "filename", "img_id"]
    captions = [json.loads(raw) for raw in frame["raw"]]
    assert [len(set(five)) for five in captions] == [5] * 20
    every = [text for five in captions for text in five]
    assert len(set(every)) == 100
    assert [i for ids in frame["sentids"] for i in json.loads(ids)] == list(range(100))
    for file in frame["filename"]:
        assert (corpus / "captions/EmojiCaptions/images" / file).is_file()


def test_compositional_entries_differ_in_what_their_file_says(corpus):
    folder = corpus / "compositional/EmojiCrepe"
    for file in sorted(folder.glob("*.json")):
        entries = json.loads(file.read_text())
        assert list(entries) == [str(i) for i in range(5)]
        for entry in entries.values():
            assert (folder / "images" / entry["filename"]).is_file()
            right, wrong = (entry[key].replace(",", "").split() for key in ("caption", "negative_caption"))
            kind = file.stem.split("_")[0]
            if kind == "swap":
                assert sorted(w for w in right if w not in ("a", "an")) == sorted(
                    w for w in wrong if w not in ("a", "an")
                )
                assert right != wrong
            elif kind == "add":
                assert set(right) < set(wrong) | {"a", "an"}
                assert len(wrong) > len(right)
            else:
                assert len(set(right) - set(wrong) - {"a", "an", "of", "to", "the"}) == 1
                if file.stem == "replace_obj":
                    assert right[:3] == wrong[:3]  # "a cat and": the second object is replaced
    assert len(list(folder.glob("*.json"))) == 7
