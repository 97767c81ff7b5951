"""Pictures that a benchmark's rows mention must be there: a score over the rest would not be the benchmark's."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from unime_kedro.errors import DataError
from unime_kedro.mining.images import CheckImages, ImageFact, ProgressFactory, read_images
from unime_kedro.progress import progress as show_progress

_FACTS_SCHEMA = {"image": pl.String, "image_hash": pl.String, "problem": pl.String, "detail": pl.String}


def require_pictures(
    mentions: pl.DataFrame,
    image_root: str | Path,
    *,
    check: CheckImages = "header",
    workers: int = 1,
    progress: ProgressFactory = show_progress,
) -> pl.DataFrame:
    """Read every mentioned picture once and raise for the first that cannot be used.

    Args:
        mentions: image (path under the image root), and place: where it is mentioned, in words (file, row, column).
        image_root: Folder that image paths are relative to.
        check: ``full`` decodes every pixel, ``header`` its header only.
        workers: Processes that read pictures; 1 is none besides this one, 0 chooses. More than one are
            started anew, so that a script needs ``if __name__ == "__main__":``.
        progress: How progress is shown.

    Returns:
        image, image_hash (of the file's bytes), one row per distinct path.

    Raises:
        DataError: With the place, path and fault of the first bad picture, and how many there are.
    """
    root = Path(image_root)
    paths = mentions["image"].unique().sort().to_list()
    if paths and not root.is_dir():
        raise DataError(f"The image root {root} is not a folder; {mentions['place'][0]} is {mentions['image'][0]!r}.")
    facts: list[ImageFact] = read_images(root, paths, check, workers, progress) if paths else []
    table = pl.DataFrame(facts, schema=_FACTS_SCHEMA, orient="row")
    bad = table.filter(pl.col("problem") != "")
    if len(bad):
        first = mentions.join(bad, on="image", maintain_order="left").row(0, named=True)
        more = f" {len(bad) - 1:,} more pictures cannot be used either." if len(bad) > 1 else ""
        raise DataError(
            f"{first['place']}: the picture {root / first['image']} cannot be used: {first['problem']} "
            f"({first['detail']}). Expected a picture under the image root {root}.{more}"
        )
    return table.select("image", "image_hash")
