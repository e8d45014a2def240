"""Which columns a file has, which it must have, and what lies in them: names, delimiters, paths into nested JSON.

A name with points (`data.text`) is a path into objects where no column is called so. If the path leads through a list,
each of its entries is a record of its own: `{"data": [{"text": "a"}, {"text": "b"}]}` holds two posts.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from common.errors import UserError, closest
from data.csv_rows import DELIMITER_NAMES
from data.posts import Columns
from data.rows import open_table
from data.table import BadRow, Number, Table

WORDS = {"\t": "tab", "|": "bar", ";": "semicolon", ",": "comma"}


def open_posts(path: Path, columns: Columns, labels: bool = True, text: bool = True, keep_bad: bool = False) -> Table:
    """The table in `path`; read with another delimiter than its name says where the header plainly has that one.

    That is noted in the table's findings. A delimiter that is given is taken as it is.
    """
    table = open_table(path, columns.delimiter, columns.quote, columns.longest, keep_bad)
    if columns.label in table.classes:
        table.rows = _named(table.rows, columns.label, names := table.classes[columns.label])
        table.findings.append(("class_names", path.name, f"{columns.label}: {', '.join(names)}"))
    if table.names is None or (columns.delimiter and "delimiter" not in columns.remembered):
        return table
    missing = [name for name in _needed(table.names, columns, labels, text).values() if name not in table.names]
    if not missing and len(table.names) == 1:  # a single column where none is needed: perhaps it is several
        missing = [columns.id]
    other = _plain_delimiter(table, missing[0]) if missing else None
    if other is None:
        return table
    name = DELIMITER_NAMES.get(table.delimiter, repr(table.delimiter))
    table.close()
    table = open_table(path, other, columns.quote, columns.longest, keep_bad)
    table.findings.append(("other_delimiter", path.name, f"{path.name}: {DELIMITER_NAMES[other]}, not {name}"))
    return table


def _named(rows: Iterable[dict | BadRow], column: str, names: list[str]) -> Iterator[dict | BadRow]:
    """Rows whose numbers in a column are names, as the file has them; -1 is a row without one."""
    for row in rows:
        value = None if isinstance(row, BadRow) else row.get(column)
        if isinstance(value, Number) and value.lstrip("-").isdecimal() and -1 <= int(value) < len(names):
            row = row | {column: names[int(value)] if int(value) >= 0 else None}
        yield row


def check_columns(names: list[str], columns: Columns, table: Table, labels: bool, text: bool) -> None:
    """The columns that must be there are, and those that an option names once each; else a `UserError` names those
    that are there, and the option."""
    for role, name in _needed(names, columns, labels, text).items():
        if name not in names:
            other = _plain_delimiter(table, name) if table.delimiter else None
            if other is not None:
                raise UserError(
                    f"{table.place.path}: row 1: is separated by {DELIMITER_NAMES[other]}, not by "
                    f"{DELIMITER_NAMES.get(table.delimiter, repr(table.delimiter))}; set --delimiter {WORDS[other]}"
                    + (", or rename it to .tsv" if other == "\t" else "")
                )
            there = ", ".join(repr(n[:24]) for n in names[:12]) + (", ..." if len(names) > 12 else "")
            row = f": row {table.place.row}" if table.names is None else ""
            raise UserError(
                f"{table.place.path}{row}: has no column '{name}'; it has {there}; "
                f"set --{role}-column to the one that holds the {role}{closest(name, names)}"
            )
    named = (columns.text, columns.label, columns.language, columns.id, columns.predicted, columns.annotator,
             *columns.others, *(name for name in names if is_annotated([name])))
    for name in named if table.names is not None else ():  # JSON's readers refuse a key that comes twice
        if names.count(name) > 1:
            raise UserError(f"{table.place.path}: has {names.count(name)} columns named '{name}'; rename all but one")


def _needed(names: list[str], columns: Columns, labels: bool, text: bool) -> dict[str, str]:
    """role -> name of the columns that must be there."""
    roles = ["text"] * text + ["label"] * (labels and not is_annotated(names))
    # A column that was asked for by a name of one's own must be there as well: a mistyped setting is never ignored.
    roles += [role for role in ("language", "id")
              if getattr(columns, role) != getattr(Columns, role) and role not in columns.remembered]
    return {role: getattr(columns, role) for role in roles}


def _plain_delimiter(table: Table, name: str) -> str | None:
    """The delimiter under which the column `name` would be there, or there would be columns at all."""
    others = [d for d in DELIMITER_NAMES if d != table.delimiter]
    split = {d: [cell.strip(' "') for cell in table.header.split(d)] for d in others}
    right = [d for d in others if name in split[d]]
    if not right and table.delimiter not in table.header:
        right = [d for d in others if len(split[d]) > 1]
    return right[0] if right else None


def absent_columns(names: list[str], columns: Columns, file: str) -> dict[str, str]:
    """For language and id, where the file has no such column at all: words that say so, and which option would help."""
    return {role: f"{file} has no column '{name}' (--{role}-column{closest(name, names)})" for role, name in
            (("language", columns.language), ("id", columns.id)) if name not in names}


def is_annotated(names: Iterable[str]) -> bool:
    """Whether a file has one label column per annotator (`label_ana`, `label_ben`): `data.annotators` joins them."""
    return any(name.startswith("label_") for name in names)


def records_of(table: Table, columns: Columns) -> Iterator[tuple[str, dict | BadRow]]:
    """(number, row) of every record, bad ones as they are; where a path leads through a list, each entry stands in the
    list's place."""
    paths = [name for name in (columns.text, columns.label, columns.language, columns.id) if "." in name]
    for row in table.rows:
        is_flat = table.names is not None or isinstance(row, BadRow)
        way = None if is_flat else next(filter(None, (_list_on(row, name) for name in paths)), None)
        if way is None:
            yield str(table.place.row), row
            continue
        for count, entry in enumerate(_at(row, way), 1):
            yield f"{table.place.row}.{count}", _with(row, way, entry)


