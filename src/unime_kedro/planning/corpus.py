"""How much there is to do: the corpus as tables where it was read before, else as raw pairs, else as published."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl

from unime_kedro.mllm.content import Content
from unime_kedro.own_data import folder_faults, is_own_data
from unime_kedro.paths import resolve
from unime_kedro.planning.interval import Interval

if TYPE_CHECKING:
    from unime_kedro.mining.items import Ingested
    from unime_kedro.parameters import IngestParameters
    from unime_kedro.planning.settings import Settings

#: query-positive pairs of MMEB-train, its 20 data sets together (VLM2Vec; UniME-V2, section on data)
PUBLISHED_PAIRS = 662_000
#: raw rows that are looked at: of a corpus whose every hundredth row is bad, about ten are seen
CHECKED_ROWS = 1000


class Group(NamedTuple):
    """One query and what the judge would read with it.

    Attributes:
        query: The query.
        candidates: The positive, then members of its pool.
    """

    query: Content
    candidates: list[Content]


@dataclass(frozen=True)
class Corpus:
    """What a run would work on.

    Attributes:
        source: Where the counts are from, in words.
        queries: Number of queries.
        items: Distinct contents.
        pictures: Distinct pictures.
        candidates: Distinct contents that may be found.
        k: Candidates in a query's pool, at most.
        groups: A sample of queries, drawn at random; empty where no data are there.
        singles: A sample of distinct contents; likewise.
        pool: Whether the groups are real pools; otherwise a query's candidates are positives of its own data set.
        checked: What ingest makes of a sample of raw rows; None where there are none.
        notes: What a reader should know.
    """

    source: str
    queries: int
    items: Interval
    pictures: Interval
    candidates: Interval
    k: int
    groups: list[Group] = field(default_factory=list)
    singles: list[Content] = field(default_factory=list)
    pool: bool = False
    checked: Ingested | None = None
    notes: list[str] = field(default_factory=list)


def read_corpus(settings: Settings, sample: int, seed: int) -> Corpus:
    """Count the corpus and draw a sample of it.

    Args:
        settings: Which corpus.
        sample: Queries, and contents, to draw.
        seed: Of the sample.

    Raises:
        DataError: If files of the corpus are damaged.
    """
    ingest = settings.section("ingest")
    pairs, faults = _raw_pairs(settings, ingest)
    checked = None if pairs is None else _check(pairs, ingest, seed)
    if (tables := _tables(settings, pairs)) is not None:
        return _from_tables(settings, *tables, sample, seed, checked)
    if pairs is not None and checked is not None:
        return _from_pairs(settings, pairs, checked, ingest, sample, seed)
    return _from_publication(settings, faults)


def _raw_pairs(settings: Settings, ingest: IngestParameters) -> tuple[pl.DataFrame | None, list[str]]:
    from unime_kedro.io.mmeb import read_pairs
    from unime_kedro.minimmeb.tasks import META_TASKS

    if faults := folder_faults(settings.raw["ingest"], settings.sources):
        return None, faults
    return read_pairs(
        resolve(ingest.root),
        ingest.split,
        ingest.datasets,
        {**META_TASKS, **ingest.meta_tasks},
        ingest.rows_per_dataset,
    ), []


def _check(pairs: pl.DataFrame, ingest: IngestParameters, seed: int) -> Ingested:
    """Ingest a random sample of the raw rows, pictures opened as ingest would."""
    from unime_kedro.mining.items import build_items

    rows = _draw(len(pairs), CHECKED_ROWS, seed)
    return build_items(pairs[rows], resolve(ingest.image_root), check_images=ingest.check_images, workers=1)


def _draw(n: int, wanted: int, seed: int) -> list[int]:
    """Draw ``wanted`` of ``n`` rows without replacement, in ascending order; all if there are no more."""
    return sorted(np.random.default_rng(seed).permutation(n)[:wanted].tolist())


def _tables(settings: Settings, pairs: pl.DataFrame | None) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame] | None:
    """Return items, queries and candidates of an earlier ingest of these pairs, None if there are none."""
    files = [settings.place(name) for name in ("items", "queries", "candidates")]
    if not all(file.is_file() for file in files):
        return None
    items, queries, candidates = (pl.read_parquet(file) for file in files)
    if pairs is not None and _rows_read(settings.place("ingest_metrics")) not in (None, len(pairs)):
        return None
    return items.sort("item_id"), queries.sort("query_id"), candidates


def _rows_read(file: Path) -> int | None:
    import json

    try:
        return int(json.loads(file.read_text(encoding="utf-8"))["pairs_read"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _from_tables(
    settings: Settings,
    items: pl.DataFrame,
    queries: pl.DataFrame,
    candidates: pl.DataFrame,
    sample: int,
    seed: int,
    checked: Ingested | None,
) -> Corpus:
    from unime_kedro.mllm.content import contents_of

    contents = contents_of(items, resolve(settings.section("ingest").image_root))
    chosen = queries[_draw(len(queries), sample, seed)]
    pool = _pool(settings, queries)
    members = _pooled(chosen, pool) if pool is not None else _pretended(chosen, queries, settings, seed)
    rows = zip(chosen["item_id"], chosen["positive_item_id"], members, strict=True)
    return Corpus(
        source=f"tables of ingest, {settings.place('items').parent}",
        queries=len(queries),
        items=Interval.exactly(len(items)),
        pictures=Interval.exactly(items.filter(pl.col("image") != "")["image"].n_unique()),
        candidates=Interval.exactly(len(candidates)),
        k=settings.section("pool").k,
        groups=[Group(contents[q], [contents[i] for i in (p, *found)]) for q, p, found in rows],
        singles=[contents[row] for row in _draw(len(items), max(sample, 256), seed + 1)],
        pool=pool is not None,
        checked=checked,
        notes=[] if pool is not None else [_PRETENDED],
    )


_PRETENDED = "there is no pool yet: a query's candidates are taken to be like the positives of its own data set"


def _pool(settings: Settings, queries: pl.DataFrame) -> pl.DataFrame | None:
    """Return the pool of an earlier run if it is one of these queries with this size."""
    file = settings.place("pool")
    if not file.is_file():
        return None
    pool = pl.read_parquet(file)
    same = pool["query_id"].is_in(queries["query_id"].implode()).all()
    fits = len(pool) > 0 and pool.group_by("query_id").len()["len"].max() == settings.section("pool").k
    return pool if same and fits else None


def _pooled(chosen: pl.DataFrame, pool: pl.DataFrame) -> list[list[int]]:
    found = pool.join(chosen.select("query_id"), on="query_id", how="semi").sort("query_id", "rank")
    lists = found.group_by("query_id", maintain_order=True).agg("item_id")
    return chosen.join(lists, on="query_id", how="left", maintain_order="left")["item_id_right"].fill_null([]).to_list()


def _pretended(chosen: pl.DataFrame, queries: pl.DataFrame, settings: Settings, seed: int) -> list[list[int]]:
    """Draw a query's candidates from the positives of its data set: what the nearest candidates mostly are."""
    k = settings.section("pool").k
    random = np.random.default_rng(seed + 2)
    positives = {name: part["positive_item_id"].to_numpy() for (name,), part in queries.group_by("dataset")}
    return [random.choice(positives[name], size=k).tolist() for name in chosen["dataset"]]


