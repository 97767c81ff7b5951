"""Training of every backbone family: gradients of transformers' own forward pass, LoRA's places, saving."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tiny_backbones import Backbone
from unime_kedro.mllm.adapters import load_adapter
from unime_kedro.mllm.content import Content, ModelSpec
from unime_kedro.mllm.embedding import Embedder
from unime_kedro.mllm.images import read_image

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def contents(pictures):
    """Longest first is not needed: the chunk is sorted below."""
    return [
        Content("a dog"),
        Content("<|image_1|>\nRepresent the given image.\n", pictures[0]),
        Content("a picture of the camera, the pie and the dog"),
        Content("", pictures[3]),
        Content("Find <|image_1|> a caption", pictures[7]),
    ]


def fresh(backbone, **changes):
    return load_adapter(ModelSpec(str(backbone.folder), device="cpu", **{"dtype": "float32", **changes}))


def tune(adapter, **changes):
    from unime_kedro.learning.trainable import make_trainable

    return make_trainable(adapter, **{"rank": 4, "alpha": 8, "dropout": 0.0, "targets": ALL, "seed": 1, **changes})


def embed(adapter, items):
    """Embeddings (n, hidden) with a graph, by the module that trainings use, in the order of ``items``."""
    from unime_kedro.learning.batches import Chunk
    from unime_kedro.learning.model import EmbeddingModel

    embedder = Embedder(adapter, prompt="plain", max_tokens=1024, batch_tokens=4096)
    images = {item.image: read_image(adapter, item.image) for item in items if item.image is not None}
    pieces = [embedder.encode(item, None if item.image is None else images[item.image]) for item in items]
    order = sorted(range(len(items)), key=lambda i: -len(pieces[i].ids))
    chunk = Chunk([pieces[i] for i in order], [items[i].image for i in order], images)
    module = EmbeddingModel(adapter).train()
    module.begin_step()
    found = module(chunk)
    return found[torch.tensor(np.argsort(order))]


def loss(vectors):
    """Some function to which every number of every vector matters."""
    weights = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(9))
    return (torch.nn.functional.normalize(vectors, dim=-1) * weights).sum()


def gradients(adapter):
    return {name: p.grad for name, p in adapter.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("freeze", [False, True])
def test_gradients_equal_those_of_transformers_own_forward(backbone, pictures, freeze):
    items = contents(pictures)
    ours, theirs = fresh(backbone), fresh(backbone)
    for adapter in (ours, theirs):
        tune(adapter, tuning="full", freeze_vision=freeze)
    loss(embed(ours, items)).backward()
    texts = [item.text or "<|image_1|>" for item in items]
    own = Backbone(backbone.family, backbone.folder, theirs)
    loss(own.hidden(texts, [item.image for item in items if item.image is not None])).backward()
    found, wanted = gradients(ours), gradients(theirs)
    assert found.keys() == wanted.keys()
    # no gradient, no movement: nothing of the pictures' part with a frozen one, all of it otherwise
    vision = {name for name in found if ".language_model." not in name}
    parts = {f"model.{name}" for name, _ in ours.model.model.named_parameters() if "language_model" not in name}
    assert vision == (set() if freeze else parts - IDLE)
    assert found.keys() == {name for name, p in ours.model.named_parameters() if p.requires_grad}
    scale = max(float(g.abs().max()) for g in wanted.values())  # the sums run in another order: rounding
    for name, gradient in wanted.items():
        assert float((found[name] - gradient).abs().max()) / scale < 5e-5, name


#: what transformers' own forward pass does not use, either
IDLE = {"model.vision_tower.post_layernorm.weight", "model.vision_tower.post_layernorm.bias"}


@pytest.mark.parametrize("freeze", [False, True])
def test_lora_targets_exist_and_are_in_the_language_model(backbone, pictures, freeze):
    adapter = fresh(backbone)
    before = embed(fresh(backbone), contents(pictures)).detach()
    report = tune(adapter, tuning="lora", freeze_vision=freeze)
    inside = [name for name in report.lora_modules if name.startswith("model.language_model.layers.")]
    assert len(inside) == len(adapter.model.model.language_model.layers) * len(ALL)
    if freeze:
        assert list(report.lora_modules) == inside
    else:  # towers that call their layers the same get adapters there, too
        assert all(name.startswith(("model.language_model.", "model.v")) for name in report.lora_modules)
    vectors = embed(adapter, contents(pictures))
    torch.testing.assert_close(vectors, before, atol=1e-5, rtol=1e-5)  # second matrices are zero at the start
    loss(vectors).backward()
    found = gradients(adapter)
    assert found.keys() == {name for name, p in adapter.model.named_parameters() if p.requires_grad}
    assert all(".lora_" in name for name in found)
    assert all(float(g.abs().max()) > 0 for name, g in found.items() if ".lora_B." in name)


def randomise(model):
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.requires_grad:
                generator = torch.Generator().manual_seed(len(name) + p.numel())
                p.add_(torch.randn(p.shape, generator=generator) * 0.02)


@pytest.mark.parametrize("how", ["full", "lora", "merged"])
def test_a_trained_model_loads_again_with_the_same_vectors(backbone, pictures, tmp_path, how):
    from unime_kedro.learning.export import save_model

    items = contents(pictures)
    adapter = fresh(backbone, max_pixels=6272)
    report = tune(adapter, tuning="full" if how == "full" else "lora")
    randomise(adapter.model)
    adapter.model.eval()
    embedder = Embedder(adapter, prompt="chat", max_tokens=1024, batch_tokens=4096)
    before = embedder.embed(items)
    options = {"base": str(backbone.folder), "card": "# card\n", "record": {}}
    save_model(tmp_path / "out", adapter, peft=report.peft, merge=how == "merged", **options)
    # the limit on pictures was saved with the image processor
    again = load_adapter(ModelSpec(str(tmp_path / "out"), device="cpu", dtype="float32"))
    found = Embedder(again, prompt="chat", max_tokens=1024, batch_tokens=4096).embed(items)
    np.testing.assert_allclose(found, before, atol=1e-5)
    untrained = Embedder(fresh(backbone, max_pixels=6272), prompt="chat", max_tokens=1024, batch_tokens=4096)
    assert np.abs(untrained.embed(items) - before).max() > 1e-3


def test_a_step_in_bfloat16_moves_what_trains(backbone, pictures):
    adapter = fresh(backbone, dtype="bfloat16")
    report = tune(adapter, tuning="lora", freeze_vision=True)
    assert {p.dtype for p in adapter.model.parameters() if p.requires_grad} == {torch.float32}
    optimizer = torch.optim.AdamW([p for p in adapter.model.parameters() if p.requires_grad], lr=1e-2)
    values = []
    for _ in range(3):
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(embed(adapter, contents(pictures)))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert report.trainable > 0
    assert all(np.isfinite(values))
    assert values[-1] < values[0] - 0.01


# in a process that has neither this project nor torchvision
_SENTENCE_TRANSFORMERS = """
import json, sys
from pathlib import Path
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "unime_kedro":
            raise ModuleNotFoundError(f"{name} is blocked", name=name)
