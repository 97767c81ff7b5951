"""A small corpus in the layout of MMEB-train and MMEB-eval, and the options that let conf/paper run on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

#: data set -> whether the positives have pictures; all queries have
SETS = {"ImageNet_1K": False, "MSCOCO_i2t": False, "NIGHTS": True}
ROWS = 12

#: stand-ins for the paper's models: the embedded ones, on a CPU
PARAMS = {
    "pool": {"model": "models/tiny-embedder", "dtype": "float32", "device": "cpu", "image_workers": 0, "k": 6},
    "judge": {"model": "models/tiny-judge", "dtype": "float32", "device": "cpu", "image_workers": 0},
    "train": {"model": "models/tiny-embedder"},
    "rerank": {"model": "models/tiny-judge"},
    "evaluate": {"models": {"start": {"model": "models/tiny-embedder"}}},
}


def dotted(values: dict, prefix: str = "") -> list[str]:
    """Nested values as --params takes them."""
    found = []
    for key, value in values.items():
        found += dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}={value}"]
    return found


def write_tree(data_root: Path) -> Path:
    """Write pairs, evaluation rows and pictures below ``01_raw``; returns that folder."""
    random, raw = np.random.default_rng(0), data_root / "01_raw"
    for place, (name, pictured) in enumerate(SETS.items()):
        images = raw / "MMEB-train" / "images" / name
        images.mkdir(parents=True)
        rows = []
        for row in range(ROWS):
            for side in ("q", "p"):
                size = (56 + 28 * ((row + place) % 3), 56)
                pixels = random.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
                Image.fromarray(pixels).save(images / f"{side}{row}.png")
            path = f"images/{name}/{{}}{row}.png"
            rows.append(
                {
                    "qry": f"<|image_1|>\nWhat is in picture {row} of {'many ' * (row % 4)}drawings?",
                    "qry_image_path": path.format("q"),
                    # labels are shared by rows, captions are not
                    "pos_text": "<|image_1|>\nAnother one." if pictured else f"label {row % 4 if place == 0 else row}",
                    "pos_image_path": path.format("p") if pictured else "",
                }
            )
        folder = raw / "MMEB-train" / name
        folder.mkdir()
        pl.DataFrame(rows).write_parquet(folder / "original-00000-of-00001.parquet")
        _write_eval(raw / "MMEB-eval" / name.replace("_1K", "-1K"), rows)
    return raw


def _write_eval(folder: Path, rows: list[dict[str, str]]) -> None:
    folder.mkdir(parents=True)
    targets = [row["pos_text"] for row in rows]
    images = [row["pos_image_path"] for row in rows]
    found = [
        {
            "qry_text": row["qry"],
            "qry_img_path": row["qry_image_path"],
            "tgt_text": [targets[i], targets[i - 1]],
            "tgt_img_path": [images[i], images[i - 1]],
        }
        for i, row in enumerate(rows[:5])
    ]
    pl.DataFrame(found).write_parquet(folder / "test-00000-of-00001.parquet")
