"""An open file of rows: what its columns are called, its rows one by one, and where reading stands."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import UserError

MARK = "\ufeff"  # byte order mark


class NoRows(UserError):
    """A file has nothing to read in it, which is no error where it is one of many."""


class BadRow(str):
    """What stands in a row's place where it cannot be read: why, as an error line says it."""


class Number(str):
    """A number as its file spells it; told apart from a string, so that a number where text belongs is noticed."""


@dataclass
class Place:
    """Where reading stands; `str(place)` is "posts.csv: row 3". `row` is the row being read.

    keep_bad: a row that is wrong by itself is handed on as a `BadRow`, and reading goes on behind it. damage: what is
    wrong with the bytes of the row being read, for whoever makes a row of them.
    """

    path: Path
    row: int = 0
    keep_bad: bool = False
    damage: str = ""

    def bad(self, words: str) -> BadRow:
        """The row that cannot be read, in `words`, or a `UserError` of them where none is kept."""
        self.damage = ""
        if not self.keep_bad:
            raise UserError(words)
        return BadRow(words)

    def __str__(self) -> str:
        return f"{self.path}: row {self.row}"


@dataclass
class Table:
    """An open file: its column names (None where each row has its own) and its rows; `place` moves along with them."""

    place: Place
    names: list[str] | None
    rows: Iterator[dict[str, object] | BadRow]
    header: str = ""  # the header as one line, for guessing what separates it
    delimiter: str = ""
    classes: dict[str, list[str]] = field(default_factory=dict)  # column -> what its numbers 0, 1, ... are called
    findings: list[tuple[str, str, str]] = field(default_factory=list)  # kind, place and detail, for `data.notes`
    lines: int = 0  # of the file so far
    long_rows: int = 0  # rows that took several lines
    close: Callable[[], object] = lambda: None  # gives the file back before its last row: Windows removes no open one
