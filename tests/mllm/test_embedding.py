"""Embeddings against transformers' own forward pass, and their invariances."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from unime_kedro.errors import DataError, ModelError
from unime_kedro.mllm.content import Content
from unime_kedro.mllm.embedding import Embedder


def contents(pictures):
    return [
        Content("a dog"),
        Content("<|image_1|>\nRepresent the given image.\n", pictures[0]),
        Content("a picture of the camera, the pie and the dog"),
        Content("", pictures[4]),
        Content("<|image_1|>\nFind an image caption describing the given image.\n", pictures[3]),
        Content("<|image_1|>\nRepresent the given image.\n", pictures[7]),
        Content("an axe"),
    ]


def reference(adapter, content, text):
    """Last hidden state of the last token by the model's own forward, left padded by three tokens."""
    import torch

    inputs = {}
    if content.image is not None:
        out = adapter.image_processor(images=[Image.open(content.image).convert("RGB")], return_tensors="pt")
        n = int(out["image_grid_thw"].prod()) // 4
        text = text.replace("<|image_pad|>", "<|image_pad|>" * n)
        inputs = {"pixel_values": out["pixel_values"], "image_grid_thw": out["image_grid_thw"]}
    ids = torch.tensor([[adapter.tokenizer.pad_token_id] * 3 + adapter.tokenizer(text)["input_ids"]])
    mask = torch.ones_like(ids)
    mask[:, :3] = 0
    if inputs:
        inputs["mm_token_type_ids"] = (ids == adapter.image_id).long()
    adapter.model.model.rope_deltas = None
    with torch.no_grad():
        hidden = adapter.model.model(input_ids=ids, attention_mask=mask, use_cache=False, **inputs).last_hidden_state
    vector = hidden[0, -1].float().numpy()
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("prompt", ["plain", "chat"])
def test_embedding_is_the_last_real_token_whatever_the_padding(adapter, pictures, prompt):
    items = contents(pictures)
    found = Embedder(adapter, prompt=prompt, max_tokens=512, batch_tokens=200).embed(items)
    block = "<|vision_start|><|image_pad|><|vision_end|>"
    for content, vector in zip(items, found, strict=True):
        text = content.text.replace("<|image_1|>", block) if content.text else block
        if prompt == "chat":
            text = f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
        np.testing.assert_allclose(vector, reference(adapter, content, text), atol=2e-5)
    assert np.abs(found @ found.T - np.eye(len(items))).max() < 0.9999


@pytest.mark.parametrize("batch_tokens", [64, 300, 100_000])
def test_batch_size_order_and_workers_do_not_matter(adapter, pictures, batch_tokens):
    items = contents(pictures)
    alone = np.concatenate(
        [Embedder(adapter, prompt="plain", max_tokens=512, batch_tokens=64).embed([i]) for i in items]
    )
    found = Embedder(adapter, prompt="plain", max_tokens=512, batch_tokens=batch_tokens).embed(items[::-1])[::-1]
    np.testing.assert_allclose(found, alone, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_too_long_words_are_cut_and_counted(adapter, pictures):
    embedder = Embedder(adapter, prompt="plain", max_tokens=40, batch_tokens=1000)
    found = embedder.embed([Content("a dog " * 400), Content("<|image_1|>\n" + "a dog " * 400, pictures[0])])
    assert embedder.truncated == 2
    assert np.isfinite(found).all()
    with pytest.raises(ModelError, match="max_pixels"):
        Embedder(adapter, prompt="plain", max_tokens=4, batch_tokens=1000).embed([Content("a dog " * 9, pictures[0])])


def test_control_tokens_in_the_data_are_not_control_tokens(adapter):
    embedder = Embedder(adapter, prompt="plain", max_tokens=64, batch_tokens=1000)
    a, b = embedder.embed([Content("a dog<|im_end|><|image_pad|>"), Content("a dog")])
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_unreadable_picture_names_the_file(adapter, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"bad\.png"):
        Embedder(adapter, prompt="plain", max_tokens=64, batch_tokens=1000).embed([Content("", bad)])


def test_numbers_that_are_not_finite_are_an_error(adapter, monkeypatch):
    import torch

    decode = type(adapter).decode
    monkeypatch.setattr(type(adapter), "decode", lambda *a: torch.full_like(decode(*a), float("nan")))
    with pytest.raises(ModelError, match="not finite"):
        Embedder(adapter, prompt="plain", max_tokens=64, batch_tokens=1000).embed([Content("a dog")])
