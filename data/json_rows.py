"""JSON as rows: one object a line, or one array of objects.

Numbers stay as the file spells them (`Number`), so that no id is ever reformatted. An object that has a key twice is
refused: a JSON reader would keep the last one without a word.
"""

import json
from collections.abc import Iterator

from common.errors import UserError
from common.reading import Unreadable, check_depth
from data.cells import mend
from data.table import MARK, BadRow, Number, Place

SHAPE = 'each line is one object, {"text": "..."}'


def _object(pairs: list[tuple[str, object]]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _Doubled(twice)
    return found


class _Doubled(Exception):
    """An object has this key twice."""


_DECODER = json.JSONDecoder(parse_int=Number, parse_float=Number, parse_constant=lambda name: None,
                            object_pairs_hook=_object)


def json_rows(lines: Iterator[str], place: Place) -> Iterator[dict | BadRow]:
    """The objects of a file in their order; `place` moves along: lines are counted, or the entries of an array.

    Where bad rows are kept, that holds for lines; an array is one document, and what is wrong with it is an error.
    """
    first = True
    for line in lines:
        place.row += 1
        if place.damage:
            yield place.bad(place.damage)
            continue
        line = line.removeprefix(MARK)  # of a file that was put behind another
        if not line.strip():
            continue
        if first and line.lstrip().startswith("["):
            yield from _array(line.lstrip()[1:], lines, place)
            return
        first = False
        try:
            value = _decoded(_DECODER.decode, line.rstrip(), place)
        except UserError as error:
            value = place.bad(str(error))
        if not isinstance(value, dict | BadRow):
            value = place.bad(f"{place}: is {kind_of(value)}, not an object; {SHAPE}")
        yield value if isinstance(value, BadRow) or "\\u" not in line else _mended(value, place)


def _mended(row: dict, place: Place) -> dict | BadRow:
    """A row whose keys hold no NUL and no half surrogate pair, which no file could have as a column's name."""
    found = {mend(key): value for key, value in row.items()}
    return found if len(found) == len(row) else place.bad(f"{place}: has two keys that differ only in characters that "
                                                          "no file can hold; rename one of them")


def _array(text: str, lines: Iterator[str], place: Place) -> Iterator[dict]:
    """The entries of an array whose opening bracket is read; more lines are taken as they are needed."""
    place.row, at, is_first = 0, 0, True
    while True:
        at, text = _skip(text, at, lines, place)
        if text[at] == "]":
            rest = text[at + 1 :] + "".join(lines)
            if rest.strip():
                raise UserError(f"{place.path}: has something behind the end of its array; one array was expected")
            return
        if not is_first:
            if text[at] != ",":
                raise UserError(f"{place}: a comma was expected behind this entry of the array")
            at, text = _skip(text, at + 1, lines, place)
        place.row, is_first, more = place.row + 1, False, 1
        while True:
            try:
                value, at = _DECODER.raw_decode(text, at)
                break
            except json.JSONDecodeError:
                piece = "".join(line for _, line in zip(range(more), lines, strict=False))
                if place.damage:
                    raise UserError(place.damage) from None
                if not piece:
                    _decoded(lambda whole, at=at: _DECODER.raw_decode(whole, at), text, place)
                text, at, more = text[at:] + piece, 0, 2 * more
            except (_Doubled, RecursionError):
                _decoded(lambda whole, at=at: _DECODER.raw_decode(whole, at), text, place)
        _decoded(lambda _, value=value: value, text, place)
        if not isinstance(value, dict):
            raise UserError(f'{place}: is {kind_of(value)}, not an object; each entry is one object, {{"text": "..."}}')
        value = _mended(value, place)
        if isinstance(value, BadRow):
            raise UserError(value)
        yield value


def _skip(text: str, at: int, lines: Iterator[str], place: Place) -> tuple[int, str]:
    """Past white space, and into the next line where this one ends: the new position and the text it is in."""
    while not text[at:].strip():
        text, at = next(lines, None), 0
        if text is None:
            raise UserError(f"{place}: the file ends inside its array; copy it again")
        if place.damage:
            raise UserError(place.damage)
    return at + len(text[at:]) - len(text[at:].lstrip()), text


def _decoded(decode, text: str, place: Place):
    """`decode(text)`; what is wrong with it as a `UserError`."""
    try:
        value = decode(text)
        check_depth(value)
        return value
    except _Doubled as error:
        raise UserError(f"{place}: has the key '{str(error)[:40]}' twice; rename one of them") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{place}: is not JSON ({error.msg}, column {error.pos + 1}); {SHAPE}") from error
    except (RecursionError, Unreadable) as error:
        raise UserError(f"{place}: is nested too deeply to be a post; each line is one flat object") from error


def kind_of(value: object) -> str:
    """A value's kind in words: "a number (12)", "a list", "an object", "true"; for error lines."""
    if isinstance(value, Number):
        return f"a number ({value[:20]})"
    if isinstance(value, bool):
        return str(value).lower()
    return {dict: "an object", list: "a list", str: "a string", bytes: "bytes that are not UTF-8", type(None): "null"
            }.get(type(value), "no text")
