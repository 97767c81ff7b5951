"""Is a downloaded tree whole? Looked at in minutes, before anything that takes hours reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from unime_kedro.errors import DataError
from unime_kedro.fetching.counts import MMEB_EVAL_ROWS, MMEB_TRAIN_ROWS, Rows
from unime_kedro.fetching.pictures import look_for_pictures
from unime_kedro.io.mmeb import read_eval, read_pairs
from unime_kedro.mining.checks import train_reason, unequal_reason

#: of a picture in a prompt
_PLACEHOLDER = "<|image_1|>"
#: examples of one problem that are told
_EXAMPLES = 3


@dataclass(frozen=True)
class Report:
    """What was found.

    Attributes:
        kind: ``train``, ``eval`` or a benchmark's name.
        folder: What was looked at.
        datasets: dataset, rows, published ("" where not known), pictures, missing, opened, unreadable.
        problems: What is wrong, a line each; empty when all is well.
        notes: What a reader should know besides.
    """

    kind: str
    folder: Path
    datasets: pl.DataFrame
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        values = {"kind": self.kind, "folder": str(self.folder), "datasets": self.datasets.to_dicts()}
        return values | {"problems": self.problems, "notes": self.notes}


def check_training(
    root: Path, image_root: Path, split: str, datasets: Sequence[str] | None = None, *, sample: int = 200, seed: int = 0
) -> Report:
    """Look at training pairs in MMEB-train's layout: every row, every picture's name, some pictures' content.

    Args:
        root: Folder of the data sets.
        image_root: Folder that picture paths are relative to.
        split: Which files of a data set.
        datasets: Which are wanted; None for all that are there, and, of MMEB's, all that should be.
        sample: Pictures of each data set that are decoded.
        seed: Of the sample.

    Raises:
        DataError: The layout is wrong, so that nothing can be read.
    """
    pairs = read_pairs(root, split, datasets)
    published = MMEB_TRAIN_ROWS if _is_mmeb(pairs, MMEB_TRAIN_ROWS) else {}
    reasons = pairs.with_columns(reason=pl.coalesce(train_reason(), unequal_reason("neg_text", "neg_image_path")))
    sides = [
        ("qry", pl.col("qry"), pl.col("qry_image_path")),
        ("pos_text", pl.col("pos_text"), pl.col("pos_image_path")),
    ]
    problems = _bad_rows(reasons) + _placeholders(pairs, sides)
    mentions = pl.concat(
        [
            pairs.select("dataset", image="qry_image_path"),
            pairs.select("dataset", image="pos_image_path"),
            pairs.select("dataset", image="neg_image_path").explode("image"),
        ]
    )
    wanted = None if datasets is None else set(datasets)
    return _report("train", root, pairs, published, wanted, problems, mentions, image_root, sample, seed)


def check_evaluation(root: Path, image_root: Path, *, sample: int = 200, seed: int = 0) -> Report:
    """Look at evaluation rows in MMEB-eval's layout; arguments and errors as for :func:`check_training`."""
    from unime_kedro.evaluation.benchmarks.mmeb import MMEB

    found = read_eval(root)
    rows = found.rows
    every = dict.fromkeys(MMEB.names, MMEB_EVAL_ROWS)
    published = every if _is_mmeb(rows, every) else {}
    bad = found.rejects.select("dataset", "file", "row", "reason")
    problems = _reason_lines(bad) + _placeholders(rows, [("qry_text", pl.col("qry_text"), pl.col("qry_img_path"))])
    mentions = pl.concat(
        [
            rows.select("dataset", image="qry_img_path"),
            rows.select("dataset", image="tgt_img_path").explode("image"),
        ]
    )
    return _report("eval", root, rows, published, None, problems, mentions, image_root, sample, seed)


def check_benchmark(name: str, root: Path, image_root: Path | None = None) -> Report:
    """Read one of the other benchmarks as evaluation would, every picture's header included.

    Args:
        name: One of :data:`unime_kedro.evaluation.benchmarks.registry.BENCHMARKS`.
        root: Its folder.
        image_root: Folder of its pictures; None for the usual one.
    """
    from unime_kedro.evaluation.benchmarks.loading import load_benchmark

    empty = pl.DataFrame(schema=_COLUMNS)
    try:
        loaded = load_benchmark(name, root, image_root, workers=0)
    except DataError as error:
        return Report(name, root, empty, [str(error)])
    sizes = [(task.dataset, len(task.queries)) for task in loaded.tasks]
    table = pl.DataFrame(sizes, schema={"dataset": pl.String, "rows": pl.Int64}, orient="row")
    table = pl.concat([empty, table], how="diagonal")
    return Report(name, root, table, [f"missing: {one}" for one in loaded.missing], list(loaded.notes))


