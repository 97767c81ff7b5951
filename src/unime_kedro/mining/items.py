"""From raw query-positive pairs to items, queries and candidates; bad rows are set aside with a reason.

Equal content is one item: the same text with the same image *bytes*, whatever the file is called. An item is
embedded, encoded and judged once, however many rows mention it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from unime_kedro.errors import DataError
from unime_kedro.mining.checks import (
    REASONS,
    REJECTS_SCHEMA,
    ROW_KEY,
    TRAIN_COLUMNS,
    is_blank,
    is_empty,
    normalise,
    slug_of,
    train_reason,
    unequal_reason,
)
from unime_kedro.mining.images import CheckImages, ImageFact, ProgressFactory, hash_bytes, read_images
from unime_kedro.progress import progress as show_progress

#: stands in a text for the image of the same side
PLACEHOLDER = "<|image_1|>"

ITEMS_SCHEMA = {
    "item_id": pl.Int64,
    "text": pl.String,
    "image": pl.String,
    "content_key": pl.String,
    "modality": pl.String,
}
_FACTS_SCHEMA = {"image": pl.String, "image_hash": pl.String, "problem": pl.String, "detail": pl.String}


class Ingested(NamedTuple):
    """What :func:`build_items` makes of a corpus.

    Attributes:
        items: item_id (dense from 0, in order of first mention), text, image, content_key, modality.
        queries: query_id (dense from 0, in row order), dataset, meta_task, item_id, positive_item_id.
        candidates: item_id of all positives and given negatives, ascending, distinct.
        rejects: dataset, file, row, reason (``"<slug>: <detail>"``), in row order.
        metrics: Counts of this step, flat; ``pairs_read = pairs_accepted + duplicate_pairs + rejected``.
    """

    items: pl.DataFrame
    queries: pl.DataFrame
    candidates: pl.DataFrame
    rejects: pl.DataFrame
    metrics: dict[str, float]


def build_items(
    pairs: pl.DataFrame,
    image_root: str | Path,
    *,
    check_images: CheckImages = "full",
    workers: int = 0,
    progress: ProgressFactory = show_progress,
) -> Ingested:
    """Turn raw pairs into the corpus tables.

    Args:
        pairs: dataset, file, row, optionally meta_task, and the columns of MMEB-train: qry, qry_image_path, pos_text,
            pos_image_path, optionally neg_text and neg_image_path (single values or lists of equal length; an entry
            with neither text nor image is no negative). In any row order; columns of a wrong type are rejected.
        image_root: Folder that image paths are relative to.
        check_images: ``full`` decodes every image, ``header`` reads its header only.
        workers: Processes that read images; 1 is none besides this one, 0 chooses. The result does not depend on it.
        progress: How progress is shown.

    Returns:
        The tables. A row is rejected for the first reason that applies in the order of
        :data:`unime_kedro.mining.checks.REASONS`. A pair with the query item and positive item of an earlier row of
        its data set is kept once; negatives given with the repetition stay candidates.

    Raises:
        DataError: When rows have images and ``image_root`` is not a folder, or an image process dies.
    """
    started = time.monotonic()
    pairs = normalise(pairs, TRAIN_COLUMNS).sort(ROW_KEY).with_row_index("pair").with_columns(reason=train_reason())
    if "meta_task" not in pairs.columns:
        pairs = pairs.with_columns(meta_task=pl.lit("unknown"))
    mentions = _image_mentions(pairs.filter(pl.col("reason").is_null()))
    facts = _read_facts(mentions["image"], image_root, check_images, workers, progress)
    pairs = _add_image_reasons(pairs, mentions, facts)
    pairs = pairs.with_columns(reason=pl.coalesce("reason", unequal_reason("neg_text", "neg_image_path")))

    accepted = pairs.filter(pl.col("reason").is_null())
    sides = _sides(accepted).join(facts.select("image", "image_hash"), on="image", how="left", maintain_order="left")
    items, sides = number_items(sides.with_columns(pl.col("image_hash").fill_null("")))
    queries = _number_queries(accepted, sides)
    given = sides.filter(pl.col("position") > 0)["item_id"].unique().sort()
    rejects = pairs.filter(pl.col("reason").is_not_null()).select(list(REJECTS_SCHEMA))
    metrics = _metrics(pairs, accepted, items, queries, rejects)
    metrics |= {"candidates": len(given), "images_read": len(facts), "seconds": time.monotonic() - started}
    return Ingested(items, queries, given.to_frame(), rejects, metrics)


def _image_mentions(pairs: pl.DataFrame) -> pl.DataFrame:
    """Return (pair, position, image) of every image that a row mentions; query 0, positive 1, negatives from 2."""
    images = pl.concat_list("qry_image_path", "pos_image_path", "neg_image_path")
    rows = pairs.select("pair", image=images, position=pl.int_ranges(images.list.len()))
    return rows.explode("image", "position").filter(pl.col("image") != "")


def _read_facts(
    images: pl.Series, root: str | Path, check: CheckImages, workers: int, progress: ProgressFactory
) -> pl.DataFrame:
    """Read each distinct image once; returns image, image_hash, problem ("" for none), detail."""
    paths = images.unique().sort().to_list()
    if paths and not Path(root).is_dir():
        raise DataError(f"The image root {root} is not a folder. Set ingest.image_root to where the images are.")
    facts: Iterable[ImageFact] = read_images(root, paths, check, workers, progress) if paths else []
    return pl.DataFrame(facts, schema=_FACTS_SCHEMA, orient="row")


def _add_image_reasons(pairs: pl.DataFrame, mentions: pl.DataFrame, facts: pl.DataFrame) -> pl.DataFrame:
    """Give rows with a bad image its reason: the kind that comes first in REASONS, then the first such image."""
    severity = pl.col("problem").replace_strict({slug: place for place, slug in enumerate(REASONS)})
    bad = (
        mentions.join(facts.filter(pl.col("problem") != ""), on="image")
        .sort("pair", severity, "position")
        .unique("pair", keep="first", maintain_order=True)
        .select("pair", image_reason=pl.format("{}: {} ({})", "problem", "image", "detail"))
    )
    joined = pairs.join(bad, on="pair", how="left", maintain_order="left")
    return joined.with_columns(reason=pl.coalesce("reason", "image_reason")).drop("image_reason")


def _sides(pairs: pl.DataFrame) -> pl.DataFrame:
    """Return (pair, position, text, image) of every side of accepted rows, in order of mention."""
    texts = pl.concat_list("qry", "pos_text", "neg_text")
    images = pl.concat_list("qry_image_path", "pos_image_path", "neg_image_path")
    rows = pairs.select("pair", position=pl.int_ranges(texts.list.len()), text=texts, image=images)
    return rows.explode("position", "text", "image").filter(~is_empty(pl.col("text"), pl.col("image")))


def number_items(sides: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Number distinct contents in order of first mention.

    Args:
        sides: text, image (path or ""), image_hash (of the image's content, "" without one), and any other columns.

    Returns:
        The items table, and ``sides`` in its order with a column item_id more.
    """
    content = ["text", "image_hash"]
    first = sides.unique(content, keep="first", maintain_order=True).with_row_index("item_id")
    first = first.with_columns(pl.col("item_id").cast(pl.Int64))
    # BLAKE2b is no table operation; distinct contents only, about a microsecond each
    keys = [content_key(text, image) for text, image in first.select(content).iter_rows()]
    items = first.with_columns(
        content_key=pl.Series(keys, dtype=pl.String),
        modality=pl.when(pl.col("image") == "")
        .then(pl.lit("text"))
        .when(is_blank(pl.col("text").str.replace_all(PLACEHOLDER, "", literal=True)))
        .then(pl.lit("image"))
        .otherwise(pl.lit("image_text")),
    ).select(list(ITEMS_SCHEMA))
    numbered = sides.join(first.select(*content, "item_id"), on=content, how="left", maintain_order="left")
    return items, numbered


