"""Rows as bytes: jsonl, csv or tsv, each also gzipped, or parquet, as a file's name tells; complete or not at all.

`write_rows` writes all rows at once; `data.growing` takes them window by window. Parquet, and a gzipped file that
grows, are made at the end, out of plain rows: neither their bytes nor their size depend on how the rows came.
"""

import csv
import gzip
import io
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from common.errors import UserError
from common.files import atomic_write

FORMULA = ("=", "+", "-", "@")  # what a cell begins with that a spreadsheet computes
PARQUET = ".parquet"
OUTPUT_FORMATS = (".jsonl", ".csv", ".tsv", PARQUET)
ROW_GROUP = 2**16  # rows of a parquet file that lie together: so many are in memory while it is made


def output_format(path: str | Path) -> str:
    """`output_format("a.csv.gz") -> ".csv"`. Raises `UserError` for a name without a known format."""
    name = Path(path).name.lower().removesuffix(".gz")
    suffix = next((suffix for suffix in OUTPUT_FORMATS if name.endswith(suffix)), None)
    if suffix is None or (suffix == PARQUET and is_gzipped(path)):
        raise UserError(f"{path}: has no known format in its name; end it in {', '.join(OUTPUT_FORMATS)}, or add .gz "
                        "to one of these but parquet")
    return suffix


def is_gzipped(path: str | Path) -> bool:
    """Whether a file's name says that it is gzipped."""
    return str(path).lower().endswith(".gz")


def plain_format(path: str | Path) -> str:
    """How the rows of a file are kept while it grows: as what they end in, without gzip; those of parquet as jsonl."""
    kind = output_format(path)
    return ".jsonl" if kind == PARQUET else kind


def check_format(path: str | Path) -> None:
    """Raise `UserError` for a file that cannot be made here: of no known format, or parquet without pyarrow."""
    if output_format(path) == PARQUET:
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise UserError(f"{path}: writing parquet needs pyarrow: pip install pyarrow, or name a .csv") from error


@dataclass(frozen=True)
class Sheet:
    """How csv and tsv are written for a spreadsheet.

    safe: cells that it would take for a formula get an apostrophe in front. bom: a byte order mark before the header.
    semicolons: in csv, semicolons between cells and decimal commas in floats, as R's write.csv2 has them.
    """

    safe: bool = False
    bom: bool = False
    semicolons: bool = False

    def delimiter(self, kind: str) -> str:
        """What stands between the cells of a `plain_format`."""
        return "\t" if kind == ".tsv" else ";" if self.semicolons else ","

    def cell(self, value):
        """A cell as it is written: `Sheet(safe=True).cell("=1+1") -> "'=1+1"`; a tab or line break in front of a
        formula is passed over."""
        if self.semicolons and isinstance(value, float):
            return str(value).replace(".", ",")
        is_formula = self.safe and isinstance(value, str) and value.lstrip("\t\r\n ")[:1] in FORMULA
        return f"'{value}" if is_formula else value


PLAIN = Sheet()


def encode_rows(path: str | Path, rows: Sequence[dict], header: bool = True, sheet: Sheet = PLAIN) -> bytes:
    """The bytes of a file named `path` with `rows` (all with the same keys) or, without `header`, of its continuation.

    `None` is null in jsonl and an empty cell in csv and tsv. These follow RFC 4180 (quotes if needed, CRLF), which
    spreadsheets and pandas read as it is. Gzipped pieces may be concatenated: each is a complete member of the file.
    """
    content = plain_rows(plain_format(path), rows, header, sheet)
    # The gzip header has no name and no time, so the same rows give the same bytes.
    return gzip.compress(content, mtime=0) if is_gzipped(path) else content


def plain_rows(kind: str, rows: Sequence[dict], header: bool = True, sheet: Sheet = PLAIN) -> bytes:
    """The same for a format of `plain_format`, which is never gzipped."""
    text = io.StringIO(newline="")
    if kind == ".jsonl":
        text.writelines(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    else:
        sheet = sheet if kind == ".csv" else replace(sheet, semicolons=False)
        writer = csv.writer(text, delimiter=sheet.delimiter(kind))
        names = list(rows[0]) if rows else []
        cells = [*([names] if header and rows else []), *([row[name] for name in names] for row in rows)]
        as_is = not (sheet.safe or sheet.semicolons)
        writer.writerows(cells if as_is else [[sheet.cell(value) for value in line] for line in cells])
    return ("\ufeff" * bool(sheet.bom and kind != ".jsonl" and header and rows) + text.getvalue()).encode("utf-8")


def write_rows(path: str | Path, rows: Sequence[dict], sheet: Sheet = PLAIN) -> None:
    """Write rows, encoded by `encode_rows`, completely or not at all."""
    with atomic_write(path, "wb") as handle:
        handle.write(encode_rows(path, rows, sheet=sheet))


def finish(plain: Path, handle: BinaryIO, path: str | Path, reals: Sequence[str] = ()) -> None:
    """Write what lies in `plain`, as `plain_format(path)` has it, into the open file that will be at `path`.

    reals: the columns of numbers, float64 in parquet; all others are text there.
    """
    if output_format(path) == PARQUET:
        _write_parquet(plain, handle, reals)
        return
    with open(plain, "rb") as rows, gzip.GzipFile(filename="", mode="wb", fileobj=handle, mtime=0) as zipped:
        shutil.copyfileobj(rows, zipped, 2**20)


def _write_parquet(plain: Path, handle: BinaryIO, reals: Sequence[str]) -> None:
    import pyarrow
    from pyarrow import parquet

    writer = None
    with open(plain, encoding="utf-8") as lines:
        for rows in _groups(lines):
            if writer is None:
                kinds = {name: pyarrow.float64() if name in reals else pyarrow.string() for name in rows[0]}
                schema = pyarrow.schema(kinds)
                writer = parquet.ParquetWriter(handle, schema, compression="zstd")
            writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema), row_group_size=ROW_GROUP)
    if writer is not None:
        writer.close()


def _groups(lines: Iterator[str]) -> Iterator[list[dict]]:
    while rows := [json.loads(line) for line in islice(lines, ROW_GROUP)]:
        yield rows