_COLUMNS = {
    "dataset": pl.String,
    "rows": pl.Int64,
    "published": pl.String,
    "pictures": pl.Int64,
    "missing": pl.Int64,
    "opened": pl.Int64,
    "unreadable": pl.Int64,
}


def _is_mmeb(rows: pl.DataFrame, published: Mapping[str, Rows]) -> bool:
    """Whether most of the data sets have names of MMEB's."""
    names = rows["dataset"].unique().to_list()
    return sum(name in published for name in names) * 2 > len(names)


def _report(
    kind: str,
    root: Path,
    rows: pl.DataFrame,
    published: Mapping[str, Rows],
    wanted: set[str] | None,
    problems: list[str],
    mentions: pl.DataFrame,
    image_root: Path,
    sample: int,
    seed: int,
) -> Report:
    mentions = mentions.filter(pl.col("image").fill_null("") != "")
    counts, bad = look_for_pictures(mentions, image_root, sample, seed)
    sizes = rows.group_by("dataset").agg(rows=pl.len()).sort("dataset")
    table = sizes.join(counts, on="dataset", how="left").with_columns(
        pl.col("pictures", "missing", "opened", "unreadable").fill_null(0),
        published=pl.col("dataset").replace_strict(
            {name: _shown(n) for name, n in published.items()}, default="", return_dtype=pl.String
        ),
    )
    problems = [*_sizes(dict(sizes.rows()), published, wanted), *problems, *_picture_lines(bad)]
    return Report(kind, root, table.select(pl.col(c).cast(t) for c, t in _COLUMNS.items()), problems)


def _shown(rows: Rows) -> str:
    return f"{rows.low:,}" if rows.low == rows.high else f"{rows.low:,} to {rows.high:,}"


def _sizes(found: Mapping[str, int], published: Mapping[str, Rows], wanted: set[str] | None) -> list[str]:
    missing = [name for name in published if name not in found and (wanted is None or name in wanted)]
    lines = [f"data sets missing: {', '.join(missing)}"] if missing else []
    return lines + [
        f"{name}: {n:,} rows, published: {_shown(published[name])}"
        for name, n in found.items()
        if name in published and not published[name].low <= n <= published[name].high
    ]


def _bad_rows(reasons: pl.DataFrame) -> list[str]:
    return _reason_lines(reasons.filter(pl.col("reason").is_not_null()).select("dataset", "file", "row", "reason"))


def _reason_lines(bad: pl.DataFrame) -> list[str]:
    """Return a line per data set and kind of problem, with examples."""
    grouped = (
        bad.with_columns(kind=pl.col("reason").str.extract(r"^([^:]*)"))
        .sort("dataset", "file", "row")
        .group_by("dataset", "kind", maintain_order=True)
        .agg(n=pl.len(), where=pl.format("{} row {}", "file", "row").head(_EXAMPLES), reason=pl.col("reason").first())
    )
    return [
        f"{dataset}: {n:,} rows cannot be used, {reason} ({', '.join(where)}{', ...' if n > len(where) else ''})"
        for dataset, _, n, where, reason in grouped.iter_rows()
    ]


def _placeholders(rows: pl.DataFrame, sides: list[tuple[str, pl.Expr, pl.Expr]]) -> list[str]:
    """Find texts that ask for a picture which is not there; models would be shown the mark as words."""
    slug = "placeholder_without_picture"
    bad = [
        rows.filter(text.str.contains(_PLACEHOLDER, literal=True) & (image == "")).select(
            "dataset",
            "file",
            "row",
            reason=pl.lit(f"{slug}: {name} has {_PLACEHOLDER}, no picture"),
        )
        for name, text, image in sides
    ]
    return _reason_lines(pl.concat(bad))


def _picture_lines(bad: pl.DataFrame) -> list[str]:
    grouped = (
        bad.with_columns(kind=pl.col("problem").str.extract(r"^([^:]*)"))
        .group_by("dataset", "kind", maintain_order=True)
        .agg(n=pl.len(), images=pl.col("image").head(_EXAMPLES), problem=pl.col("problem").first())
    )
    return [
        f"{dataset}: {n:,} pictures {problem} ({', '.join(images)}{', ...' if n > len(images) else ''})"
        for dataset, _, n, images, problem in grouped.iter_rows()
    ]
