"""Was a model trained on what it is tested on? Contents of the training data among those of benchmarks.

What is found: the same words with the same picture, the same picture with other words, and pictures that look alike.
What is not: paraphrases, translations, and pictures that were cut or mirrored. Nearness of pictures is a reason to look
at them, no proof (see :mod:`.picture_hashes`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from unime_kedro.errors import DataError
from unime_kedro.evaluation.picture_hashes import hash_pictures, nearest_hashes
from unime_kedro.evaluation.tasks import OwnCandidates, Task
from unime_kedro.io.picture_files import require_pictures
from unime_kedro.mining.images import ProgressFactory
from unime_kedro.mining.items import number_items
from unime_kedro.progress import progress as show_progress

LEAKS_SCHEMA = {
    "dataset": pl.String,
    "query_id": pl.Int64,
    "content_id": pl.Int64,
    "role": pl.String,
    "kind": pl.String,
    "modality": pl.String,
    "item_id": pl.Int64,
    "distance": pl.Int32,
}
#: where a content stands
ROLES = ("query", "target", "candidate")
#: from the strongest evidence to the weakest
KINDS = ("exact", "same_image", "near")


class Fingerprints(NamedTuple):
    """Contents with what is known of their pictures.

    Attributes:
        contents: The table that was given, with image_hash (of the file's bytes, "" without a picture), content_key and
            modality.
        hashes: image_hash (distinct), hash (perceptual, UInt64, null where there is nothing to compare).
    """

    contents: pl.DataFrame
    hashes: pl.DataFrame


def fingerprint_training(
    training: pl.DataFrame,
    image_root: str | Path,
    *,
    workers: int = 1,
    progress: ProgressFactory = show_progress,
) -> Fingerprints:
    """Read and hash every distinct picture of the training data once, for any number of benchmarks.

    Args:
        training: item_id, text, image: the items table, or any other contents.
        image_root: Folder that its pictures are relative to; not looked at without pictures.
        workers: Processes that read pictures; 1 is none besides this one, 0 chooses. More than one are started anew, so
            that a script needs ``if __name__ == "__main__":``. The result does not depend on it.
        progress: How progress is shown.

    Raises:
        DataError: If a column is missing or a picture cannot be read: with the item, how many there are, and what was
            expected.
    """
    if missing := [column for column in ("item_id", "text", "image") if column not in training.columns]:
        raise DataError(f"the training contents lack {', '.join(missing)}; expected item_id, text and image.")
    place = pl.format("training item {}", "item_id")
    return _fingerprints(training.select("item_id", "text", "image"), place, image_root, workers, progress)


def find_leaks(
    training: Fingerprints,
    tasks: Sequence[Task],
    image_root: str | Path,
    *,
    hash_distance: int,
    workers: int = 1,
    progress: ProgressFactory = show_progress,
) -> pl.DataFrame:
    """Look for contents of the training data, queries and candidates alike, among those of a benchmark.

    Every distinct picture is read and hashed once. Neither the order of rows nor ``workers`` matters.

    Args:
        training: From :func:`fingerprint_training`.
        tasks: The benchmark's data sets.
        image_root: Folder that their pictures are relative to.
        hash_distance: Bits of 64 in which the perceptual hashes of two pictures may differ for them to be ``near``.
        workers: As for :func:`fingerprint_training`.
        progress: How progress is shown.

    Returns:
        :data:`LEAKS_SCHEMA`, sorted by dataset, role, query_id and content_id, one row per place where a leaked content
        stands. ``role``: query, target (right for that query) or candidate (right for none; query_id is null, one row
        for all queries that have it). ``kind``: ``exact`` (same words and same bytes of the picture, the content key of
        ingest), ``same_image`` (same bytes, other words) or ``near`` (other bytes, hashes within ``hash_distance``);
        the first that applies. ``modality``: text, image, image_text. Contents of words alone can only be ``exact``,
        and often are by nature, as the answer "a cat" is. ``item_id``: the training item, for ``near`` the nearest, and
        of several the first. ``distance``: in bits, 0 unless near.

    Raises:
        DataError: If a picture cannot be read: with its content, how many there are, and what was expected.
        ValueError: If ``hash_distance`` is not within 0 to 64.
    """
    if not 0 <= hash_distance <= 64:
        raise ValueError(f"hash_distance must lie within 0 and 64, is {hash_distance}")
    contents = [
        one.contents.select(pl.lit(one.dataset).alias("dataset"), "content_id", "text", "image") for one in tasks
    ]
    if not contents:
        return pl.DataFrame(schema=LEAKS_SCHEMA)
    place = pl.format("{}, content_id {}", "dataset", "content_id")
    tested = _fingerprints(pl.concat(contents), place, image_root, workers, progress)
    found = _leaked_contents(tested, training, hash_distance)
    places = pl.concat([_places(one) for one in tasks])
    leaks = places.join(found, on=["dataset", "content_id"], how="inner").select(list(LEAKS_SCHEMA))
    rank = pl.col("role").replace_strict({role: place for place, role in enumerate(ROLES)})
    return leaks.sort("dataset", rank, "query_id", "content_id")


def _fingerprints(
    contents: pl.DataFrame, place: pl.Expr, root: str | Path, workers: int, progress: ProgressFactory
) -> Fingerprints:
    """Read and hash every distinct picture of a table with text and image; ``place`` says where in words."""
    contents = contents.with_columns(pl.col("text", "image").fill_null(""))
    mentions = contents.filter(pl.col("image") != "").select("image", place=place)
    files = require_pictures(mentions, root, workers=workers, progress=progress)
    distinct = files.sort("image").unique("image_hash", keep="first", maintain_order=True)
    hashes, there = hash_pictures(root, distinct["image"].to_list(), workers=workers, progress=progress)
    table = distinct.select("image_hash", hash=pl.Series(hashes, dtype=pl.UInt64))
    table = table.with_columns(hash=pl.when(pl.Series(there, dtype=pl.Boolean)).then("hash"))
    joined = contents.join(files, on="image", how="left", maintain_order="left")
    numbered = joined.with_columns(pl.col("image_hash").fill_null(""))
    items, sides = number_items(numbered.select("text", "image", "image_hash"))
    keys = sides.select("item_id").join(items, on="item_id", how="left", maintain_order="left")
    return Fingerprints(numbered.with_columns(keys["content_key"], keys["modality"]), table)


def _leaked_contents(tested: Fingerprints, trained: Fingerprints, hash_distance: int) -> pl.DataFrame:
    """Return dataset, content_id, kind, modality, item_id, distance of every content that was trained on."""
    items = trained.contents
    exact = items.group_by("content_key").agg(exact=pl.col("item_id").min())
    by_image = items.filter(pl.col("image_hash") != "").group_by("image_hash").agg(same_image=pl.col("item_id").min())
    near = _near(tested.hashes, trained.hashes.join(by_image, on="image_hash"), hash_distance)
    table = tested.contents.join(exact, on="content_key", how="left").join(by_image, on="image_hash", how="left")
    table = table.join(near, on="image_hash", how="left").with_columns(
        kind=pl.coalesce(pl.when(pl.col(kind).is_not_null()).then(pl.lit(kind)) for kind in KINDS),
        item_id=pl.coalesce(KINDS),
    )
    distance = pl.when(pl.col("kind") == "near").then("distance").otherwise(0).cast(pl.Int32)
    leaked = table.filter(pl.col("kind").is_not_null())
    return leaked.select("dataset", "content_id", "kind", "modality", "item_id", distance=distance)


def _near(tested: pl.DataFrame, trained: pl.DataFrame, hash_distance: int) -> pl.DataFrame:
    """Return image_hash, near (the first item with the nearest picture), distance; only those near enough."""
    wanted = tested.drop_nulls("hash")
    # by item, so that of equally near pictures the first item's is found
    known = trained.drop_nulls("hash").group_by("hash").agg(item=pl.col("same_image").min()).sort("item")
    place, distance = nearest_hashes(wanted["hash"].to_numpy(), known["hash"].to_numpy())
    within = distance <= min(hash_distance, 64)
    return pl.DataFrame(
        {
            "image_hash": wanted["image_hash"].filter(pl.Series(within)),
            "near": known["item"].to_numpy()[place[within]] if len(known) else np.empty(0, dtype=np.int64),
            "distance": distance[within],
        },
        schema={"image_hash": pl.String, "near": pl.Int64, "distance": pl.Int32},
    )


def _places(task: Task) -> pl.DataFrame:
    """Return dataset, query_id, content_id, role of wherever a content of a data set stands, each once."""
    queries = task.queries.select("query_id", "content_id", role=pl.lit("query"))
    if isinstance(task, OwnCandidates):
        targets = task.queries.select("query_id", content_id=pl.col("candidates").list.first())
        candidates = task.queries.select(content_id=pl.col("candidates").explode(empty_as_null=False)).unique()
    else:
        targets = task.queries.select("query_id", "group").join(task.targets.select("group", "content_id"), on="group")
        candidates = task.targets.select("content_id").unique()
    targets = targets.select("query_id", "content_id", role=pl.lit("target")).unique()
    wrong = candidates.join(targets, on="content_id", how="anti").select(
        pl.lit(None, dtype=pl.Int64).alias("query_id"), "content_id", role=pl.lit("candidate")
    )
    return pl.concat([queries, targets, wrong]).select(pl.lit(task.dataset).alias("dataset"), pl.all())


def leakage_counts(leaks: pl.DataFrame, tasks: Sequence[Task]) -> dict[str, dict[str, Any]]:
    """Count leaks by data set.

    Args:
        leaks: From :func:`find_leaks`.
        tasks: The data sets that were searched.

    Returns:
        Data set -> ``queries`` (how many there are), ``candidates`` (distinct contents that are right for no query),
        ``leaked_share`` (of queries of which they or a right target have a leaked picture, of any kind), and role ->
        kind -> how many: queries for ``query`` and ``target`` (one counts once, by its strongest kind), contents for
        ``candidate``. ``words`` counts those without a picture, which are no part of the other counts.
    """
    shown = leaks.with_columns(kind=pl.when(pl.col("modality") == "text").then(pl.lit("words")).otherwise("kind"))
    order = pl.col("kind").replace_strict({kind: place for place, kind in enumerate((*KINDS, "words"))})
    each = pl.coalesce("query_id", "content_id")
    # a query with several right targets counts once
    single = shown.with_columns(each=each, order=order).sort("order").unique(["dataset", "role", "each"], keep="first")
    counts = {key[:3]: key[3] for key in single.group_by("dataset", "role", "kind").len().iter_rows()}
    pictured = shown.filter(pl.col("kind") != "words", pl.col("role") != "candidate")
    leaked = dict(pictured.group_by("dataset").agg(pl.col("query_id").n_unique()).iter_rows())
    return {
        task.dataset: {
            "queries": len(task.queries),
            "candidates": int((_places(task)["role"] == "candidate").sum()),
            "leaked_share": leaked.get(task.dataset, 0) / len(task.queries) if len(task.queries) else 0.0,
            **{role: {kind: counts.get((task.dataset, role, kind), 0) for kind in (*KINDS, "words")} for role in ROLES},
        }
        for task in tasks
    }
