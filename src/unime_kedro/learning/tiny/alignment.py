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
from unime_kedro.minimmeb.classes import object_classes
from unime_kedro.minimmeb.tasks import scene_picture

if TYPE_CHECKING:
    import torch
    from transformers import Qwen2VLForConditionalGeneration


def schedule(step: int, total: int, warm_up: int) -> float:
    """Return the share of the top learning rate: linear warm-up, then a cosine down to 5 %."""
    decay = 0.5 * (1 + np.cos(np.pi * min(1.0, step / total)))
    return float(min(1.0, step / max(warm_up, 1)) * (0.95 * decay + 0.05))


class Aligner:
    """Loss that ties visual tokens to word embeddings, and the direction that marks visual tokens."""

    def __init__(self, model: Qwen2VLForConditionalGeneration, encoder: Encoder) -> None:
        import torch

        self.model = model
        self.name_ids = torch.tensor([encoder.ids(f" {c.name}")[0] for c in object_classes()])
        self.blank_id = encoder.ids(",")[0]
        self.marker: torch.Tensor | None = None

    def visual_tokens(self, values: torch.Tensor, grids: torch.Tensor) -> torch.Tensor:
        """Return (visual tokens, hidden) of all pictures of a batch."""
        import torch

        out = self.model.model.visual(values, grid_thw=grids).pooler_output
        return torch.cat(list(out)) if isinstance(out, tuple | list) else out

    def loss(self, visual: torch.Tensor, labels: torch.Tensor, temperature: float = 0.05) -> torch.Tensor:
        """Cross entropy over the whole vocabulary by cosine, plus the squared distance to the right embedding.

        Args:
            visual: (n, hidden) visual tokens.
            labels: (n,) class of each token, -1 for an empty cell (tied to the comma).
            temperature: Of the cosine softmax.
        """
        import torch
        import torch.nn.functional as F

        if self.marker is not None:
            visual = visual - self.marker
        words: torch.Tensor = self.model.get_input_embeddings().weight  # type: ignore[assignment]
        target = torch.where(labels >= 0, self.name_ids[labels.clamp(min=0)], torch.tensor(self.blank_id))
        logits = F.normalize(visual, dim=-1) @ F.normalize(words, dim=-1).T / temperature
        goal = words[target].detach()
        distance = (visual - goal).pow(2).mean() / goal.pow(2).mean()
        return F.cross_entropy(logits, target) + distance


def align(
    model: Qwen2VLForConditionalGeneration,
    encoder: Encoder,
    aligner: Aligner,
    *,
    steps: int,
    seed: int,
    batch: int = 64,
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
        for _ in range(batch):
            objects = tuple(int(i) for i in rng.choice(len(object_classes()), size=rng.integers(1, 5), replace=False))
            patches, labels = encoder.bank.picture(scene_picture(rng, objects), rng, test=False)
            pixels.patches.append(patches)
            pixels.labels += labels
        grids = torch.tensor([[1, 4, 4]] * batch)
        visual = aligner.visual_tokens(pixel_values(pixels.patches), grids)
        loss = aligner.loss(visual, torch.tensor(pixels.labels))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        last = float(loss.detach())
    return last


def matching_heads(
    model: Qwen2VLForConditionalGeneration,
    aligner: Aligner,
    *,
    scale: float = 2.2,
    preference: float = 2.6,
    value_scale: float = 3.0,
    marker_size: float = 0.8,
) -> None:
    """Initialise the first layer's attention heads as content matchers, in place.

    A shared "I am a visual token" direction is added to the merger's output and taken out of queries and keys, so that
    matching is blind to modality; one reserved rotary pair per head then carries a preference for visual keys (even
    heads) or for words (odd heads). The constants were found on a smaller world and not tuned since.
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
        attention.v_proj.weight.mul_(value_scale)
        attention.o_proj.weight.mul_(value_scale)
