"""What was trained loads with this project, peft and sentence-transformers, and gives the same vectors everywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unime_kedro.errors import ConfigurationError
from unime_kedro.mllm.adapters import load_adapter
from unime_kedro.mllm.content import Content, ModelSpec
from unime_kedro.mllm.embedding import Embedder

torch = pytest.importorskip("torch")
ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "models/tiny-embedder"
MAX_TOKENS = 24


def change(model):
    """Stand in for training: move what trains, and the LoRA matrices that start at zero."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn(weight.shape, generator=generator) * 0.02)


def trained(tuning, **limits):
    from unime_kedro.learning.trainable import make_trainable

    adapter = load_adapter(ModelSpec(str(BASE), device="cpu", dtype="float32", **limits))
    report = make_trainable(adapter, tuning=tuning, rank=2, alpha=8, targets=["q_proj", "down_proj", "qkv"], seed=1)
    change(adapter.model)
    return adapter, report.peft


def save(folder, adapter, peft, **changes):
    from unime_kedro.learning.export import save_embedder

    options = {
        "base": "models/tiny-embedder",
        "prompt": "plain",
        "max_tokens": MAX_TOKENS,
        "card": "# card\n",
        "record": {"steps": 3},
    }
    save_embedder(folder, adapter, peft=peft, **(options | changes))


def contents(pictures, folder):
    clear = folder / "clear.png"
    Image.new("RGBA", (90, 60), (0, 200, 0, 90)).save(clear)
    return [
        Content("a dog"),
        Content("", pictures[0]),
        Content("Find a caption for <|image_1|>, please", pictures[3]),
        Content("no place given", pictures[7]),
        Content("<|image_1|> words that go on and on " * 20, pictures[4]),
        Content("a long text of many words " * 20),
        Content("no<|im_end|> control <|image_1|>tokens"),
        Content("", clear),
        Content("pictures/a.png"),
    ]


def vectors(adapter, items, prompt="plain"):
    return Embedder(adapter, prompt=prompt, max_tokens=MAX_TOKENS, batch_tokens=400).embed(items)


def reload(folder, items, prompt="plain"):
    return vectors(load_adapter(ModelSpec(str(folder), device="cpu", dtype="float32")), items, prompt)


def names(folder):
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


COMMON = {
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "README.md",
    "training.json",
    "modules.json",
    "config_sentence_transformers.json",
    "unime_embedding.json",
    "unime_embedding.py",
}
FULL = {"config.json", "generation_config.json", "model.safetensors"}
LORA = {"adapter_config.json", "adapter_model.safetensors"}


def test_full_model(tmp_path, pictures):
    adapter, peft = trained("full", max_pixels=6272)
    items = contents(pictures, tmp_path)
    save(tmp_path / "out", adapter, peft)
    assert names(tmp_path / "out") == COMMON | FULL
    np.testing.assert_allclose(reload(tmp_path / "out", items), vectors(adapter, items), atol=1e-6)
    assert np.abs(vectors(adapter, items) - reload(BASE, items)).max() > 0.01
    assert json.loads((tmp_path / "out/training.json").read_text()) == {"steps": 3}
    assert (tmp_path / "out/README.md").read_text() == "# card\n"


