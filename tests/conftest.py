"""Fixtures for all tests: random tiny models of every supported architecture, saved like real ones."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from tiny_backbones import FAMILIES, Backbone, enlarge_weights, save_backbone

os.environ.setdefault("OMP_NUM_THREADS", "1")
for _name, _value in {
    "DO_NOT_TRACK": "true",
    "KEDRO_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GX_ANALYTICS_ENABLED": "False",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}.items():
    os.environ.setdefault(_name, _value)

ROOT = Path(__file__).resolve().parents[1]
# a busy machine is slow to draw examples, and that is no fault of the code
settings.register_profile("any machine", suppress_health_check=[HealthCheck.too_slow], deadline=None)
# what gates a change must not depend on the draw of the day: the same commit has the same examples
settings.register_profile("gate", settings.get_profile("any machine"), derandomize=True)
settings.load_profile(os.environ.get("UNIME_HYPOTHESIS_PROFILE", "any machine"))


def _save_random_model(folder: Path, architecture: str) -> Path:
    """Save a random model with larger weights than usual, so that different inputs give clearly different outputs."""
    import torch
    import transformers

    from unime_kedro.learning.tiny.model import image_processor, new_model
    from unime_kedro.learning.tiny.tokenizer import train_tokenizer

    tokenizer = train_tokenizer()
    model = new_model(tokenizer, hidden=64, layers=2, seed=3)
    if architecture == "qwen2_5_vl":
        base = model.config
        text = {**base.text_config.to_dict()}
        config = transformers.Qwen2_5_VLConfig(
            text_config={k: v for k, v in text.items() if k not in ("model_type",)},
            vision_config={
                "depth": 2,
                "hidden_size": 64,
                "out_hidden_size": 64,
                "intermediate_size": 96,
                "num_heads": 2,
                "patch_size": 28,
                "window_size": 112,
                "fullatt_block_indexes": [1],
            },
            image_token_id=base.image_token_id,
            video_token_id=base.video_token_id,
            vision_start_token_id=base.vision_start_token_id,
            vision_end_token_id=base.vision_end_token_id,
            tie_word_embeddings=True,
        )
        torch.manual_seed(3)
        model = transformers.Qwen2_5_VLForConditionalGeneration._from_config(config, attn_implementation="sdpa")
    enlarge_weights(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    image_processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session", params=["qwen2_vl", "qwen2_5_vl"])
def model_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _save_random_model(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="session")
def qwen2_vl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _save_random_model(tmp_path_factory.mktemp("one_qwen2_vl"), "qwen2_vl")


@pytest.fixture(scope="session", params=FAMILIES)
def backbone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A random tiny model of each family; nobody may change it."""
    from unime_kedro.mllm.adapters import load_adapter
    from unime_kedro.mllm.content import ModelSpec

    family, folder = request.param, tmp_path_factory.mktemp(f"backbone_{request.param}")
    (_save_random_model if family in ("qwen2_vl", "qwen2_5_vl") else save_backbone)(folder, family)
    return Backbone(family, folder, load_adapter(ModelSpec(str(folder), dtype="float32", device="cpu")))


@pytest.fixture(scope="session")
def adapter(model_folder: Path):
    from unime_kedro.mllm.adapters import load_adapter
    from unime_kedro.mllm.content import ModelSpec

    return load_adapter(ModelSpec(str(model_folder), dtype="float32", device="cpu"))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Eight drawings of different sizes, as files."""
    from PIL import Image

    folder, rng, files = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0), []
    for i, size in enumerate([(112, 112), (56, 56), (112, 56), (150, 90), (40, 40), (112, 112), (56, 112), (300, 200)]):
        pixels = rng.integers(0, 255, size=(size[1] // 8 + 1, size[0] // 8 + 1, 3), dtype=np.uint8)
        files.append(folder / f"{i}.png")
        Image.fromarray(pixels).resize(size).save(files[-1])
    return files
