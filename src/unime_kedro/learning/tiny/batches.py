"""Training batches for the tiny models: pictures from a bank of drawings, packed token sequences.

A *packed row* is one query with several candidates in a single sequence: the query's tokens come first, every
candidate's tokens attend to the query and to themselves alone (a tree). One forward pass then judges all candidates
with the query computed once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from unime_kedro.learning.tiny.model import PATCH
from unime_kedro.minimmeb.classes import object_classes
from unime_kedro.minimmeb.drawing import TILE, draw
from unime_kedro.minimmeb.tasks import Picture, Query, Side
from unime_kedro.mllm.prompts import IMAGE_PLACEHOLDER, judge_candidate_part, judge_query_part

if TYPE_CHECKING:
    import torch
    from transformers import Qwen2Tokenizer

_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], dtype=np.float32)
_STD = np.array([0.26862954, 0.26130258, 0.27577711], dtype=np.float32)


def tile_patches(tile: np.ndarray) -> np.ndarray:
    """Cut one (56, 56, 3) uint8 tile into its 4 patches, (4, 3, 28, 28) uint8, in the image processor's order."""
    patches = tile.reshape(2, PATCH, 2, PATCH, 3).transpose(0, 2, 4, 1, 3)
    return np.ascontiguousarray(patches.reshape(4, 3, PATCH, PATCH))


class TileBank:
    """Drawings made once, as patches: the last ``held_out`` variants of every class are for testing."""

    def __init__(self, variants: int, held_out: int, seed: int) -> None:
        rng = np.random.default_rng([seed, 77])
        self.train_variants, self.variants = variants - held_out, variants
        self.patches = np.stack(
            [[tile_patches(draw(c, rng)) for _ in range(variants)] for c in object_classes()]
        )  # (classes, variants, 4, 3, 28, 28) uint8
        self.blank = tile_patches(np.full((TILE, TILE, 3), 255, dtype=np.uint8))

    def picture(self, picture: Picture, rng: np.random.Generator, test: bool) -> tuple[np.ndarray, list[int]]:
        """Return a picture's patches (4 or 16, 3, 28, 28) uint8 and the class of each cell (-1 where empty)."""
        low, high = (self.train_variants, self.variants) if test else (0, self.train_variants)
        tiles = [self.patches[i, rng.integers(low, high)] for i in picture.objects]
        if picture.crop:
            return tiles[0], [picture.objects[0]]
        cells, labels = [self.blank] * 4, [-1] * 4
        for tile, cell, index in zip(tiles, picture.cells, picture.objects, strict=True):
            cells[cell], labels[cell] = tile, index
        return np.concatenate(cells), labels


def pixel_values(patches: list[np.ndarray]) -> torch.Tensor:
    """Normalise patches as the image processor does: (n, 3, 28, 28) uint8 -> (n, 3 * 2 * 28 * 28) float32."""
    import torch

    x = torch.from_numpy(np.concatenate(patches)).float() / 255
    mean, std = (torch.from_numpy(v).view(1, 3, 1, 1) for v in (_MEAN, _STD))
    return ((x - mean) / std)[:, :, None].expand(-1, -1, 2, -1, -1).reshape(len(x), -1)


@dataclass
class Pixels:
    """Pictures of a batch: patches, grid sizes, and the object of every visual token (-1: none)."""

    patches: list[np.ndarray] = field(default_factory=list)
    grids: list[list[int]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)


