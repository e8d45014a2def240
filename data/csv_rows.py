"""csv and tsv as rows, read strictly, with the traps of exported tables told or mended.

Quotes are those of RFC 4180: a quote inside a quoted cell is doubled. A lenient reader would take a stray quote for an
opening one and swallow rows without a word. A strict one still can, where a post only begins with a quote and another,
rows later, ends with one: a quoted cell then holds whole rows. So such cells are refused (`quote` "auto"):

    tabs, bars            a quoted cell that holds both the delimiter and a line break
    commas, semicolons    the same, if its lines would be rows of as many cells as the header when quotes are ignored:
                          its first and last line certainly, the others at least if a comma with a space behind it may
                          be the text's own; a post of several lines with commas in it is common and is read

A file whose header is quoted throughout, as R writes it, quotes all its text, and none of its cells is refused. A quote
character that is given insists on quoting; "none" reads quotes as text.

Dropped, and counted: the header once more (joined exports), and the two rows below the header that Qualtrics writes.
A word such as NA without quotes is a missing value (see `data.damage`).

Where bad rows are kept (`data.table.Place`), a record that is wrong by itself stands as a `BadRow`; a header that
cannot be read, and a quote that is never closed and takes the rest of the file, are errors as ever.
"""

import csv
import re
from collections.abc import Iterator
from itertools import chain

from common.errors import UserError
from data.damage import MISSING_WORDS, NO_TEXT, Missing
from data.table import MARK, BadRow, NoRows, Place, Table

AUTO = "auto"
DELIMITER_NAMES = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
_IMPORT_ID = re.compile(r'\s*\{\s*"ImportId"')  # what Qualtrics writes under each column
_WORDS = MISSING_WORDS | {NO_TEXT}


class _Lines:
    """The file's lines, counted; `record` has those that the reader took since `begin`, `count` how many these are.

    Of a record of more than `MOST` characters only the beginning is kept: a quote that is never closed takes the rest
    of the file, and the reader holds that already.
    """

    MOST = 2**16

    def __init__(self, lines: Iterator[str]):
        self._lines, self.record, self.count, self._size = lines, [], 0, 0

    @property
    def is_large(self) -> bool:
        """Whether the record has more than `MOST` characters."""
        return self._size > self.MOST

    def begin(self) -> None:
        """The next line begins a record."""
        self.record, self.count, self._size = [], 0, 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.count += 1
        self._size += len(line)
        if not self.is_large:
            self.record.append(line)
        return line


def csv_table(lines: Iterator[str], place: Place, delimiter: str, quote: str, longest: int) -> Table:
    """The table in `lines`, its header read; `place` moves along. Raises `UserError`, also while rows are taken."""
    csv.field_size_limit(longest * 2**20)  # the module's own 131,072 characters are less than some scraped cells
    first = next(lines, None)
    mark = re.fullmatch(r'"?sep=(.)"?\s*', first or "", re.IGNORECASE)
    if mark:  # Excel's own line about its delimiter, which it hides and does not count
        delimiter, first = mark[1], next(lines, None)
    kept = [line for line in [first] if line is not None]
    taken = _Lines(chain(kept, lines))
    character = '"' if quote == AUTO else quote
    try:
        if quote == "none":
            reader = csv.reader(taken, delimiter=delimiter, quoting=csv.QUOTE_NONE, strict=True)
        else:
            reader = csv.reader(taken, delimiter=delimiter, quotechar=character, strict=True)
    except (TypeError, ValueError) as error:
        raise UserError(f"--delimiter {delimiter!r}, --quote {quote!r}: each is one character, and they differ"
                        ) from error
    table = Table(place, None, iter(()), delimiter=delimiter)
    records = _records(reader, taken, table)
    try:
        names = next(records, None)
    except UserError as error:
        # Read with the wrong delimiter, a quoted header is not well formed: the reader must be able to say which.
        if not kept or delimiter in kept[0]:
            raise
        table.names, table.header, table.rows = [kept[0].strip()], kept[0].strip(), _raising(error)
        return table
    if names is None:
        raise NoRows(f"{place.path}: holds no line of text; a header row with column names was expected")
    if isinstance(names, BadRow) or place.damage:
        raise UserError(place.damage or names)
    table.names, table.header = [name.strip() for name in names], delimiter.join(names)
    is_quoted = bool(kept) and _is_quoted(kept[0], delimiter)
    table.rows = _rows(records, taken, table, None if quote == "none" else character, quote == AUTO and not is_quoted)
    return table