def names_in(row: dict, columns: Columns) -> list[str]:
    """The names of a row, and the paths of `columns` that lead to something in it."""
    asked = (columns.text, columns.label, columns.language, columns.id, columns.predicted, *columns.others)
    return [*row, *dict.fromkeys(name for name in asked if name not in row and has_value(row, name))]


def has_value(row: dict, name: str) -> bool:
    """Whether a row has a column of this name, or a path leads to something in it."""
    if name in row:
        return True
    for key in name.split(".") if "." in name else ():
        if not isinstance(row, dict) or key not in row:
            return False
        row = row[key]
    return "." in name


def value_of(row: dict, name: str) -> object:
    """What a column or a path holds; None where there is nothing."""
    if name in row or "." not in name:
        return row.get(name)
    return _at(row, name.split("."))


def further(row: dict, columns: Columns) -> dict:
    """A row without the columns of text, label, language and id, also where a path leads to one in an object: whoever
    keeps what else is there keeps no text. An object with nothing else in it goes as well."""
    rest = {key: value for key, value in row.items() if key and key not in columns.own}
    for name in columns.paths:
        if name not in row:
            rest = _without(rest, name.split("."))
    return rest


def _without(row: dict, keys: list[str]) -> dict:
    first, *others = keys
    if first not in row or (others and not isinstance(row[first], dict)):
        return row
    kept = _without(row[first], others) if others else {}
    return row | {first: kept} if kept else {key: value for key, value in row.items() if key != first}


def _at(row, keys: list[str]) -> object:
    for key in keys:
        if not isinstance(row, dict):
            return None
        row = row.get(key)
    return row


def _list_on(row: dict, name: str) -> list[str] | None:
    """The first part of a path that leads to a list, if one does before the path's end."""
    keys = name.split(".")
    if name in row:
        return None
    return next((keys[:n] for n in range(1, len(keys)) if isinstance(_at(row, keys[:n]), list)), None)


def _with(row: dict, keys: list[str], entry: object) -> dict:
    """`row` with `entry` at the end of a path; what is on the way is copied."""
    inner = _with(row[keys[0]], keys[1:], entry) if len(keys) > 1 else entry
    return row | {keys[0]: inner}
