"""What trains, counted by hand; LoRA compared with the matrices it stands for."""

from __future__ import annotations

import numpy as np
import pytest

from unime_kedro.errors import ConfigurationError, ModelError

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture
def fresh(request):
    from unime_kedro.mllm.adapters import load_adapter
    from unime_kedro.mllm.content import ModelSpec

    model = request.config.rootpath / "models/tiny-embedder"
    return lambda: load_adapter(ModelSpec(str(model), device="cpu", dtype="float32"))


def trainable(adapter):
    return {name for name, p in adapter.model.named_parameters() if p.requires_grad}


def embed(adapter, pictures):
    """Vectors of words, a picture, and both, with a graph."""
    from unime_kedro.mllm.embedding import right_padded
    from unime_kedro.mllm.images import read_image

    images = [read_image(adapter, picture) for picture in pictures[:2]]
    pieces = [adapter.encode("the dog and the pie", None)]
    pieces += [
        adapter.encode(text, image) for text, image in zip(["<|image_1|>", "<|image_1|>\nwords"], images, strict=True)
    ]
    ids, positions, mask = right_padded(pieces, axes=3)
    features = torch.cat(adapter.image_features(images))
    hidden = adapter.decode(adapter.embed_tokens(ids, features), positions, mask, None)
    return hidden[torch.arange(3), mask.sum(1) - 1]


def lora(adapter, **changes):
    from unime_kedro.learning.trainable import make_trainable

    options = {"tuning": "lora", "rank": 4, "alpha": 8, "dropout": 0.0, "targets": ALL, "seed": 1, **changes}
    return make_trainable(adapter, **options)


def randomise(adapter):
    with torch.no_grad():
        for name, p in adapter.model.named_parameters():
            if "lora_B" in name:
                p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())) * 0.05)


def test_full_tuning_trains_everything_an_embedding_depends_on(fresh, pictures):
    from unime_kedro.learning.trainable import make_trainable

    adapter = fresh()
    report = make_trainable(adapter, tuning="full")
    assert report.trainable == report.total == 1_833_472  # the card's number; tied weights once
    assert (report.share, report.peft, report.lora_modules) == (1.0, None, ())
    embed(adapter, pictures).square().sum().backward()
    assert all(p.grad is not None for p in adapter.model.parameters())


def test_full_tuning_with_a_frozen_tower_and_a_head_of_its_own(fresh, pictures):
    from unime_kedro.learning.trainable import make_trainable

    adapter = fresh()
    head = adapter.model.lm_head
    head.weight = torch.nn.Parameter(head.weight.detach().clone())
    report = make_trainable(adapter, tuning="full", freeze_vision=True)
    names = trainable(adapter)
    assert not any("visual" in name or "lm_head" in name for name in names)
    assert names == {name for name, _ in adapter.model.named_parameters() if ".language_model." in name}
    # 1,127 words of 128; three layers: 4 x 128 x 128 and 3 biases, 3 x 128 x 256, 2 norms; a norm behind
    layer = 4 * 128 * 128 + 3 * 128 + 3 * 128 * 256 + 2 * 128
    assert report.trainable == 1127 * 128 + 3 * layer + 128
    embed(adapter, pictures).square().sum().backward()
    assert {name for name, p in adapter.model.named_parameters() if p.grad is not None} == names


def test_lora_counts_names_and_frozen_base(fresh, pictures):
    adapter = fresh()
    report = lora(adapter)
    assert len(report.lora_modules) == 3 * 7
    assert report.lora_modules[0] == "model.language_model.layers.0.self_attn.q_proj"
    # rank x (inputs + outputs) of four 128 x 128 and three 128 x 256 layers, three times
    assert report.trainable == 3 * 4 * (4 * (128 + 128) + 3 * (128 + 256))
    assert report.total == 1_833_472 + report.trainable
    assert all(".lora_A." in name or ".lora_B." in name for name in trainable(adapter))
    assert (adapter.model.device.type, adapter.model.config.model_type) == ("cpu", "qwen2_vl")
    assert report.peft.get_base_model() is adapter.model
    embed(adapter, pictures).square().sum().backward()
    assert {name for name, p in adapter.model.named_parameters() if p.grad is not None} == trainable(adapter)