def _rows(records: Iterator[list[str] | BadRow], taken: _Lines, table: Table, character: str | None, is_auto: bool
          ) -> Iterator[dict | BadRow]:
    """Records as rows; those that are no posts are left out and noted."""
    names, place, held = table.names, table.place, []
    width, first = len(names), names[0]
    for record in records:
        is_plain = len(record) == width and taken.count == 1 and not place.damage and type(record) is list
        row = None if is_plain else _bad(record, taken, table, is_auto)
        if row is None:
            record = record if is_plain else record[:width]
            if first in record[0] and _is_header(record, names):
                table.findings.append(("repeated_header", _where(place), ""))
                continue
            cells = record if _WORDS.isdisjoint(record) else _with_missing(record, taken.record, character)
            row = dict(zip(names, cells, strict=True))
        if held is not None:  # the first two rows wait until it is known whether Qualtrics wrote them
            held.append((_where(place), place.row, row))
            if len(held) < 2 and not taken.is_large:
                continue
            if len(held) == 2 and not isinstance(row, BadRow) and _is_import_ids(record):
                table.findings += [("survey_rows", held_at, "") for held_at, _, _ in held]
                held = None
                continue
            waiting, held, now = held, None, place.row
            for _, number, earlier in waiting:
                place.row = number
                yield earlier
            place.row = now
            continue
        yield row
    for _, number, row in held or []:
        place.row = number
        yield row


def _is_header(record: list[str], names: list[str]) -> bool:
    """Whether a row is the header once more, as in files put behind one another, each with its byte order mark: behind
    one, quotes are no longer quotes."""
    cells = [cell.strip() for cell in record]
    if cells[0].startswith(MARK):
        cells[0] = cells[0][1:].strip().strip('"')
    return cells == names


def _is_quoted(header: str, delimiter: str) -> bool:
    """Whether every name of a header is quoted."""
    names = header.strip("\r\n").split(delimiter)
    return all(len(name) > 1 and name[0] == name[-1] == '"' for name in names)


def _where(place: Place) -> str:
    return f"{place.path.name}: row {place.row}"


def _bad(record: list[str] | BadRow, taken: _Lines, table: Table, is_auto: bool) -> BadRow | None:
    """What makes a record no row; None where it is one, but for empty cells that spreadsheets leave behind the last."""
    place, names = table.place, table.names
    if isinstance(record, BadRow):
        return record
    if place.damage:
        return place.bad(place.damage)
    if len(record) != len(names) and (len(record) < len(names) or any(record[len(names) :])):
        return place.bad(
            f"{place}: has {len(record)} fields where the header has {len(names)}; put quotes around a field "
            f"that holds {DELIMITER_NAMES.get(table.delimiter, table.delimiter)} or line breaks"
        )
    swallowed = _swallowed(record, taken, table) if is_auto and taken.count > 1 else ""
    return place.bad(swallowed) if swallowed else None


def _is_import_ids(record: list[str]) -> bool:
    filled = [cell for cell in record if cell.strip()]
    return bool(filled) and all(_IMPORT_ID.match(cell) for cell in filled)


def _swallowed(record: list[str], taken: _Lines, table: Table) -> str:
    """What to say where a quoted cell may be several rows of a file that does not quote, else ""."""
    inside = [cell for cell in record if table.delimiter in cell and ("\n" in cell or "\r" in cell)]
    if not inside:
        return ""
    if table.delimiter in ",;":
        most = [line.count(table.delimiter) + 1 for line in taken.record]
        prose, width = f"{table.delimiter} ", len(table.names)
        is_prose = prose not in table.header  # else it is what separates the cells
        least = [n - is_prose * line.count(prose) for n, line in zip(most, taken.record, strict=True)]
        if not (least[0] == least[-1] == width and all(a <= width <= b for a, b in zip(least, most, strict=True))):
            return ""
    name = DELIMITER_NAMES.get(table.delimiter, repr(table.delimiter))
    return (f"{table.place}: a quoted cell holds both {name} and a line break ({taken.count} lines), as if a post only "
            "began with a quote; --quote none reads quotes as text, and --quote '\"' says that this is one cell")


def _with_missing(record: list[str], lines: list[str], character: str | None) -> list[str]:
    """The cells, with `Missing` for those that say so without quotes; where cells of a row differ in that, all do."""
    raw = "".join(lines)
    quoted = {cell for cell in record if cell in _WORDS and character is not None
              and raw.count(f"{character}{cell}{character}") >= record.count(cell)}
    return [Missing(cell) if cell in _WORDS and cell not in quoted else cell for cell in record]


def _raising(error: UserError) -> Iterator[dict]:
    raise error
    yield


def _records(reader, taken: _Lines, table: Table) -> Iterator[list[str] | BadRow]:
    place = table.place
    while True:
        taken.begin()
        try:
            record = next(reader, None)
        except csv.Error as error:
            words = f"{place.path}: row {place.row + 1}: {_in_words(error)}"
            if not place.keep_bad or "expected after" not in str(error):  # all else concerns more than this row
                raise UserError(words) from error
            record = place.bad(words)
        table.lines += taken.count
        if record is None:
            return
        place.row += 1
        if record:
            table.long_rows += taken.count > 1
            yield record


def _in_words(error: csv.Error) -> str:
    text = str(error)
    if "unexpected end of data" in text:
        return "a quote that opens here is never closed; double the quotes inside fields, or set --quote none"
    if "expected after" in text:
        return "a quote inside a quoted field is not doubled; double it, or set --quote none"
    if "new-line" in text:
        return "lines end in a lone carriage return; save the file with ordinary line ends"
    return f"is not well-formed csv ({text})"
