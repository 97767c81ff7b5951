"""Greedy decoding of short answers, of a whole batch at a time, among all tokens or among the allowed answers alone."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from unime_kedro.mllm.embedding import right_padded

if TYPE_CHECKING:
    import torch

    from unime_kedro.mllm.adapters.base import BackboneAdapter, Piece


class Answer(ABC):
    """An answer in the making.

    Attributes:
        tokens: Chosen so far.
        log_probability: Of the chosen tokens, each among those that were allowed at its place.
        failed: Whether the model's logits were not finite.
    """

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.log_probability = 0.0
        self.failed = False

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether nothing is left to choose."""

    @abstractmethod
    def allowed(self) -> list[int] | None:
        """Return the tokens that may follow; None for all."""

    def choose(self, logits: np.ndarray) -> None:
        """Take the likeliest token; of equal ones the first.

        Args:
            logits: (allowed,) float32; of the whole vocabulary where all are allowed.
        """
        if not np.isfinite(logits).all():
            self.failed = True
            return
        allowed, best = self.allowed(), int(np.argmax(logits))
        above = logits.astype(np.float64) - float(logits[best])
        self.log_probability -= math.log(np.exp(above).sum())
        self.tokens.append(best if allowed is None else allowed[best])


class FreeAnswer(Answer):
    """Any tokens, up to an end token.

    Args:
        ends: Tokens that end an answer.
        longest: Most tokens.
    """

    def __init__(self, ends: frozenset[int], longest: int) -> None:
        super().__init__()
        self._ends, self._longest = ends, longest

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        ended = bool(self.tokens) and self.tokens[-1] in self._ends
        return self.failed or ended or len(self.tokens) == self._longest

    def allowed(self) -> None:
        """All tokens may follow."""


class ConstrainedAnswer(Answer):
    """One of several answers, chosen token by token.

    What all of them begin with is set from the start. At each place the model chooses among the tokens that go on to
    an answer that is still possible; it never compares whole answers, so that a choice of ``1`` for ``(10)`` and
    ``(1)`` together is made before the choice between these two.

    Args:
        answers: Token sequences, at least one, none of which begins another.
    """

    def __init__(self, answers: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self._answers, self._possible = answers, list(range(len(answers)))
        while not self.done and len(follow := self.allowed()) == 1:
            self.tokens.append(follow[0])

    @property
    def index(self) -> int:
        """The answer, when it is the only one left."""
        (index,) = self._possible
        return index

    @property
    def done(self) -> bool:
        """Whether one answer is left."""
        return self.failed or len(self._possible) == 1

    def allowed(self) -> list[int]:
        """Return the tokens that go on to a possible answer, in the order of the answers."""
        return list(dict.fromkeys(self._answers[i][len(self.tokens)] for i in self._possible))

    def choose(self, logits: np.ndarray) -> None:
        """Take the likeliest of the allowed tokens; see :class:`Answer`."""
        super().choose(logits)
        if not self.failed:
            at, token = len(self.tokens) - 1, self.tokens[-1]
            self._possible = [i for i in self._possible if self._answers[i][at] == token]


class Prefix(NamedTuple):
    """Words that prompts begin with, run once.

    Attributes:
        ids: (length,) int64.
        cache: Their key-value cache, of one row.
    """

    ids: np.ndarray
    cache: Any


def run_prefix(adapter: BackboneAdapter, piece: Piece) -> Prefix:
    """Run the words that prompts begin with, without pictures."""
    import torch

    cache = adapter.new_cache()
    ids, positions = torch.from_numpy(piece.ids)[None], torch.from_numpy(piece.positions)[:, None]
    adapter.decode(adapter.embed_tokens(ids, None), positions, None, cache)
    return Prefix(piece.ids, cache)


def decode_greedily(
    adapter: BackboneAdapter,
    prompts: Sequence[Piece],
    features: torch.Tensor | None,
    answers: Sequence[Answer],
    prefix: Prefix | None = None,
) -> int:
    """Let the model finish every answer.

    Every token behind the first that is chosen costs one pass over one token per prompt, with a key-value cache.

    Args:
        adapter: The model.
        prompts: Their tokens. Of an answer, those tokens that are set from the start belong behind its prompt.
        features: (visual tokens, hidden) of all pictures in their order, None without pictures.
        answers: One per prompt, none of them done; finished in place.
        prefix: What prompts may begin with; used if all of them do.

    Returns:
        Tokens run, with padding.
    """
    import torch

    cache, skipped = adapter.new_cache(), 0
    if prefix is not None and all(np.array_equal(p.ids[: len(prefix.ids)], prefix.ids) for p in prompts):
        cache, skipped = adapter.expand_cache(prefix.cache, len(prompts)), len(prefix.ids)
    ids, positions, mask = right_padded(prompts, axes=prompts[0].positions.shape[0])
    inputs = adapter.embed_tokens(ids[:, skipped:], features)
    hidden = adapter.decode(inputs, positions[..., skipped:], None if bool(mask.all()) else mask, cache)
    last = hidden[torch.arange(len(prompts)), mask.sum(1).to(hidden.device) - 1 - skipped]
    _choose(adapter, last, answers)
    next_positions = torch.from_numpy(np.array([p.span for p in prompts])).expand(positions.shape[0], -1)[..., None]
    n_run = int(inputs.shape[0] * inputs.shape[1])
    while not all(answer.done for answer in answers):
        # those that are done go on with any token; nobody looks at what comes of it
        ids = torch.tensor([[answer.tokens[-1] if answer.tokens else 0] for answer in answers])
        mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
        real_mask = None if bool(mask.all()) else mask
        hidden = adapter.decode(adapter.embed_tokens(ids, None), next_positions, real_mask, cache)
        _choose(adapter, hidden[:, -1], answers)
        next_positions = next_positions + 1
        n_run += len(answers)
    return n_run


def _choose(adapter: BackboneAdapter, last: torch.Tensor, answers: Sequence[Answer]) -> None:
    """Choose the next token of every answer that is not done; ``last``: (n, hidden) states of the last layer."""
    import torch

    head = adapter.model.get_output_embeddings()
    going = [row for row, answer in enumerate(answers) if not answer.done]
    allowed = {row: answers[row].allowed() for row in going}
    listed = sorted({token for tokens in allowed.values() for token in tokens or ()})
    if listed:
        # in float32: in bfloat16 numbers would often be equally likely
        weights = head.weight[torch.tensor(listed, device=head.weight.device)].float()
        found = (last.float() @ weights.T).cpu().numpy()
        column = {token: at for at, token in enumerate(listed)}
    if any(tokens is None for tokens in allowed.values()):
        all_logits = head(last).float().cpu().numpy()
    for row, tokens in allowed.items():
        logits = all_logits[row] if tokens is None else found[row, [column[token] for token in tokens]]
        answers[row].choose(logits)


def end_tokens(adapter: BackboneAdapter) -> frozenset[int]:
    """Return the tokens that end an answer."""
    config = getattr(adapter.model, "generation_config", None)
    configured = getattr(config, "eos_token_id", None)
    found = configured if isinstance(configured, list) else [configured]
    return frozenset(int(token) for token in (*found, adapter.tokenizer.eos_token_id) if token is not None)
