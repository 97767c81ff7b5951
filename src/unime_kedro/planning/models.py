"""The models of a run, without their weights: what they cost, and how many tokens contents become."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from unime_kedro.errors import ModelError
from unime_kedro.mllm.content import Content, ModelSpec
from unime_kedro.mllm.cost import KNOWN, ModelCost, cost_of_shape
from unime_kedro.mllm.prompts import judge_candidate_part, judge_query_part, with_placeholder

if TYPE_CHECKING:
    from pathlib import Path

    from unime_kedro.mllm.adapters.base import BackboneAdapter, ProcessedImage

#: bytes of text per token where no tokenizer can be read: English with Qwen's has 4 to 5, short labels and numbers less
BYTES_PER_TOKEN = 3.5
#: side of a visual token's square in pixels: Qwen's 14-pixel patches, two by two
_CELL = 28


class Length(NamedTuple):
    """Tokens of a content.

    Attributes:
        words: Of its words and what stands around its picture.
        visual: Of its picture.
    """

    words: int
    visual: int

    @property
    def tokens(self) -> int:
        """All of them."""
        return self.words + self.visual


@dataclass
class PlannedModel:
    """A model that a run would load.

    Attributes:
        section: Of the parameters that name it.
        name: Hub id or folder.
        cost: Of its forward pass; None for a model of which nothing can be found out here.
        adapter: The model without weights; None where its configuration or tokenizer cannot be read here.
        notes: What a reader should know.
        max_tokens: Longest input.
        pixels: Least and most pixels of a picture, where the model's own are not used.
    """

    section: str
    name: str
    cost: ModelCost | None
    adapter: BackboneAdapter | None
    max_tokens: int
    pixels: tuple[int | None, int | None]
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._grid = lru_cache(maxsize=None)(self._process)
        self.unreadable = 0

    def length(self, content: Content, wrap: Callable[[str], str] = str) -> Length:
        """Count the tokens of a content, with the model's own tokenizer where there is one.

        A picture that cannot be opened counts nothing; ``unreadable`` counts it.

        Args:
            content: Words, a picture, or both.
            wrap: Puts its words into a prompt, whose tokens count, too.
        """
        size = None if content.image is None else _picture_size(content.image)
        self.unreadable += content.image is not None and size is None
        text = wrap(with_placeholder(content.text, size is not None))
        if self.adapter is None:
            return Length(_assumed_words(text), 0 if size is None else _cells(*size, self.pixels[1]))
        piece = self.adapter.encode(text, None if size is None else self._grid(size))
        words = min(len(piece.ids) - piece.n_image_tokens, max(self.max_tokens - piece.n_image_tokens, 0))
        return Length(words, piece.n_image_tokens)

    def judged_parts(self) -> tuple[Callable[[str], str], Callable[[str], str]]:
        """Return what puts the words of a query, and those of a candidate, into their parts of the judge's prompt."""
        head, tail = "", ""
        if self.adapter is not None:
            from unime_kedro.mllm.pieces import chat_ends

            head, tail = chat_ends(self.adapter)
        return lambda text: head + judge_query_part(text), lambda text: judge_candidate_part(text) + tail

    def _process(self, size: tuple[int, int]) -> ProcessedImage:
        """Let the model's image processor say how many visual tokens a picture of a size becomes."""
        from PIL import Image

        assert self.adapter is not None
        return self.adapter.process_image(Image.new("RGB", size))


def plan_model(section: str, parameters: Any) -> PlannedModel:
    """Read what can be read of a model here.

    Args:
        section: Of the parameters.
        parameters: Its values: model, revision, dtype, min_pixels, max_pixels, max_tokens.
    """
    pixels = parameters.min_pixels, parameters.max_pixels
    spec = ModelSpec(parameters.model, parameters.revision, "meta", parameters.dtype, *pixels)
    try:
        from unime_kedro.mllm.weightless import cost_of, load_without_weights

        adapter = load_without_weights(spec)
        return PlannedModel(section, spec.model, cost_of(adapter), adapter, parameters.max_tokens, pixels)
    except ModelError as error:
        known = KNOWN.get(spec.model)
        how = "its declared size is used" if known else "no size is declared for it: no hours are given"
        note = f"{section}.model {spec.model} cannot be read here ({_first_line(error)}); {how}"
        cost = cost_of_shape(known) if known else None
        return PlannedModel(section, spec.model, cost, None, parameters.max_tokens, pixels, [note])


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()[0]
    return text if len(text) <= 160 else text[:159] + "…"


def _assumed_words(text: str) -> int:
    return max(1, round(len(text.encode()) / BYTES_PER_TOKEN))


def _cells(width: int, height: int, most: int | None) -> int:
    """Return the visual tokens of a picture, by the rule of Qwen2-VL: whole cells, shrunk to the largest area."""
    area = width * height
    scale = 1.0 if most is None or area <= most else (most / area) ** 0.5
    return max(1, round(width * scale / _CELL)) * max(1, round(height * scale / _CELL))


def _picture_size(file: Path) -> tuple[int, int] | None:
    """Return width and height from a picture's header, None where there is none to read."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            return image.size
    except (OSError, UnidentifiedImageError, ValueError):
        return None
