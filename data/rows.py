"""Files as rows: jsonl, csv, tsv (each also gzipped) and parquet become (row number, {column: value}), one at a time.

Row numbers are those a person sees: the line in a jsonl file, the row in a spreadsheet for csv and tsv (the header is
row 1, and a field with line breaks in it is still one row); parquet rows count from 1. Lines are decoded one by one, so
that an error can give the row and the offset of a byte that is not UTF-8. Strings stay as written; numbers in JSON
become `Number`, a string as the file spells it (`1e5`, `007` in quotes), so that no id is ever reformatted.
"""

import shlex
from pathlib import Path

from common.errors import UserError
from common.reading import check_path
from data.csv_rows import csv_table
from data.json_rows import json_rows
from data.lines import read_lines
from data.parquet_rows import parquet_table
from data.table import Place, Table

FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "tsv", ".txt": "tsv",
           ".parquet": "parquet"}  # .txt is what Excel calls its own tab-separated text
HALVES = ("train.jsonl", "test.jsonl")  # the files that tools.split makes of posts
DELIMITERS = {"csv": ",", "tsv": "\t"}
UNPACK = {".zst": "zstd -d", ".bz2": "bunzip2 -k", ".xz": "unxz -k", ".zip": "unzip"}
LONGEST = 16  # megabytes of a row


def file_format(path: Path) -> str:
    """ "jsonl", "csv", "tsv" or "parquet", from the name without a final .gz. Raises `UserError` for any other name."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    zipped = suffixes[-1:] == [".gz"]
    last = (suffixes[:-1] if zipped else suffixes)[-1:]
    kind = FORMATS.get(last[0]) if last else None
    if kind is None or (zipped and kind == "parquet"):
        packed = suffixes[-1:] and UNPACK.get(suffixes[-1])
        raise UserError(f"{path}: is not a kind of file that is read; use .jsonl, .csv, .tsv (also .gz) or .parquet"
                        + (f"; unpack it first: {packed} {shlex.quote(str(path))}" if packed else ""))
    return kind


def stem(path: Path) -> str:
    """A file's name without .gz and its format: `posts.csv.gz -> posts`."""
    name = path.name[:-3] if path.name.lower().endswith(".gz") else path.name
    return Path(name).stem


def open_table(path: Path, delimiter: str = "", quote: str = "auto", longest: int = LONGEST, keep_bad: bool = False
               ) -> Table:
    """Open a file as rows; the file is read as the rows are taken and closed after the last one.

    keep_bad: a row that is wrong by itself stands as a `BadRow` among the others. longest: megabytes that a row may
    take. It is held while reading, so that a line without end, a quote that is never closed or a gzipped file of a
    thousand times its size takes no more memory than that.

    A file that is absent, a folder, empty, of a foreign kind, not UTF-8, cut off or not well formed is a `UserError`
    that names it (and the row); problems inside rows are raised when that row is reached.
    """
    check_path(path)
    if path.is_dir():
        both = [path / name for name in HALVES]
        raise UserError(f"{path}: is a folder; name the file in it: {both[0]} to train on, {both[1]} to score"
                        if all(one.is_file() for one in both) else
                        f"{path}: is a folder; name the files in it, such as {path}/*.jsonl")
    if not path.exists():
        raise UserError(f"{path}: there is no such file" + (
            "" if path.suffix or path.parent.is_dir() else
            "; of a data set on a hub, fetch the files (.parquet is read), and name these"))
    kind = file_format(path)
    if not path.is_file():
        raise UserError(f"{path}: is not a plain file; write the posts into a file first")
    place = Place(path, keep_bad=keep_bad)
    if kind == "parquet":
        return parquet_table(path, place, longest)
    lines = read_lines(path, place, longest)
    try:
        table = Table(place, None, json_rows(lines, place)) if kind == "jsonl" else (
            csv_table(lines, place, delimiter or DELIMITERS[kind], quote, longest))
    except UserError:
        lines.close()
        raise
    table.close = lines.close
    return table
