"""Recall@1 between pictures and captions, both ways, by hand and against slow loops."""

from __future__ import annotations

import logging
import zlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unime_kedro.errors import ConfigurationError, DataError
from unime_kedro.evaluation.captions import CaptionPrompts, caption_tasks
from unime_kedro.evaluation.compositional import compositional_tasks
from unime_kedro.evaluation.scoring import PREDICTIONS_SCHEMA, score_tasks
from unime_kedro.evaluation.summaries import summarise

ROOT = Path("pictures")
PROMPTS = CaptionPrompts("<|image_1|> caption?", "picture of {caption}?", "<|image_1|> this", "{caption}.")
unhurried = settings(deadline=None, max_examples=40)


def scattered(contents):
    rows = [np.random.default_rng(zlib.crc32(repr(c).encode())).normal(size=5) for c in contents]
    return np.array([row / np.linalg.norm(row) for row in rows], dtype=np.float32)


IMAGES = pl.DataFrame({"image_id": range(6), "image": [f"{i}.jpg" for i in range(6)]})
CAPTIONS = pl.DataFrame(
    {
        "caption_id": range(14),
        "image_id": [0, 0, 0, 1, 1, 2, 2, 2, 3, 4, 4, 5, 5, 5],
        "text": [*"abcdefghijklm", "a"],  # pictures 0 and 5 have the caption a
    }
)


def evaluate_captions(images, captions, embed, dataset="Flickr30K", **options):
    return score_tasks(caption_tasks(images, captions, PROMPTS, dataset), embed, ROOT, **options).predictions


def evaluate_compositional(entries, embed, **options):
    return score_tasks(compositional_tasks(entries, PROMPTS), embed, ROOT, **options).predictions


def similarity(left, right):
    return np.float32(left.astype(np.float64) @ right.astype(np.float64))


def test_prompts_reach_the_embedder_and_scores_equal_the_slow_loop():
    seen = {}

    def embed(contents):
        vectors = scattered(contents)
        seen.update(zip(contents, vectors, strict=True))
        return vectors

    found = evaluate_captions(IMAGES, CAPTIONS, embed, dataset="Tiny")
    assert found.schema == PREDICTIONS_SCHEMA
    sides = {(c.text, c.image.name if c.image else ""): vector for c, vector in seen.items()}
    assert len(sides) == 2 * 6 + 2 * 13  # two prompts each, the caption a once
    expected = []
    for image_id, image in IMAGES.rows():
        query = sides["<|image_1|> caption?", image]
        scores = [(similarity(query, sides[f"{text}.", ""]), owner) for _, owner, text in CAPTIONS.rows()]
        own, foreign = (max(s for s, o in scores if (o == image_id) == same) for same in (True, False))
        chance = sum(o == image_id for _, o in scores) / 14
        expected.append(("Tiny_i2t", image_id, image_id, own > foreign, own, foreign, chance))
    for caption_id, owner, text in CAPTIONS.rows():
        query = sides[f"picture of {text}?", ""]
        scores = [(similarity(query, sides["<|image_1|> this", image]), i) for i, image in IMAGES.rows()]
        own, foreign = (max(s for s, i in scores if (i == owner) == same) for same in (True, False))
        expected.append(("Tiny_t2i", caption_id, owner, own > foreign, own, foreign, 1 / 6))
    columns = ["dataset", "query_id", "unit", "correct", "target_similarity", "best_wrong_similarity"]
    found = found.with_columns(chance=pl.col("n_right") / pl.col("n_candidates"))
    for row, wanted in zip(found.select(*columns, "chance").rows(), expected, strict=True):
        assert row[:4] == wanted[:4]
        assert row[4:] == pytest.approx(wanted[4:], abs=1e-6)
    assert 0 < found["correct"].sum() < len(found)
    summary = summarise(found, {"Tiny_i2t": "both", "Tiny_t2i": "both"}, unit="unit")
    assert summary["n_units"].to_list()[:2] == [6, 6]
    assert summary["chance"].to_list()[:2] == pytest.approx([1 / 6, 1 / 6])