def content_key(text: str, image_hash: str) -> str:
    """Return the hash that equal content shares: BLAKE2b-128 over text, a zero byte, and the image's hash.

    Unambiguous although a text may contain zero bytes: what follows the last separator is either nothing or always
    32 hex digits.
    """
    return hash_bytes(text.encode(), b"\0", image_hash.encode())


def _number_queries(accepted: pl.DataFrame, sides: pl.DataFrame) -> pl.DataFrame:
    """Number the distinct (data set, query item, positive item) in row order."""
    query = sides.filter(pl.col("position") == 0).select("pair", "item_id")
    positive = sides.filter(pl.col("position") == 1).select("pair", positive_item_id="item_id")
    rows = accepted.select("pair", "dataset", "meta_task").join(query, on="pair").join(positive, on="pair").sort("pair")
    distinct = rows.unique(["dataset", "item_id", "positive_item_id"], keep="first", maintain_order=True)
    return distinct.select(
        pl.int_range(pl.len(), dtype=pl.Int64).alias("query_id"), "dataset", "meta_task", "item_id", "positive_item_id"
    )


def _metrics(
    pairs: pl.DataFrame, accepted: pl.DataFrame, items: pl.DataFrame, queries: pl.DataFrame, rejects: pl.DataFrame
) -> dict[str, float]:
    modality = dict(items.group_by("modality").len().iter_rows())
    bare = items.filter(pl.col("text").str.contains(PLACEHOLDER, literal=True) & (pl.col("image") == ""))
    return {
        "pairs_read": len(pairs),
        "pairs_accepted": len(queries),
        "rejected": len(rejects),
        "reject_share": len(rejects) / len(pairs) if len(pairs) else 0.0,
        **{f"rejected/{slug}": count for slug, count in reason_counts(rejects).items()},
        "duplicate_pairs": len(accepted) - len(queries),
        "datasets": queries["dataset"].n_unique(),
        "items": len(items),
        **{f"items_{kind}": modality.get(kind, 0) for kind in ("text", "image", "image_text")},
        "placeholder_without_image": len(bare),
    }


