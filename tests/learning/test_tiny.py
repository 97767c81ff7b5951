"""The embedded tiny models: training sees exactly what inference sees, and the shipped weights are as good as claimed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from unime_kedro.minimmeb import drawing, scenes
from unime_kedro.minimmeb.classes import object_classes
from unime_kedro.minimmeb.tasks import TASKS, make_candidate, make_query, relevance

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def encoder():
    from unime_kedro.learning.tiny.batches import Encoder, TileBank
    from unime_kedro.learning.tiny.tokenizer import train_tokenizer

    return Encoder(train_tokenizer(), TileBank(variants=2, held_out=1, seed=0))


@pytest.fixture(scope="module")
def model(encoder):
    from unime_kedro.learning.tiny.model import new_model

    model = new_model(encoder.tokenizer, hidden=64, layers=2, seed=1).eval()
    import torch

    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1 and "embed_tokens" not in name:
                weight.mul_(4)
    return model


def draw_from_bank(bank, picture, folder, name):
    """Save the picture that the bank's only training variants make, as a file."""
    tiles = []
    for index in picture.objects:
        patches = bank.patches[index, 0].reshape(2, 2, 3, 28, 28)
        tiles.append(patches.transpose(0, 3, 1, 4, 2).reshape(56, 56, 3))
    pixels = tiles[0] if picture.crop else drawing.compose(tiles, list(picture.cells))
    file = folder / f"{name}.png"
    file.write_bytes(drawing.png_bytes(pixels))
    return file


def test_patches_are_those_of_the_real_image_processor(encoder, tmp_path):
    from PIL import Image

    from unime_kedro.learning.tiny.batches import pixel_values
    from unime_kedro.learning.tiny.model import image_processor
    from unime_kedro.minimmeb.tasks import Picture

    for picture in (Picture((3, 50, 120), (2, 0, 3)), Picture((7,), (0,), crop=True)):
        patches, _ = encoder.bank.picture(picture, np.random.default_rng(0), test=False)
        file = draw_from_bank(encoder.bank, picture, tmp_path, "scene")
        out = image_processor()(images=[Image.open(file)], return_tensors="np")
        np.testing.assert_allclose(pixel_values([patches]).numpy(), out["pixel_values"], atol=1e-5)


def test_packed_training_rows_give_the_logits_of_the_judge(encoder, model, tmp_path):
    import torch

    from unime_kedro.learning.tiny.alignment import Aligner
    from unime_kedro.learning.tiny.batches import JudgeRow, pack
    from unime_kedro.learning.tiny.judge import answer_logits
    from unime_kedro.learning.tiny.model import image_processor
    from unime_kedro.mllm.adapters.qwen_vl import QwenVLAdapter
    from unime_kedro.mllm.content import Content
    from unime_kedro.mllm.judge import PrefixJudge

    rng = np.random.default_rng(5)
    rows = []
    for task in TASKS.values():
        query = make_query(task, rng, scenes.random_set(rng, 3, "train"))
        sides = [make_candidate(kind, rng, scenes.random_set(rng, 2, "train")) for kind in TASKS.values()]
        rows.append(JudgeRow(query, sides, [relevance(query, s) for s in sides]))
    with torch.no_grad():
        logits, _ = answer_logits(model, Aligner(model, encoder), pack(encoder, rows, rng))
    yes, no = (encoder.ids(word)[0] for word in ("Yes", "No"))
    judge = PrefixJudge(QwenVLAdapter(model, encoder.tokenizer, image_processor(), "x"), batch_size=8)
    found = []
    for r, row in enumerate(rows):
        contents = []
        for s, side in enumerate([row.query.side, *row.candidates]):
            image = draw_from_bank(encoder.bank, side.picture, tmp_path, f"{r}-{s}") if side.picture else None
            contents.append(Content(side.text, image))
        judged = judge.judge(contents[0], contents[1:])
        found += list(judged.yes - judged.no)
    np.testing.assert_allclose((logits[:, yes] - logits[:, no]).numpy(), found, atol=1e-4)
    assert np.ptp(found) > 0.01


def test_every_name_is_one_token_wherever_it_stands(encoder):
    for c in object_classes():
        [name] = encoder.ids(f" {c.name}")
        for text in (f"the {c.name}", f"a {c.name}, and", f'labeled as "the {c.name}"', f"the {c.name}."):
            assert name in encoder.ids(text), (c.name, text)


def test_targets_rise_with_relevance():
    import torch

    from unime_kedro.learning.tiny.judge import target_probability

    values = target_probability(torch.tensor([0.0, 0.2, 1 / 3, 0.5, 2 / 3, 1.0], dtype=torch.float64))
    np.testing.assert_allclose(values, [0.03, 0.08, 0.12, 0.25, 0.40, 0.97], atol=1e-6)


def test_held_out_drawings_are_never_used_in_training(encoder):
    from unime_kedro.minimmeb.tasks import Picture

    picture, rng = Picture((4,), (0,), crop=True), np.random.default_rng(0)
    train = {encoder.bank.picture(picture, rng, test=False)[0].tobytes() for _ in range(20)}
    test = {encoder.bank.picture(picture, rng, test=True)[0].tobytes() for _ in range(20)}
    assert not train & test


@pytest.mark.slow
def test_same_seed_same_weights_and_the_result_loads_like_any_model(tmp_path):
    from unime_kedro.learning.tiny.make import make_embedder, make_judge
    from unime_kedro.mllm.adapters import load_adapter
    from unime_kedro.mllm.content import ModelSpec

    shape = {"seed": 1, "hidden": 64, "layers": 1, "align_steps": 2, "steps": 2, "learning_rate": 1e-3}
    quiet = {"report": lambda step, values: None}
    metrics = [make_judge(tmp_path / str(i), **shape, batch=2, test_pairs=64, **quiet) for i in range(2)]
    assert metrics[0]["auc/mean"] == metrics[1]["auc/mean"]
    assert (
        load_adapter(ModelSpec(str(tmp_path / "0"))).fingerprint
        == load_adapter(ModelSpec(str(tmp_path / "1"))).fingerprint
    )
    make_embedder(tmp_path / "e", **shape, batch=5, **quiet)
    assert "OpenMoji" in (tmp_path / "e" / "README.md").read_text()


@pytest.mark.slow
def test_the_shipped_judge_is_as_good_as_its_card_says():
    from unime_kedro.evaluation.ranking import roc_auc
    from unime_kedro.learning.tiny.batches import Encoder, TileBank
    from unime_kedro.learning.tiny.judge import judge_test_scores
    from unime_kedro.mllm.adapters import load_adapter
    from unime_kedro.mllm.content import ModelSpec

    adapter = load_adapter(ModelSpec(str(ROOT / "models/tiny-judge"), dtype="float32"))
    encoder = Encoder(adapter.tokenizer, TileBank(variants=6, held_out=3, seed=123))
    for task in TASKS.values():
        logits, labels = judge_test_scores(adapter.model, encoder, task, pairs=256, seed=77)
        assert 0.4 < labels.mean() < 0.6
        assert roc_auc(logits, labels) > 0.9, task.name


def test_the_weights_in_the_repository_stay_small():
    size = sum(file.stat().st_size for file in (ROOT / "models").rglob("*") if file.is_file())
    assert size <= 16 * 2**20
