"""Files of an export: JSON Lines and parquet, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from unime_kedro.atomic import atomic_write
from unime_kedro.errors import ConfigurationError, DataError
from unime_kedro.exchange.formats import FORMATS, Exported
from unime_kedro.exchange.rows import MinedRows

if TYPE_CHECKING:
    import pyarrow as pa

#: rows that are turned into JSON text at a time: memory, not content
_SLICE = 20_000


def export(rows: MinedRows, name: str, out: Path) -> tuple[list[Path], Exported]:
    """Write mined negatives in another trainer's format.

    Args:
        rows: What is exported.
        name: One of :data:`unime_kedro.exchange.formats.FORMATS`.
        out: The file; a folder for formats of several files.

    Returns:
        The files, and what is in them.

    Raises:
        ConfigurationError: If the file's name does not end as the format's files do.
        DataError: If no query can be exported; says why.
    """
    make, suffix = FORMATS[name]
    if suffix and out.suffix != suffix:
        raise ConfigurationError(f"{out}: files of format {name} end in {suffix}; expected {out.with_suffix(suffix)}.")
    if not suffix and out.is_file():
        raise ConfigurationError(f"{out}: format {name} is a folder of files, and this is a file; name a folder.")
    exported = make(rows)
    if not any(len(table) for table in exported.tables.values()):
        reasons = "; ".join(f"{count:,} queries: {reason}" for reason, count in exported.left_out.items())
        raise DataError(f"nothing is left to export as {name}, {out} was not written. {reasons or 'No queries'}.")
    files = []
    for part, table in exported.tables.items():
        file = out / part if part else out
        with atomic_write(file) as temporary:
            if file.suffix == ".parquet":
                _write_parquet(table, exported.pictures, temporary)
            else:
                _write_lines(table, temporary)
        files.append(file)
    return files, exported


def _write_lines(table: pl.DataFrame, file: Path) -> None:
    with file.open("wb") as out:
        for start in range(0, len(table), _SLICE):
            table[start : start + _SLICE].write_ndjson(out)


def _write_parquet(table: pl.DataFrame, pictures: list[str], file: Path) -> None:
    """Write parquet that the datasets library reads with its own types: pictures come out as pictures."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: _column(table.schema[name], name in pictures) for name in table.columns}
    info = json.dumps({"info": {"features": {name: feature for name, (_, feature) in columns.items()}}})
    # datasets looks at the features only where they are the file's types exactly: no large_string, no large_list
    schema = pa.schema({name: kind for name, (kind, _) in columns.items()}, metadata={"huggingface": info})
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for start in range(0, len(table), _SLICE):
            writer.write_table(table[start : start + _SLICE].to_arrow().cast(schema))


def _column(kind: pl.DataType, picture: bool) -> tuple[pa.DataType, dict[str, Any]]:
    """Return a column's type in the file, and its description for the datasets library."""
    import pyarrow as pa

    words = {"dtype": "string", "_type": "Value"}
    if picture:
        image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
        return pa.struct({"text": pa.string(), "image": image}), {"text": words, "image": {"_type": "Image"}}
    if isinstance(kind, pl.List):
        return pa.list_(pa.float64()), {"feature": {"dtype": "float64", "_type": "Value"}, "_type": "List"}
    return pa.string(), words
