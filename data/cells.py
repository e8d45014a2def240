"""Cells of a row as strings, and which of them say that there is nothing."""

import json

from data.damage import NULL, Missing, is_missing
from data.notes import Notes
from data.table import Number
from data.visible import composed, strip_invisible


def present(value: object, role: str, notes: Notes, where: str) -> str:
    """A cell as a string; empty, and noted, where it says in a word that it has no value."""
    if isinstance(value, Missing) and is_missing(value, role == "text"):
        notes.add("missing_value", where, f"{role}: {value}")
        return ""
    return string_of(value)


def label_of(value: object, notes: Notes, where: str) -> str | None:
    """A cell as a label, without invisible characters around it; a word for a missing value stays a `Missing`."""
    written = string_of(value)
    bare = strip_invisible(written)
    label = composed(bare) or None
    if bare != written.strip():
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
    """A cell as a string, `mend`ed: numbers as their file spells them, other kinds of JSON as JSON, null as `NULL`."""
    if type(value) is str:
        return mend(value)
    if value is None:
        return NULL
    return mend(str(value) if isinstance(value, str) else _as_json(value))


def _as_json(value: object) -> str:
    """JSON of a value whose numbers are `Number`s: `_as_json([Number("1.50"), "a"]) -> '[1.50, "a"]'`; bytes are
    hexadecimal digits."""
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, dict):
        inside = (f"{json.dumps(key, ensure_ascii=False)}: {_as_json(one)}" for key, one in value.items())
        return f"{{{', '.join(inside)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_as_json, value))}]"
    if isinstance(value, bytes):
        return value.hex()
    return json.dumps(value, ensure_ascii=False)
