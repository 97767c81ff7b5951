"""What a tiny model needs before it can match pictures to words.

1. *Alignment*: every visual token learns to lie near the word embedding of the object it shows.
2. *Matching heads*: the first layer's heads start as content matchers (query and key projections equal, on the slowly
   turning rotary pairs only), some preferring visual keys, some words. Trained from a plain initialisation, a judge of
   this size stays at chance.

Both stand in for what a pretrained multimodal LLM brings along.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from unime_kedro.learning.tiny.batches import Encoder, Pixels, pixel_values
from unime_kedro.minimmeb import easyvqa
from unime_kedro.minimmeb.classes import object_classes
from unime_kedro.minimmeb.easyvqa import draw_question
from unime_kedro.minimmeb.scenes import random_set
from unime_kedro.minimmeb.tasks import Picture, real_query, scene_picture
from unime_kedro.minimmeb.texts import IMAGE

if TYPE_CHECKING:
    import torch
    from transformers import Qwen2VLForConditionalGeneration


#: rotary pairs (of the width axis) that turn by .24 to .04 rad per position: they tell near from far
_NEAR = range(5, 12)


#: Weight of real pictures once something else is learned. Their loss stays ten times that of the drawings (shapes are
#: hard at 28 pixels a patch); at full weight it fills the clipped gradient, and nothing else is learned in time.
_REAL_WEIGHT = 0.1


def schedule(step: int, total: int, warm_up: int) -> float:
    """Return the share of the top learning rate: linear warm-up, then a cosine down to 5 %."""
    decay = 0.5 * (1 + np.cos(np.pi * min(1.0, step / total)))
    return float(min(1.0, step / max(warm_up, 1)) * (0.95 * decay + 0.05))


class Aligner:
    """Loss that ties visual tokens to word embeddings, and the direction that marks visual tokens.

    A visual token may have several right words: an object's name and its synonyms, or a shape and its colour.
    """

    def __init__(self, model: Qwen2VLForConditionalGeneration, encoder: Encoder, seed: int = 0) -> None:
        import torch

        self.model = model
        self.words = {c.index: [encoder.ids(f" {word}")[0] for word in c.words] for c in object_classes()}
        self.words |= {i: [encoder.ids(f" {easyvqa.answer_word(i)}")[0]] for i in easyvqa.answer_ids(extra=False)}
        self.name_ids = torch.tensor([self.words[c.index][0] for c in object_classes()])
        self.blank_id = encoder.ids(",")[0]
        self.marker: torch.Tensor | None = None
        self._rng = np.random.default_rng([seed, 6])

    def _targets(self, labels: list[tuple[int, ...]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw one right word of every visual token.

        Returns:
            The words (n,), and (n_others, 2): visual token and another right word of it, which is no mistake.
        """
        import torch

        chosen, others = [], []
        for row, ids in enumerate(labels):
            words = [word for i in ids for word in self.words[i]] or [self.blank_id]
            chosen.append(words[int(self._rng.integers(len(words)))])
            others += [(row, word) for word in words if word != chosen[-1]]
        return torch.tensor(chosen), torch.tensor(others, dtype=torch.long).reshape(-1, 2)

    def visual_tokens(self, values: torch.Tensor, grids: torch.Tensor) -> torch.Tensor:
        """Return (visual tokens, hidden) of all pictures of a batch."""
        import torch

        out = self.model.model.visual(values, grid_thw=grids).pooler_output
        return torch.cat(list(out)) if isinstance(out, tuple | list) else out

    def loss(
        self,
        visual: torch.Tensor,
        labels: list[tuple[int, ...]],
        temperature: float = 0.05,
        real_weight: float = _REAL_WEIGHT,
    ) -> torch.Tensor:
        """Cross entropy over the whole vocabulary by cosine, plus the squared distance to the right embedding.

        Args:
            visual: (n, hidden) visual tokens.
            labels: Truth ids of what each token shows, empty for an empty cell (tied to the comma).
            temperature: Of the cosine softmax.
            real_weight: Weight of the real pictures' mean loss beside that of the drawings.
        """
        import torch
        import torch.nn.functional as F

        if self.marker is not None:
            visual = visual - self.marker
        words: torch.Tensor = self.model.get_input_embeddings().weight  # type: ignore[assignment]
        target, others = self._targets(labels)
        logits = F.normalize(visual, dim=-1) @ F.normalize(words, dim=-1).T / temperature
        logits = logits.index_put((others[:, 0], others[:, 1]), logits.new_tensor(-1e4))
        goal = words[target].detach()
        distance = (visual - goal).pow(2).mean(dim=1) / goal.pow(2).mean()
        each = F.cross_entropy(logits, target, reduction="none") + distance
        # each kind has a mean of its own: real pictures are one token, scenes four, and would drown them
        real = torch.tensor([bool(ids) and ids[0] >= easyvqa.FIRST_ID for ids in labels])
        kinds = [w * each[kind].mean() for w, kind in ((real_weight, real), (1.0, ~real)) if bool(kind.any())]
        return torch.stack(kinds).sum()


