"""What is wrong with a raw row, judged from its columns alone; every verdict is a table expression.

A rejected row carries one reason, ``"<slug>: <detail>"``: the first that applies, in the order of :data:`REASONS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import polars as pl

#: slugs of the reasons, in the order in which they are looked for
REASONS = (
    "wrong_type",
    "null",
    "empty_query",
    "empty_positive",
    "empty_target",
    "image_outside_root",
    "image_missing",
    "image_undecodable",
    "image_too_large",
    "image_too_narrow",
    "unequal_lists",
)
#: where a row comes from; sorts a corpus
ROW_KEY = ["dataset", "file", "row"]
REJECTS_SCHEMA = {"dataset": pl.String, "file": pl.String, "row": pl.Int64, "reason": pl.String}

# Null: a column of which every value is missing
_TEXT_TYPES = (pl.String, pl.Categorical, pl.Enum, pl.Null)

# What models are never shown of a text (unime_kedro.mllm.prompts): the mark of a picture and other control tokens
_CONTROL_TOKEN = r"<\|[A-Za-z0-9_]+\|>"
# tokens inside of tokens, such as <|a<|b|>|>: one pass for each level
_NESTING = 4


class PairColumns(NamedTuple):
    """The raw columns of a layout: single texts, and (text, image path) lists that belong together."""

    texts: tuple[str, ...]
    lists: tuple[str, ...]


TRAIN_COLUMNS = PairColumns(("qry", "qry_image_path", "pos_text", "pos_image_path"), ("neg_text", "neg_image_path"))
EVAL_COLUMNS = PairColumns(("qry_text", "qry_img_path"), ("tgt_text", "tgt_img_path"))


def normalise(rows: pl.DataFrame, columns: PairColumns) -> pl.DataFrame:
    """Bring raw columns of any type to text and lists of text, so that tables of all data sets can be joined.

    Args:
        rows: Raw rows. A list column may hold single texts instead (taken as lists of one), or be absent (empty
            lists; when its partner is present, as many empty texts as that has).
        columns: Which columns to bring to which form.

    Returns:
        The rows with String and List(String) columns and one more, ``wrong_type``: null, or the first column whose
        value is no text, and its type. Such values and NaN become null. Blank image paths become "". Rows that
        have a ``wrong_type`` column already are returned as they are.
    """
    if "wrong_type" in rows.columns:
        return rows
    wrong = [_wrong_type(name, rows.schema[name]) for name in columns.texts]
    wrong += [_wrong_type(name, rows.schema[name], lists=True) for name in columns.lists if name in rows.columns]
    rows = rows.with_columns(wrong_type=pl.coalesce([*wrong, pl.lit(None, dtype=pl.String)]))
    rows = rows.with_columns(_as_text(name, rows.schema[name]) for name in columns.texts)
    rows = rows.with_columns(_as_texts(name, rows.schema[name]) for name in columns.lists if name in rows.columns)
    return _blank_paths(_fill_absent(rows, columns.lists), columns)


def _missing(name: str, dtype: pl.DataType) -> pl.Expr:
    """True where a value is null or NaN."""
    column = pl.col(name)
    return column.is_null() | column.is_nan() if dtype.is_float() else column.is_null()


def _is_text_list(dtype: pl.DataType) -> bool:
    return isinstance(dtype, (pl.List, pl.Array)) and _is_text(dtype.inner)


def _is_text(dtype: Any) -> bool:
    return dtype in _TEXT_TYPES


def _wrong_type(name: str, dtype: pl.DataType, lists: bool = False) -> pl.Expr:
    """Null, or ``"<column> is <type>"`` where a value is there but no text (nor list of texts)."""
    if _is_text(dtype) or (lists and _is_text_list(dtype)):
        return pl.lit(None, dtype=pl.String)
    expected = "text or a list of texts" if lists else "text"
    message = pl.lit(f"{name} is {dtype}, expected {expected}")
    return pl.when(~_missing(name, dtype)).then(message)


def _as_text(name: str, dtype: pl.DataType) -> pl.Expr:
    return pl.col(name).cast(pl.String) if _is_text(dtype) else pl.lit(None, dtype=pl.String).alias(name)


def _as_texts(name: str, dtype: pl.DataType) -> pl.Expr:
    """A list of texts: a missing list is the empty one, a single text a list of one, a missing text a list of ""."""
    if _is_text_list(dtype):
        return pl.col(name).cast(pl.List(pl.String)).fill_null(pl.lit([], dtype=pl.List(pl.String)))
    text = pl.col(name).cast(pl.String).fill_null("") if _is_text(dtype) else pl.lit("")
    return pl.concat_list(text).alias(name)


def _fill_absent(rows: pl.DataFrame, lists: Sequence[str]) -> pl.DataFrame:
    """Add list columns that a file does not have."""
    present = [name for name in lists if name in rows.columns]
    absent = [name for name in lists if name not in rows.columns]
    length = pl.col(present[0]).list.len() if present else pl.lit(0, dtype=pl.UInt32)
    return rows.with_columns(pl.lit("").repeat_by(length).alias(name) for name in absent)


def _blank_paths(rows: pl.DataFrame, columns: PairColumns) -> pl.DataFrame:
    """Turn image paths of nothing but white space into "", the mark of no image."""

    def cleaned(path: pl.Expr) -> pl.Expr:
        return pl.when(is_blank(path)).then(pl.lit("")).otherwise(path)

    texts = [name for name in columns.texts if is_path(name)]
    lists = [name for name in columns.lists if is_path(name)]
    return rows.with_columns(
        *(cleaned(pl.col(name)).alias(name) for name in texts),
        *(pl.col(name).list.eval(cleaned(pl.element())) for name in lists),
    )


def is_path(column: str) -> bool:
    """Tell whether a raw column holds image paths."""
    return column.endswith("_path")


def is_blank(text: pl.Expr) -> pl.Expr:
    """True for empty text and for text of white space only."""
    return text.str.strip_chars() == ""


def is_empty(text: pl.Expr, image: pl.Expr) -> pl.Expr:
    """True for a side without an image that has no words: nothing but white space and control tokens (``<|...|>``)."""
    words = text
    for _ in range(_NESTING):
        words = words.str.replace_all(_CONTROL_TOKEN, "")
    return is_blank(words) & (image == "")


def null_reason(columns: PairColumns) -> pl.Expr:
    """Reason ``null``: a single value is null or NaN, or a list holds one."""
    single = [pl.when(pl.col(name).is_null()).then(pl.lit(f"null: {name} is null or NaN")) for name in columns.texts]
    inside = [
        pl.when(pl.col(name).list.eval(pl.element().is_null()).list.any()).then(pl.lit(f"null: {name} holds a null"))
        for name in columns.lists
    ]
    return pl.coalesce([*single, *inside])


def type_reason() -> pl.Expr:
    """Reason ``wrong_type``, from the column that :func:`normalise` adds."""
    return pl.when(pl.col("wrong_type").is_not_null()).then(pl.format("wrong_type: {}", pl.col("wrong_type")))


def empty_reason(slug: str, text: pl.Expr, image: pl.Expr) -> pl.Expr:
    """Reason ``slug``: neither text nor image."""
    return pl.when(is_empty(text, image)).then(pl.lit(f"{slug}: neither text nor image"))


def unequal_reason(texts: str, images: str) -> pl.Expr:
    """Reason ``unequal_lists``: as many texts as image paths are expected."""
    lengths = pl.col(texts).list.len(), pl.col(images).list.len()
    detail = pl.format(f"unequal_lists: {{}} in {texts}, {{}} in {images}", *lengths)
    return pl.when(lengths[0] != lengths[1]).then(detail)


def train_reason() -> pl.Expr:
    """The reason of a normalised training row before its images are looked at; null when there is none."""
    return pl.coalesce(
        type_reason(),
        null_reason(TRAIN_COLUMNS),
        empty_reason("empty_query", pl.col("qry"), pl.col("qry_image_path")),
        empty_reason("empty_positive", pl.col("pos_text"), pl.col("pos_image_path")),
    )


def eval_reason() -> pl.Expr:
    """The reason of a normalised evaluation row (target lists, the right one first); null when there is none."""
    # a list without a first element is a row without a positive
    text, image = (pl.col(name).list.first().fill_null("") for name in EVAL_COLUMNS.lists)
    return pl.coalesce(
        type_reason(),
        null_reason(EVAL_COLUMNS),
        empty_reason("empty_query", pl.col("qry_text"), pl.col("qry_img_path")),
        empty_reason("empty_positive", text, image),
        unequal_reason("tgt_text", "tgt_img_path"),
    )


def slug_of(reason: pl.Expr) -> pl.Expr:
    """The slug of a reason."""
    return reason.str.split_exact(": ", 1).struct.field("field_0")
