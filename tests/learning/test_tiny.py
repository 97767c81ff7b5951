"""The embedded tiny models: training sees exactly what inference sees, and the shipped weights are as good as claimed."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from unime_kedro.minimmeb import drawing, easyvqa
from unime_kedro.minimmeb.classes import novel_classes, object_classes
from unime_kedro.minimmeb.tasks import TASKS, TRAIN_TASKS, draw_query, make_candidate, relevance

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def encoder():
    from unime_kedro.learning.tiny.batches import Encoder, TileBank
    from unime_kedro.learning.tiny.tokenizer import train_tokenizer

    return Encoder(train_tokenizer(), TileBank(seed=0))


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


class OneDrawing:
    """Stands for the random numbers of a bank: always the first drawing."""

    def integers(self, low, high=None, size=None):
        return 0 if size is None else np.zeros(size, dtype=int)  # real pictures stay where they are


def save_picture(bank, picture, folder, name):
    """Save the picture that the bank makes of its first training drawings, as a file."""
    file = folder / f"{name}.png"
    if picture.source:
        file.write_bytes(easyvqa.picture_bytes(picture.source))
        return file
    tiles = []
    for index in picture.objects:
        patches = bank.drawings(index, picture.style, "train")[0].reshape(2, 2, 3, 28, 28)
        tiles.append(patches.transpose(0, 3, 1, 4, 2).reshape(56, 56, 3))
    pixels = tiles[0] if picture.crop else drawing.compose(tiles, list(picture.cells))
    file.write_bytes(drawing.png_bytes(pixels))
    return file


def test_patches_are_those_of_the_real_image_processor(encoder, tmp_path):
    from PIL import Image

    from unime_kedro.learning.tiny.batches import pixel_values
    from unime_kedro.learning.tiny.model import image_processor
    from unime_kedro.minimmeb.tasks import Picture

    for picture in (
        Picture((3, 50, 120), (2, 0, 3)),
        Picture((7,), (0,), crop=True),
        Picture((7, 180), (1, 2), style="twemoji"),
        Picture((), (), crop=True, source="test/3"),
    ):
        patches, _ = encoder.bank.picture(picture, OneDrawing(), "train")
        file = save_picture(encoder.bank, picture, tmp_path, "scene")
        out = image_processor()(images=[Image.open(file).convert("RGB")], return_tensors="np")
        np.testing.assert_allclose(pixel_values([patches]).numpy(), out["pixel_values"], atol=1e-5)


def test_real_pictures_are_moved_in_training_only(encoder):
    from unime_kedro.learning.tiny.batches import moved
    from unime_kedro.minimmeb.tasks import Picture

    class Move(OneDrawing):
        def integers(self, low, high=None, size=None):
            return 1 if size is None else np.array([3, -5])

    tile = np.full((56, 56, 3), 200, dtype=np.uint8)
    tile[10:20, 30:34] = (255, 0, 0)
    by_hand = np.full((56, 56, 3), 200, dtype=np.uint8)
    by_hand[13:23, 56 - 34 - 5 : 56 - 30 - 5] = (255, 0, 0)
    np.testing.assert_array_equal(moved(tile, Move()), by_hand)
    picture, rng = Picture((), (), crop=True, source="test/3"), np.random.default_rng(1)
    seen = [{encoder.bank.picture(picture, rng, part)[0].tobytes() for _ in range(20)} for part in ("train", "test")]
    assert len(seen[0]) > 15
    assert len(seen[1]) == 1


def test_packed_training_rows_give_the_logits_of_the_judge(encoder, model, tmp_path, monkeypatch):
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
        query = draw_query(task, rng, "train")
        sides = [make_candidate(kind, rng, draw_query(kind, rng, "train").want_objects) for kind in TASKS.values()]
        rows.append(JudgeRow(query, sides, [relevance(query, s) for s in sides]))
    with torch.no_grad():
        logits, _ = answer_logits(model, Aligner(model, encoder), pack(encoder, rows, OneDrawing()))
    yes, no = (encoder.ids(word)[0] for word in ("Yes", "No"))
    judge = PrefixJudge(QwenVLAdapter(model, encoder.tokenizer, image_processor(), "x"), batch_size=8)
    found = []
    for r, row in enumerate(rows):
        contents = []
        for s, side in enumerate([row.query.side, *row.candidates]):
            image = save_picture(encoder.bank, side.picture, tmp_path, f"{r}-{s}") if side.picture else None
            contents.append(Content(side.text, image))
        judged = judge.judge(contents[0], contents[1:])
        found += list(judged.yes - judged.no)
    np.testing.assert_allclose((logits[:, yes] - logits[:, no]).numpy(), found, atol=1e-4)
    assert np.ptp(found) > 0.01


def test_every_word_is_one_token_wherever_it_stands(encoder):
    for c in object_classes():
        for word in c.words:
            [token] = encoder.ids(f" {word}")
            for text in (f"the {word}", f"a {word}, and", f'labeled as "the {word}"', f"the {word}."):
                assert token in encoder.ids(text), (word, text)
    for answer in easyvqa.ANSWERS:
        assert encoder.ids(f" {answer}")[0] in encoder.ids(f"the answer is {answer}")


def test_novel_classes_are_unknown_words(encoder):
    from unime_kedro.learning.tiny.tokenizer import known_words

    names = [c.name for c in novel_classes()]
    assert not set(names) & set(known_words())
    # a name may happen to be a piece of other words; nearly all fall into several
    assert sum(len(encoder.ids(f" {name}")) >= 2 for name in names) >= 35


def test_a_right_word_is_no_mistake_of_the_alignment(encoder, model):
    import torch

    from unime_kedro.learning.tiny.alignment import Aligner

    synonym = next(c for c in object_classes() if c.synonyms)
    aligner = Aligner(model, encoder, seed=3)
    words = model.get_input_embeddings().weight
    labels = [(synonym.index,)] * 64
    chosen, others = aligner._targets(labels)
    mine = {encoder.ids(f" {word}")[0] for word in synonym.words}
    assert set(chosen.tolist()) == mine
    assert len(others) == 64 * (len(mine) - 1)
    with torch.no_grad():
        # a token that lies exactly on its drawn word: only the other words of the vocabulary cost something
        visual = words[chosen]
        cosine = torch.nn.functional.normalize(visual) @ torch.nn.functional.normalize(words).T / 0.05
        for row, word in others.tolist():
            cosine[row, word] = -torch.inf
        by_hand = -cosine.log_softmax(1)[torch.arange(64), chosen].mean()
        aligner._rng = np.random.default_rng([3, 6])
        np.testing.assert_allclose(float(aligner.loss(visual, labels)), float(by_hand), rtol=1e-5)


def test_dependent_queries_share_a_group():
    from unime_kedro.learning.tiny.judge import Grouping

    rng = np.random.default_rng(3)

    def groups(name, split):
        found, queries = Grouping(), [draw_query(TASKS[name], rng, split) for _ in range(60)]
        for query in queries:
            found.add(TASKS[name], split, query)
        return found.ids(2), queries

    ids, queries = groups("EmojiScenes_i2t", "judge_test")
    assert ids.tolist() == [i for i in range(60) for _ in range(2)]
    for name, split, same in (
        ("EmojiObjects", "judge_test", lambda q: q.want_objects),
        ("EmojiCrops", "novel", lambda q: q.want_objects),
        ("EasyVQA", "judge_test", lambda q: q.side.picture.source),
    ):
        ids, queries = groups(name, split)
        for i in range(60):
            for j in range(60):
                assert (ids[2 * i] == ids[2 * j + 1]) == (same(queries[i]) == same(queries[j]))


def test_targets_rise_with_relevance():
    import torch

    from unime_kedro.learning.tiny.judge import target_probability

    values = target_probability(torch.tensor([0.0, 0.2, 1 / 3, 0.5, 2 / 3, 1.0], dtype=torch.float64))
    np.testing.assert_allclose(values, [0.03, 0.08, 0.12, 0.25, 0.40, 0.97], atol=1e-6)


def test_held_out_drawings_are_never_used_in_training(encoder):
    parts = [
        {d.tobytes() for style in ("openmoji", "twemoji") for d in encoder.bank.drawings(4, style, part)}
        for part in ("train", "calibration", "test")
    ]
    assert [len(part) for part in parts] == [64, 12, 12]
    for a, b in combinations(parts, 2):
        assert not a & b


def test_hard_rows_are_half_right_and_one_thing_wrong():
    from unime_kedro.learning.tiny.judge import hard_row

    rng = np.random.default_rng(2)
    for task in TASKS.values():
        for _ in range(20):
            row = hard_row(task, rng, "judge_test", 4)
            assert [value == 1 for value in row.relevance] == [True, False, True, False]
            if task.target in ("caption", "scene"):
                n = len(row.query.want_objects)
                assert row.relevance[1] == row.relevance[3] == pytest.approx((n - 1) / (n + 1))


@pytest.mark.slow
def test_same_seed_same_weights_and_the_result_loads_like_any_model(tmp_path):
    from unime_kedro.learning.tiny.cards import embedder_card, judge_card
    from unime_kedro.learning.tiny.make import make_embedder, make_judge
    from unime_kedro.learning.tiny.measure import calibrate_judge, measure_judge
    from unime_kedro.mllm.adapters import load_adapter
    from unime_kedro.mllm.calibration import read_temperature
    from unime_kedro.mllm.content import ModelSpec

    shape = {"seed": 1, "hidden": 64, "layers": 1, "align_steps": 2, "steps": 2, "learning_rate": 1e-3}
    quiet = {"report": lambda step, values: None}
    folders = [tmp_path / str(i) for i in range(2)]
    records = [make_judge(folder, **shape, batch=2, **quiet) for folder in folders]
    prints = [load_adapter(ModelSpec(str(folder))).fingerprint for folder in folders]
    assert prints[0] == prints[1]
    temperature = read_temperature(folders[0])
    assert temperature == read_temperature(folders[1])  # fitted before the folder is in place
    assert calibrate_judge(folders[1], pairs=64, seed=5) == read_temperature(folders[1])
    assert load_adapter(ModelSpec(str(folders[0]))).fingerprint == prints[0]
    metrics = measure_judge(folders[0], pairs=64, seed=5)
    assert metrics["temperature"] == temperature
    assert metrics["pairs"] == 64 * len(TRAIN_TASKS)
    card = judge_card(records[0], metrics)
    assert f"| all | {metrics['auc/all']:.3f} ({metrics['auc_low/all']:.3f} to" in card
    assert "{" not in card
    record = make_embedder(tmp_path / "e", **shape, batch=7, **quiet)
    assert record["recipe"]["batch"] == 7
    quality = {f"precision_at_1{end}/EasyVQA": 0.5 for end in ("", "_low", "_high", "_chance")}
    assert "| EasyVQA | 0.500 (0.500 to 0.500) | 0.500 |" in embedder_card(record, quality)


def _card_table(name: str) -> dict[str, float]:
    """Read "| name | value (low to high) |" rows of a shipped card."""
    rows = {}
    for line in (ROOT / "models" / name / "README.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and " to " in line:
            rows["/".join(cells[: 2 if "unseen" in cells[1] else 1])] = float(
                cells[-1 if "to" in cells[-1] else 1].split()[0]
            )
    return rows


@pytest.mark.slow
def test_the_shipped_judge_is_as_good_as_its_card_says():
    import yaml

    from unime_kedro.learning.tiny.measure import measure_judge

    options = yaml.safe_load((ROOT / "conf/base/parameters/pretrain.yml").read_text())["pretrain"]
    card = _card_table("tiny-judge")
    found = measure_judge(ROOT / "models/tiny-judge", pairs=options["judge_test_pairs"], seed=options["test_seed"])
    assert found["auc/all"] == pytest.approx(card["all"], abs=0.0015)
    for name in TRAIN_TASKS:
        assert found[f"auc/{name}"] == pytest.approx(card[name], abs=0.003)
    assert found["ece"] <= found["ece_raw"]


@pytest.mark.slow
def test_the_shipped_embedder_is_as_middling_as_the_lab_notes_say():
    from unime_kedro.learning.tiny.embedder import mixed_precision
    from unime_kedro.learning.tiny.measure import JudgeTest

    test = JudgeTest(ROOT / "models/tiny-embedder", pairs=64, seed=11)
    found = mixed_precision(test.model, test.encoder, queries=1000, split="calibration", seed=11)
    assert found == pytest.approx(0.372, abs=0.006)


def test_measuring_a_model_that_is_not_there_says_so(tmp_path):
    from unime_kedro.errors import ModelError
    from unime_kedro.learning.tiny.measure import measure_judge

    with pytest.raises(ModelError, match=r"there is no model folder .*nope"):
        measure_judge(tmp_path / "nope", pairs=64, seed=1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"has no config\.json"):
        measure_judge(tmp_path / "empty", pairs=64, seed=1)


def test_the_weights_in_the_repository_stay_small():
    size = sum(file.stat().st_size for file in (ROOT / "models").rglob("*") if file.is_file())
    assert size <= 16 * 2**20
