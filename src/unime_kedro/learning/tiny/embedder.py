"""Train the tiny pool embedder: contrastive, in-batch negatives, middling on purpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from unime_kedro.learning.tiny.alignment import Aligner, align, matching_heads, schedule
from unime_kedro.learning.tiny.batches import Encoder, Part, Pixels, pixel_values
from unime_kedro.minimmeb.tasks import TRAIN_TASKS, Side, draw_query, make_candidate

if TYPE_CHECKING:
    import torch
    from transformers import Qwen2VLForConditionalGeneration

#: VLM2Vec's temperature of the in-batch softmax is 0.02; a model from nothing learns faster with a milder one
TEMPERATURE = 0.05


def embed_sides(
    model: Qwen2VLForConditionalGeneration,
    encoder: Encoder,
    aligner: Aligner,
    sides: list[Side],
    rng: np.random.Generator,
    part: Part = "train",
) -> tuple[torch.Tensor, torch.Tensor, list[tuple[int, ...]]]:
    """Embed contents as the pool does: the plain words, last token, unit length.

    Returns:
        Vectors (n, hidden), visual tokens and their labels (for the alignment loss).
    """
    import torch
    import torch.nn.functional as F

    pixels = Pixels()
    encoded = [encoder.side(s.text, s.picture, pixels, rng, part) for s in sides]
    length = max(len(ids) for ids, _ in encoded)
    ids = torch.full((len(sides), length), encoder.pad_id)
    positions = torch.zeros(3, len(sides), length, dtype=torch.long)
    mask = torch.zeros(len(sides), length, dtype=torch.long)
    for row, (tokens, where) in enumerate(encoded):
        n = len(tokens)
        ids[row, :n], positions[:, row, :n], mask[row, :n] = torch.tensor(tokens), torch.from_numpy(where), 1
    inputs = model.get_input_embeddings()(ids)
    visual = torch.zeros(0, inputs.shape[-1])
    if pixels.grids:
        visual = aligner.visual_tokens(pixel_values(pixels.patches), torch.tensor(pixels.grids))
        inputs = inputs.masked_scatter((ids == encoder.image_id)[..., None].expand_as(inputs), visual)
    hidden = model.model.language_model(
        inputs_embeds=inputs, attention_mask=mask, position_ids=positions, use_cache=False
    ).last_hidden_state
    vectors = F.normalize(hidden[torch.arange(len(sides)), mask.sum(1) - 1].float(), dim=-1)
    return vectors, visual, pixels.labels


def _pairs(rng: np.random.Generator, n: int, split: str) -> tuple[list[Side], list[Side]]:
    tasks = list(TRAIN_TASKS.values())
    queries, targets = [], []
    for i in range(n):
        task = tasks[i % len(tasks)]
        query = draw_query(task, rng, split)
        queries.append(query.side)
        targets.append(make_candidate(task, rng, query.want_objects))
    return queries, targets


def train_embedder(
    model: Qwen2VLForConditionalGeneration,
    encoder: Encoder,
    *,
    align_steps: int,
    steps: int,
    batch: int,
    learning_rate: float,
    seed: int,
    report: Callable[[int, dict[str, float]], None] = lambda step, values: None,
) -> Aligner:
    """Align pictures and words, then train with InfoNCE over the batch on all tasks at once.

    Args:
        model: Trained in place.
        encoder: Tokens and pictures.
        align_steps: Steps of alignment.
        steps: Contrastive steps of ``batch`` pairs.
        batch: Pairs per step.
        learning_rate: Top learning rate.
        seed: Seed of data and order.
        report: Called every 50 steps and after the last with loss and in-batch accuracy.

    Returns:
        The aligner, for testing.
    """
    import torch
    import torch.nn.functional as F

    aligner = Aligner(model, encoder, seed)
    align(model, encoder, aligner, steps=align_steps, seed=seed)
    matching_heads(model, aligner)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01, betas=(0.9, 0.98))
    rng = np.random.default_rng([seed, 4])
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * schedule(step, steps, 30)
        queries, targets = _pairs(rng, batch, "pretrain")
        vectors, visual, labels = embed_sides(model, encoder, aligner, queries + targets, rng)
        similarity = vectors[:batch] @ vectors[batch:].T / TEMPERATURE
        truth = torch.arange(batch)
        loss = F.cross_entropy(similarity, truth) + 0.3 * aligner.loss(visual, labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0 or step == steps:
            accuracy = float((similarity.argmax(1) == truth).float().mean())
            report(step, {"loss": float(loss.detach()), "in_batch_accuracy": accuracy})
    return aligner


def mixed_precision(
    model: Qwen2VLForConditionalGeneration, encoder: Encoder, *, queries: int, split: str, seed: int
) -> float:
    """Return Precision@1 of held-out queries among all targets of all data sets (chance: one in ``queries``).

    Many targets say the same in other words, so that 1 cannot be reached; for choices made while building.

    Args:
        model: The embedder.
        encoder: Tokens and pictures.
        queries: How many pairs.
        split: ``calibration`` or ``judge_test``.
        seed: Seed of the pairs.
    """
    import torch

    rng, aligner = np.random.default_rng([seed, 5]), Aligner(model, encoder)
    part: Part = "calibration" if split == "calibration" else "test"
    with torch.inference_mode():
        vectors = [
            torch.cat(
                [embed_sides(model, encoder, aligner, sides[i : i + 128], rng, part)[0] for i in range(0, queries, 128)]
            )
            for sides in _pairs(rng, queries, split)
        ]
    return float(((vectors[0] @ vectors[1].T).argmax(1) == torch.arange(queries)).float().mean())