@unhurried
@given(st.integers(0, 999), st.integers(1, 99), st.integers(1, 9))
def test_order_and_blocks_do_not_matter(seed, block_pairs, chunk):
    expected = evaluate_captions(IMAGES, CAPTIONS, scattered)
    images = IMAGES.sample(fraction=1, shuffle=True, seed=seed)
    captions = CAPTIONS.sample(fraction=1, shuffle=True, seed=seed + 1)
    found = evaluate_captions(images, captions, scattered, block_pairs=block_pairs, chunk=chunk)
    assert found.equals(expected)


def test_constant_embedder(caplog):
    with caplog.at_level(logging.WARNING):
        found = evaluate_captions(IMAGES, CAPTIONS, lambda c: np.ones((len(c), 1)))
    assert not found["correct"].any()
    assert [record.args[0] for record in caplog.records] == ["Flickr30K_i2t", "Flickr30K_t2i"]


@pytest.mark.parametrize(
    ("images", "captions", "message"),
    [
        (IMAGES.clear(), CAPTIONS, "no pictures"),
        (IMAGES, CAPTIONS.filter(pl.col("image_id") != 3), "image_id 3 has no caption"),
        (IMAGES.head(5), CAPTIONS, "image_id 5 has captions and no picture"),
        (pl.concat([IMAGES, IMAGES]), CAPTIONS, "expected distinct image_id"),
        (IMAGES, pl.concat([CAPTIONS, CAPTIONS]), "expected distinct caption_id"),
    ],
)
def test_tables_that_do_not_belong_together(images, captions, message):
    with pytest.raises(DataError, match=f"Flickr30K: .*{message}"):
        evaluate_captions(images, captions, scattered)


def test_prompts_need_their_caption():
    with pytest.raises(ConfigurationError, match=r"caption_query is 'picture'; expected \{caption\} in it once"):
        CaptionPrompts("i", "picture", "i")
    with pytest.raises(ConfigurationError, match="caption_target"):
        CaptionPrompts("i", "{caption}", "i", "{caption}{caption}")


ENTRIES = pl.DataFrame(
    {
        "dataset": ["swap_obj", "swap_obj", "swap_obj", "add_att", "replace_rel", "replace_att"],
        "query_id": [0, 1, 2, 0, 0, 0],
        "image": ["0", "0", "30", "0", "0", "-20"],  # the angle of the picture
        "caption": ["10", "20", "10", "5", "40", "-10"],
        "negative_caption": ["20", "-20", "60", "90", "39", "50"],
    }
)


def by_angle(contents):
    """Embed a caption, or a picture by its name, as its angle on the unit circle."""
    degrees = np.array([float(c.image.name if c.image else c.text.strip(".")) for c in contents])
    sign, turn = np.sign(degrees), np.deg2rad(np.abs(degrees))
    return np.stack([np.cos(turn), sign * np.sin(turn)], axis=1).astype(np.float32)


def test_compositional_by_hand():
    found = evaluate_compositional(ENTRIES, by_angle)
    assert found.select("dataset", "query_id", "correct", "unit").rows() == [
        ("add_att", 0, True, 1),
        ("replace_att", 0, True, 1),
        ("replace_rel", 0, False, 1),
        ("swap_obj", 0, True, 1),
        ("swap_obj", 1, False, 1),  # a tie; the same picture
        ("swap_obj", 2, True, 2),  # 20 degrees against 30
    ]
    groups = {name: name.split("_")[0] for name in ENTRIES["dataset"]}
    summary = summarise(found, groups, unit="unit")
    assert summary.select("kind", "name", "value", "chance").rows()[4:] == [
        ("group", "add", 1.0, 0.5),
        ("group", "replace", 0.5, 0.5),
        ("group", "swap", pytest.approx(2 / 3), 0.5),
        ("all", "all", pytest.approx((1 + 1 + 0 + 2 / 3) / 4), 0.5),
    ]
    shuffled = ENTRIES.sample(fraction=1, shuffle=True, seed=1)
    assert evaluate_compositional(shuffled, by_angle, chunk=2).equals(found)


def test_compositional_embeds_the_prompts():
    seen = []

    def embed(contents):
        seen.extend(contents)
        return by_angle(contents)

    evaluate_compositional(ENTRIES.head(2), embed)
    assert [(c.text, c.image) for c in seen] == [
        ("-20.", None),
        ("10.", None),
        ("20.", None),
        ("<|image_1|> caption?", ROOT / "0"),
    ]
    with pytest.raises(DataError, match="no entries"):
        evaluate_compositional(ENTRIES.clear(), embed)
