"""Pictures and rows of published data, made here."""

from __future__ import annotations

import io

import numpy as np
import polars as pl
from PIL import Image


def picture(seed: int) -> bytes:
    """Return a small JPEG file."""
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, "JPEG")
    return out.getvalue()


def parquet(rows: list[dict[str, object]]) -> bytes:
    out = io.BytesIO()
    pl.DataFrame(rows).write_parquet(out)
    return out.getvalue()


def train_rows(name: str, n: int) -> list[dict[str, object]]:
    """Return rows of MMEB-train: a picture and its answer."""
    return [
        {
            "qry": f"<|image_1|>\nWhat is number {i}?\n",
            "qry_image_path": f"images/{name}/Train/{i}.jpg",
            "pos_text": f"answer {i}",
            "pos_image_path": "",
            "neg_text": "",
            "neg_image_path": "",
        }
        for i in range(n)
    ]
