"""Rows that are wrong by themselves, where they are kept among the others: as posts without text that say why.

What concerns more than one row (a header, a quote that is never closed, a file that is cut off) is no such row.
"""

from data.columns import has_value, value_of
from data.json_rows import kind_of
from data.notes import Notes
from data.posts import Columns, Post
from data.rows import stem
from data.table import BadRow, Number, Place


def bad_post(row: BadRow, place: Place, number: str, notes: Notes) -> Post:
    """The post that stands for a row that cannot be read, named after its file and row."""
    note_bad(row, place, notes)
    notes.keep("und", None)
    reason = row.removeprefix(str(place)).removeprefix(": ")
    return Post(f"{stem(place.path)}-{number}", "", None, "und", str(place.path), place.row, {}, reason)


def note_bad(words: str, place: Place, notes: Notes) -> None:
    """Count a row that cannot be read, and remember what an error line would say of the first."""
    notes.add("bad_row", f"{place.path.name}: row {place.row}")
    notes.first_bad = notes.first_bad or str(words)


def what_is_wrong(row: dict, columns: Columns, is_required: bool) -> str:
    """What is wrong with a row whose text is absent, where it is required, or of another kind; else ""."""
    text = value_of(row, columns.text)
    if text is None and not has_value(row, columns.text) and is_required:
        there = ", ".join(repr(name[:24]) for name in list(row)[:12]) or "none"
        return f"has no field '{columns.text}'; its fields: {there}; every row needs one"
    if text is None or (isinstance(text, str) and not isinstance(text, Number)):
        return ""
    if isinstance(text, dict) and len(text) > 1 and all(key.isdecimal() for key in text):
        return ("is a table column by column, as pandas' to_json() writes it; write it with df.to_json(PATH, "
                "orient='records', lines=True)")
    if isinstance(text, bytes):
        return f"the text is {kind_of(text)}; decode it where it is written"
    return f"the text is {kind_of(text)}, not a string; put it in quotes"
