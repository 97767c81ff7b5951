"""Adapters: positions, features and errors against transformers' own code."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from unime_kedro.errors import ModelError
from unime_kedro.mllm.adapters import load_adapter, local_or_hub
from unime_kedro.mllm.adapters.registry import families
from unime_kedro.mllm.content import ModelSpec
from unime_kedro.mllm.fingerprint import folder_fingerprint
from unime_kedro.mllm.images import read_image


def test_positions_equal_the_models_own(adapter, pictures):
    import torch

    for picture in [*pictures, None]:
        image = read_image(adapter, picture) if picture is not None else None
        piece = adapter.encode("some words <|image_1|> and more" if picture is not None else "words alone", image)
        ids = torch.from_numpy(piece.ids)[None]
        if image is None:
            wanted = torch.arange(len(piece.ids)).expand(3, 1, -1)
        else:
            wanted, _ = adapter.model.model.get_rope_index(
                ids,
                mm_token_type_ids=(ids == adapter.image_id).int(),
                image_grid_thw=torch.from_numpy(image.grid)[None],
            )
        np.testing.assert_array_equal(piece.positions, wanted[:, 0].numpy())
        assert piece.span == int(wanted.max()) + 1
        assert piece.n_image_tokens == int((ids == adapter.image_id).sum())


def test_transparent_pictures_are_laid_on_white(adapter, tmp_path):
    clear, white = tmp_path / "clear.png", tmp_path / "white.png"
    Image.new("RGBA", (112, 112), (200, 0, 0, 0)).save(clear)
    Image.new("RGB", (112, 112), (255, 255, 255)).save(white)
    np.testing.assert_array_equal(read_image(adapter, clear).pixels, read_image(adapter, white).pixels)


def test_unknown_architecture_lists_the_known_ones(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"]}))
    with pytest.raises(ModelError) as error:
        load_adapter(ModelSpec(str(tmp_path)))
    assert "BertModel" in str(error.value)
    assert list(families()) == ["internvl", "llava_onevision", "qwen2_5_vl", "qwen2_vl", "qwen3_vl"]
    for kind, adapter in families().items():
        assert f"{adapter.architectures[kind]} ({kind})" in str(error.value)
    assert "docs/backbones.md" in str(error.value)
    # a known family, but another head than the one that answers
    wrong = {"model_type": "qwen2_vl", "architectures": ["Qwen2VLForSequenceClassification"]}
    (tmp_path / "config.json").write_text(json.dumps(wrong))
    with pytest.raises(ModelError, match="is a Qwen2VLForSequenceClassification"):
        load_adapter(ModelSpec(str(tmp_path)))


def test_code_in_a_models_folder_is_not_run_and_the_known_families_are_named(tmp_path):
    # the layout of OpenGVLab/InternVL3-8B, which has its code in its repository; ours is InternVL3-8B-hf
    auto = {"AutoConfig": "configuration_internvl_chat.InternVLChatConfig"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "internvl_chat", "auto_map": auto}))
    (tmp_path / "configuration_internvl_chat.py").write_text("raise SystemExit('was run')")
    with pytest.raises(ModelError, match=r"InternVLForConditionalGeneration \(internvl\)"):
        load_adapter(ModelSpec(str(tmp_path)))


def test_missing_folder_and_non_model_folder_say_so(tmp_path):
    with pytest.raises(ModelError, match="no model folder"):
        load_adapter(ModelSpec(str(tmp_path / "nothing")))
    with pytest.raises(ModelError, match=r"config\.json"):
        load_adapter(ModelSpec(str(tmp_path)))


def test_fingerprint_changes_with_any_byte_of_the_model_but_not_with_its_card(model_folder, tmp_path):
    copy = shutil.copytree(model_folder, tmp_path / "copy")
    before = folder_fingerprint(copy)
    assert before == folder_fingerprint(model_folder)
    (copy / "README.md").write_text("a card")
    assert folder_fingerprint(copy) == before
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(bytes(weights))
    assert folder_fingerprint(copy) != before


def test_yes_and_no_must_be_single_tokens(adapter):
    with pytest.raises(ModelError, match="Affirmative"):
        adapter.answer_weights(("Affirmative", "No"))


@pytest.fixture
def lora_folder(model_folder, tmp_path):
    """A LoRA adapter of rank 2 and alpha 6 for ``model_folder``, random matrices, as peft saves it."""
    peft = pytest.importorskip("peft")
    import torch

    base = load_adapter(ModelSpec(str(model_folder), device="cpu", dtype="float32")).model
    model = peft.get_peft_model(base, peft.LoraConfig(r=2, lora_alpha=6, target_modules=["q_proj", "down_proj"]))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
    model.save_pretrained(tmp_path / "lora", save_embedding_layers=False)
    return tmp_path / "lora"


def edit(folder, **changes):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_lora_adapter_is_its_base_with_the_product_added(model_folder, lora_folder):
    from safetensors.torch import load_file

    base = load_adapter(ModelSpec(str(model_folder), device="cpu", dtype="float32"))
    found = load_adapter(ModelSpec(str(lora_folder), device="cpu", dtype="float32"))
    wanted = base.model.state_dict()
    matrices = load_file(lora_folder / "adapter_model.safetensors")
    for name, a in matrices.items():
        if ".lora_A." in name:
            target = name.removeprefix("base_model.model.").replace(".lora_A", "")
            wanted[target] = wanted[target] + 6 / 2 * matrices[name.replace("lora_A", "lora_B")] @ a
    state = found.model.state_dict()
    assert state.keys() == wanted.keys()
    for name, weight in state.items():
        np.testing.assert_allclose(weight, wanted[name], atol=1e-6, err_msg=name)
    assert type(found.model) is type(base.model)
    assert not found.model.training
    assert not hasattr(found.model, "peft_config")
    assert found.tokenizer.chat_template == base.tokenizer.chat_template
    assert found.chat("hello") == base.chat("hello")


def test_the_fingerprint_of_an_adapter_is_that_of_both(model_folder, lora_folder, tmp_path):
    spec = ModelSpec(str(lora_folder), device="cpu")
    before = load_adapter(spec).fingerprint
    assert before == f"{folder_fingerprint(lora_folder)}+{folder_fingerprint(model_folder)}"
    (lora_folder / "training.json").write_text("{}")
    assert load_adapter(spec).fingerprint == before
    copy = shutil.copytree(model_folder, tmp_path / "copy")
    (copy / "generation_config.json").write_text("{}")
    edit(lora_folder, base_model_name_or_path=str(copy))
    after = load_adapter(spec).fingerprint
    assert after.split("+")[0] != before.split("+")[0]
    assert after.split("+")[1] != before.split("+")[1]


def test_an_adapter_folders_own_tokenizer_and_image_processor_win(model_folder, lora_folder):
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        shutil.copy(model_folder / name, lora_folder / name)
    (lora_folder / "chat_template.jinja").write_text("ours: {{ messages[0]['content'] }}")
    file = lora_folder / "preprocessor_config.json"
    config = json.loads(file.read_text())
    config["size"] = {"shortest_edge": 3136, "longest_edge": 6272}
    file.write_text(json.dumps(config))
    found = load_adapter(ModelSpec(str(lora_folder), device="cpu"))
    assert found.chat("hello") == "ours: hello"
    assert found.image_processor.size["longest_edge"] == 6272
    # 112 x 112 pixels are one visual token of 56 x 56 here, and four when 12,544 pixels are allowed
    assert found.process_image(Image.new("RGB", (112, 112))).n_tokens == 1
    limited = load_adapter(ModelSpec(str(lora_folder), device="cpu", max_pixels=12544))
    assert limited.process_image(Image.new("RGB", (112, 112))).n_tokens == 4


def test_a_relative_base_starts_at_the_project_root(lora_folder, monkeypatch, request, tmp_path):
    monkeypatch.chdir(request.config.rootpath / "tests")
    edit(lora_folder, base_model_name_or_path="models/tiny-judge")
    assert local_or_hub(str(lora_folder)) == lora_folder
    # it is found; and its layers are wider than the matrices
    with pytest.raises(ModelError, match=r"cannot put the LoRA adapter .*lora on its base model"):
        load_adapter(ModelSpec(str(lora_folder), device="cpu"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    with pytest.raises(ModelError, match=r"lora/adapter_config\.json names: there is no model folder .*tiny-judge"):
        load_adapter(ModelSpec(str(lora_folder), device="cpu"))


def test_an_adapter_may_be_the_base_of_another_but_not_of_itself(model_folder, lora_folder, tmp_path):
    import torch

    second = shutil.copytree(lora_folder, tmp_path / "second")
    edit(second, base_model_name_or_path=str(lora_folder))
    models = [load_adapter(ModelSpec(str(folder), device="cpu")) for folder in (model_folder, lora_folder, second)]
    name = "model.language_model.layers.0.self_attn.q_proj.weight"
    zero, one, two = (m.model.state_dict()[name] for m in models)
    torch.testing.assert_close(two - one, one - zero, atol=1e-5, rtol=0)
    assert float((one - zero).abs().max()) > 0.01
    assert models[2].fingerprint.count("+") == 2
    edit(lora_folder, base_model_name_or_path=str(second))
    with pytest.raises(ModelError, match="on top of this one"):
        local_or_hub(str(second))


def test_what_is_wrong_with_an_adapter_folder_is_said(model_folder, lora_folder, tmp_path, monkeypatch):
    def fails(match):
        with pytest.raises(ModelError, match=match):
            load_adapter(ModelSpec(str(lora_folder), device="cpu"))

    (lora_folder / "model.safetensors").touch()
    fails("not clear which is meant")
    (lora_folder / "model.safetensors").unlink()
    edit(lora_folder, base_model_name_or_path=str(tmp_path / "gone"))
    fails(r"adapter_config\.json names: there is no model folder .*gone")
    (tmp_path / "gone").mkdir()
    fails(r"adapter_config\.json names.*gone, has no config\.json")
    edit(lora_folder, base_model_name_or_path=None)
    fails("has no base_model_name_or_path")
    edit(lora_folder, base_model_name_or_path=str(model_folder), peft_type="OFT")
    fails("only LORA can be merged")
    edit(lora_folder, peft_type="LORA", target_modules=["q_proj", "down_proj", "up_proj"])
    fails(r"lacks \d+ of the weights, the first is .*up_proj")
    edit(lora_folder, target_modules=["q_proj"])
    fails(r"has, unknown to its base model, \d+ of the weights, the first is .*down_proj")
    edit(lora_folder, target_modules=["query"])
    fails("cannot put the LoRA adapter .*query")
    edit(lora_folder, target_modules=["q_proj", "down_proj"])
    monkeypatch.setitem(sys.modules, "peft", None)
    fails("pip install peft")
    monkeypatch.undo()
    (lora_folder / "adapter_model.safetensors").unlink()
    fails("cannot put the LoRA adapter")
    (lora_folder / "adapter_config.json").write_text("{")
    fails(r"cannot read the LoRA adapter's .*adapter_config\.json")


_FROM_THE_HUB = """
from unime_kedro.mllm.adapters import load_adapter
from unime_kedro.mllm.content import ModelSpec
found = load_adapter(ModelSpec("some/lora", revision="main", device="cpu"))
print(found.fingerprint, float(found.model.model.language_model.layers[0].mlp.down_proj.weight.double().sum()))
"""


@pytest.mark.slow
def test_an_adapter_on_the_hub_and_its_base_there(model_folder, lora_folder, tmp_path):
    commits = {"lora": "a" * 40, "base": "b" * 40}
    local = load_adapter(ModelSpec(str(lora_folder), device="cpu"))
    wanted = float(local.model.model.language_model.layers[0].mlp.down_proj.weight.double().sum())
    edit(lora_folder, base_model_name_or_path="some/base", revision="v1")
    # the cache as it is after everything was fetched
    for name, ref, folder in (("lora", "main", lora_folder), ("base", "v1", model_folder)):
        repo = tmp_path / f"hub/models--some--{name}"
        shutil.copytree(folder, repo / "snapshots" / commits[name])
        (repo / "refs").mkdir()
        (repo / "refs" / ref).write_text(commits[name])
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _FROM_THE_HUB], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
    fingerprint, total = done.stdout.split()
    assert fingerprint == f"some/lora@{commits['lora']}+some/base@{commits['base']}"
    assert float(total) == pytest.approx(wanted, abs=1e-6)


def test_pictures_are_kept_as_bytes_and_reach_the_tower_as_transformers_gives_them(adapter, pictures):
    import torch
    from PIL import Image

    for file in pictures:
        image = Image.open(file).convert("RGB")
        ours = adapter.process_image(image)
        assert ours.pixels.dtype == np.uint8
        theirs = adapter.image_processor(images=[image], return_tensors="pt")
        np.testing.assert_array_equal(ours.grid, theirs["image_grid_thw"][0])
        found = adapter._normalised(torch.from_numpy(ours.pixels))
        torch.testing.assert_close(found, theirs["pixel_values"], rtol=0, atol=1e-6)
        # the tower's first layer, as the convolution it is written as
        embed = adapter.model.model.visual.patch_embed
        with torch.no_grad():
            expected = type(embed).forward(embed, theirs["pixel_values"])
            torch.testing.assert_close(embed(found), expected, rtol=1e-4, atol=1e-4)
