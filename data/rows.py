"""Files as rows: jsonl, csv, tsv (each also gzipped) and parquet become (row number, {column: value}), one at a time.

Row numbers are those a person sees: the line in a jsonl file, the row in a spreadsheet for csv and tsv (the header is
row 1, and a field with line breaks in it is still one row), counted from 1 in parquet. Lines are decoded one by one, so
that a byte that is not UTF-8 is named by its row and its place in the file. Strings stay as written; numbers in JSON
become `Number`, a string as the file spells it (`1e5`, `007` in quotes), so that no id is ever reformatted.

Quotes in csv are read strictly (RFC 4180: a quote inside a quoted field is doubled): a lenient reader would take a
stray quote for an opening one and swallow rows without a word.
"""

import csv
import json
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from common.errors import UserError
from common.reading import Unreadable, check_path, json_value
from data.lines import Place, is_array, read_lines, too_long

FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"}
DELIMITERS = {"csv": ",", "tsv": "\t"}
DELIMITER_NAMES = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
LONGEST = 16  # megabytes of a row; the csv module's own 131,072 characters of a cell are less than some scraped ones


class Number(str):
    """A number as its file spells it; told apart from a string, so that a number where text belongs is noticed."""


@dataclass
class Table:
    """An open file: its column names (None where each row has its own) and its rows; `place` moves along with them."""

    place: Place
    names: list[str] | None
    rows: Iterator[dict[str, object]]
    header: str = ""  # the header as one line, for guessing what separates it
    delimiter: str = ""


def file_format(path: Path) -> str:
    """ "jsonl", "csv", "tsv" or "parquet", from the name, a final .gz left out; `UserError` for any other name."""
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


def open_table(path: Path, delimiter: str = "", quote: str = '"', longest: int = LONGEST) -> Table:
    """Open a file as rows; the file is read as the rows are taken and closed after the last one.

    longest: megabytes that a row may take. It is held while reading, so that a line without end, a quote that is never
    closed or a gzipped file of a thousand times its size takes no more memory than that.

    A file that is absent, a folder, empty, of a foreign kind, not UTF-8, cut off or not well formed is a `UserError`
    that names it (and the row); problems inside rows are raised when that row is reached.
    """
    check_path(path)
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name the files in it, such as {path}/*.jsonl")
    kind = file_format(path)
    if not path.exists():
        raise UserError(f"{path}: there is no such file")
    if not path.is_file():
        raise UserError(f"{path}: is not a plain file; write the posts into a file first")
    place = Place(path)
    if kind == "parquet":
        return _parquet(path, place, longest)
    lines = read_lines(path, place, longest)
    if kind == "jsonl":
        return Table(place, None, _json_rows(lines, place))
    csv.field_size_limit(longest * 2**20)
    return _csv(lines, place, delimiter or DELIMITERS[kind], quote)


def _json_rows(lines: Iterator[str], place: Place) -> Iterator[dict]:
    first = True
    for line in lines:
        place.row += 1
        if not line.strip():
            continue
        if first and line.lstrip().startswith("["):
            raise is_array(place.path)
        first = False
        try:
            value = json_value(line.rstrip(), Number)
        except json.JSONDecodeError as error:
            what = f"{error.msg}, column {error.pos + 1}"
            raise UserError(f'{place}: is not JSON ({what}); each line is one object, {{"text": "..."}}') from error
        except Unreadable as error:
            raise UserError(f"{place}: is nested too deep to be a post; each line is one flat object") from error
        if not isinstance(value, dict):
            raise UserError(f'{place}: is {kind_of(value)}, not an object; each line is one object, {{"text": "..."}}')
        yield value


def kind_of(value: object) -> str:
    """A value's kind in words: "a number (12)", "a list", "an object", "true"; for error lines."""
    if isinstance(value, Number):
        return f"a number ({value[:20]})"
    if isinstance(value, bool):
        return str(value).lower()
    return {dict: "an object", list: "a list", str: "a string", type(None): "null"}.get(type(value), "no text")


def _csv(lines: Iterator[str], place: Place, delimiter: str, quote: str) -> Table:
    first = next(lines, None)
    mark = re.fullmatch(r'"?sep=(.)"?\s*', first or "", re.IGNORECASE)
    if mark:  # Excel's own line about its delimiter, which it hides and does not count
        delimiter, first = mark[1], next(lines, None)
    kept = [line for line in [first] if line is not None]
    lines = chain(kept, lines)
    try:
        if quote == "none":
            reader = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE, strict=True)
        else:
            reader = csv.reader(lines, delimiter=delimiter, quotechar=quote, strict=True)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"--delimiter {delimiter!r}, --quote {quote!r}: each is one character, and they differ"
        ) from error
    records = _records(reader, place)
    try:
        names = next(records, None)
    except UserError as error:
        # Read with the wrong delimiter, a quoted header is not well formed: the reader must be able to say which.
        if not kept or delimiter in kept[0]:
            raise
        return Table(place, [kept[0].strip()], _raising(error), header=kept[0].strip(), delimiter=delimiter)
    if names is None:
        raise UserError(f"{place.path}: holds no line of text; a header row with column names was expected")
    names = [name.strip() for name in names]

    def rows() -> Iterator[dict]:
        for record in records:
            if len(record) > len(names) and not any(record[len(names) :]):
                record = record[: len(names)]  # spreadsheets leave empty cells behind the last column
            if len(record) != len(names):
                raise UserError(
                    f"{place}: has {len(record)} fields where the header has {len(names)}; put quotes around a field "
                    f"that holds {DELIMITER_NAMES.get(delimiter, delimiter)} or line breaks"
                )
            yield dict(zip(names, record, strict=True))

    return Table(place, names, rows(), header=delimiter.join(names), delimiter=delimiter)


def _raising(error: UserError) -> Iterator[dict]:
    raise error
    yield


def _records(reader, place: Place) -> Iterator[list[str]]:
    while True:
        try:
            record = next(reader, None)
        except csv.Error as error:
            text = str(error)
            if "unexpected end of data" in text:
                why = "a quote that opens here is never closed; double the quotes inside fields, or set --quote none"
            elif "expected after" in text:
                why = "a quote inside a quoted field is not doubled; double it, or set --quote none"
            elif "new-line" in text:
                why = "lines end in a lone carriage return; save the file with ordinary line ends"
            else:
                why = f"is not well-formed csv ({text})"
            raise UserError(f"{place.path}: row {place.row + 1}: {why}") from error
        if record is None:
            return
        place.row += 1
        if record:
            yield record


def _parquet(path: Path, place: Place, longest: int) -> Table:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(f"{path}: reading parquet needs pyarrow: pip install pyarrow, or save as .jsonl") from error
    try:
        file = parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: is not a whole parquet file; write it again, or save as .jsonl") from error

    def rows() -> Iterator[dict]:
        with closing(file):
            for batch in file.iter_batches(batch_size=64):
                for row in batch.to_pylist():
                    if any(isinstance(value, str) and len(value) > longest * 2**20 for value in row.values()):
                        raise too_long(place, longest)
                    place.row += 1
                    yield {name: _plain(value) for name, value in row.items()}

    return Table(place, file.schema_arrow.names, rows())


def _plain(value: object) -> object:
    if value is None or isinstance(value, (str, bool, dict, list)):
        return value
    if isinstance(value, (int, float)):
        return None if value != value else Number(value)
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
