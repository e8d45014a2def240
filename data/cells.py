"""Cells of a row as strings, and which of them say that there is nothing."""

import json

from data.damage import Missing, is_missing
from data.notes import Notes
from data.visible import strip_invisible


def present(value: object, role: str, notes: Notes, where: str) -> str:
    """A cell as a string; empty, and noted, where it says in a word that it has no value."""
    if isinstance(value, Missing) and is_missing(value, role == "text"):
        notes.add("missing_value", where, f"{role}: {value}")
        return ""
    return string_of(value)


def label_of(value: object, notes: Notes, where: str) -> str | None:
    """A cell as a label, without invisible characters around it; a word for a missing value stays a `Missing`."""
    written = string_of(value)
    label = strip_invisible(written) or None
    if label != (written.strip() or None):
        notes.add("stripped_label", where)
    # Missing unless the codebook has such a label; see `_label_problem`.
    return Missing(label) if label is not None and isinstance(value, Missing) else label


def mend(text: str) -> str:
    """`text` with U+FFFD for NUL and half surrogate pairs ("\\ud83d" alone in JSON), since no file can hold them."""
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.replace("\0", "\ufffd") if "\0" in text else text


def string_of(value: object) -> str:
    """A cell as a string, `mend`ed: numbers as their file spells them, other kinds of JSON as JSON."""
    if type(value) is str:
        return mend(value)
    if value is None:
        return ""
    if isinstance(value, str):
        return mend(str(value))
    return str(value).lower() if isinstance(value, bool) else json.dumps(value, ensure_ascii=False)