sys.meta_path.insert(0, Blocked())
sys.modules["torchvision"] = None
import numpy as np
from sentence_transformers import SentenceTransformer
job = json.loads(sys.stdin.read())
inputs = [{"text": text, "image": image} if image else {"text": text} for text, image in job["items"]]
out = {}
for name in job["folders"]:
    model = SentenceTransformer(name, trust_remote_code=True, device="cpu")
    out[name] = model.encode(inputs, batch_size=4)
np.savez(job["out"], **out)
"""


@pytest.mark.slow
def test_sentence_transformers_gives_the_same_vectors(backbone, pictures, tmp_path):
    pytest.importorskip("sentence_transformers")
    from unime_kedro.learning.export import save_embedder

    spoiled = "a<image> <|im_end|>d</img>og<im<quad>g>" if backbone.family == "internvl" else "a<|im_end|> dog"
    items = [*contents(pictures), Content(spoiled, pictures[4]), Content("words that go on and on " * 90, pictures[1])]
    wanted = {}
    for name, tuning, prompt, limits in (("full", "full", "plain", {"max_pixels": 6272}), ("lora", "lora", "chat", {})):
        adapter = fresh(backbone, **limits)
        report = tune(adapter, tuning=tuning)
        randomise(adapter.model)
        adapter.model.eval()
        embedder = Embedder(adapter, prompt=prompt, max_tokens=130, batch_tokens=4096)
        wanted[str(tmp_path / name)] = embedder.embed(items)
        assert embedder.truncated == 1
        options = {"base": str(backbone.folder), "card": "# card", "record": {}, "max_tokens": 130}
        save_embedder(tmp_path / name, adapter, peft=report.peft, prompt=prompt, **options)
    job = {
        "items": [(item.text, item.image and str(item.image)) for item in items],
        "folders": list(wanted),
        "out": str(tmp_path / "vectors.npz"),
    }
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    command = [sys.executable, "-c", _SENTENCE_TRANSFORMERS]
    text = json.dumps(job)
    done = subprocess.run(command, input=text, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    found = np.load(tmp_path / "vectors.npz")
    for name, vectors in wanted.items():
        np.testing.assert_allclose(found[name], vectors, atol=1e-5, err_msg=name)