def test_the_adapters_methods_run_through_lora_as_if_the_matrices_were_added(fresh, pictures):
    plain, adapter = fresh(), fresh()
    report = lora(adapter, targets=[*ALL, "qkv", "mlp.2"])
    before = embed(plain, pictures).detach()
    # second matrices are zero at the start
    torch.testing.assert_close(embed(adapter, pictures), before, atol=1e-6, rtol=0)
    randomise(adapter)
    with torch.no_grad():
        for name in report.lora_modules:
            layer = adapter.model.get_submodule(name)
            product = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
            plain.model.get_submodule(name).weight += 8 / 4 * product
        wanted, found = embed(plain, pictures), embed(adapter, pictures)
    torch.testing.assert_close(found, wanted, atol=2e-4, rtol=1e-4)
    assert float((found - before).abs().amax(dim=1).min()) > 0.05  # words alone move, too


@pytest.mark.parametrize("freeze", [True, False])
def test_a_frozen_tower_gets_no_adapter(fresh, pictures, freeze):
    from unime_kedro.mllm.images import read_image

    adapter = fresh()
    image = read_image(adapter, pictures[0])
    before = adapter.image_features([image])[0].detach()
    # "fc1" is in the tower alone; "mlp.2" is its merger; both are asked for only where they may be
    report = lora(adapter, targets=["q_proj"] if freeze else ["q_proj", "fc1", "mlp.2"], freeze_vision=freeze)
    randomise(adapter)
    assert any("visual" in name for name in report.lora_modules) is not freeze
    assert torch.allclose(adapter.image_features([image])[0], before) is freeze


def test_the_seed_decides_and_other_random_numbers_do_not_notice(fresh):
    def first(seed):
        adapter = fresh()
        torch.manual_seed(123)
        lora(adapter, seed=seed)
        assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(123)))
        return torch.cat([p.flatten() for n, p in adapter.model.named_parameters() if "lora_A" in n]).detach().numpy()

    one, again, other = first(1), first(1), first(2)
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0.01


def test_dropout_works_in_training_mode_only(fresh, pictures):
    adapter = fresh()
    lora(adapter, dropout=0.5)
    randomise(adapter)
    with torch.no_grad():
        assert torch.equal(embed(adapter, pictures), embed(adapter, pictures))
        adapter.model.train()
        assert not torch.equal(embed(adapter, pictures), embed(adapter, pictures))


@pytest.mark.parametrize(
    ("targets", "freeze", "culprit"),
    [
        (["q_proj", "query"], False, "'query'"),
        (["q_proj", "fc1"], True, "'fc1'"),
        (["lm_head"], False, "'lm_head'"),
        (["proj_q", "proj"], True, "'proj_q', 'proj'"),
        ([], False, "an empty list"),
    ],
)
def test_every_target_must_match(fresh, targets, freeze, culprit):
    with pytest.raises(ConfigurationError) as error:
        lora(fresh(), targets=targets, freeze_vision=freeze)
    message = str(error.value)
    assert message.startswith(f"train.lora.targets: {culprit} matches no linear layer")
    assert ", ".join(ALL) in message
    assert ("fc1, fc2, mlp.0, mlp.2" in message) is not freeze


def test_lora_twice_is_an_error(fresh):
    adapter = fresh()
    lora(adapter)
    with pytest.raises(ModelError, match="already"):
        lora(adapter)


def test_bfloat16_weights_get_float32_adapters(fresh, pictures):
    adapter = fresh()
    adapter.model.to(torch.bfloat16)
    lora(adapter)
    types = {("lora" in name, p.dtype) for name, p in adapter.model.named_parameters()}
    assert types == {(True, torch.float32), (False, torch.bfloat16)}
    assert embed(adapter, pictures).dtype == torch.bfloat16
