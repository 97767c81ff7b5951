"""Train the tiny judge: Yes or No under the paper's full prompt, towards graded targets."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from unime_kedro.learning.tiny.alignment import Aligner, align, matching_heads, schedule
from unime_kedro.learning.tiny.batches import Encoder, JudgeRow, PackedBatch, pack
from unime_kedro.minimmeb import scenes
from unime_kedro.minimmeb.tasks import TASKS, Query, Side, Task, make_candidate, make_query, relevance, wrong_objects

if TYPE_CHECKING:
    import torch
    from transformers import Qwen2VLForConditionalGeneration

log = logging.getLogger(__name__)

# P(Yes) as a function of relevance. Steep only at the end: a near miss is a No with doubt, so that soft scores carry
# information, and a full match stands clear of everything else.
_RELEVANCE = np.array([0.0, 0.2, 1 / 3, 0.5, 2 / 3, 1.0])
_PROBABILITY = np.array([0.03, 0.08, 0.12, 0.25, 0.40, 0.97])

#: candidates per query in a packed row
BRANCHES = 8


def target_probability(values: torch.Tensor) -> torch.Tensor:
    """Return the P(Yes) that the judge is trained towards, for relevances in [0, 1]."""
    import torch

    return torch.from_numpy(np.interp(values.numpy(), _RELEVANCE, _PROBABILITY)).float()


def _candidate(task: Task, rng: np.random.Generator, query: Query, right: bool) -> Side:
    objects = query.want_objects if right else wrong_objects(task, rng, query)
    return make_candidate(task, rng, objects)


def judge_row(task: Task, rng: np.random.Generator, split: str, branches: int, foreign: float) -> JudgeRow:
    """Make a query with ``branches`` candidates, half of them right.

    Args:
        task: The data set.
        rng: Source of everything.
        split: Split of the object sets.
        branches: Candidates per query.
        foreign: Share of candidates made in the manner of another data set, as a global pool has them.
    """
    query = make_query(task, rng, scenes.random_set(rng, int(rng.integers(2, 4)), split))
    found = []
    for k in range(branches):
        kind = task
        if rng.random() < foreign:
            kind = list(TASKS.values())[rng.integers(len(TASKS))]
        if kind.target in ("label", "crop") and len(query.want_objects) > 1:
            found.append(make_candidate(kind, rng, (int(rng.choice(query.want_objects)),)))
        else:
            found.append(_candidate(kind, rng, query, right=k % 2 == 0))
    return JudgeRow(query, found, [relevance(query, c) for c in found])


def answer_logits(model: Qwen2VLForConditionalGeneration, aligner: Aligner, batch: PackedBatch) -> tuple:
    """Run packed rows; returns next-token logits (pairs, vocabulary) and the visual tokens."""
    import torch

    embedded = model.get_input_embeddings()(batch.ids)
    visual = torch.zeros(0, embedded.shape[-1])
    if len(batch.grids):
        visual = aligner.visual_tokens(batch.pixel_values, batch.grids)
        where = (batch.ids == model.config.image_token_id)[..., None].expand_as(embedded)
        embedded = embedded.masked_scatter(where, visual)
    hidden = model.model.language_model(
        inputs_embeds=embedded, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False
    ).last_hidden_state
    return model.lm_head(hidden[batch.answers[:, 0], batch.answers[:, 1]]), visual


def train_judge(
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
    """Train in three stages: alignment, matching heads, then one multi-task stream under the full prompt.

    Tasks are drawn by their current error; the loss is the cross entropy of the graded target on the answer token
    alone, with the alignment loss kept on.

    Args:
        model: Trained in place.
        encoder: Tokens and pictures.
        align_steps: Steps of alignment.
        steps: Steps of judging, each of ``batch`` queries with 8 candidates.
        batch: Queries per step.
        learning_rate: Top learning rate of the language model; the vision tower has a fifth of it.
        seed: Seed of data and order.
        report: Called every 50 steps with the loss and the accuracy per task.

    Returns:
        The aligner, for testing.
    """
    import torch

    aligner = Aligner(model, encoder)
    align(model, encoder, aligner, steps=align_steps, seed=seed)
    matching_heads(model, aligner)
    yes, no = (encoder.ids(word)[0] for word in ("Yes", "No"))
    named = list(model.named_parameters())
    groups = [
        {"params": [p for name, p in named if ("visual" in name) == visual], "factor": 0.2 if visual else 1.0}
        for visual in (True, False)
    ]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, weight_decay=0.01, betas=(0.9, 0.98))
    rng, names = np.random.default_rng([seed, 2]), list(TASKS)
    accuracy = dict.fromkeys(names, 0.5)
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = group["factor"] * learning_rate * schedule(step, steps, 50)
        weights = np.array([1.05 - accuracy[name] for name in names])
        chosen = rng.choice(len(names), size=batch, p=weights / weights.sum())
        rows = [judge_row(TASKS[names[i]], rng, "pretrain", BRANCHES, foreign=0.12) for i in chosen]
        packed = pack(encoder, rows, rng)
        logits, visual = answer_logits(model, aligner, packed)
        wanted, logs = target_probability(packed.relevance), logits.log_softmax(-1)
        loss = -(wanted * logs[:, yes] + (1 - wanted) * logs[:, no]).mean() + aligner.loss(visual, packed.labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        right = ((logits[:, yes] > logits[:, no]) == (packed.relevance > 0.99)).float().view(batch, BRANCHES).mean(1)
        for i, value in zip(chosen, right.tolist(), strict=True):
            accuracy[names[i]] += 0.05 * (value - accuracy[names[i]])
        if step % 50 == 0:
            report(step, {"loss": float(loss.detach()), **{f"accuracy/{k}": v for k, v in accuracy.items()}})
    return aligner


def judge_test_scores(
    model: Qwen2VLForConditionalGeneration, encoder: Encoder, task: Task, *, pairs: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Score held-out hard pairs: unseen object sets, unseen drawings, every negative hard.

    Returns:
        Yes-minus-No logits (pairs,) and whether each pair matches (pairs,) bool.
    """
    import torch

    rng, aligner = np.random.default_rng([seed, 3]), Aligner(model, encoder)
    yes, no = (encoder.ids(word)[0] for word in ("Yes", "No"))
    scores, labels = [], []
    with torch.inference_mode():
        for _ in range(0, pairs, 64):
            rows = [judge_row(task, rng, "judge_test", 4, foreign=0.0) for _ in range(16)]
            packed = pack(encoder, rows, rng, test=True)
            logits, _ = answer_logits(model, aligner, packed)
            scores.append((logits[:, yes] - logits[:, no]).numpy())
            labels.append((packed.relevance > 0.99).numpy())
    return np.concatenate(scores)[:pairs], np.concatenate(labels)[:pairs]