class Encoder:
    """Turns contents into token ids, with one id per visual token, and M-RoPE positions."""

    def __init__(self, tokenizer: Qwen2Tokenizer, bank: TileBank) -> None:
        self.tokenizer, self.bank = tokenizer, bank
        self.image_id = int(tokenizer.convert_tokens_to_ids("<|image_pad|>"))
        self.pad_id = int(tokenizer.pad_token_id)
        self._cache: dict[str, list[int]] = {}

    def ids(self, text: str) -> list[int]:
        """Tokenize, with a cache."""
        if text not in self._cache:
            if len(self._cache) > 200_000:
                self._cache.clear()
            self._cache[text] = self.tokenizer(text)["input_ids"]
        return self._cache[text]

    def side(
        self, text: str, picture: Picture | None, pixels: Pixels, rng: np.random.Generator, test: bool, start: int = 0
    ) -> tuple[list[int], np.ndarray]:
        """Encode one piece of text with at most one picture.

        Args:
            text: Text with ``<|image_1|>`` where the picture goes.
            picture: What is drawn, or None.
            pixels: Receives the picture.
            rng: Chooses the variant of each drawing.
            test: Whether to draw held-out variants.
            start: First M-RoPE position.

        Returns:
            Token ids and positions (3, length).
        """
        if picture is None:
            ids = self.ids(text)
            return ids, np.tile(np.arange(start, start + len(ids)), (3, 1))
        patches, labels = self.bank.picture(picture, rng, test)
        pixels.patches.append(patches)
        side = 1 if picture.crop else 2
        pixels.grids.append([1, 2 * side, 2 * side])
        pixels.labels += labels
        block = "<|vision_start|>" + "<|image_pad|>" * (side * side) + "<|vision_end|>"
        ids = self.ids(text.replace(IMAGE_PLACEHOLDER, block))
        first = ids.index(self.image_id)
        cell = np.arange(side * side)
        image = np.stack([np.zeros_like(cell), cell // side, cell % side]) + start + first
        before = np.tile(np.arange(start, start + first), (3, 1))
        rest = len(ids) - first - side * side
        after = np.tile(np.arange(rest) + start + first + side, (3, 1))
        return ids, np.concatenate([before, image, after], axis=1)


@dataclass
class JudgeRow:
    """A query, candidates to judge, and how relevant each is."""

    query: Query
    candidates: list[Side]
    relevance: list[float]


@dataclass
class PackedBatch:
    """Packed rows as tensors; ``answers`` is (pairs, 2): row and position of each candidate's last token."""

    ids: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    answers: torch.Tensor
    relevance: torch.Tensor
    pixel_values: torch.Tensor
    grids: torch.Tensor
    labels: torch.Tensor


_HEAD = "<|im_start|>user\n"
_TAIL = "<|im_end|>\n<|im_start|>assistant\n"


def pack(encoder: Encoder, rows: list[JudgeRow], rng: np.random.Generator, test: bool = False) -> PackedBatch:
    """Pack judge rows into one batch of tree-shaped sequences under the full judge's prompt."""
    import torch

    pixels = Pixels()
    encoded: list[list[tuple[list[int], np.ndarray]]] = []
    for row in rows:
        query = row.query.side
        head = encoder.side(_HEAD + judge_query_part(query.text), query.picture, pixels, rng, test)
        start = int(head[1].max()) + 1
        tails = [
            encoder.side(judge_candidate_part(c.text) + _TAIL, c.picture, pixels, rng, test, start)
            for c in row.candidates
        ]
        encoded.append([head, *tails])
    length = max(sum(len(ids) for ids, _ in pieces) for pieces in encoded)
    ids = np.full((len(rows), length), encoder.pad_id)
    positions = np.zeros((3, len(rows), length), dtype=np.int64)
    mask = np.zeros((len(rows), 1, length, length), dtype=bool)
    mask[:, :, np.arange(length), np.arange(length)] = True
    answers = []
    for r, pieces in enumerate(encoded):
        at, prefix = 0, len(pieces[0][0])
        for k, (piece, where) in enumerate(pieces):
            n = len(piece)
            ids[r, at : at + n] = piece
            positions[:, r, at : at + n] = where
            mask[r, 0, at : at + n, at : at + n] = np.tri(n, dtype=bool)
            if k:
                mask[r, 0, at : at + n, :prefix] = True
                answers.append((r, at + n - 1))
            at += n
    return PackedBatch(
        ids=torch.from_numpy(ids),
        positions=torch.from_numpy(positions),
        mask=torch.from_numpy(mask),
        answers=torch.tensor(answers),
        relevance=torch.tensor([value for row in rows for value in row.relevance]),
        pixel_values=pixel_values(pixels.patches) if pixels.patches else torch.zeros(0, 6 * PATCH * PATCH),
        grids=torch.tensor(pixels.grids),
        labels=torch.tensor(pixels.labels),
    )
