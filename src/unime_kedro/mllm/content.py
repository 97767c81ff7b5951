"""What models read: words, a picture, or both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Content:
    """One query or candidate.

    Attributes:
        text: Words, with ``<|image_1|>`` where the picture goes; may be empty when there is a picture.
        image: File of the picture, or None.
    """

    text: str
    image: Path | None = None


def contents_of(items: pl.DataFrame, image_root: Path) -> list[Content]:
    """Return the contents of an items table, in the order of item_id.

    Args:
        items: item_id, text, image (path under ``image_root``, "" if none); any row order.
        image_root: Folder that image paths are relative to.
    """
    items = items.sort("item_id")
    return [
        Content(text, image_root / image if image else None)
        for text, image in zip(items["text"].to_list(), items["image"].to_list(), strict=True)
    ]


@dataclass(frozen=True)
class ModelSpec:
    """Which model to load, and how.

    Attributes:
        model: Hub id, or a folder.
        revision: Hub revision (commit hash, branch or tag).
        device: ``auto``, ``cpu`` or ``cuda``; ``meta`` reads no weights (:mod:`unime_kedro.mllm.weightless`).
        dtype: ``auto`` (float32 on CPU, bfloat16 on GPU), ``float32``, ``bfloat16`` or ``float16``.
        min_pixels: Smallest picture area in pixels; None for the model's own.
        max_pixels: Largest picture area in pixels; None for the model's own.
        threads: CPU threads of torch; 0 takes one for models under 30 million parameters, all cores above.
    """

    model: str
    revision: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    min_pixels: int | None = None
    max_pixels: int | None = None
    threads: int = 0
