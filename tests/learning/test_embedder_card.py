"""The card says what the record says, leaves out what it does not know, and its examples run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from unime_kedro.learning.embedder_card import trained_card

ROOT = Path(__file__).resolve().parents[2]
RECORD = {
    "title": "Mine",
    "license": "apache-2.0",
    "base": {"model": "Qwen/Qwen2-VL-2B-Instruct", "revision": "abc", "fingerprint": "f00"},
    "data": {"digest": "c0ffee", "queries": 12345, "negatives": 8, "datasets": {"A": 1200, "B|C": 34}},
    "judge": {"model": "the/judge", "temperature": 1.25},
    "loss": {"kind": "soft", "student_temperature": 0.02, "probability_floor": 1e-8, "unknown": "never shown"},
    "training": {"steps": 2000, "learning_rate": 1e-4, "seed": 0, "machine": "a\nb"},
    "tuning": {"kind": "lora", "rank": 16, "targets": ["q_proj", "v_proj"], "freeze_vision": False},
    "input": {"prompt": "chat", "max_tokens": 512},
    "validation": {"precision_at_1/all": [0.5, 0.4, 0.6], "seconds": 1.5},
    "versions": {"torch": "2.13.0"},
    "provenance": {"commit": "1234567"},
}


def front_matter(card):
    return yaml.safe_load(card.split("---\n")[1])


def test_every_fact_is_in_the_card():
    card = trained_card(RECORD)
    for row in (
        "| Base model | Qwen/Qwen2-VL-2B-Instruct |",
        "| Fingerprint | f00 |",
        "| Digest | c0ffee |",
        "| Queries | 12,345 |",
        "| Data sets | A (1,200), B\\|C (34) |",
        "| Judge | the/judge |",
        "| Calibration temperature | 1.25 |",
        "| Floor of probabilities | 1e-08 |",
        "| Learning rate | 0.0001 |",
        "| Seed | 0 |",
        "| Machine | a b |",
        "| LoRA targets | q_proj, v_proj |",
        "| Vision tower frozen | no |",
        "| precision_at_1/all | 0.500 (0.400 to 0.600) |",
        "| torch | 2.13.0 |",
        "| commit | 1234567 |",
    ):
        assert row in card.splitlines(), row
    assert "never shown" not in card
    assert "toy" not in card
    assert front_matter(card) == {
        "license": "apache-2.0",
        "library_name": "sentence-transformers",
        "pipeline_tag": "feature-extraction",
        "base_model": "Qwen/Qwen2-VL-2B-Instruct",
        "base_model_relation": "adapter",
        "tags": ["sentence-transformers", "feature-extraction", "multimodal", "unime-kedro", "lora", "peft"],
    }
    json.dumps(RECORD)  # it is also training.json


def test_what_is_not_known_is_left_out():
    card = trained_card({"validation": {}, "judge": None, "training": {"steps": None}})
    assert "None" not in card
    assert re.findall(r"^## .*", card, re.M) == ["## How to load it"]
    assert set(front_matter(card)) == {"library_name", "pipeline_tag", "tags"}


@pytest.mark.parametrize("model", ["models/tiny-embedder", "./own/model", "/a/b", "data/06_models/embedder"])
def test_a_base_that_is_a_folder_is_no_name_on_the_hub(model):
    card = trained_card({"base": {"model": model, "embedded": model.startswith("models/")}})
    assert "base_model" not in front_matter(card)
    assert ("**A toy.**" in card) is model.startswith("models/")


@pytest.mark.slow
@pytest.mark.parametrize(("tuning", "prompt"), [("full", "plain"), ("lora", "chat")])
def test_the_examples_run_and_agree(tmp_path, monkeypatch, tuning, prompt):
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("peft")
    import torch

    from unime_kedro.learning.export import save_embedder
    from unime_kedro.learning.trainable import make_trainable
    from unime_kedro.mllm.adapters import load_adapter
    from unime_kedro.mllm.content import ModelSpec

    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    base = str(ROOT / "models/tiny-embedder")
    adapter = load_adapter(ModelSpec(base, device="cpu"))
    report = make_trainable(adapter, tuning=tuning, rank=2, targets=["q_proj"], seed=1)
    with torch.no_grad():
        for weight in adapter.model.parameters():
            if weight.requires_grad:
                weight.add_(0.01)
    record = {
        "folder": str(tmp_path / "out"),
        "base": {"model": base},
        "tuning": {"kind": tuning},
        "input": {"prompt": prompt, "max_tokens": 64},
    }
    card = trained_card(record)
    save_embedder(
        tmp_path / "out",
        adapter,
        base=base,
        peft=report.peft,
        prompt=prompt,
        max_tokens=64,
        card=card,
        record=record,
    )
    examples = re.findall(r"```python\n(.*?)```", card, re.S)
    assert len(examples) == 3
    found = []
    for example in examples:
        names: dict[str, object] = {}
        exec(example, names)
        found.append(np.asarray(names["vectors"]))
    assert found[0].shape == (1, 128)
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)
    np.testing.assert_allclose(found[2], found[0], atol=1e-5)
