"""Embedding items to disk with a real (random) model: once each, resumable."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from unime_kedro.mining import embedding
from unime_kedro.mllm.content import Content
from unime_kedro.mllm.embedding import Embedder


@pytest.fixture
def items(pictures):
    n = 10
    return pl.DataFrame(
        {
            "item_id": range(n),
            "text": [f"item {i}" for i in range(n)],
            "image": [pictures[i % 4].name if i % 3 == 0 else "" for i in range(n)],
            "content_key": [f"{i:032x}" for i in range(n)],
        }
    )


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(embedding, "CHUNK", 3)


def embedder(adapter, **options):
    return Embedder(adapter, prompt="plain", max_tokens=256, batch_tokens=400, **options)


def test_row_i_is_item_i(adapter, items, pictures, tmp_path):
    file, metrics = embedding.embed_items(items.reverse(), pictures[0].parent, embedder(adapter), tmp_path)
    vectors = np.load(file, mmap_mode="r")
    assert vectors.dtype == np.float32
    assert metrics["items"] == 10
    for i in (0, 3, 7):
        image = pictures[0].parent / items["image"][i] if items["image"][i] else None
        alone = embedder(adapter).embed([Content(items["text"][i], image)])[0]
        np.testing.assert_allclose(vectors[i], alone, atol=1e-5)


def test_the_same_items_and_model_are_not_embedded_again_others_are(adapter, items, pictures, tmp_path):
    root = pictures[0].parent
    file, _ = embedding.embed_items(items, root, embedder(adapter), tmp_path)
    before = file.stat().st_mtime_ns
    _, again = embedding.embed_items(items, root, embedder(adapter), tmp_path)
    assert again["reused"] == 10
    assert file.stat().st_mtime_ns == before
    changed = items.with_columns(content_key=pl.col("content_key").str.replace("0", "f"))
    _, other = embedding.embed_items(changed, root, embedder(adapter), tmp_path)
    assert other["reused"] == 0
    _, prompt = embedding.embed_items(
        changed, root, Embedder(adapter, prompt="chat", max_tokens=256, batch_tokens=400), tmp_path
    )
    assert prompt["reused"] == 0


class Interrupted(Embedder):
    """Stops the run in the third chunk."""

    calls = 0

    def embed(self, contents):
        self.calls += 1
        if self.calls == 3:
            raise KeyboardInterrupt
        return super().embed(contents)


def test_an_interrupted_run_goes_on_and_ends_with_the_same_bits(adapter, items, pictures, tmp_path):
    root = pictures[0].parent
    whole, _ = embedding.embed_items(items, root, embedder(adapter), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        embedding.embed_items(
            items, root, Interrupted(adapter, prompt="plain", max_tokens=256, batch_tokens=400), tmp_path / "cut"
        )
    assert not (tmp_path / "cut" / embedding.NAME).exists()
    resumed, metrics = embedding.embed_items(items, root, embedder(adapter), tmp_path / "cut")
    assert metrics["reused"] == 6
    np.testing.assert_array_equal(np.load(whole), np.load(resumed))


def test_worker_processes_do_not_change_vectors_and_read_ahead_once(adapter, items, pictures, tmp_path):
    root = pictures[0].parent
    plain, _ = embedding.embed_items(items, root, embedder(adapter), tmp_path / "plain")
    workers, _ = embedding.embed_items(items, root, embedder(adapter, workers=1), tmp_path / "workers")
    np.testing.assert_array_equal(np.load(plain), np.load(workers))
