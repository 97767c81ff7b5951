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
    import pyarrow.parquet as pq

    arrow = table.to_arrow()
    features = {name: _feature(arrow.schema.field(name).type, name in pictures) for name in arrow.column_names}
    info = json.dumps({"info": {"features": features}})
    pq.write_table(arrow.replace_schema_metadata({"huggingface": info}), file, compression="zstd")


def _feature(kind: pa.DataType, picture: bool) -> dict[str, Any]:
    """Describe a column as the datasets library does."""
    import pyarrow as pa

    if picture:
        return {"text": {"dtype": "large_string", "_type": "Value"}, "image": {"_type": "Image"}}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return {"feature": _feature(kind.value_type, False), "_type": "List"}
    return {"dtype": str(kind), "_type": "Value"}
