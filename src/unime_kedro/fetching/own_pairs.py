"""One file of pairs -> the layout that ``ingest`` reads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from unime_kedro.atomic import save_parquet
from unime_kedro.errors import DataError

#: column of MMEB-train -> other names that are understood, the usual one first
NAMES: dict[str, tuple[str, ...]] = {
    "qry": ("qry", "query", "query_text", "qry_text", "anchor"),
    "qry_image_path": ("qry_image_path", "query_image", "query_image_path", "qry_image", "qry_img_path"),
    "pos_text": ("pos_text", "positive", "positive_text", "pos"),
    "pos_image_path": ("pos_image_path", "positive_image", "positive_image_path", "pos_image", "pos_img_path"),
}
_IMAGES = ("qry_image_path", "pos_image_path")
_PLACEHOLDER = "<|image_1|>"
#: bad rows that a message names
_EXAMPLES = 5


@dataclass(frozen=True)
class OwnPairs:
    """Pairs in their new place.

    Attributes:
        file: What was written.
        rows: How many.
        with_query_picture: Rows whose query has a picture.
        with_positive_picture: Rows whose positive has one.
        placeholders_added: Texts that were given the mark of their picture.
    """

    file: Path
    rows: int
    with_query_picture: int
    with_positive_picture: int
    placeholders_added: int


def write_own_pairs(source: Path, root: Path, name: str, image_root: Path, split: str = "original") -> OwnPairs:
    """Read a file of pairs, check every row, and write it as a data set.

    Args:
        source: ``.parquet``, ``.jsonl`` (or ``.ndjson``), ``.csv`` or ``.tsv``; a row per pair, columns by
            :data:`NAMES`; columns of pictures may be absent where there are none. Further columns are left out.
        root: ``ingest.root``: the data set becomes ``<root>/<name>/<split>-00000-of-00001.parquet``.
        name: Of the data set.
        image_root: Folder that picture paths are relative to; absolute paths below it are made relative.
        split: ``ingest.split``.

    Returns:
        Where and how many.

    Raises:
        DataError: The file or a column cannot be read, or rows are bad: names file, row, key, what is expected.
    """
    rows = _named(_read(source), source)
    rows = rows.with_columns(_relative(column, image_root) for column in _IMAGES)
    _refuse_bad(rows, source, image_root)
    before = rows
    rows = rows.with_columns(_marked("qry", "qry_image_path"), _marked("pos_text", "pos_image_path"))
    added = sum(int((before[column] != rows[column]).sum()) for column in ("qry", "pos_text"))
    target = root / name / f"{split}-00000-of-00001.parquet"
    target.parent.mkdir(parents=True, exist_ok=True)
    save_parquet(rows, target)
    with_picture = [int((rows[column] != "").sum()) for column in _IMAGES]
    return OwnPairs(target, rows.height, with_picture[0], with_picture[1], added)


def _read(source: Path) -> pl.DataFrame:
    kind = source.suffix.lower()
    try:
        if kind == ".parquet":
            return pl.read_parquet(source, glob=False)
        if kind in (".jsonl", ".ndjson"):
            return _read_json_lines(source)
        if kind in (".csv", ".tsv"):
            separator = "\t" if kind == ".tsv" else ","
            return pl.read_csv(source, separator=separator, infer_schema=False, glob=False)
    except (pl.exceptions.PolarsError, OSError, UnicodeError) as error:
        raise DataError(f"{source} cannot be read: {str(error).splitlines()[0]}") from error
    raise DataError(f"{source}: expected a file that ends in .parquet, .jsonl, .csv or .tsv.")


def _read_json_lines(source: Path) -> pl.DataFrame:
    """Read JSON lines with the number of a broken one; polars does not tell which it is."""
    known = {name for names in NAMES.values() for name in names}
    rows = []
    with source.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{source} line {number} is no JSON: {error}") from error
            if not isinstance(row, dict):
                raise DataError(f"{source} line {number} holds a {type(row).__name__}; expected an object per line.")
            for key in known & set(row):
                if not isinstance(row[key], str | None):
                    raise DataError(f"{source} line {number}: {key} is a {type(row[key]).__name__}; expected a text.")
            rows.append({key: row[key] for key in row if key in known})
    keys = dict.fromkeys(key for row in rows for key in row)
    return pl.DataFrame({key: [row.get(key) for row in rows] for key in keys}, schema=dict.fromkeys(keys, pl.String))


def _named(table: pl.DataFrame, source: Path) -> pl.DataFrame:
    """Return the four columns under their names."""
    found: dict[str, pl.Expr] = {}
    for column, names in NAMES.items():
        there = [name for name in names if name in table.columns]
        if len(there) > 1:
            raise DataError(f"{source} has the columns {' and '.join(there)}, which mean the same; leave one out.")
        if there:
            if table.schema[there[0]] not in (pl.String, pl.Null, pl.Categorical):
                raise DataError(f"{source}: column {there[0]} holds {table.schema[there[0]]}; expected texts.")
            found[column] = pl.col(there[0]).cast(pl.String).fill_null("")
        elif column in _IMAGES:
            found[column] = pl.lit("")
        else:
            raise DataError(
                f"{source} has no column {names[0]} (or {', '.join(names[1:])}). Found: {', '.join(table.columns)}."
            )
    if table.is_empty():
        raise DataError(f"{source} has no rows.")
    return table.select(**found)


def _relative(column: str, image_root: Path) -> pl.Expr:
    """Strip the image root of absolute paths."""
    return pl.col(column).str.strip_chars().str.strip_prefix(f"{image_root}/")


def _marked(text: str, image: str) -> pl.Expr:
    """Put the mark of its picture before a text that has one and does not say where it goes."""
    lacks = (pl.col(image) != "") & ~pl.col(text).str.contains(_PLACEHOLDER, literal=True)
    words = pl.col(text).str.strip_chars() != ""
    marked = pl.when(words).then(pl.format(f"{_PLACEHOLDER}\n{{}}", text)).otherwise(pl.lit(_PLACEHOLDER))
    return pl.when(lacks).then(marked).otherwise(pl.col(text)).alias(text)


def _refuse_bad(rows: pl.DataFrame, source: Path, image_root: Path) -> None:
    from unime_kedro.fetching.pictures import look_for_pictures

    mentions = pl.concat([rows.select(dataset=pl.lit(""), image=column) for column in _IMAGES])
    mentions = mentions.filter(pl.col("image") != "")
    missing: list[str] = []
    if mentions.height:
        if not image_root.is_dir():
            raise DataError(
                f"there is no folder {image_root} for the pictures that {source} names; give it by --images."
            )
        missing = look_for_pictures(mentions, image_root, 0, 0)[1]["image"].to_list()
    reason = pl.coalesce(
        *(_empty(text, image) for text, image in (("qry", "qry_image_path"), ("pos_text", "pos_image_path"))),
        *(_unmarked(text, image) for text, image in (("qry", "qry_image_path"), ("pos_text", "pos_image_path"))),
        *(
            pl.when(pl.col(column).is_in(missing)).then(
                pl.format(f"{column} {{}}: there is no such file below {image_root}", column)
            )
            for column in _IMAGES
        ),
    )
    bad = rows.with_row_index("row").select("row", reason=reason).drop_nulls("reason")
    if bad.height:
        told = "\n  ".join(f"row {row + 1}: {why}" for row, why in bad.head(_EXAMPLES).iter_rows())
        more = f"\n  and {bad.height - _EXAMPLES:,} more" if bad.height > _EXAMPLES else ""
        raise DataError(
            f"{source}: {bad.height:,} of {rows.height:,} rows cannot be used (the first is row 1); nothing was "
            f"written:\n  {told}{more}"
        )


def _empty(text: str, image: str) -> pl.Expr:
    nothing = (pl.col(text).str.replace_all(_PLACEHOLDER, "", literal=True).str.strip_chars() == "") & (
        pl.col(image) == ""
    )
    return pl.when(nothing).then(pl.lit(f"neither words in {text} nor a picture in {image}"))


def _unmarked(text: str, image: str) -> pl.Expr:
    asks = pl.col(text).str.contains(_PLACEHOLDER, literal=True) & (pl.col(image) == "")
    return pl.when(asks).then(pl.lit(f"{text} has {_PLACEHOLDER}, but {image} is empty"))
