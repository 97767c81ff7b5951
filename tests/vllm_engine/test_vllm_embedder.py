"""Embeddings by vLLM against those by transformers."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_engines import MAX_TOKENS, spec

from unime_kedro.errors import DataError, ModelError
from unime_kedro.mllm.adapters import load_adapter
from unime_kedro.mllm.content import Content
from unime_kedro.mllm.embedding import Embedder


@pytest.mark.parametrize("prompt", ["plain", "chat"])
def test_embeddings_are_those_of_transformers(vllm_embedder, queries, candidates, prompt):
    plain = Embedder(load_adapter(spec("tiny-embedder")), prompt=prompt, max_tokens=MAX_TOKENS, batch_tokens=4096)
    contents = [*queries, *candidates]
    wanted = plain.embed(contents)
    inputs = vllm_embedder._inputs
    vllm_embedder._inputs = Embedder(inputs.adapter, prompt=prompt, max_tokens=MAX_TOKENS, batch_tokens=1)
    found = vllm_embedder.embed(contents)
    assert vllm_embedder.truncated >= plain.truncated > 0
    vllm_embedder._inputs = inputs
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert np.abs(wanted @ wanted.T - np.eye(len(wanted))).min() < 0.9  # contents do not all look alike
    assert vllm_embedder.dimension == wanted.shape[1]
    assert vllm_embedder.checked == 10
    assert 0 < vllm_embedder.metrics()["checked_difference"] < 1e-4


def test_order_and_company_do_not_matter(vllm_embedder, queries, candidates):
    together = vllm_embedder.embed([*queries, *candidates])
    alone = np.concatenate([vllm_embedder.embed([c]) for c in [*candidates, *queries][::-1]])
    np.testing.assert_allclose(
        alone[::-1], np.concatenate([together[len(queries) :], together[: len(queries)]]), atol=1e-5
    )


def test_what_cannot_be_embedded_says_which_content(vllm_embedder, tmp_path, monkeypatch):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"broken\.png"):
        vllm_embedder.embed([Content("", tmp_path / "broken.png")])
    monkeypatch.setattr(vllm_embedder.engine, "_encode", _refuse)
    with pytest.raises(ModelError, match=r"a certain content.*vLLM refused the prompt: too odd"):
        vllm_embedder.embed([Content("a certain content")])


def _refuse(prompts):
    raise ValueError("too odd\nand more")


def test_another_engine_is_not_taken_for_the_same_vectors(vllm_embedder):
    plain = Embedder(load_adapter(spec("tiny-embedder")), prompt="plain", max_tokens=MAX_TOKENS, batch_tokens=1)
    assert vllm_embedder.identity() == {**plain.identity(), "engine": "vllm"}
