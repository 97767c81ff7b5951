"""What models cost: against transformers' own models, and against torch's count of operations."""

from __future__ import annotations

import numpy as np
import pytest
from test_sizes import PUBLISHED

from unime_kedro.mllm.adapters import load_adapter
from unime_kedro.mllm.content import ModelSpec
from unime_kedro.mllm.cost import KNOWN, cost_of_shape
from unime_kedro.mllm.judge import PrefixJudge
from unime_kedro.mllm.sizes import meta_model, model_size
from unime_kedro.mllm.weightless import cost_of, load_without_weights

_HUB = {
    "Qwen/Qwen2-VL-2B-Instruct": "qwen2-vl-2b",
    "Qwen/Qwen2-VL-7B-Instruct": "qwen2-vl-7b",
    "TIGER-Lab/VLM2Vec-Qwen2VL-7B": "qwen2-vl-7b",
    "Qwen/Qwen2.5-VL-7B-Instruct": "qwen2.5-vl-7b",
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": "llava-onevision-7b",
    "OpenGVLab/InternVL3-8B-hf": "internvl3-8b",
}


@pytest.mark.parametrize("hub", _HUB)
def test_declared_sizes_are_those_of_the_models_that_transformers_builds(hub):
    found, model = cost_of_shape(KNOWN[hub]), meta_model(PUBLISHED[_HUB[hub]][1])
    size = model_size(PUBLISHED[_HUB[hub]][1])
    assert found.parameters == pytest.approx(size.parameters, rel=2e-3)
    assert found.vision == pytest.approx(size.vision, rel=1e-2)
    decoder = model.model.language_model
    layers = sum(p.numel() for p in decoder.parameters()) - decoder.get_input_embeddings().weight.numel()
    assert found.language == pytest.approx(layers, rel=1e-3)
    assert (found.layers, found.hidden) == (size.layers, size.hidden)


def test_the_largest_judge_is_a_14b():
    # its card: 15.1 B parameters with the vision tower
    assert cost_of_shape(KNOWN["OpenGVLab/InternVL3-14B-hf"]).parameters / 1e9 == pytest.approx(15.1, abs=0.05)


def test_words_by_hand():
    cost = cost_of_shape(KNOWN["Qwen/Qwen2-VL-2B-Instruct"])
    # three tokens behind ten: 11 + 12 + 13 pairs of tokens
    by_hand = 2 * cost.language * 3 + 4 * 28 * 1536 * (11 + 12 + 13)
    assert cost.words(3, before=10) == by_hand
    # what is run in two parts costs what it costs in one
    assert cost.words(10) + cost.words(3, before=10) == pytest.approx(cost.words(13))


def test_operations_are_those_that_torch_counts(qwen2_vl_folder, pictures):
    """Torch counts attention of all pairs of tokens, ours is causal: half of it, and the diagonal."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from unime_kedro.mllm.images import read_image

    adapter = load_adapter(ModelSpec(str(qwen2_vl_folder), device="cpu", dtype="float32"))
    adapter.model.set_attn_implementation("eager")  # torch does not count the fused one on a CPU
    cost, image = cost_of(adapter), read_image(adapter, pictures[-1])
    n = 40
    ids = torch.arange(20, 20 + n)[None]
    positions = torch.arange(n)[None].expand(3, 1, n).contiguous()
    with torch.inference_mode(), FlopCounterMode(display=False) as words:
        adapter.decode(adapter.embed_tokens(ids, None), positions, None, None)
    whole = 2 * cost.language * n + 4 * cost.layers * cost.width * n * n
    assert words.get_total_flops() == pytest.approx(whole, rel=0.02)
    with torch.inference_mode(), FlopCounterMode(display=False) as tower:
        adapter.image_features([image])
    # of the merger's weights each is used once per visual token, not once per patch: small beside the tower of a
    # real model, half of this one
    assert tower.get_total_flops() < cost.picture(image.n_tokens)
    assert tower.get_total_flops() > 0.2 * cost.picture(image.n_tokens)


def test_a_model_without_weights_is_the_same_model(model_folder, tmp_path, pictures):
    import shutil

    spec = ModelSpec(str(model_folder), device="cpu", dtype="float32")
    whole, bare = load_adapter(spec), load_without_weights(spec)
    assert cost_of(bare) == cost_of(whole)
    assert {p.device.type for p in bare.model.parameters()} == {"meta"}
    identities = [PrefixJudge(one, batch_size=1).identity() for one in (whole, bare)]
    assert identities[0] == identities[1], "the store of judged pairs is found by it"
    text = "a cat\n<|image_1|> and a dog"
    from PIL import Image

    with Image.open(pictures[3]) as picture:
        pieces = [one.encode(text, one.process_image(picture.convert("RGB"))) for one in (whole, bare)]
    assert np.array_equal(pieces[0].ids, pieces[1].ids)
    # and the file of the weights is not even needed
    copy = shutil.copytree(model_folder, tmp_path / "bare")
    (copy / "model.safetensors").unlink()
    assert cost_of(load_without_weights(ModelSpec(str(copy)))) == cost_of(whole)
