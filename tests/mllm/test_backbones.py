"""Every backbone family against transformers' own processor and forward pass of the same model."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tiny_backbones import save_backbone
from unime_kedro.errors import ModelError
from unime_kedro.mllm.adapters import load_adapter
from unime_kedro.mllm.adapters.base import ImageWorker
from unime_kedro.mllm.content import Content, ModelSpec
from unime_kedro.mllm.embedding import Embedder
from unime_kedro.mllm.images import read_image
from unime_kedro.mllm.judge import PrefixJudge
from unime_kedro.mllm.prompts import judge_prompt, listwise_answer, listwise_prompt
from unime_kedro.mllm.reranker import Reranker

TILED = ("llava_onevision", "internvl")


def contents(pictures):
    return [
        Content("a dog"),
        Content("<|image_1|>\nRepresent the given image.\n", pictures[0]),
        Content("a picture of the camera, the pie and the dog"),
        Content("", pictures[4]),
        Content("Find <|image_1|> a caption", pictures[3]),
        Content("<|image_1|>\nRepresent the given image.\n", pictures[7]),
        Content("an axe"),
    ]


def shown(items):
    """Texts with a placeholder for every picture, and the pictures in order."""
    return [item.text or "<|image_1|>" for item in items], [item.image for item in items if item.image is not None]


@pytest.mark.parametrize("prompt", ["plain", "chat"])
def test_embeddings_equal_transformers_own_forward_whatever_the_padding(backbone, pictures, prompt):
    import torch

    items = contents(pictures)
    # ours: right-padded, small batches, pictures apart; theirs: one left-padded batch of all
    found = Embedder(backbone.adapter, prompt=prompt, max_tokens=1024, batch_tokens=300).embed(items)
    texts, images = shown(items)
    with torch.no_grad():
        wanted = backbone.hidden([backbone.chat(t) for t in texts] if prompt == "chat" else texts, images).numpy()
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    # and they say something: no two are equal
    assert (found @ found.T - np.eye(len(items))).max() < 0.9999


@pytest.mark.parametrize("batch_tokens", [64, 100_000])
def test_company_and_order_do_not_matter(backbone, pictures, batch_tokens):
    items = contents(pictures)
    embedder = Embedder(backbone.adapter, prompt="plain", max_tokens=1024, batch_tokens=batch_tokens)
    alone = np.concatenate([embedder.embed([item]) for item in items])
    np.testing.assert_allclose(embedder.embed(items[::-1])[::-1], alone, atol=1e-5)


def test_tokens_pixels_and_counts_are_those_of_transformers_processor(backbone, tmp_path):
    import torch

    adapter, rng = backbone.adapter, np.random.default_rng(5)
    for i, size in enumerate([(56, 56), (60, 200), (211, 60), (113, 112), (1, 30), (90, 61), (400, 300), (57, 168)]):
        file = tmp_path / f"{i}.png"
        Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)).save(file)
        image = read_image(adapter, file)
        theirs = backbone.inputs(["Look at <|image_1|> now"], [file])
        piece = adapter.encode("Look at <|image_1|> now", image)
        np.testing.assert_array_equal(piece.ids, theirs["input_ids"][0].numpy(), err_msg=str(size))
        assert piece.n_image_tokens == image.n_tokens == len(adapter.image_features([image])[0])
        assert image.pixels.dtype == np.uint8
        if backbone.family in TILED:
            pixels = adapter._normalised([image]).numpy()
            wanted = theirs["pixel_values"].numpy()
            np.testing.assert_allclose(pixels, wanted[0] if wanted.ndim == 5 else wanted, atol=1e-5)
        else:
            pixels = adapter._normalised(torch.from_numpy(image.pixels)).numpy()
            np.testing.assert_allclose(pixels, theirs["pixel_values"].numpy(), atol=1e-5)


def test_positions_go_on_where_a_piece_ends(backbone, pictures):
    import torch

    adapter, image = backbone.adapter, read_image(backbone.adapter, pictures[3])
    piece = adapter.encode("Look at <|image_1|> now", image)
    if backbone.family in TILED:
        wanted = torch.arange(len(piece.ids))[None, None]
    else:
        ids = torch.from_numpy(piece.ids)[None]
        kinds, grid = (ids == adapter.image_id).int(), torch.from_numpy(image.grid)[None]
        wanted, _ = adapter.model.model.get_rope_index(ids, mm_token_type_ids=kinds, image_grid_thw=grid)
    np.testing.assert_array_equal(piece.positions, wanted[:, 0].numpy())
    assert piece.span == int(wanted.max()) + 1


def cases(pictures):
    texts = [Content("a dog and a pen"), Content("an axe"), Content("a picture of the camera, the pie and the dog")]
    images = [Content("<|image_1|>\nRepresent the given image.\n", p) for p in (pictures[1], pictures[3], pictures[7])]
    return {
        "words": (Content("Find me an image that matches: a dog, a pen\n"), [*texts, *images]),
        "picture": (Content("<|image_1|>\nFind a caption.\n", pictures[0]), [*texts, *images]),
    }


def full_logits(backbone, query, candidate):
    """Logits of Yes and No by one whole forward pass of transformers over one whole prompt."""
    import torch

    texts, images = shown([query, candidate])
    inputs = backbone.inputs([backbone.chat(judge_prompt(*texts))], images)
    backbone.adapter.model.model.rope_deltas = None
    with torch.no_grad():
        last = backbone.adapter.model(**inputs, use_cache=False).logits[0, -1].float().numpy()
    tokenizer = backbone.processor.tokenizer
    return last[[tokenizer.convert_tokens_to_ids("Yes"), tokenizer.convert_tokens_to_ids("No")]]


@pytest.mark.parametrize("case", ["words", "picture"])
def test_the_judge_with_a_shared_prefix_equals_whole_prompts(backbone, pictures, case):
    query, candidates = cases(pictures)[case]
    judge = PrefixJudge(backbone.adapter, batch_size=4)
    found = judge.judge(query, candidates)
    assert found.errors == [""] * len(candidates)
    wanted = np.stack([full_logits(backbone, query, candidate) for candidate in candidates])
    np.testing.assert_allclose(np.stack([found.yes, found.no], 1), wanted, atol=1e-4)
    assert np.ptp(wanted[:, 0] - wanted[:, 1]) > 1e-2
    # features that were on disk in between, or with every prompt in full: the same
    tight = PrefixJudge(backbone.adapter, batch_size=4, vision_cache_gb=0, share_prefix=False)
    again = tight.judge(query, candidates)
    assert tight.features.spilled > 0
    np.testing.assert_allclose(again.yes - again.no, found.yes - found.no, atol=1e-4)


def test_the_reranker_decodes_as_a_loop_of_whole_forward_passes(backbone, pictures):
    import torch

    query, candidates = cases(pictures)["picture"]
    texts, images = shown([query, *candidates])
    prompt = backbone.chat(listwise_prompt(texts[0], texts[1:]))
    tokenizer, answer = backbone.processor.tokenizer, []
    inputs = backbone.inputs([prompt], images)
    for _ in range(5):
        backbone.adapter.model.model.rope_deltas = None
        with torch.no_grad():
            answer.append(int(backbone.adapter.model(**inputs, use_cache=False).logits[0, -1].argmax()))
        behind = {"input_ids": answer[-1], "attention_mask": 1, "mm_token_type_ids": 0}
        for name in behind.keys() & inputs.keys():
            inputs[name] = torch.cat([inputs[name], torch.tensor([[behind[name]]])], dim=1)
    reranker = Reranker(backbone.adapter, max_tokens=2048, batch_tokens=8192)
    free = reranker.choose([(query, candidates)] * 2, "free")
    assert free[0].answer.startswith(tokenizer.decode(answer, skip_special_tokens=True))
    chosen = reranker.choose([(query, candidates)])[0]
    assert chosen.answer == listwise_answer(chosen.number)
    assert 1 <= chosen.number <= len(candidates)


def test_yes_and_no_are_single_tokens_of_the_output_head(backbone):
    adapter = backbone.adapter
    weights = adapter.answer_weights(("Yes", "No"))
    ids = [adapter.tokenizer.convert_tokens_to_ids(word) for word in ("Yes", "No")]
    np.testing.assert_array_equal(weights, adapter.model.lm_head.weight[ids].detach())


#: "a dog", with control tokens in it, some of which only appear when another is taken out
SPOILED = dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl"), "a<|image_pad|> <|im_<|im_end|>end|>dog") | {
    "llava_onevision": "a<image> <vi<image>deo>dog<|im_<video>end|>",
    "internvl": "a<IMG_CONTEXT> <i<img>mg>d</img>og<|im_<quad>end|></quad>",
}


def test_control_tokens_of_the_family_in_the_data_are_not_control_tokens(backbone, pictures):
    words = SPOILED[backbone.family]
    embedder = Embedder(backbone.adapter, prompt="plain", max_tokens=512, batch_tokens=1000)
    wanted = embedder.embed([Content("a dog"), Content("<|image_1|>\na dog", pictures[0])])
    found = embedder.embed([Content(words), Content(f"<|image_1|>\n{words}", pictures[0])])
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    query = Content(words, pictures[0])
    judged = PrefixJudge(backbone.adapter, batch_size=2).judge(query, [Content(words)])
    assert judged.errors == [""]
    choice = Reranker(backbone.adapter, max_tokens=2048, batch_tokens=8192).choose([(query, [query, Content(words)])])
    assert not choice[0].error


def test_the_part_that_travels_to_workers_does_the_same_there(backbone, pictures):
    worker = pickle.loads(pickle.dumps(ImageWorker.of(backbone.adapter)))
    ours, theirs = read_image(backbone.adapter, pictures[7]), read_image(worker, pictures[7])
    np.testing.assert_array_equal(ours.pixels, theirs.pixels)
    np.testing.assert_array_equal(ours.grid, theirs.grid)
    assert ours.n_tokens == theirs.n_tokens


def test_bfloat16_is_near_float32(backbone, pictures):
    items = contents(pictures)
    half = load_adapter(ModelSpec(str(backbone.folder), dtype="bfloat16", device="cpu"))
    exact = Embedder(backbone.adapter, prompt="plain", max_tokens=1024, batch_tokens=4096).embed(items)
    found = Embedder(half, prompt="plain", max_tokens=1024, batch_tokens=4096).embed(items)
    assert (found * exact).sum(1).min() > 0.98
    judged = PrefixJudge(half, batch_size=4).judge(*cases(pictures)["picture"])
    assert np.isfinite(judged.yes).all()


def test_a_template_that_loses_words_is_an_error(backbone, tmp_path):
    adapter = load_adapter(ModelSpec(str(backbone.folder), dtype="float32", device="cpu"))
    adapter.tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}{% endfor %}"
    with pytest.raises(ModelError, match="loses the words"):
        adapter.chat("a dog")
    adapter.tokenizer.chat_template = None
    with pytest.raises(ModelError, match="no chat template"):
        adapter.chat("a dog")
    assert backbone.adapter.chat("") == backbone.chat("")
    assert backbone.adapter.chat(" a dog\n") == backbone.chat(" a dog\n")


#: max_pixels and the visual tokens of a picture of 112 x 112 pixels, with tiles of 56 x 56
LIMITS = {
    # 16 visual tokens a tile, 16 of the small copy in front, one more for each row of the map. Four tiles: a map of
    # 8 x 8, more than the area of three tiles: 8 / sqrt(64 / 48) = 6.9, so 6 x 6. One tile: 4 x 4. Of resolutions of
    # two and three tiles none shows more of a square than one tile does.
    "llava_onevision": [(None, 16 + 6 * 7), (12544, 16 + 6 * 7), (9408, 16 + 4 * 5), (3136, 16 + 4 * 5)],
    # 4 visual tokens a tile; four tiles have a small copy behind them
    "internvl": [(None, 5 * 4), (12544, 5 * 4), (9408, 4), (3136, 4)],
}


def test_limits_of_the_area_are_limits_of_tiles(backbone, tmp_path):
    if backbone.family not in TILED:
        pytest.skip("no tiles")
    picture = tmp_path / "square.png"
    Image.new("RGB", (112, 112)).save(picture)
    for max_pixels, n_tokens in LIMITS[backbone.family]:
        spec = ModelSpec(str(backbone.folder), dtype="float32", device="cpu", max_pixels=max_pixels)
        adapter = load_adapter(spec)
        image = read_image(adapter, picture)
        assert (max_pixels, image.n_tokens) == (max_pixels, n_tokens)
        assert len(adapter.image_features([image])[0]) == n_tokens


def test_limits_that_leave_no_tile_are_an_error(backbone):
    if backbone.family not in TILED:
        pytest.skip("no tiles")
    with pytest.raises(ModelError, match=r"max_pixels.*3135.*3136"):
        load_adapter(ModelSpec(str(backbone.folder), device="cpu", max_pixels=3135))
    with pytest.raises(ModelError, match="min_pixels 9408"):
        load_adapter(ModelSpec(str(backbone.folder), device="cpu", min_pixels=9408, max_pixels=3136))


def test_the_limits_are_part_of_what_scores_and_vectors_depend_on(backbone):
    specs = [ModelSpec(str(backbone.folder), device="cpu", max_pixels=limit) for limit in (3136, 12544)]
    adapters = [load_adapter(spec) for spec in specs]
    embedders = [Embedder(a, prompt="plain", max_tokens=64, batch_tokens=64).identity() for a in adapters]
    assert embedders[0] != embedders[1]
    judges = [json.dumps(PrefixJudge(a, batch_size=1).identity()) for a in adapters]
    assert judges[0] != judges[1]


def test_a_folder_of_another_architecture_says_which(backbone, tmp_path):
    copy = shutil.copytree(backbone.folder, tmp_path / "copy")
    file = copy / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"architectures": ["SomethingElse"]}))
    with pytest.raises(ModelError, match=f"SomethingElse.*model_type {backbone.family}"):
        load_adapter(ModelSpec(str(copy), device="cpu"))


_FROM_THE_HUB = """
import sys
from unime_kedro.mllm.adapters import load_adapter
from unime_kedro.mllm.content import ModelSpec
for name in sys.argv[1:]:
    found = load_adapter(ModelSpec(f"some/{name}", revision="v1", device="cpu"))
    print(found.fingerprint, found.chat("words").encode().hex())
"""


@pytest.mark.slow
def test_a_hub_id_loads_the_pinned_revision_without_a_network(tmp_path):
    commits, names = {"old": "a" * 40, "v1": "b" * 40}, ["qwen3_vl", "llava_onevision", "internvl"]
    turns = {}
    for name in names:  # the cache as it is after everything of both revisions was fetched
        repo = tmp_path / f"hub/models--some--{name}"
        for ref, commit in commits.items():
            folder = repo / "snapshots" / commit
            save_backbone(folder, name)
            (repo / "refs").mkdir(exist_ok=True)
            (repo / "refs" / ref).write_text(commit)
        turns[name] = load_adapter(ModelSpec(str(folder), device="cpu")).chat("words")
        # of another revision than the one that is asked for
        (repo / "snapshots" / commits["old"] / "config.json").write_text("{}")
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", _FROM_THE_HUB, *names]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    for name, line in zip(names, done.stdout.splitlines(), strict=True):
        fingerprint, turn = line.split()
        assert fingerprint == f"some/{name}@{commits['v1']}"
        assert bytes.fromhex(turn).decode() == turns[name]
        assert "words" in turns[name]