def _from_pairs(
    settings: Settings,
    pairs: pl.DataFrame,
    checked: Ingested,
    ingest: IngestParameters,
    sample: int,
    seed: int,
) -> Corpus:
    from unime_kedro.mllm.content import contents_of

    sides = pl.concat(
        [
            pairs.select(text="qry", image="qry_image_path"),
            pairs.select(text="pos_text", image="pos_image_path"),
        ]
    )
    positives = pairs.select("pos_text", "pos_image_path").n_unique()
    image_root, queries = resolve(ingest.image_root), checked.queries
    contents = contents_of(checked.items, image_root)
    # not from the checked rows: a label of many rows is one content of the corpus, and would be drawn too often
    distinct = sides.unique().sort("text", "image").with_row_index("item_id")
    singles = contents_of(distinct[_draw(len(distinct), max(sample, 256), seed + 1)], image_root)
    chosen = queries[_draw(len(queries), sample, seed)]
    rows = zip(chosen["item_id"], chosen["positive_item_id"], _pretended(chosen, queries, settings, seed), strict=True)
    pictures = sides.filter(pl.col("image") != "")["image"].n_unique()
    return Corpus(
        source=f"raw pairs, {resolve(ingest.root)}",
        queries=len(pairs),
        items=Interval.exactly(len(distinct)),
        pictures=Interval.exactly(pictures),
        candidates=Interval.exactly(positives),
        k=settings.section("pool").k,
        groups=[Group(contents[q], [contents[i] for i in (p, *found)]) for q, p, found in rows],
        singles=singles,
        checked=checked,
        notes=[_PRETENDED],
    )


def _from_publication(settings: Settings, faults: list[str]) -> Corpus:
    """Count what is known of a corpus that is not there: the embedded one is declared, MMEB-train is published."""
    if is_own_data(settings.raw):
        pairs, what = PUBLISHED_PAIRS, "published size of MMEB-train"
    else:
        pairs, what = sum(settings.section("demo").train_pairs.values()), "declared size of mini-MMEB, not drawn yet"
    return Corpus(
        source=what,
        queries=pairs,
        # between one shared positive for many queries (labels of classes) and two contents of its own per pair
        items=Interval(pairs, 1.6 * pairs, 2 * pairs),
        pictures=Interval(0.5 * pairs, pairs, 2 * pairs),
        candidates=Interval(0.05 * pairs, 0.6 * pairs, pairs),
        k=settings.section("pool").k,
        notes=["no data are here to sample: lengths are assumed", *faults],
    )
