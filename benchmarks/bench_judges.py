"""Pairs per second of three judges on the same pairs: prompts in full, shared prefix, vLLM with prefix cache.

    make setup-vllm
    PYTHONPATH=src:tests/vllm_engine/shim .venv-vllm/bin/python benchmarks/bench_judges.py [--queries 4]

A Qwen2-VL with random weights (benchmarks/bench_judge.py makes it) judges picture queries against text candidates, the
pairs sorted by query. All read the same saved model, in one run, on the same device: a GPU if torch (and this build of
vLLM) finds one, else a CPU in float32. Loading, the engine's start and one query before it are not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from bench_judge import build
from PIL import Image

from unime_kedro.minimmeb import texts
from unime_kedro.mllm.adapters import load_adapter
from unime_kedro.mllm.content import Content, ModelSpec
from unime_kedro.mllm.judge import PrefixJudge
from unime_kedro.mllm.judgements import score
from unime_kedro.mllm.vllm_engine import EngineOptions
from unime_kedro.mllm.vllm_judge import VllmJudge

Groups = list[tuple[Content, list[Content]]]


def save(folder: Path, hidden: int) -> None:
    """Save the random model as a published one lies on disk."""
    adapter = build(hidden, layers=8, vision_layers=5)
    adapter.model.save_pretrained(folder)
    adapter.tokenizer.save_pretrained(folder)
    adapter.image_processor.save_pretrained(folder)


def pairs(folder: Path, queries: int, candidates: int, pixels: int) -> Groups:
    """Return drawn queries with captions as candidates; the last query is for warming up."""
    rng = np.random.default_rng(0)
    groups = []
    for i in range(queries + 1):
        file = folder / f"{i}.png"
        drawn = rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(drawn).resize((pixels, pixels)).save(file)
        captions = [
            Content(texts.caption(rng, tuple(int(i) for i in rng.choice(160, size=3, replace=False))))
            for _ in range(candidates)
        ]
        groups.append((Content(texts.CAPTION_QUERY, file), captions))
    return groups


def measure(judge: PrefixJudge | VllmJudge, groups: Groups) -> tuple[float, np.ndarray]:
    """Return pairs per second, and the scores."""
    *counted, warming = groups
    list(judge.judge_all([warming]))
    start = time.perf_counter()
    found = list(judge.judge_all(counted))
    seconds = time.perf_counter() - start
    values = np.concatenate([score(f.yes, f.no) for f in found])
    return len(values) / seconds, values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=4)
    parser.add_argument("--candidates", type=int, default=25)
    parser.add_argument("--pixels", type=int, default=336)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--kv-cache-gb", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save(folder / "model", options.hidden)
        groups = pairs(folder, options.queries, options.candidates, options.pixels)
        spec = ModelSpec(str(folder / "model"))
        adapter = load_adapter(spec)
        result: dict[str, object] = {
            "device": str(adapter.device),
            "load_of_the_machine": os.getloadavg()[0],
            "parameters_millions": round(sum(p.numel() for p in adapter.model.parameters()) / 1e6, 1),
            "pairs": options.queries * options.candidates,
        }
        full, wanted = measure(PrefixJudge(adapter, batch_size=10, share_prefix=False), groups)
        judge = PrefixJudge(adapter, batch_size=64)
        shared, found = measure(judge, groups)
        engine = VllmJudge(
            spec, EngineOptions(kv_cache_gb=options.kv_cache_gb, enforce_eager=True), max_tokens=4096, check_pairs=0
        )
        vllm, by_vllm = measure(engine, groups)
        metrics = engine.metrics()
        engine.close()
        result |= {
            "full_prompts_pairs_per_second": round(full, 2),
            "shared_prefix_pairs_per_second": round(shared, 2),
            "vllm_pairs_per_second": round(vllm, 2),
            "shared_prefix_to_full_prompts": round(shared / full, 2),
            "vllm_to_full_prompts": round(vllm / full, 2),
            "prefix_reuse_share": round(judge.metrics()["prefix_reuse_share"], 3),
            "prefix_hit_rate": round(metrics["prefix_hit_rate"], 3),
            "largest_difference_of_scores": float(max(np.abs(found - wanted).max(), np.abs(by_vllm - wanted).max())),
            "spread_of_scores": float(np.ptp(wanted)),
        }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
