"""The reranker: which of several candidates meets the requirements of the query best?

*Listwise*: all candidates stand in one prompt, the model answers with a number. *Pairwise*: it judges each candidate on
its own, as the judge does.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from unime_kedro.errors import ConfigurationError, UnimeError
from unime_kedro.mllm.content import Content
from unime_kedro.mllm.decoding import (
    Answer,
    ConstrainedAnswer,
    FreeAnswer,
    Prefix,
    decode_greedily,
    end_tokens,
    run_prefix,
)
from unime_kedro.mllm.features import FeatureStore
from unime_kedro.mllm.judge import PrefixJudge
from unime_kedro.mllm.judgements import batches, failure_reason, free_memory, is_out_of_memory, yes_probability
from unime_kedro.mllm.listwise import ANSWER_TOKENS, Side, check_tokenization, listwise_piece, parse_answer
from unime_kedro.mllm.pieces import chat_ends, joined
from unime_kedro.mllm.prompts import LISTWISE_INSTRUCTION, judge_prompt, listwise_answer, listwise_prompt

if TYPE_CHECKING:
    from unime_kedro.mllm.adapters.base import BackboneAdapter, Piece

Decoding = Literal["constrained", "free"]
Prompt = tuple[Content, Sequence[Content]]

#: candidates per forward pass of the pairwise judge at first; it halves it by itself when memory runs out
_PAIRS = 64


class Choice(NamedTuple):
    """What the model answered.

    Attributes:
        number: The candidate's, from 1; None if the answer names none, or there is none.
        answer: In the model's words; ``Ans: (3)`` where it could only answer like that.
        probability: Of the answer's tokens, each among those that were allowed at its place.
        error: Why there is no answer, "" if there is one.
    """

    number: int | None
    answer: str
    probability: float
    error: str = ""


@dataclass
class RerankerCounts:
    """Listwise prompts, answers that name no candidate, prompts without an answer, contents cut, tokens, retries.

    ``prompt_tokens`` is what the prompts hold, ``run_tokens`` what was run, with padding.
    """

    prompts: int = 0
    unparsable: int = 0
    failed: int = 0
    truncated: int = 0
    prompt_tokens: int = 0
    run_tokens: int = 0
    retries: int = 0


class Reranker:
    """Chooses among the candidates of queries. Its model's weights must stay as they are.

    Args:
        adapter: The model.
        max_tokens: Longest prompt with its answer; contents that are too long lose words at their ends.
        batch_tokens: Padded tokens per forward pass; halved by itself, for good, when memory runs out. Does not change
            results beyond rounding.
        vision_cache_gb: Visual features kept in memory, in GiB.
        workers: Processes that prepare pictures ahead.

    Raises:
        ModelError: If the model's prompts cannot be tokenized in parts.
    """

    def __init__(
        self,
        adapter: BackboneAdapter,
        *,
        max_tokens: int,
        batch_tokens: int,
        vision_cache_gb: float = 2.0,
        workers: int = 0,
    ) -> None:
        self.adapter, self.max_tokens, self.batch_tokens = adapter, max_tokens, batch_tokens
        self.features = FeatureStore(adapter, vision_cache_gb, workers)
        self.counts = RerankerCounts()
        self._ends = end_tokens(adapter)
        self._sequences: list[list[int]] = []
        check_tokenization(adapter)

    def identity(self) -> dict[str, Any]:
        """Return everything that the answers depend on, besides the contents."""
        prompts = listwise_prompt("<query>", ["<candidate>"] * 2) + judge_prompt("<query>", "<candidate>")
        return {
            "model": self.adapter.fingerprint,
            "dtype": str(self.adapter.model.dtype),
            "prompts": hashlib.sha256(prompts.encode()).hexdigest()[:16],
            "chat": list(chat_ends(self.adapter)),
            "max_tokens": self.max_tokens,
            "image_size": json.dumps(self.adapter.image_size, default=str, sort_keys=True),
        }

    @property
    def truncated(self) -> int:
        """How many contents lost words so far, in listwise and pairwise prompts."""
        return self.counts.truncated + ("_judge" in self.__dict__ and self._judge.counts.truncated)

    def expect(self, contents: Sequence[Content]) -> None:
        """Announce contents in the order in which they will be needed, so that pictures are prepared ahead."""
        self.features.expect([c.image for c in contents if c.image is not None])

    def choose(self, prompts: Sequence[Prompt], decoding: Decoding = "constrained") -> list[Choice]:
        """Ask which candidate is the best, many queries at a time.

        Running out of memory is tried again with fewer prompts at a time; what fails alone is an error of its own
        prompt. One candidate is chosen without asking when decoding is constrained.

        Args:
            prompts: Queries with their candidates, at least one each. All their pictures' features are needed at once:
                some hundred prompts at a time spare the disk.
            decoding: ``constrained``: greedy, among the tokens that go on to one of the numbers, so that every answer
                names a candidate. ``free``: greedy, among all tokens; see :func:`.listwise.parse_answer`.

        Returns:
            Choices in the order of ``prompts``.
        """
        import torch

        if decoding not in ("constrained", "free"):
            raise ConfigurationError(f"decoding: '{decoding}' is not known; expected constrained or free.")
        choices: dict[int, Choice] = {}
        pieces: dict[int, Piece] = {}
        with torch.inference_mode():
            for row, prompt in enumerate(prompts):
                if decoding == "constrained" and len(prompt[1]) == 1:
                    choices[row] = Choice(1, listwise_answer(1), 1.0)
                    continue
                try:
                    pieces[row] = self._piece(prompt, decoding)
                except (UnimeError, RuntimeError) as error:  # one bad picture must not cost the others
                    choices[row] = Choice(None, "", math.nan, failure_reason(error))
            choices |= self._run(prompts, pieces, decoding)
        found = [choices[row] for row in range(len(prompts))]
        self.counts.prompts += len(found)
        self.counts.failed += sum(bool(choice.error) for choice in found)
        self.counts.unparsable += sum(choice.number is None and not choice.error for choice in found)
        return found

    def scores(self, query: Content, candidates: Sequence[Content]) -> np.ndarray:
        """Ask of every candidate whether it meets the requirements of the query.

        Args:
            query: The query.
            candidates: At least one.

        Returns:
            (n,) float64 in [0, 1]: the probability of Yes rather than No, not calibrated; NaN where that failed.

        Raises:
            ModelError: If Yes or No is not a single token of the model.
        """
        judged = self._judge.judge(query, candidates)
        return yes_probability(judged.yes, judged.no)

    @cached_property
    def _judge(self) -> PrefixJudge:
        return PrefixJudge(self.adapter, batch_size=_PAIRS, max_tokens=self.max_tokens, features=self.features)

    @cached_property
    def _prefix(self) -> Prefix:
        """The instruction, which all prompts begin with.

        Its last space belongs to the word behind it.
        """
        head, _ = chat_ends(self.adapter)
        return run_prefix(self.adapter, self.adapter.encode(head + LISTWISE_INSTRUCTION.rstrip(), None))

    def _answer(self, n: int, decoding: Decoding) -> Answer:
        if decoding == "free":
            return FreeAnswer(self._ends, ANSWER_TOKENS)
        for number in range(len(self._sequences) + 1, n + 1):
            self._sequences.append(self.adapter.encode(listwise_answer(number), None).ids.tolist())
        return ConstrainedAnswer(self._sequences[:n])

    def _piece(self, prompt: Prompt, decoding: Decoding) -> Piece:
        """Tokenize a prompt with what is set of its answer."""
        from unime_kedro.mllm.adapters.base import Piece

        query, candidates = prompt
        piece, cut = listwise_piece(
            self.adapter, self._side(query), [self._side(c) for c in candidates], max_tokens=self.max_tokens
        )
        self.counts.truncated += cut
        start = np.array(self._answer(len(candidates), decoding).tokens, dtype=np.int64)
        steps = np.tile(np.arange(len(start)), (piece.positions.shape[0], 1))
        return joined([piece, Piece(start, steps, len(start), 0)])

    def _side(self, content: Content) -> Side:
        """Return a content with its picture's size; the pixels are not needed, its features are there."""
        from unime_kedro.mllm.adapters.base import ProcessedImage

        if content.image is None:
            return Side(content.text, None)
        grid, n_tokens = self.features.grid(content.image)
        return Side(content.text, ProcessedImage(np.zeros((0, 0), dtype=np.uint8), grid, n_tokens))

    def _run(self, prompts: Sequence[Prompt], pieces: dict[int, Piece], decoding: Decoding) -> dict[int, Choice]:
        """Decode all answers, in smaller batches when memory runs out."""
        choices: dict[int, Choice] = {}
        # longest first: a batch that is too large for the memory is met at once
        order = sorted(pieces, key=lambda row: (-len(pieces[row].ids), row))
        while order:
            longest = len(pieces[order[0]].ids)
            rows = next(batches(order, pieces, max(1, self.batch_tokens // longest)))
            # new ones each time: memory may run out in the middle of them
            answers = [self._answer(len(prompts[row][1]), decoding) for row in rows]
            problem = self._decode(prompts, pieces, rows, answers)
            if problem and len(rows) > 1:
                # kept: the next batch would run out of memory just the same
                self.batch_tokens = longest * len(rows) // 2
                self.counts.retries += 1
                continue
            for row, answer in zip(rows, answers, strict=True):
                failure = Choice(None, "", math.nan, problem)
                choices[row] = failure if problem else self._choice(answer, len(prompts[row][1]))
            order = order[len(rows) :]
        return choices

    def _decode(
        self, prompts: Sequence[Prompt], pieces: dict[int, Piece], rows: list[int], answers: Sequence[Answer]
    ) -> str:
        """Finish the answers of one batch; returns "", or in words that memory ran out."""
        import torch

        shown = [side.image for row in rows for side in (prompts[row][0], *prompts[row][1])]
        chosen = [pieces[row] for row in rows]
        try:
            found = [self.features[file] for file in shown if file is not None]
            features = torch.cat(found) if found else None
            n_run = decode_greedily(self.adapter, chosen, features, answers, self._prefix)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            problem = f"out of memory: {str(error).splitlines()[0]}"
        else:
            self.counts.prompt_tokens += sum(len(piece.ids) for piece in chosen)
            self.counts.run_tokens += n_run
            return ""
        free_memory()
        return problem

    def _choice(self, answer: Answer, n: int) -> Choice:
        if answer.failed:
            return Choice(None, "", math.nan, "the model's logits are not finite")
        probability = math.exp(answer.log_probability)
        if isinstance(answer, ConstrainedAnswer):
            return Choice(answer.index + 1, listwise_answer(answer.index + 1), probability)
        text = self.adapter.tokenizer.decode(answer.tokens, skip_special_tokens=True)
        return Choice(parse_answer(text, n), text, probability)
