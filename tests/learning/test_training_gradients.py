"""The code that trains gives the gradients of one plain pass over the whole batch: chunks, places, groups, processes."""

from __future__ import annotations

import numpy as np
import pytest
import training_jobs as jobs

from unime_kedro.learning.launch import run_training

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def parts(qwen2_vl_folder, pictures):
    from unime_kedro.learning.rows import TrainingRows
    from unime_kedro.mllm.content import Content

    training, items = jobs.tables(pictures)
    root = pictures[0].parent
    contents = {i: Content(text, root / image if image else None) for i, text, image in items.iter_rows()}
    return str(qwen2_vl_folder), TrainingRows.from_table(training, 2), contents


def load(model: str, tuning: str):
    from unime_kedro.learning.trainable import make_trainable
    from unime_kedro.mllm.adapters import load_adapter
    from unime_kedro.mllm.content import ModelSpec
    from unime_kedro.mllm.embedding import Embedder

    adapter = load_adapter(ModelSpec(model, device="cpu", dtype="float32"))
    report = make_trainable(adapter, tuning=tuning, rank=4, dropout=0.0, targets=["q_proj", "down_proj"], seed=3)
    if report.peft is not None:  # the second matrices start at zero, and with them the first ones' gradients
        generator = torch.Generator().manual_seed(4)
        for name, parameter in adapter.model.named_parameters():
            if "lora_B" in name:
                parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return adapter, Embedder(adapter, prompt="plain", max_tokens=512, batch_tokens=4096)


def gradients(adapter) -> dict[str, np.ndarray]:
    return {name: p.grad.numpy().copy() for name, p in adapter.model.named_parameters() if p.grad is not None}


def by_hand(parts, tuning: str) -> tuple[float, dict[str, np.ndarray]]:
    """One content at a time, no padding, nothing shared, one graph."""
    from unime_kedro.learning.objective import Objective
    from unime_kedro.mllm.images import read_image

    model, rows, contents = parts
    adapter, embedder = load(model, tuning)
    vectors = []
    for item in rows.item_ids[:6].ravel():
        content = contents[int(item)]
        image = read_image(adapter, content.image) if content.image else None
        piece = embedder.encode(content, image)
        features = torch.cat(adapter.image_features([image])) if image is not None else None
        inputs = adapter.embed_tokens(torch.from_numpy(piece.ids)[None], features)
        hidden = adapter.decode(inputs, torch.from_numpy(piece.positions)[:, None], None, None)
        vectors.append(hidden[0, -1])
    stacked = torch.stack(vectors).reshape(6, 4, -1)
    scores, ids = torch.from_numpy(rows.scores[:6]), torch.from_numpy(rows.item_ids[:6])
    loss = Objective("combined", student_temperature=0.1)(stacked, scores, ids)
    loss.backward()
    return float(loss.detach()), gradients(adapter)


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_chunks_and_groups_give_the_gradients_of_one_content_at_a_time(parts, tuning, monkeypatch):
    from unime_kedro.learning import model as models
    from unime_kedro.learning.batches import Collator
    from unime_kedro.learning.gradient_cache import cached_backward
    from unime_kedro.learning.objective import Objective

    monkeypatch.setattr(models, "_GROUP", 3)  # a small batch, too, is divided by length
    expected, wanted = by_hand(parts, tuning)
    model, rows, contents = parts
    for chunk in (1, 5, 100):
        adapter, embedder = load(model, tuning)
        batch = Collator(embedder, rows, contents, chunk=chunk, cache_gb=0.0)(range(6))
        assert batch.distinct < batch.places.size  # some items stand there twice
        assert len(batch.chunks) == -(-batch.distinct // chunk)
        network = models.EmbeddingModel(adapter).train()
        scores, ids = torch.from_numpy(batch.scores), torch.from_numpy(batch.item_ids)
        objective = Objective("combined", student_temperature=0.1)
        places = torch.from_numpy(batch.places)
        value = cached_backward(network, batch.chunks, lambda v: objective(v[places], scores, ids))  # noqa: B023
        found = gradients(adapter)
        assert float(value) == pytest.approx(expected, rel=1e-5)
        assert found.keys() == wanted.keys()
        scale = max(np.abs(g).max() for g in wanted.values())
        assert max(np.abs(found[name] - wanted[name]).max() for name in wanted) / scale < 1e-5
        if tuning == "lora":
            assert any("lora_A" in name for name in found)
            assert all("lora_" in name for name in found)


def test_a_batch_does_not_depend_on_what_is_kept(parts):
    from unime_kedro.learning.batches import Collator

    model, rows, contents = parts
    _, embedder = load(model, "full")
    for cache_gb in (0.0, 1.0):
        collator = Collator(embedder, rows, contents, chunk=4, cache_gb=cache_gb)
        first, second = collator([3, 1, 7]), collator([3, 1, 7])
        np.testing.assert_array_equal(first.places, second.places)
        for a, b in zip(first.chunks, second.chunks, strict=True):
            assert [p.ids.tolist() for p in a.pieces] == [p.ids.tolist() for p in b.pieces]
            assert all(np.array_equal(a.images[f].pixels, b.images[f].pixels) for f in a.images)
    flat = [content for chunk in first.chunks for content in zip(chunk.pieces, chunk.files, strict=True)]
    for row, places in zip([3, 1, 7], first.places, strict=True):
        for item, place in zip(rows.item_ids[row], places, strict=True):
            assert flat[place][1] == contents[int(item)].image


def test_frozen_features_are_those_of_the_tower_and_are_computed_once_a_step(parts, pictures):
    from unime_kedro.learning.model import FrozenFeatures
    from unime_kedro.mllm.images import read_image

    adapter, _ = load(parts[0], "lora")
    images = {file: read_image(adapter, file) for file in pictures}
    passes = []
    tower = adapter.image_features
    adapter.image_features = lambda shown: passes.append(len(shown)) or tower(shown)
    features = FrozenFeatures(adapter, memory_gb=0.0)  # nothing is kept from step to step
    features.begin_step()
    for _ in range(2):
        for file, found in zip(pictures, features(pictures, images), strict=True):
            torch.testing.assert_close(found, tower([images[file]])[0], rtol=1e-5, atol=1e-6)
            assert not found.requires_grad
    assert passes == [1] * len(pictures)
    features.begin_step()
    features(pictures[:1], images)
    assert len(passes) == len(pictures) + 1


@pytest.mark.slow
def test_two_processes_take_the_step_that_one_takes(qwen2_vl_folder, pictures, tmp_path):
    """One step of plain gradient descent: what the weights moved by is the gradient."""
    from safetensors.numpy import load_file

    # weights are rounded to float32 when they move: a large rate makes the step large beside them
    plain = {"steps": 1, "warmup_steps": 0, "schedule": "constant", "learning_rate": 100.0, "max_gradient_norm": 0.0}
    moved = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        changes = {**plain, "arguments": {"optim": "sgd"}, "batch": 6, "loss": {"kind": "combined"}, "chunk": 3}
        changes["validation"] = {"every": 0}
        jobs.write(folder, qwen2_vl_folder, pictures, **changes)
        run_training(folder, processes=processes, on_event=lambda event: None)
        before, after = (load_file(f / "model.safetensors") for f in (qwen2_vl_folder, folder / "out"))
        moved.append({name: after[name].astype(np.float64) - before[name] for name in before})
    one, two = moved
    scale = max(np.abs(step).max() for step in one.values())
    assert scale > 10  # nothing is lost in rounding
    assert max(np.abs(one[name] - two[name]).max() for name in one) / scale < 1e-5
