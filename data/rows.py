"""Files as rows: jsonl, csv, tsv (each also gzipped) and parquet become (row number, {column: value}), one at a time.

Row numbers are those a person sees: the line in a jsonl file, the row in a spreadsheet for csv and tsv (the header is
row 1, and a field with line breaks in it is still one row); parquet rows count from 1. Lines are decoded one by one, so
that an error can give the row and the offset of a byte that is not UTF-8. Strings stay as written; numbers in JSON
become `Number`, a string as the file spells it (`1e5`, `007` in quotes), so that no id is ever reformatted.
"""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from common.errors import UserError
from data.csv_rows import csv_table
from data.json_rows import json_rows
from data.table import Number, Place, Table

FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "tsv", ".txt": "tsv",
           ".parquet": "parquet"}  # .txt is what Excel calls its own tab-separated text
DELIMITERS = {"csv": ",", "tsv": "\t"}
UTF_16 = b"\xff\xfe"
FOREIGN = {  # first bytes of files that are often taken for text tables
    b"PK\x03\x04": "is a zip archive or an Excel workbook; save the sheet as CSV UTF-8, or unpack the archive",
    b"\xd0\xcf\x11\xe0": "is an old Excel workbook; save the sheet as CSV UTF-8",
    UTF_16: "is UTF-16 text; save it as UTF-8, or: iconv -f UTF-16 -t UTF-8 {name} > utf8-{name}",
    b"\xfe\xff": "is UTF-16 text; save it as UTF-8, or: iconv -f UTF-16 -t UTF-8 {name} > utf8-{name}",
    b"PAR1": "is a parquet file; name it .parquet",
}


def file_format(path: Path) -> str:
    """ "jsonl", "csv", "tsv" or "parquet", from the name without a final .gz. Raises `UserError` for any other name."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    zipped = suffixes[-1:] == [".gz"]
    last = (suffixes[:-1] if zipped else suffixes)[-1:]
    kind = FORMATS.get(last[0]) if last else None
    if kind is None or (zipped and kind == "parquet"):
        raise UserError(f"{path}: is not a kind of file that is read; use .jsonl, .csv, .tsv (also .gz) or .parquet")
    return kind


def stem(path: Path) -> str:
    """A file's name without .gz and its format: `posts.csv.gz -> posts`."""
    name = path.name[:-3] if path.name.lower().endswith(".gz") else path.name
    return Path(name).stem


def open_table(path: Path, delimiter: str = "", quote: str = "auto") -> Table:
    """Open a file as rows; the file is read as the rows are taken and closed after the last one.

    Raises `UserError`, naming the file (and the row), if it is missing, a folder, empty, of an unknown kind, not UTF-8,
    cut off or malformed; a problem inside a row is raised when that row is reached.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name the files in it, such as {path}/*.jsonl")
    kind = file_format(path)
    if not path.exists():
        raise UserError(f"{path}: there is no such file")
    if not path.is_file():
        raise UserError(f"{path}: is not a plain file; write the posts into a file first")
    place = Place(path)
    if kind == "parquet":
        return _parquet(path, place)
    lines = _lines(path, place)
    if kind == "jsonl":
        return Table(place, None, json_rows(lines, place))
    return csv_table(lines, place, delimiter or DELIMITERS[kind], quote)


def _open(path: Path):
    try:
        with open(path, "rb") as handle:
            start = handle.read(2)
        if not start:
            raise UserError(f"{path}: is empty; a file of posts was expected")
        # The content decides: a gzipped file is read whatever its name.
        zipped = start == b"\x1f\x8b"
        if path.suffix.lower() == ".gz" and not zipped:
            raise UserError(f"{path}: is named .gz but is not gzipped; take .gz off its name")
        return gzip.open(path, "rb") if zipped else open(path, "rb")  # closed by `_lines`
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def _lines(path: Path, place: Place) -> Iterator[str]:
    """Decoded lines with their line ends and without a byte order mark; errors name the row being read."""
    offset = 0
    with closing(_open(path)) as handle:
        while True:
            try:
                line = handle.readline()
            except (EOFError, zlib.error, OSError) as error:
                why = "is cut off" if isinstance(error, EOFError) else f"is damaged ({error})"
                raise UserError(
                    f"{path}: row {place.row + 1}: the gzipped data {why} after {offset:,} bytes of text; "
                    "copy the file again"
                ) from error
            if not line:
                return
            if offset == 0:
                foreign = next((words for magic, words in FOREIGN.items() if line.startswith(magic)), None)
                if foreign:
                    raise UserError(f"{path}: {foreign.format(name=path.name)}")
                if line.startswith(b"\xef\xbb\xbf"):
                    line, offset = line[3:], 3
            if line.count(0) * 3 > len(line):
                raise UserError(f"{path}: {FOREIGN[UTF_16].format(name=path.name)}")
            if b"\0" in line:
                raise UserError(
                    f"{path}: row {place.row + 1}: byte {offset + line.index(0):,} is NUL, which no text file holds; "
                    "save the file as UTF-8 text"
                )
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{path}: row {place.row + 1}: byte {offset + error.start:,} (0x{line[error.start]:02x}) is not "
                    f"UTF-8; save it as UTF-8, or: iconv -f CP1252 -t UTF-8 {path.name} > utf8-{path.name}"
                ) from error
            offset += len(line)
            yield text


def _parquet(path: Path, place: Place) -> Table:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(f"{path}: reading parquet needs pyarrow: pip install pyarrow, or save as .jsonl") from error
    try:
        file = parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: is not a complete parquet file; write it again, or save as .jsonl") from error

    def rows() -> Iterator[dict]:
        with closing(file):
            for batch in file.iter_batches(batch_size=4096):
                for row in batch.to_pylist():
                    place.row += 1
                    yield {name: _plain(value) for name, value in row.items()}

    return Table(place, file.schema_arrow.names, rows())


def _plain(value: object) -> object:
    if value is None or isinstance(value, (str, bool, dict, list)):
        return value
    if isinstance(value, (int, float)):
        return None if value != value else Number(value)
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
