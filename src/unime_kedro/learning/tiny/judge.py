"""Train the tiny judge: Yes or No under the paper's full prompt, towards graded targets."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from unime_kedro.learning.tiny.alignment import Aligner, align, matching_heads, real_pictures, schedule
from unime_kedro.learning.tiny.batches import Encoder, JudgeRow, PackedBatch, Part, pack
from unime_kedro.minimmeb.scenes import NOVEL
from unime_kedro.minimmeb.tasks import (
    TRAIN_TASKS,
    Query,
    Side,
    Task,
    draw_query,
    hard_objects,
    make_candidate,
    relevance,
    wrong_objects,
)

if TYPE_CHECKING:
    import torch
    from transformers import Qwen2VLForConditionalGeneration

log = logging.getLogger(__name__)

# P(Yes) as a function of relevance. Steep only at the end: a near miss is a No with doubt, so that soft scores carry
# information, and a full match stands clear of everything else.
_RELEVANCE = np.array([0.0, 0.2, 1 / 3, 0.5, 2 / 3, 1.0])
_PROBABILITY = np.array([0.03, 0.08, 0.12, 0.25, 0.40, 0.97])

#: Steps before real questions come in. From the start they take the place of the set tasks (captions, scenes, twins),
#: which then stay near chance three times as long.
_REAL_AFTER = 600

#: Real pictures per step that are only aligned with their words: otherwise what they show is forgotten meanwhile.
_KEPT_REAL = 24

#: candidates per query in a packed row
BRANCHES = 8


def target_probability(values: torch.Tensor) -> torch.Tensor:
    """Return the P(Yes) that the judge is trained towards, for relevances in [0, 1]."""
    import torch

    return torch.from_numpy(np.interp(values.numpy(), _RELEVANCE, _PROBABILITY)).float()


def _foreign(task: Task, rng: np.random.Generator, query: Query, right: bool) -> Side:
    """Make a candidate in the manner of another data set, as a global pool has them."""
    kind = list(TRAIN_TASKS.values())[rng.integers(len(TRAIN_TASKS))]
    if kind.target == "answer" or task.target == "answer":
        return make_candidate(kind, rng, draw_query(kind, rng, "pretrain").want_objects)
    objects = query.want_objects if right else wrong_objects(task, rng, query, "pretrain")
    if kind.target in ("label", "crop"):
        objects = (int(rng.choice(objects)),)
    return make_candidate(kind, rng, objects)


def judge_row(task: Task, rng: np.random.Generator, split: str, branches: int, foreign: float) -> JudgeRow:
    """Make a query with ``branches`` candidates, half of them right.

    Args:
        task: The data set.
        rng: Source of everything.
        split: Split of the object sets.
        branches: Candidates per query.
        foreign: Share of candidates made in the manner of another data set, as a global pool has them.
    """
    query = draw_query(task, rng, split)
    found = []
    for k in range(branches):
        right = k % 2 == 0
        if rng.random() < foreign:
            found.append(_foreign(task, rng, query, right))
        else:
            objects = query.want_objects if right else wrong_objects(task, rng, query, split)
            found.append(make_candidate(task, rng, objects))
    return JudgeRow(query, found, [relevance(query, c) for c in found])


def hard_row(task: Task, rng: np.random.Generator, split: str, branches: int) -> JudgeRow:
    """Make a query of a test: half of its candidates are right, the others have exactly one thing wrong."""
    query = draw_query(task, rng, split)
    objects = [query.want_objects if k % 2 == 0 else hard_objects(task, rng, query) for k in range(branches)]
    found = [make_candidate(task, rng, wanted) for wanted in objects]
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
        report: Called every 50 steps and after the last with the loss and the accuracy per task.

    Returns:
        The aligner, for testing.
    """
    import torch

    aligner = Aligner(model, encoder, seed)
    align(model, encoder, aligner, steps=align_steps, seed=seed)
    matching_heads(model, aligner)
    yes, no = (encoder.ids(word)[0] for word in ("Yes", "No"))
    named = list(model.named_parameters())
    groups = [
        {"params": [p for name, p in named if ("visual" in name) == visual], "factor": 0.2 if visual else 1.0}
        for visual in (True, False)
    ]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, weight_decay=0.01, betas=(0.9, 0.98))
    rng, names = np.random.default_rng([seed, 2]), list(TRAIN_TASKS)
    accuracy = dict.fromkeys(names, 0.5)
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = group["factor"] * learning_rate * schedule(step, steps, 50)
        weights = np.array([1.05 - accuracy[name] for name in names])
        weights[[TRAIN_TASKS[name].ask == "real" and step <= _REAL_AFTER for name in names]] = 0
        chosen = rng.choice(len(names), size=batch, p=weights / weights.sum())
        rows = [judge_row(TRAIN_TASKS[names[i]], rng, "pretrain", BRANCHES, foreign=0.12) for i in chosen]
        packed = pack(encoder, rows, rng)
        logits, visual = answer_logits(model, aligner, packed)
        wanted, logs = target_probability(packed.relevance), logits.log_softmax(-1)
        kept, labels = real_pictures(encoder, aligner, rng, _KEPT_REAL)
        loss = -(wanted * logs[:, yes] + (1 - wanted) * logs[:, no]).mean()
        loss = loss + aligner.loss(torch.cat([visual, kept]), packed.labels + labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        right = ((logits[:, yes] > logits[:, no]) == (packed.relevance > 0.99)).float().view(batch, BRANCHES).mean(1)
        for i, value in zip(chosen, right.tolist(), strict=True):
            accuracy[names[i]] += 0.05 * (value - accuracy[names[i]])
        if step % 50 == 0 or step == steps:
            report(step, {"loss": float(loss.detach()), **{f"accuracy/{k}": v for k, v in accuracy.items()}})
    return aligner


#: candidates per query in a test: the right one and a hard one. More would repeat the few different answers of a query.
TEST_BRANCHES = 2
#: queries judged together in a test
_TEST_ROWS = 32


def hard_pair_logits(
    model: Qwen2VLForConditionalGeneration, encoder: Encoder, task: Task, split: str, *, pairs: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Score held-out hard pairs: unseen object sets, unseen drawings, every negative with one thing wrong.

    Args:
        model: The judge.
        encoder: Tokens and pictures.
        task: The data set.
        split: ``calibration``, ``judge_test``, ``combinations`` or ``novel``.
        pairs: How many, half of them right; ``TEST_BRANCHES`` of each query.
        seed: Seed of the pairs.

    Returns:
        Yes-minus-No logits (pairs,) float32, whether each pair matches (pairs,) bool, and what pairs have in common
        that makes them dependent (pairs,) int64: the class asked for, the real picture, otherwise the query.
    """
    import torch

    rng = np.random.default_rng([seed, 3, zlib.crc32(f"{task.name}/{split}".encode())])
    aligner = Aligner(model, encoder)
    part: Part = "calibration" if split == "calibration" else "test"
    yes, no = (encoder.ids(word)[0] for word in ("Yes", "No"))
    scores, labels, groups = [], [], Grouping()
    with torch.inference_mode():
        for _ in range(0, pairs, _TEST_ROWS * TEST_BRANCHES):
            rows = [hard_row(task, rng, split, TEST_BRANCHES) for _ in range(_TEST_ROWS)]
            packed = pack(encoder, rows, rng, part)
            logits, _ = answer_logits(model, aligner, packed)
            scores.append((logits[:, yes] - logits[:, no]).numpy())
            labels.append((packed.relevance > 0.99).numpy())
            for row in rows:
                groups.add(task, split, row.query)
    return np.concatenate(scores)[:pairs], np.concatenate(labels)[:pairs], groups.ids(TEST_BRANCHES)[:pairs]


class Grouping:
    """Numbers queries so that dependent ones share a number."""

    def __init__(self) -> None:
        self._numbers: dict[object, int] = {}
        self._found: list[int] = []

    def add(self, task: Task, split: str, query: Query) -> None:
        """Number one query: by real picture, by class where there are few, otherwise by itself."""
        picture = query.side.picture
        key: object = len(self._found)
        if picture is not None and picture.source:
            key = picture.source
        elif task.ask == "object" or (split == NOVEL and task.target in ("label", "crop")):
            key = ("class", query.want_objects[0])
        self._found.append(self._numbers.setdefault(key, len(self._numbers)))

    def ids(self, candidates: int) -> np.ndarray:
        """Return every query's number, once per candidate, int64."""
        return np.repeat(np.array(self._found, dtype=np.int64), candidates)