def reason_counts(rejects: pl.DataFrame) -> dict[str, int]:
    """Return how many rows were rejected by reason (its slug), the reasons in their fixed order."""
    counts = dict(rejects.group_by(slug_of(pl.col("reason"))).len().iter_rows())
    return {slug: counts[slug] for slug in REASONS if slug in counts}


def enforce_reject_share(result: Ingested, max_share: float) -> None:
    """Stop when too much of the corpus was rejected, or nothing is left of it.

    Args:
        result: What :func:`build_items` returned.
        max_share: Largest share of rejected rows that is let pass, 0 to 1 (``ingest.max_reject_share``).

    Raises:
        DataError: With the counts by reason, three rows as examples, and what to do. Call this before anything is
            saved, so that a refused corpus leaves no tables behind.
    """
    read, rejected = int(result.metrics["pairs_read"]), len(result.rejects)
    if len(result.queries) and result.metrics["reject_share"] <= max_share:
        return
    if not read:
        raise DataError("The corpus has no rows: every file of it is empty. Nothing was written.")
    if len(result.queries):
        verdict = f"more than ingest.max_reject_share = {max_share:g} allows"
    else:
        verdict = "which leaves no pair to mine"
    lines = [f"{rejected:,} of {read:,} rows ({rejected / read:.1%}) cannot be used, {verdict}. Nothing was written."]
    lines += [f"  {count:>8,}  {slug}" for slug, count in reason_counts(result.rejects).items()]
    lines += ["For example:", *map(_example, result.rejects.head(3).iter_rows(named=True))]
    lines += [
        "Correct the rows, or what points to them (ingest.root, ingest.image_root, ingest.datasets). To go on without "
        "them, raise ingest.max_reject_share in conf/*/parameters/ingest.yml or with "
        f"--params=ingest.max_reject_share={min(1.0, rejected / read + 0.005):.2f}."
    ]
    raise DataError("\n".join(lines))


def _example(row: dict[str, Any]) -> str:
    return f"  {row['file']}, row {row['row']} (data set {row['dataset']}): {row['reason']}"
