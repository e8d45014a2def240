"""Parquet as rows, a few at a time: values of any type as a cell of a table has them.

Numbers become `Number`, dates and times ISO 8601, lists and structures stay what they are (and become JSON). Bytes are
text in UTF-8, which is what programs without a type for text mean by them; others stay bytes, which are no text.
"""

import math
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path

from common.errors import UserError
from common.reading import json_value
from data.cells import mend
from data.lines import too_long
from data.table import BadRow, Number, Place, Table

BATCH = 64  # rows that are in memory together


def parquet_table(path: Path, place: Place, longest: int) -> Table:
    """The table in `path`; `place` moves along. longest: megabytes that a string may have.

    Raises `UserError`, also while rows are taken; a row with a value that Python has no type for is wrong by itself.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(f"{path}: reading parquet needs pyarrow: pip install pyarrow, or save as .jsonl") from error
    try:
        file = parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: is not a complete parquet file; write it again, or save as .jsonl") from error

    def rows() -> Iterator[dict | BadRow]:
        with closing(file):
            try:
                for batch in file.iter_batches(batch_size=BATCH):
                    yield from _rows(batch, place, longest)
            except (pyarrow.ArrowException, OSError) as error:
                raise UserError(f"{path}: row {place.row + 1}: is damaged ({error}); write the file again") from error

    return Table(place, [mend(name) for name in file.schema_arrow.names], rows(), close=file.close,
                 classes=class_names(file.schema_arrow.metadata or {}))


def class_names(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """The names of a column's numbers, where Hugging Face's `datasets` wrote its features into the file."""
    try:
        features = json_value(metadata.get(b"huggingface", b"{}"))["info"]["features"].items()
    except (ValueError, LookupError, TypeError, AttributeError):  # another program's
        return {}
    found = {mend(column): feature.get("names") for column, feature in features
             if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"}
    return {column: names for column, names in found.items()
            if isinstance(names, list) and all(isinstance(name, str) for name in names)}


def _rows(batch, place: Place, longest: int) -> Iterator[dict | BadRow]:
    names = [mend(name) for name in batch.schema.names]
    try:
        cells = [column.to_pylist() for column in batch.columns]
    except (ValueError, OverflowError) as error:
        if batch.num_rows > 1:
            for number in range(batch.num_rows):
                yield from _rows(batch.slice(number, 1), place, longest)
            return
        place.row += 1
        yield place.bad(f"{place}: holds a value that cannot be read ({error})")
        return
    for values in zip(*cells, strict=True):
        if any(isinstance(value, str) and len(value) > longest * 2**20 for value in values):
            raise too_long(place, longest)
        place.row += 1
        yield dict(zip(names, map(_plain, values), strict=True))


def _plain(value: object) -> object:
    """A value as `data.cells.string_of` takes it."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int | float | Decimal):
        return Number(value) if math.isfinite(value) else None if value != value else str(value)
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
