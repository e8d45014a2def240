"""A study's tables: as CSV for R and others, and as the same numbers rounded for people.

    shown(0.61234, "rate") -> "0.612"     csv_text(table)     html_table(table)     column_list(tables)

CSV: UTF-8 without a byte order mark, `NA` for what is missing, TRUE and FALSE, every digit of a number (`repr`:
reading it back gives the same float), text in quotes. Quotes are not enough for R, which turns a text of digits into a
number and a long id into a rounded one; columns.csv gives each column's class, and read.R reads every table by it. A
text that consists of the two letters NA cannot be told from a missing one.
"""

from collections.abc import Iterable

from report.markup import Html, grid, join, tag
from report.words import language_name, signed
from study.report.section import NUMBERS, Table

LONG = 14  # rows above which a table is folded away on the page
ROOM = {"slim": 20, "middling": 44, "broad": 62}  # rem that a table may take
CLASSES = {"text": "character", "language": "character", "flag": "logical"}  # all others are numeric
READ_R = """\
# The study's tables as a list of data frames: study <- read_study("tables")
# Text stays text (ids too), NA is missing.
read_study <- function(folder) {
  columns <- read.csv(file.path(folder, "columns.csv"), colClasses = "character", encoding = "UTF-8")
  tables <- lapply(split(columns, columns$table), function(own) {
    read.csv(file.path(folder, paste0(own$table[1], ".csv")), encoding = "UTF-8",
             colClasses = setNames(own$class, own$column))
  })
  tables
}
"""


def shown(value, kind: str) -> str:
    """A value as the page, the figures' tables and LaTeX show it: rounded, a dash for what is missing."""
    if value is None or value != value:  # NaN
        return "–"
    if kind == "flag":
        return "yes" if value else "no"
    if kind == "language":
        return language_name(value)
    if kind == "count":
        return f"{value:,}"
    if kind == "rate":
        return f"{value:.3f}"
    if kind == "difference":
        return signed(value, 3)
    if kind == "p":
        return "<0.001" if value < 0.0005 else f"{value:.3f}"
    if kind == "number":
        text = f"{value:,.0f}" if 1e3 <= abs(value) < 1e15 else f"{value:.4g}"
        return text.replace("-", "−", 1) if value < 0 else text
    return value


def short(value, kind: str) -> str:
    """A value within a cell of a picture: two digits after the point and no zero before it, `.61`, `+.03`."""
    if value is None:
        return "–"
    if kind == "difference":
        return signed(value, 2).replace("0.", ".", 1)
    return f"{value:.2f}".replace("0.", ".", 1) if kind in ("rate", "p") else shown(value, kind)


def csv_text(table: Table) -> str:
    """The table as a CSV file's text."""
    lines = [",".join(_quoted(column.key) for column in table.columns)]
    lines += [",".join(_csv_cell(row[column.key]) for column in table.columns) for row in table.rows]
    return "\n".join(lines) + "\n"


def _csv_cell(value) -> str:
    if value is None:
        return "NA"
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    return _quoted(value) if isinstance(value, str) else repr(value)


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def room(header: list[str], rows: list[list[str]], numbers: list[bool]) -> str:
    """The class of a table by the width that it needs: "slim" fits a phone, "middling" a tablet, "broad" a desk; the
    rows of a "vast" one are always lists. An estimate in characters of half a rem, and a rem and a bit between columns.
    """
    width = 0.0
    for k, title in enumerate(header):
        words = max((len(word) for word in title.split()), default=1)
        cells = [len(row[k]) if numbers[k] else min(len(row[k]), 24) for row in rows]
        width += 0.52 * max(words, *cells, 3) + 1.25
    return next((name for name, most in ROOM.items() if width <= most), "vast")


def column_list(tables: Iterable[Table]) -> str:
    """columns.csv: a line per table and column, with its title, kind and class in R."""
    lines = [("table", "column", "title", "kind", "class")]
    lines += [(table.name, column.key, column.title, column.kind, CLASSES.get(column.kind, "numeric"))
              for table in tables for column in table.columns]
    return "\n".join(",".join(map(_quoted, line)) for line in lines) + "\n"


def html_table(table: Table) -> Html:
    """The table with its title and notes; a long one is folded away, and rows become lists where it is too wide."""
    header = [column.title for column in table.columns]
    numbers = [column.kind in NUMBERS for column in table.columns]
    rows = [[shown(row[column.key], column.kind) for column in table.columns] for row in table.rows]
    body = grid(table.title, header, rows, numbers=numbers, class_=f"wide {room(header, rows, numbers)}")
    notes = tag("p", " ".join(table.notes), class_="note", dir="auto") if table.notes else None
    where = tag("p", "Full precision: ", tag("code", f"tables/{table.name}.csv"), class_="note")
    if len(rows) > LONG:
        summary = tag("summary", f"Table: {table.title} ({len(rows):,} rows)")
        return tag("details", summary, body, notes, where, id=f"table-{table.name}")
    return tag("div", join([tag("h3", table.title), body, notes, where]), id=f"table-{table.name}", class_="table")
