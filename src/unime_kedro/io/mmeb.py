"""Reading corpora in the layout of MMEB, the Massive Multimodal Embedding Benchmark (VLM2Vec, ICLR 2025).

``<root>/<data set>/<split>-*.parquet``, as in TIGER-Lab/MMEB-train (splits ``original`` and ``diverse_instruction``)
and TIGER-Lab/MMEB-eval (split ``test``). Image paths in the rows are relative to a separate image root.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from unime_kedro.errors import DataError
from unime_kedro.mining.checks import (
    EVAL_COLUMNS,
    REJECTS_SCHEMA,
    ROW_KEY,
    TRAIN_COLUMNS,
    PairColumns,
    eval_reason,
    is_empty,
    normalise,
)

log = logging.getLogger(__name__)

_CLASSIFICATION = (
    *("ImageNet-1K", "N24News", "HatefulMemes", "VOC2007", "SUN397"),
    *("Place365", "ImageNet-A", "ImageNet-R", "ObjectNet", "Country211"),
    "ImageNet_1K",  # MMEB-train's folder of what MMEB-eval calls ImageNet-1K
)
_VQA = (
    *("OK-VQA", "A-OKVQA", "DocVQA", "InfographicsVQA", "ChartQA", "Visual7W"),
    *("ScienceQA", "VizWiz", "GQA", "TextVQA"),
)
_RETRIEVAL = (
    *("VisDial", "CIRR", "VisualNews_t2i", "VisualNews_i2t", "MSCOCO_t2i", "MSCOCO_i2t", "NIGHTS", "WebQA"),
    *("FashionIQ", "Wiki-SS-NQ", "OVEN", "EDIS"),
)
_VISUAL_GROUNDING = ("MSCOCO", "RefCOCO", "RefCOCO-Matching", "Visual7W-Pointing")

#: MMEB's own 36 data sets, by the names of their folders -> meta-task (ImageNet-1K has two spellings, so 37 names)
MMEB_META_TASKS: dict[str, str] = {
    **dict.fromkeys(_CLASSIFICATION, "classification"),
    **dict.fromkeys(_VQA, "vqa"),
    **dict.fromkeys(_RETRIEVAL, "retrieval"),
    **dict.fromkeys(_VISUAL_GROUNDING, "visual_grounding"),
}


class EvalRows(NamedTuple):
    """Evaluation rows that can be used, and the others.

    Attributes:
        rows: dataset, file, row, meta_task, qry_text, qry_img_path, and the lists tgt_text and tgt_img_path of equal
            length, the right target first.
        rejects: dataset, file, row, reason.
    """

    rows: pl.DataFrame
    rejects: pl.DataFrame


def read_pairs(
    root: str | Path,
    split: str,
    datasets: Sequence[str] | None = None,
    meta_tasks: Mapping[str, str] | None = None,
    rows_per_dataset: int | None = None,
) -> pl.DataFrame:
    """Read the training pairs of a corpus in MMEB-train layout.

    Args:
        root: Folder with one folder per data set.
        split: Which files of a data set to read: ``<split>-*.parquet``.
        datasets: Data sets to read; None for all that have such files.
        meta_tasks: Meta-tasks of data sets that are not MMEB's own; wins over :data:`MMEB_META_TASKS`.
        rows_per_dataset: Of each data set only so many rows, the first ones by file and row; None for all. With 50,000
            the 20 data sets of MMEB-train are the 662,000 pairs of VLM2Vec and UniME-V2; whole they are 1,069,000.

    Returns:
        dataset, file (relative to ``root``), row (0-based, in its file), meta_task ("unknown" where not known), qry,
        qry_image_path, pos_text, pos_image_path, and the lists neg_text and neg_image_path; sorted by dataset, file,
        row. ``wrong_type`` is null, or names the column of a row that holds no text; nothing is rejected here.

    Raises:
        DataError: When the root, a named data set, its files or a column is missing, or a file is no parquet file.
    """
    pairs = _read(Path(root), split, datasets, meta_tasks, TRAIN_COLUMNS, required=TRAIN_COLUMNS.texts)
    if rows_per_dataset is None:
        return pairs
    return pairs.filter(pl.int_range(pl.len()).over("dataset") < rows_per_dataset)


def read_eval(
    root: str | Path,
    split: str = "test",
    datasets: Sequence[str] | None = None,
    meta_tasks: Mapping[str, str] | None = None,
) -> EvalRows:
    """Read the evaluation rows of a corpus in MMEB-eval layout; arguments and errors as for :func:`read_pairs`.

    Rows are rejected for values of a wrong type, nulls, a query or a target with neither text nor image, no targets,
    and target lists of unequal length. Images are not opened here.
    """
    required = (*EVAL_COLUMNS.texts, *EVAL_COLUMNS.lists)
    rows = _read(Path(root), split, datasets, meta_tasks, EVAL_COLUMNS, required)
    rows = rows.with_row_index("index").with_columns(reason=eval_reason())
    targets = rows.filter(pl.col("reason").is_null()).select("index", *EVAL_COLUMNS.lists).explode(*EVAL_COLUMNS.lists)
    text, image = (pl.col(name) for name in EVAL_COLUMNS.lists)
    empty = targets.filter(is_empty(text, image))["index"].unique()
    message = pl.lit("empty_target: a target has neither text nor image")
    late = pl.when(pl.col("index").is_in(empty.implode())).then(message)
    rows = rows.with_columns(reason=pl.coalesce("reason", late))
    bad = pl.col("reason").is_not_null()
    return EvalRows(rows.filter(~bad).drop("index", "reason", "wrong_type"), rows.filter(bad).select(*REJECTS_SCHEMA))


def _read(
    root: Path,
    split: str,
    datasets: Sequence[str] | None,
    meta_tasks: Mapping[str, str] | None,
    columns: PairColumns,
    required: Sequence[str],
) -> pl.DataFrame:
    files = _find_files(root, split, datasets)
    frames = [_read_file(root, file, columns, required) for file in files]
    known = {**MMEB_META_TASKS, **(meta_tasks or {})}
    names = sorted({file.parent.name for file in files})
    if unknown := [name for name in names if name not in known]:
        log.warning(
            "The meta-task of these data sets is not known, they count as 'unknown': %s. Name it under "
            "ingest.meta_tasks.",
            ", ".join(unknown),
        )
    meta_task = pl.col("dataset").replace_strict(known, default="unknown", return_dtype=pl.String)
    order = [*ROW_KEY, "meta_task", *columns.texts, *columns.lists, "wrong_type"]
    return pl.concat(frames).with_columns(meta_task=meta_task).select(order).sort(ROW_KEY)


def _find_files(root: Path, split: str, datasets: Sequence[str] | None) -> list[Path]:
    """Return the files of the wanted data sets, or raise an error that says what is there instead."""
    if not root.is_dir():
        raise DataError(f"The corpus folder {root} does not exist. Set ingest.root to the folder of the data sets.")
    folders = {folder.name: folder for folder in sorted(root.iterdir()) if folder.is_dir()}
    for name in datasets or ():
        if name not in folders:
            raise DataError(f"There is no data set {name!r} in {root}. {_suggest(name, folders)}")
    wanted = {name: folders[name] for name in sorted(set(datasets))} if datasets is not None else folders
    found = {name: _files_of(folder, split) for name, folder in wanted.items()}
    for name in datasets or ():
        if not found[name]:
            there = _listing(file.name for file in folders[name].iterdir())
            raise DataError(f"Data set {name!r} has no file {split}-*.parquet; {folders[name]} holds {there}.")
    files = [file for group in found.values() for file in group]
    if not files:
        there = _listing(entry.name for entry in root.iterdir())
        raise DataError(
            f"No data sets found: {root}/<data set>/{split}-*.parquet matches nothing; {root} holds {there}. "
            "Set ingest.root to the folder that holds the data sets' folders, and ingest.split to the split."
        )
    return files


def _files_of(folder: Path, split: str) -> list[Path]:
    names = sorted(file.name for file in folder.iterdir() if file.suffix == ".parquet")
    return [folder / name for name in names if name.startswith(f"{split}-")]


def _suggest(name: str, names: Mapping[str, Path]) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return (f"Did you mean {near[0]!r}? " if near else "") + f"It holds {_listing(names)}."


def _listing(names: object, limit: int = 20) -> str:
    """Return names as a readable list, the first ``limit`` of them."""
    ordered = sorted(names)  # type: ignore[call-overload]
    shown = ", ".join(ordered[:limit]) or "nothing"
    return shown + (f" and {len(ordered) - limit} more" if len(ordered) > limit else "")


def _read_file(root: Path, file: Path, columns: PairColumns, required: Sequence[str]) -> pl.DataFrame:
    """Read one file into the common columns."""
    try:
        found = list(pl.read_parquet_schema(file))
        if missing := [name for name in required if name not in found]:
            raise DataError(
                f"{file} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}. "
                f"Found: {', '.join(found)}. Expected: {', '.join(required)}."
            )
        wanted = [name for name in (*columns.texts, *columns.lists) if name in found]
        rows = pl.read_parquet(file, columns=wanted, glob=False, hive_partitioning=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{file} is not a readable parquet file ({error}). Download or write it again.") from error
    origin = {
        "dataset": pl.lit(file.parent.name),
        "file": pl.lit(file.relative_to(root).as_posix()),
        "row": pl.int_range(pl.len(), dtype=pl.Int64),
    }
    rows = normalise(rows.with_columns(**origin), columns)
    return rows.select(*ROW_KEY, *columns.texts, *columns.lists, "wrong_type")
