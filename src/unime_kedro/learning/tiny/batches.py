"""Training batches for the tiny models: pictures from a bank of drawings, packed token sequences.

A *packed row* is one query with several candidates in a single sequence: the query's tokens come first, every
candidate's tokens attend to the query and to themselves alone (a tree). One forward pass then judges all candidates
with the query computed once.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from unime_kedro.learning.tiny.model import PATCH
from unime_kedro.minimmeb import easyvqa
from unime_kedro.minimmeb.classes import all_classes
from unime_kedro.minimmeb.drawing import TILE, Style, draw
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


def moved(tile: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirror half of the time and move by up to 20 pixels, over its background: the shape in it stays what it is.

    Args:
        tile: (56, 56, 3) uint8 with a plain background.
        rng: Source of both.
    """
    tile = tile[:, ::-1] if rng.integers(2) else tile
    down, right = (int(d) for d in rng.integers(-20, 21, size=2))
    found = np.empty_like(tile)
    found[:] = np.median(tile.reshape(-1, 3), axis=0)
    to, back = ((max(0, down), max(0, right)), (max(0, -down), max(0, -right)))
    height, width = TILE - abs(down), TILE - abs(right)
    found[to[0] : to[0] + height, to[1] : to[1] + width] = tile[back[0] : back[0] + height, back[1] : back[1] + width]
    return found


Part = Literal["train", "calibration", "test"]

#: drawings of every class: which variants belong to which part
_VARIANTS: dict[Part, range] = {"train": range(32), "calibration": range(32, 38), "test": range(38, 44)}


class TileBank:
    """Drawings made once, as patches; every part of ``_VARIANTS`` has drawings of its own.

    Args:
        seed: Seed of the drawings.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.blank = tile_patches(np.full((TILE, TILE, 3), 255, dtype=np.uint8))
        self._drawn: dict[tuple[str, int, Part], np.ndarray] = {}
        self._photos: dict[str, np.ndarray] = {}

    def drawings(self, index: int, style: Style, part: Part) -> np.ndarray:
        """Return all drawings of a class in a part, (variants, 4, 3, 28, 28) uint8; they depend on the seed alone."""
        key = (style, index, part)
        if key not in self._drawn:
            rng = np.random.default_rng([self.seed, 77, index, zlib.crc32(f"{style}/{part}".encode())])
            found = [tile_patches(draw(all_classes()[index], rng, style)) for _ in _VARIANTS[part]]
            self._drawn[key] = np.stack(found)
        return self._drawn[key]

    def photo(self, source: str) -> np.ndarray:
        """Return one of easy-VQA's pictures at the size that the image processor gives it, (56, 56, 3) uint8."""
        if source not in self._photos:
            import io

            from PIL import Image

            image = Image.open(io.BytesIO(easyvqa.picture_bytes(source))).convert("RGB")
            self._photos[source] = np.asarray(image.resize((TILE, TILE), Image.Resampling.BICUBIC))
        return self._photos[source]

    def picture(
        self, picture: Picture, rng: np.random.Generator, part: Part
    ) -> tuple[np.ndarray, list[tuple[int, ...]]]:
        """Return a picture's patches (4 or 16, 3, 28, 28) uint8 and the truth ids of what each cell shows."""
        if picture.source:
            tile = self.photo(picture.source)
            # 1,400 pictures are few to learn shapes from: without this they are learned by heart
            tile = moved(tile, rng) if part == "train" else tile
            return tile_patches(tile), [easyvqa.looks(picture.source)]
        banks = [self.drawings(i, picture.style, part) for i in picture.objects]
        tiles = [bank[rng.integers(len(bank))] for bank in banks]
        if picture.crop:
            return tiles[0], [picture.objects[:1]]
        cells = [self.blank] * 4
        labels: list[tuple[int, ...]] = [()] * 4
        for tile, cell, index in zip(tiles, picture.cells, picture.objects, strict=True):
            cells[cell], labels[cell] = tile, (index,)
        return np.concatenate(cells), labels


def pixel_values(patches: list[np.ndarray]) -> torch.Tensor:
    """Normalise patches as the image processor does: (n, 3, 28, 28) uint8 -> (n, 3 * 2 * 28 * 28) float32."""
    import torch

    x = torch.from_numpy(np.concatenate(patches)).float() / 255
    mean, std = (torch.from_numpy(v).view(1, 3, 1, 1) for v in (_MEAN, _STD))
    return ((x - mean) / std)[:, :, None].expand(-1, -1, 2, -1, -1).reshape(len(x), -1)


@dataclass
class Pixels:
    """Pictures of a batch: patches, grid sizes, and the truth ids of what every visual token shows."""

    patches: list[np.ndarray] = field(default_factory=list)
    grids: list[list[int]] = field(default_factory=list)
    labels: list[tuple[int, ...]] = field(default_factory=list)


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
        self, text: str, picture: Picture | None, pixels: Pixels, rng: np.random.Generator, part: Part, start: int = 0
    ) -> tuple[list[int], np.ndarray]:
        """Encode one piece of text with at most one picture.

        Args:
            text: Text with ``<|image_1|>`` where the picture goes.
            picture: What is drawn, or None.
            pixels: Receives the picture.
            rng: Chooses the variant of each drawing.
            part: Which drawings.
            start: First M-RoPE position.

        Returns:
            Token ids and positions (3, length).
        """
        if picture is None:
            ids = self.ids(text)
            return ids, np.tile(np.arange(start, start + len(ids)), (3, 1))
        patches, labels = self.bank.picture(picture, rng, part)
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
    labels: list[tuple[int, ...]]


_HEAD = "<|im_start|>user\n"
_TAIL = "<|im_end|>\n<|im_start|>assistant\n"


def pack(encoder: Encoder, rows: list[JudgeRow], rng: np.random.Generator, part: Part = "train") -> PackedBatch:
    """Pack judge rows into one batch of tree-shaped sequences under the full judge's prompt."""
    import torch

    pixels = Pixels()
    encoded: list[list[tuple[list[int], np.ndarray]]] = []
    for row in rows:
        query = row.query.side
        head = encoder.side(_HEAD + judge_query_part(query.text), query.picture, pixels, rng, part)
        start = int(head[1].max()) + 1
        tails = [
            encoder.side(judge_candidate_part(c.text) + _TAIL, c.picture, pixels, rng, part, start)
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
        labels=pixels.labels,
    )