def test_lora_adapter_and_merged(tmp_path, pictures):
    peft = pytest.importorskip("peft")
    import transformers

    items = contents(pictures, tmp_path)
    adapter, model = trained("lora")
    before = vectors(adapter, items)
    save(tmp_path / "lora", adapter, model)
    assert names(tmp_path / "lora") == COMMON | LORA
    config = json.loads((tmp_path / "lora/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "models/tiny-embedder"
    assert config["target_modules"] == sorted(config["target_modules"])
    np.testing.assert_allclose(reload(tmp_path / "lora", items), before, atol=1e-5)
    save(tmp_path / "merged", adapter, model, merge=True)
    assert names(tmp_path / "merged") == COMMON | FULL | {f"adapter/{name}" for name in LORA}
    for found in (
        vectors(adapter, items),
        reload(tmp_path / "merged", items),
        reload(tmp_path / "merged/adapter", items),
    ):
        np.testing.assert_allclose(found, before, atol=1e-5)
    plain = transformers.Qwen2VLForConditionalGeneration.from_pretrained(BASE, dtype=torch.float32)
    again = peft.PeftModel.from_pretrained(plain, str(tmp_path / "lora")).merge_and_unload().state_dict()
    for name, weight in adapter.model.state_dict().items():
        torch.testing.assert_close(again[name], weight, atol=1e-6, rtol=0)


def test_equal_models_are_equal_files(tmp_path):
    pytest.importorskip("peft")
    from unime_kedro.mllm.fingerprint import folder_fingerprint

    for name in ("a", "b"):
        adapter, peft = trained("lora")
        adapter.tokenizer.init_kwargs["local_files_only"] = name == "a"  # as transformers notes HF_HUB_OFFLINE
        save(tmp_path / name, adapter, peft, record={"made": name})
    assert folder_fingerprint(tmp_path / "a") == folder_fingerprint(tmp_path / "b")


def test_an_adapter_never_replaces_its_base(tmp_path):
    import shutil

    pytest.importorskip("peft")
    own = shutil.copytree(BASE, tmp_path / "own")
    adapter, model = trained("lora")
    with pytest.raises(ConfigurationError, match="in place of its base model"):
        save(own, adapter, model, base=str(own))
    assert names(own) == names(BASE)
    save(own, adapter, model, base=str(own), merge=True)
    assert names(own) >= FULL


# Kills the process at a chosen call. What is saved is a stand-in that loads quickly; the folders are the real thing.
_KILLED = """
import os, signal, shutil, sys
from pathlib import Path
from unime_kedro.learning import export
folder, at, version, steps = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], 0

def stop(function):
    def counted(*arguments, **options):
        global steps
        steps += 1
        if steps == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return counted

class Part:
    size = {"shortest_edge": 1, "longest_edge": 2}
    init_kwargs = {}
    @stop
    def save_pretrained(self, folder):
        (folder / version).write_text("weights")

class Model:
    model, tokenizer, image_processor, reads_tiles = Part(), Part(), Part(), False

Path.rename, shutil.rmtree = stop(Path.rename), stop(shutil.rmtree)
export.save_embedder(
    folder, Model(), base="b", prompt="plain", max_tokens=8, card="", record={"version": version}
)
print(steps)
"""


def test_a_kill_at_any_step_leaves_the_old_or_the_new_model(tmp_path):
    from unime_kedro.learning.export import finish_swap

    folder = tmp_path / "models/out"

    def run(at, version):
        command = [sys.executable, "-c", _KILLED, str(folder), str(at), version]
        return subprocess.run(command, capture_output=True, text=True)

    assert run(0, "old").stdout.split() == ["6"]  # clear .partial, three parts, new one in place, clear
    found = []
    # clear .partial, three parts, old one aside, new one in place, old one away
    for step in range(1, 8):
        assert run(step, "new").returncode == -9
        # between the two renames, and only there, the folder is away
        assert folder.exists() is not (step == 6)
        finish_swap(folder)
        version = json.loads((folder / "training.json").read_text())["version"]
        assert (folder / version).read_text() == "weights"
        assert len(names(folder)) == 7
        found.append(version)
        run(0, "old")
        assert [file.name for file in folder.parent.iterdir()] == ["out"]
    assert found == ["old"] * 5 + ["new"] * 2
    # the next save finishes the swap of a killed one before it begins, and is killed itself while it writes
    for step in (6, 7):
        assert run(step, "new").returncode == -9
        assert run(4, "newer").returncode == -9
        assert json.loads((folder / "training.json").read_text())["version"] == "new"
        run(0, "old")


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
from PIL import Image
from sentence_transformers import SentenceTransformer
job = json.loads(sys.stdin.read())
inputs = []
for i, (text, image) in enumerate(job["items"]):
    if image is None:
        inputs.append(text if i % 2 else {"text": text})
    elif not text:
        inputs.append([Image.open(image), Path(image), {"image": image}][i % 3])
    else:
        inputs.append({"text": text, "image": image if i % 2 else Image.open(image)})
out = {}
for name in job["folders"]:
    model = SentenceTransformer(name, trust_remote_code=True, device="cpu")
    out[name] = model.encode(inputs, batch_size=4)
    alone = np.stack([model.encode(item) for item in inputs])
    assert np.abs(alone - out[name]).max() < 1e-5
    assert model.get_embedding_dimension() == out[name].shape[1] == 128
assert np.allclose(model.similarity(out[name], out[name]).numpy(), out[name] @ out[name].T, atol=1e-5)
assert np.abs(model.encode(["dog"], prompt="a ")[0] - model.encode(["a dog"])[0]).max() < 1e-6
model.save_pretrained(job["again"])
out["again"] = SentenceTransformer(job["again"], trust_remote_code=True, device="cpu").encode(inputs)
for wrong in (3.5, {"picture": "a.png"}, {"image": "/nowhere/a.png"}, {"image": 3}):
    try:
        model.encode([wrong])
    except ValueError as error:
        print("refused:", error)
assert not any(name.split(".")[0] == "unime_kedro" for name in sys.modules)
np.savez(job["out"], **out)
"""


@pytest.mark.slow
def test_sentence_transformers_gives_the_same_vectors(tmp_path, pictures):
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("peft")
    items = contents(pictures, tmp_path)
    wanted = {}
    for name, tuning, prompt, limits in (
        ("full", "full", "plain", {"max_pixels": 6272}),
        ("chat", "full", "chat", {}),
        ("lora", "lora", "plain", {}),
        ("merged", "lora", "chat", {"max_pixels": 6272}),
    ):
        adapter, peft = trained(tuning, **limits)
        wanted[str(tmp_path / name)] = vectors(adapter, items, prompt)
        # an absolute base: the folder lies outside the project
        save(tmp_path / name, adapter, peft, prompt=prompt, merge=name == "merged", base=str(BASE))
    job = {
        "items": [(item.text, item.image and str(item.image)) for item in items],
        "folders": list(wanted),
        "again": str(tmp_path / "again"),
        "out": str(tmp_path / "vectors.npz"),
    }
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", _SENTENCE_TRANSFORMERS],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = np.load(tmp_path / "vectors.npz")
    for name, vector in wanted.items():
        np.testing.assert_allclose(found[name], vector, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(found["again"], found[str(tmp_path / "merged")], atol=1e-6)
    refused = [line for line in done.stdout.splitlines() if line.startswith("refused")]
    assert len(refused) == 4
    assert "cannot embed float" in refused[0]
    assert "/nowhere/a.png cannot be read" in refused[2]


def test_the_module_finds_a_relative_base_above_the_adapter(tmp_path):
    pytest.importorskip("sentence_transformers")
    from unime_kedro.learning.sentence_module import _find_base

    (tmp_path / "models/m").mkdir(parents=True)
    (tmp_path / "models/m/config.json").touch()
    adapter = tmp_path / "data/06_models/embedder"
    adapter.mkdir(parents=True)
    assert _find_base("models/m", adapter) == tmp_path / "models/m"
    assert _find_base("some/hub-model", adapter) == "some/hub-model"
    with pytest.raises(ValueError, match="there is no base model"):
        _find_base(str(tmp_path / "gone"), adapter)
