"""Sizes of published models, from the dimensions in their config.json; no weights."""

from __future__ import annotations

import json

import pytest

from unime_kedro.errors import ModelError
from unime_kedro.mllm.sizes import meta_model, model_size

_QWEN2_VISION = {"depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16, "patch_size": 14}
_QWEN2_7B = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
}

#: The dimensions in the config.json of the hub models, and the number of parameters that their pages give (millions):
#: Qwen/Qwen2-VL-2B-Instruct, Qwen/Qwen2-VL-7B-Instruct, Qwen/Qwen2.5-VL-7B-Instruct, Qwen/Qwen3-VL-8B-Instruct,
#: llava-hf/llava-onevision-qwen2-7b-ov-hf, OpenGVLab/InternVL3-8B-hf.
PUBLISHED = {
    "qwen2-vl-2b": (
        2_210,
        {
            "model_type": "qwen2_vl",
            "hidden_size": 1536,
            "intermediate_size": 8960,
            "num_hidden_layers": 28,
            "num_attention_heads": 12,
            "num_key_value_heads": 2,
            "vocab_size": 151936,
            "tie_word_embeddings": True,
            "vision_config": {**_QWEN2_VISION, "hidden_size": 1536},
        },
    ),
    "qwen2-vl-7b": (
        8_290,
        {
            "model_type": "qwen2_vl",
            **_QWEN2_7B,
            "vocab_size": 152064,
            "tie_word_embeddings": False,
            "vision_config": {**_QWEN2_VISION, "hidden_size": 3584},
        },
    ),
    "qwen2.5-vl-7b": (
        8_290,
        {
            "model_type": "qwen2_5_vl",
            **_QWEN2_7B,
            "vocab_size": 152064,
            "tie_word_embeddings": False,
            "vision_config": {
                "depth": 32,
                "hidden_size": 1280,
                "intermediate_size": 3420,
                "num_heads": 16,
                "out_hidden_size": 3584,
                "patch_size": 14,
            },
        },
    ),
    "qwen3-vl-8b": (
        8_767,
        {
            "model_type": "qwen3_vl",
            "tie_word_embeddings": False,
            "text_config": {
                "hidden_size": 4096,
                "intermediate_size": 12288,
                "num_hidden_layers": 36,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "head_dim": 128,
                "vocab_size": 151936,
            },
            "vision_config": {
                "depth": 27,
                "hidden_size": 1152,
                "intermediate_size": 4304,
                "num_heads": 16,
                "out_hidden_size": 4096,
                "patch_size": 16,
                "num_position_embeddings": 2304,
                "deepstack_visual_indexes": [8, 16, 24],
            },
        },
    ),
    "llava-onevision-7b": (
        8_030,
        {
            "model_type": "llava_onevision",
            "tie_word_embeddings": False,
            "text_config": {"model_type": "qwen2", **_QWEN2_7B, "vocab_size": 152000},
            "vision_config": {
                "model_type": "siglip_vision_model",
                "hidden_size": 1152,
                "image_size": 384,
                "intermediate_size": 4304,
                "num_attention_heads": 16,
                "num_hidden_layers": 26,
                "patch_size": 14,
                "vision_use_head": False,
            },
        },
    ),
    "internvl3-8b": (
        7_940,
        {
            "model_type": "internvl",
            "tie_word_embeddings": False,
            "text_config": {"model_type": "qwen2", **_QWEN2_7B, "vocab_size": 151674, "tie_word_embeddings": False},
            "vision_config": {
                "model_type": "internvl_vision",
                "hidden_size": 1024,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "intermediate_size": 4096,
                "attention_bias": True,
                "image_size": [448, 448],
                "patch_size": [14, 14],
            },
        },
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_model_has_the_parameters_that_its_page_says(name):
    millions, config = PUBLISHED[name]
    found = model_size(config)
    assert found.parameters / 1e6 == pytest.approx(millions, abs=5)
    assert found.vision + found.language == found.parameters
    text = config.get("text_config", config)
    assert (found.layers, found.hidden) == (text["num_hidden_layers"], text["hidden_size"])


def test_the_parts_of_qwen3_vl_are_those_that_were_counted_in_its_checkpoint():
    # 576.4 M and 8.191 B: model card of OpenExplorer/Qwen3-VL-8B-Instruct, "calculated from the tensors"
    found = model_size(PUBLISHED["qwen3-vl-8b"][1])
    assert found.vision / 1e6 == pytest.approx(576.4, abs=0.05)
    assert found.language / 1e9 == pytest.approx(8.191, abs=0.0005)


def test_a_token_in_the_cache_is_two_vectors_a_layer_and_head():
    # by hand: keys and values, 28 layers, 4 heads of 128 numbers, two bytes each
    assert model_size(PUBLISHED["qwen2-vl-7b"][1]).kv_bytes_per_token == 2 * 28 * 4 * 128 * 2
    # the head of Qwen3 is wider than hidden_size / heads would say in the small ones: 128 all the same
    assert model_size(PUBLISHED["qwen3-vl-8b"][1]).kv_bytes_per_token == 2 * 36 * 8 * 128 * 2


def test_tied_embeddings_count_once():
    config = PUBLISHED["qwen2-vl-2b"][1]
    untied = model_size({**config, "tie_word_embeddings": False})
    assert untied.parameters - model_size(config).parameters == 151936 * 1536


def test_a_saved_model_has_as_many_parameters_as_its_folder_says(qwen2_vl_folder):
    from safetensors import safe_open

    with safe_open(qwen2_vl_folder / "model.safetensors", "np") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118  (no mapping)
    total = 0
    for shape in shapes:
        n = 1
        for side in shape:
            n *= side
        total += n
    assert model_size(qwen2_vl_folder).parameters == total
    assert model_size(str(qwen2_vl_folder / "config.json")).parameters == total
    assert {p.device.type for p in meta_model(qwen2_vl_folder).parameters()} == {"meta"}


def test_what_is_no_multimodal_model_says_so(tmp_path):
    with pytest.raises(ModelError, match=r"cannot read the configuration .*config\.json"):
        model_size(tmp_path)
    for content, match in (("[1]", "holds a list"), ('{"model_type": "bert"}', "'bert' is not"), ("{}", "None is not")):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(ModelError, match=match):
            model_size(tmp_path)
    before = dict(PUBLISHED["qwen2-vl-2b"][1])
    model_size(before)
    assert json.dumps(before) == json.dumps(PUBLISHED["qwen2-vl-2b"][1])  # the caller's configuration stays
