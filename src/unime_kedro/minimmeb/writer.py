"""What writes one split of the corpus: its pictures, and what is true of every content and query."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from unime_kedro.minimmeb import easyvqa
from unime_kedro.minimmeb.classes import object_classes
from unime_kedro.minimmeb.drawing import compose, draw, png_bytes
from unime_kedro.minimmeb.tasks import Picture, Query, Side, Task, make_candidate

#: tiles of a picture, in the order of its objects
Tiles = list[np.ndarray]


def tiles_of(picture: Picture, rng: np.random.Generator) -> Tiles:
    """Draw every object of a picture."""
    classes = object_classes()
    return [draw(classes[i], rng, picture.style) for i in picture.objects]


def picture_file(picture: Picture, tiles: Tiles) -> bytes:
    """Return a picture as a PNG file, drawn from its tiles or taken from easy-VQA as it is."""
    if picture.source:
        return easyvqa.picture_bytes(picture.source)
    return png_bytes(tiles[0] if picture.crop else compose(tiles, list(picture.cells)))


def make_target(task: Task, query: Query, tiles: Tiles, rng: np.random.Generator) -> tuple[Side, bytes | None]:
    """Make the right target and its picture; that of a grounding query is cut out of the query's own picture.

    Args:
        task: The data set.
        query: What is wanted.
        tiles: The tiles of the query's picture.
        rng: Source of wording, placing and drawing.
    """
    side = make_candidate(task, rng, query.want_objects)
    if task.target == "crop" and query.side.picture is not None and side.picture is not None:
        cut = tiles[query.side.picture.objects.index(query.want_objects[0])]
        return side, picture_file(side.picture, [cut])
    return side, drawn(side, rng)


def drawn(side: Side, rng: np.random.Generator) -> bytes | None:
    """Draw the picture of a side, None where there is none."""
    return None if side.picture is None else picture_file(side.picture, tiles_of(side.picture, rng))


@dataclass
class SplitWriter:
    """Collects the truth of one split and writes its pictures and tables."""

    folder: Path
    contents: dict[tuple[str, str], tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    wants: dict[tuple[str, str], tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    pictures: int = 0

    def picture(self, path: str, data: bytes) -> None:
        """Write a picture below the folder."""
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        self.pictures += 1

    def content(self, side: Side, image: str) -> None:
        """Note what a content depicts or names."""
        self.contents[(side.text, image)] = (side.modality, side.objects)

    def want(self, query: Query, image: str) -> None:
        """Note what a query wants."""
        self.wants[(query.side.text, image)] = (query.want_modality, query.want_objects)

    def table(self, name: str, columns: list[str], rows: list[tuple]) -> None:
        """Write a data set's rows as one parquet file."""
        import polars as pl

        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        pl.DataFrame(rows, schema=columns, orient="row").write_parquet(file)

    def write_truth(self, folder: Path) -> None:
        """Write what was noted as ``contents.parquet`` and ``wants.parquet``."""
        import polars as pl

        folder.mkdir(parents=True)
        for name, modality, objects, rows in (
            ("contents", "modality_out", "objects", self.contents),
            ("wants", "want_modality", "want_objects", self.wants),
        ):
            pl.DataFrame(
                {
                    "text": [text for text, _ in rows],
                    "image": [image for _, image in rows],
                    modality: [kind for kind, _ in rows.values()],
                    objects: [sorted(found) for _, found in rows.values()],
                },
                schema_overrides={objects: pl.List(pl.Int64)},
            ).write_parquet(folder / f"{name}.parquet")