def align(
    model: Qwen2VLForConditionalGeneration,
    encoder: Encoder,
    aligner: Aligner,
    *,
    steps: int,
    seed: int,
    batch: int = 144,
) -> float:
    """Train vision tower and word embeddings to agree; returns the last loss."""
    import torch

    rng = np.random.default_rng([seed, 1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01, betas=(0.9, 0.98))
    last = float("nan")
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * schedule(step, steps, 20)
        pixels = Pixels()
        for k in range(batch):
            # two thirds are real pictures of a coloured shape (one token each), the others scenes (four)
            picture = _scene(rng) if k % 3 == 2 else real_query(draw_question(rng, "pretrain")).side.picture
            encoder.side(IMAGE, picture, pixels, rng, "train")
        visual = aligner.visual_tokens(pixel_values(pixels.patches), torch.tensor(pixels.grids))
        loss = aligner.loss(visual, pixels.labels, real_weight=1.0)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        last = float(loss.detach())
    return last


def real_pictures(
    encoder: Encoder, aligner: Aligner, rng: np.random.Generator, n: int
) -> tuple[torch.Tensor, list[tuple[int, ...]]]:
    """Return the visual tokens (n, hidden) of ``n`` of easy-VQA's pictures and the truth ids of what they show."""
    import torch

    pixels = Pixels()
    for _ in range(n):
        encoder.side(IMAGE, real_query(draw_question(rng, "pretrain")).side.picture, pixels, rng, "train")
    return aligner.visual_tokens(pixel_values(pixels.patches), torch.tensor(pixels.grids)), pixels.labels


def _scene(rng: np.random.Generator) -> Picture:
    """Draw a scene of one to four objects, a set of split ``pretrain``."""
    return scene_picture(rng, random_set(rng, int(rng.integers(1, 5)), "pretrain"))


def matching_heads(
    model: Qwen2VLForConditionalGeneration,
    aligner: Aligner,
    *,
    scale: float = 2.2,
    preference: float = 2.6,
    value_scale: float = 3.0,
    marker_size: float = 0.8,
    aversion: float = 2.4,
) -> None:
    """Initialise the first layer's attention heads as content matchers, in place.

    A shared "I am a visual token" direction is added to the merger's output and taken out of queries and keys, so that
    matching is blind to modality; one reserved rotary pair per head then carries a preference for visual keys (even
    heads) or for words (odd heads). Some faster pairs carry an aversion to what stands close by: without it every token
    finds its best match in itself, and pictures are never compared with pictures. The other constants were found on a
    smaller world and not tuned since.
    """
    import torch

    attention = model.model.language_model.layers[0].self_attn
    hidden, head = model.config.get_text_config().hidden_size, attention.head_dim
    half = head // 2
    with torch.no_grad():
        direction = torch.randn(hidden, generator=torch.Generator().manual_seed(5))
        direction = direction / direction.norm()
        size = model.get_input_embeddings().weight[aligner.name_ids].norm(dim=1).mean()
        aligner.marker = direction * size * marker_size
        model.model.visual.merger.mlp[2].bias.add_(aligner.marker)
        slow = torch.zeros(head, 1)
        slow[half // 2 : half] = 1
        slow[half + half // 2 :] = 1
        for h in range(attention.config.num_key_value_heads):
            basis = torch.linalg.qr(torch.randn(hidden, hidden))[0][:head] * scale * slow
            basis = basis - (basis @ direction)[:, None] * direction[None]
            basis[[half - 1, head - 1]] = 0
            key = basis.clone()
            key[half - 1] = (1 if h % 2 == 0 else -1) * preference * direction
            rows = slice(h * head, (h + 1) * head)
            attention.k_proj.weight[rows], attention.k_proj.bias[rows] = key, 0
            attention.q_proj.weight[rows], attention.q_proj.bias[rows] = basis, 0
            attention.q_proj.bias[h * head + half - 1] = preference
            # a pair (q, k) = (a, -a) adds -a^2 cos(frequency x distance): most at distance 0, nothing far away
            near = slice(h * head + _NEAR.start, h * head + _NEAR.stop)
            attention.q_proj.bias[near], attention.k_proj.bias[near] = aversion, -aversion
        attention.v_proj.weight.mul_(value_scale)
        attention.o_proj.weight.mul_(value_scale)
