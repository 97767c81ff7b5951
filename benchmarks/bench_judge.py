"""Shared-prefix judge against naive batched forward: CPU time and scores of one query with many candidates.

    python benchmarks/bench_judge.py [--candidates 50] [--pixels 336] [--hidden 512]

A Qwen2-VL of about 60 million parameters with random weights judges one picture query against text candidates. Naive:
every prompt in full, in batches, the picture encoded again for every prompt, as a plain loop over a data loader does.
Both run in one process, in turns; the better of two rounds counts. CPU seconds are of all threads.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from unime_kedro.learning.tiny.model import new_model
from unime_kedro.learning.tiny.tokenizer import train_tokenizer
from unime_kedro.minimmeb import texts
from unime_kedro.mllm.adapters.qwen_vl import QwenVLAdapter
from unime_kedro.mllm.content import Content
from unime_kedro.mllm.images import read_image
from unime_kedro.mllm.judge import PrefixJudge
from unime_kedro.mllm.prompts import judge_prompt


def build(hidden: int, layers: int, vision_layers: int) -> QwenVLAdapter:
    """Make a random model with Qwen2-VL's own patch size of 14."""
    import torch
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    tokenizer = train_tokenizer()
    small = new_model(tokenizer, hidden=64, layers=layers, seed=0).config
    text = {
        **small.text_config.to_dict(),
        "hidden_size": hidden,
        "intermediate_size": 4 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 64,
        "num_key_value_heads": hidden // 128,
        "vocab_size": 16384,
    }
    vision = {"depth": vision_layers, "embed_dim": hidden, "hidden_size": hidden, "num_heads": hidden // 64}
    ids = {
        k: getattr(small, k)
        for k in ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    }
    config = Qwen2VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **ids)
    torch.manual_seed(0)
    model = Qwen2VLForConditionalGeneration._from_config(config, attn_implementation="sdpa")
    return QwenVLAdapter(model, tokenizer, Qwen2VLImageProcessorPil(), "random")


def naive(adapter: QwenVLAdapter, query: Content, candidates: list[Content], batch: int) -> np.ndarray:
    """Score with the model's own forward on whole prompts, ``batch`` at a time; Yes minus No."""
    import torch

    yes, no = (adapter.tokenizer(word)["input_ids"][0] for word in ("Yes", "No"))
    out = []
    for start in range(0, len(candidates), batch):
        part = candidates[start : start + batch]
        images = [read_image(adapter, query.image) for _ in part]
        pieces = [
            adapter.encode(adapter.chat(judge_prompt(query.text, c.text)), image)
            for c, image in zip(part, images, strict=True)
        ]
        length = max(len(p.ids) for p in pieces)
        ids = torch.full((len(part), length), adapter.tokenizer.pad_token_id)
        mask = torch.zeros(len(part), length, dtype=torch.long)
        for row, piece in enumerate(pieces):
            ids[row, length - len(piece.ids) :] = torch.from_numpy(piece.ids)
            mask[row, length - len(piece.ids) :] = 1
        adapter.model.model.rope_deltas = None
        with torch.inference_mode():
            logits = (
                adapter.model(
                    input_ids=ids,
                    attention_mask=mask,
                    pixel_values=torch.from_numpy(np.concatenate([i.pixels for i in images])),
                    image_grid_thw=torch.from_numpy(np.stack([i.grid for i in images])),
                    mm_token_type_ids=(ids == adapter.image_id).long(),
                    use_cache=False,
                    logits_to_keep=1,
                )
                .logits[:, -1]
                .float()
            )
        out.append((logits[:, yes] - logits[:, no]).numpy())
    return np.concatenate(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--candidates", type=int, default=50)
    parser.add_argument("--pixels", type=int, default=336)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--vision-layers", type=int, default=5)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    adapter = build(options.hidden, options.layers, options.vision_layers)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "query.png"
        pixels = rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((options.pixels, options.pixels)).save(picture)
        query = Content(texts.CAPTION_QUERY, picture)
        candidates = [
            Content(texts.caption(rng, tuple(int(i) for i in rng.choice(160, size=3, replace=False))))
            for _ in range(options.candidates)
        ]
        judge = PrefixJudge(adapter, batch_size=64)
        tokens = judge.features.grid(picture)[1]
        times: dict[str, list[float]] = {"naive": [], "shared": []}
        for _ in range(options.rounds):
            judge = PrefixJudge(adapter, batch_size=64)
            start = time.process_time()
            found = judge.judge(query, candidates)
            times["shared"].append(time.process_time() - start)
            start = time.process_time()
            plain = naive(adapter, query, candidates, options.batch)
            times["naive"].append(time.process_time() - start)
    shared = found.yes - found.no
    result = {
        "parameters_millions": round(sum(p.numel() for p in adapter.model.parameters()) / 1e6, 1),
        "visual_tokens": tokens,
        "candidates": options.candidates,
        "naive_cpu_seconds": round(min(times["naive"]), 2),
        "shared_cpu_seconds": round(min(times["shared"]), 2),
        "ratio": round(min(times["naive"]) / min(times["shared"]), 2),
        "largest_difference": float(np.abs(shared - plain).max()),
        "spread_of_logits": float(np.ptp(plain)),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
