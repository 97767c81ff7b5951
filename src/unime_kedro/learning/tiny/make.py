"""Make one of the tiny models from nothing, save it like any other model, and test what was saved."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unime_kedro.learning.tiny.batches import Encoder, TileBank
from unime_kedro.learning.tiny.model import image_processor, new_model
from unime_kedro.learning.tiny.tokenizer import train_tokenizer

if TYPE_CHECKING:
    from transformers import Qwen2VLForConditionalGeneration

log = logging.getLogger(__name__)

_VARIANTS, _HELD_OUT = 40, 8

_CARD = """---
license: cc-by-sa-4.0
library_name: transformers
tags: [unime-kedro, tiny, synthetic]
---
# {title}

A real `Qwen2VLForConditionalGeneration`, shrunk to {millions:.2f} million parameters and trained from nothing on
synthetic scenes of [OpenMoji](https://openmoji.org) drawings (CC BY-SA 4.0) by `kedro run --pipeline=pretrain` of
unime-kedro. It exists so that the pipelines run anywhere; **its quality says nothing about the paper's models**.
The initialisation of its first attention layer (matching heads) and its synthetic supervision stand in for what a
pretrained multimodal LLM brings along.

- Data: {n_classes} object classes in 2 x 2 scenes of 1 to 4, templates for captions, labels and questions; object sets
  of the `pretrain` split only. Stored in float16, run in float32.
- Recipe: {recipe}
- Measured on held-out object sets and held-out drawings of the same classes:

| test | value |
|---|---|
{rows}

- Limits: it knows {n_classes} words and drawings, no positions, no synonyms, no photographs.
"""


def _save(model: Qwen2VLForConditionalGeneration, tokenizer: Any, folder: Path) -> None:
    """Save weights in half precision, whole or not at all."""
    import torch

    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.to(torch.float16).save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    image_processor().save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    partial.rename(folder)


def _prepare(hidden: int, layers: int, seed: int) -> tuple[Any, Encoder, Qwen2VLForConditionalGeneration]:
    import torch

    # More threads than one make a model of this size slower, and would make its weights depend on the machine's cores.
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    tokenizer = train_tokenizer()
    encoder = Encoder(tokenizer, TileBank(_VARIANTS, _HELD_OUT, seed))
    return tokenizer, encoder, new_model(tokenizer, hidden=hidden, layers=layers, seed=seed)


def _reload(folder: Path) -> Qwen2VLForConditionalGeneration:
    import torch
    from transformers import Qwen2VLForConditionalGeneration

    return Qwen2VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()


def _write_card(folder: Path, title: str, model: Any, recipe: str, metrics: dict[str, float]) -> None:
    from unime_kedro.minimmeb.classes import object_classes

    rows = "\n".join(f"| {key} | {value:.3f} |" for key, value in metrics.items())
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    card = _CARD.format(title=title, millions=millions, n_classes=len(object_classes()), recipe=recipe, rows=rows)
    (folder / "README.md").write_text(card, encoding="utf-8")


def _finish(metrics: dict[str, float], start: float, cpu: float) -> dict[str, float]:
    used = os.times()
    return {**metrics, "seconds": time.perf_counter() - start, "cpu_seconds": used.user + used.system - cpu}


def make_judge(
    folder: Path,
    *,
    seed: int,
    hidden: int,
    layers: int,
    align_steps: int,
    steps: int,
    batch: int,
    learning_rate: float,
    test_pairs: int,
    report: Callable[[int, dict[str, float]], None],
) -> dict[str, float]:
    """Train, save and test the tiny judge.

    Args:
        folder: Receives the model.
        seed: Seed of initialisation and data.
        hidden: Width.
        layers: Layers of the language model.
        align_steps: Steps of alignment.
        steps: Steps of judging.
        batch: Queries per step.
        learning_rate: Top learning rate.
        test_pairs: Held-out hard pairs per data set.
        report: Called every 50 steps with the step and its figures.

    Returns:
        ROC AUC and accuracy per data set, the mean AUC, share of scores in (.05, .95), seconds.
    """
    from unime_kedro.evaluation.ranking import roc_auc
    from unime_kedro.learning.tiny.judge import judge_test_scores, train_judge
    from unime_kedro.minimmeb.tasks import TASKS

    start, cpu = time.perf_counter(), sum(os.times()[:2])
    tokenizer, encoder, model = _prepare(hidden, layers, seed)
    train_judge(
        model,
        encoder,
        align_steps=align_steps,
        steps=steps,
        batch=batch,
        learning_rate=learning_rate,
        seed=seed,
        report=report,
    )
    _save(model, tokenizer, folder)
    saved, metrics, everything = _reload(folder), {}, []
    for name, task in TASKS.items():
        logits, labels = judge_test_scores(saved, encoder, task, pairs=test_pairs, seed=seed)
        metrics[f"auc/{name}"] = roc_auc(logits, labels)
        metrics[f"accuracy/{name}"] = float(((logits > 0) == labels).mean())
        everything.append(1 / (1 + np.exp(-logits)))
    metrics["auc/mean"] = float(np.mean([metrics[f"auc/{name}"] for name in TASKS]))
    scores = np.concatenate(everything)
    metrics["score_share_between_05_95"] = float(((scores > 0.05) & (scores < 0.95)).mean())
    recipe = f"{align_steps} steps of alignment, {steps} steps of {batch} queries x 8 candidates, graded targets."
    _write_card(folder, "unime-kedro tiny judge", saved, recipe, metrics)
    return _finish(metrics, start, cpu)


def make_embedder(
    folder: Path,
    *,
    seed: int,
    hidden: int,
    layers: int,
    align_steps: int,
    steps: int,
    batch: int,
    learning_rate: float,
    report: Callable[[int, dict[str, float]], None],
) -> dict[str, float]:
    """Train, save and test the tiny pool embedder; arguments as in :func:`make_judge`.

    Returns:
        Precision@1 among 1,000 held-out targets of all data sets, seconds.
    """
    from unime_kedro.learning.tiny.embedder import embedder_test_precision, train_embedder

    start, cpu = time.perf_counter(), sum(os.times()[:2])
    tokenizer, encoder, model = _prepare(hidden, layers, seed)
    train_embedder(
        model,
        encoder,
        align_steps=align_steps,
        steps=steps,
        batch=batch,
        learning_rate=learning_rate,
        seed=seed,
        report=report,
    )
    _save(model, tokenizer, folder)
    saved = _reload(folder)
    metrics = {"precision_at_1_of_1000": embedder_test_precision(saved, encoder, queries=1000, seed=seed)}
    recipe = (
        f"{align_steps} steps of alignment, {steps} contrastive steps of {batch} pairs (InfoNCE). Middling on purpose."
    )
    _write_card(folder, "unime-kedro tiny pool embedder", saved, recipe, metrics)
    return _finish(metrics, start, cpu)
