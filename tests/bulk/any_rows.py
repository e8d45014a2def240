"""Files of any rows, drawn by hypothesis, and what has to come out of each row; a labeller that answers at once.

A drawn file is written here by hand and by json alone, so that the project's writers are not held against themselves.
"""

import gzip
import io
import json
import math
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from data.damage import MISSING_WORDS
from data.languages import reduce_language
from data.visible import is_empty, strip_invisible

ROLES = ("text", "label", "language", "id")
OURS = ("error", "predicted", "probability", "p_neutral", "p_related", "input_error", "input_input_error")
OTHERS = ("author", "a,b", 'quo"ted', "two\r\nlines", "tab\tbed", "=1+1", "@x", "ä", "date", "1", "sep=;", "a.b", "'")
PIECES = ("=1+1", "@x", "+1", "-1", '"', '""', "'", "\r\n", "\n", "\r", ",", "\t", ";", "|", "\0", "\ufeff", "\u2028",
          "\x85", "\x1a", "\\", "\ud83d", "\udc00", "NA", "null", "None", '"NA"', "007", "1e5", "#NAME?", " ", "\u200b",
          "plain words", "text", "id", "Ça dépend", "ابتداء", "移民", "👩‍👩‍👧", "e\u0301", '{"a": 1}', "[", "\x1b[2J")
CELL = st.lists(st.sampled_from(PIECES) | st.text(st.characters(), max_size=6), max_size=3).map("".join)
VALUE = CELL | st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(width=32)
NESTED = VALUE | st.lists(VALUE, max_size=2) | st.dictionaries(CELL, VALUE, max_size=2)
MARK = st.sampled_from([b"", b"\xef\xbb\xbf"])
ZIPPED = st.sampled_from(["", ".gz"])


@dataclass(frozen=True)
class Row:
    """What has to become of a row: its label (None: none), and the words of its reason.

    is_open: it may also be read as a wrong row, with `reason`. id: None for one that is made up. own: the user's own
    columns, with None where the row says nothing of them.
    """

    label: str | None
    reason: str = ""
    is_open: bool = False
    id: str | None = None
    language: str = "und"
    own: dict = field(default_factory=dict)


@dataclass(frozen=True)
class File:
    """A file of posts, the options that say how it is written, and what becomes of its rows."""

    name: str
    content: bytes = field(repr=False)
    words: tuple[str, ...]
    rows: Callable = field(repr=False)  # of a prompt: the list of `Row`

    def write(self, folder: Path) -> Path:
        """The file in `folder`."""
        path = folder / self.name
        path.write_bytes(gzip.compress(self.content) if self.name.endswith(".gz") else self.content)
        return path


WAYS = [(".csv", ",", ()), (".tsv", "\t", ()), (".txt", "\t", ()), (".csv", ";", ("--delimiter", "semicolon")),
        (".csv", "\t", ("--delimiter", "tab")), (".tsv", "|", ("--delimiter", "bar"))]


@st.composite
def tables(draw, cells=CELL, most: int = 6) -> File:
    """A csv or tsv as some program writes it: any delimiter, line end, mark and way of quoting."""
    names = draw(st.lists(st.sampled_from((*ROLES[1:], *OURS, *OTHERS)), unique=True, max_size=5))
    names.insert(draw(st.integers(0, len(names))), "text")
    drawn = draw(st.lists(st.tuples(*(cells for _ in names)), min_size=1, max_size=most))
    rows = [dict(zip(names, values, strict=True)) for values in drawn]
    kind, delimiter, words = draw(st.sampled_from(WAYS))
    end, is_quoted = draw(st.sampled_from(["\r\n", "\n"])), draw(st.booleans())
    insists = draw(st.booleans())
    lines = [delimiter.join(_cell(value, delimiter, is_quoted or len(names) == 1) for value in values)
             for values in (names, *drawn)]
    content = end.join(lines) + draw(st.sampled_from(["", end]))

    def expected(prompt) -> list[Row]:
        found = [_of_table(row, prompt, is_quoted, insists) for row in rows]
        return [row for row in found if row is not None]

    return File("posts" + kind + draw(ZIPPED), draw(MARK) + _encoded(content),
                (*words, *(("--quote", '"') if insists else ())), expected)


@st.composite
def objects(draw) -> File:
    """A jsonl whose objects have any keys beside the text, and values of any kind."""
    keys = st.sampled_from((*ROLES[1:], *OURS, *OTHERS)) | CELL.filter(lambda key: key not in ("", "text"))
    texts = CELL | CELL | st.sampled_from([None, 5, True, ["a"], {"a": "b"}])
    rows = []
    for _ in range(draw(st.integers(1, 6))):
        rest, text = draw(st.dictionaries(keys, NESTED, max_size=4)), draw(texts)
        rows.append({**rest, "text": text} if draw(st.booleans()) else {"text": text, **rest})
    is_ascii, end = draw(st.booleans()), draw(st.sampled_from(["\r\n", "\n", " \n\n"]))
    lines = [json.dumps(row, ensure_ascii=is_ascii) for row in rows]
    content = draw(MARK) + _encoded(end.join(lines) + draw(st.sampled_from(["", end])))
    return File("posts.jsonl" + draw(ZIPPED), content, (),
                lambda prompt: [_of_line(line, prompt) for line in lines])


def held(text: str) -> str:
    """What a file can hold of a string: U+FFFD for NUL and for half a surrogate pair."""
    return re.sub("[\0\ud800-\udfff]", "\ufffd", text)


WHOLE = CELL.map(lambda text: re.sub("[\ud800-\udfff]", "", text))  # as Arrow's strings are
WHEN = st.datetimes(datetime(1, 1, 1), datetime(9999, 1, 1))
# Of each type of Arrow: values, and what each is as a cell.
TYPES = {
    "string": (WHOLE, held), "large_string": (WHOLE, held), "bool_": (st.booleans(), json.dumps),
    "binary": (WHOLE.map(str.encode), lambda value: held(value.decode())),
    "int64": (st.integers(-(2**63), 2**63 - 1), str), "date32": (WHEN.map(datetime.date), date.isoformat),
    "float64": (st.floats(), lambda value: None if math.isnan(value) else str(value)),
    "timestamp": (WHEN, datetime.isoformat), "list_": (st.lists(st.integers(0, 9), max_size=2), json.dumps),
    "struct": (st.fixed_dictionaries({"a": st.integers(0, 9), "b": WHOLE}),
               lambda value: json.dumps({"a": value["a"], "b": value["b"]}, ensure_ascii=False)),
}
INSIDE = {"timestamp": lambda arrow: ("us",), "list_": lambda arrow: (arrow.int64(),),
          "struct": lambda arrow: ([("a", arrow.int64()), ("b", arrow.string())],)}


@st.composite
def frames(draw) -> File:
    """A parquet with a text in strings or bytes beside columns of any type, with nulls, in row groups of any size."""
    import pyarrow
    from pyarrow import parquet

    names = st.sampled_from((*ROLES[1:], *OURS, *OTHERS))
    kinds = draw(st.dictionaries(names, st.sampled_from(list(TYPES)), max_size=4))
    kinds |= {role: "string" for role in ROLES if role in kinds}
    kinds["text"] = draw(st.sampled_from(["string", "binary"]))
    texts = WHOLE if kinds["text"] == "string" else TYPES["binary"][0] | st.binary(max_size=4)
    count = draw(st.integers(1, 6))
    columns = {name: [draw(st.none() | (texts if name == "text" else TYPES[kind][0])) for _ in range(count)]
               for name, kind in kinds.items()}
    types = {name: getattr(pyarrow, kind)(*INSIDE.get(kind, lambda arrow: ())(pyarrow)) for name, kind in kinds.items()}
    sink = io.BytesIO()
    parquet.write_table(pyarrow.table(columns, schema=pyarrow.schema(types)), sink,
                        row_group_size=draw(st.integers(1, 3)), compression=draw(st.sampled_from(["snappy", "zstd"])))

    def expected(prompt) -> list[Row]:
        found = []
        for number in range(count):
            cells = {name: None if columns[name][number] is None or _is_no_text(columns[name][number])
                     else TYPES[kind][1](columns[name][number]) for name, kind in kinds.items()}
            id, language, label = (cells.pop(role, None) or "" for role in ("id", "language", "label"))
            row = _row(cells.pop("text") or "", id, language, label, cells, prompt)
            is_bad = _is_no_text(columns["text"][number])
            found.append(replace(row, reason="the text is bytes that are not UTF-8") if is_bad else row)
        return found

    return File("posts.parquet", sink.getvalue(), (), expected)


def _is_no_text(value) -> bool:
    try:
        str(value, "utf-8") if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return True
    return False


def _cell(value: str, delimiter: str, is_quoted: bool) -> str:
    """A cell by RFC 4180; Python's csv leaves a lone carriage return bare where lines end in a line feed."""
    bare = not is_quoted and not any(mark in value for mark in (delimiter, '"', "\r", "\n"))
    return value if bare else '"{}"'.format(value.replace('"', '""'))


def _encoded(text: str) -> bytes:
    """UTF-8, in which half a surrogate pair is bytes that are none."""
    return text.encode("utf-8", "surrogatepass")


def _is_text(text: str) -> bool:
    return not re.search("[\ud800-\udfff]", text)


def _of_table(row: dict, prompt, is_quoted: bool, insists: bool) -> Row | None:
    """What becomes of a row of a table; None of the header once more."""
    if [cell.strip() for cell in row.values()] == list(row):
        return None
    if any(held(cell) != cell for cell in row.values()):
        return Row(None, "byte ")

    def cell(role: str, *more: str) -> str:
        is_missing = not is_quoted and row.get(role) in (*MISSING_WORDS, *more)
        return "" if is_missing else row.get(role, "")

    is_open = not insists and any(mark in cell for cell in row.values() for mark in "\r\n")
    own = {name: value for name, value in row.items() if name not in ROLES}
    return _row(cell("text"), cell("id", "None"), cell("language", "None"), cell("label"), own, prompt,
                "a quoted cell holds both" if is_open else "")


def _of_line(line: str, prompt) -> Row:
    """What becomes of a line of JSON."""
    if not _is_text(line):
        return Row(None, "byte ")
    row = json.loads(line)
    text = row.pop("text")
    id, language, label = (_spelled(row.pop(role, None)) or "" for role in ("id", "language", "label"))
    own = {held(key): _spelled(value) for key, value in row.items()}
    if not isinstance(text, str | None):
        found = _row("", id, language, label, own, prompt)
        return Row(None, "the text is ", False, found.id, found.language, found.own)
    return _row(held(text or ""), id, language, label, own, prompt)


def _spelled(value) -> str | None:
    """A value of JSON as a cell: strings as they are, all else as JSON spells it."""
    if isinstance(value, str):
        return held(value)
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return held(json.dumps(_finite(value), ensure_ascii=False))


def _finite(value):
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        found = {key: _finite(one) for key, one in items}
        return found if isinstance(value, dict) else list(found.values())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _row(text: str, id: str, language: str, label: str, own: dict, prompt, reason: str = "") -> Row:
    label = strip_invisible(label)
    own = ({"label": label} if label else {}) | own
    found = None
    if not is_empty(text):
        probable = likely(prompt.encode(text).ids, len(prompt.label_ids))
        found = prompt.codebook.labels[probable.index(max(probable))]
    return Row(found, reason or ("" if found else "has no text"), bool(reason), id or None,
               reduce_language(language)[0], own)


def likely(ids: list[int], labels: int) -> list[float]:
    """Probabilities that follow from a checksum of the ids: .7 of one label, the rest shared."""
    drawn = zlib.crc32(np.array(ids, np.int32).tobytes()) % labels
    return [0.7 if number == drawn else 0.3 / (labels - 1) for number in range(labels)]


def answer_at_once(self, rows) -> Callable[[], np.ndarray]:
    """In the place of `Labeller.give`: labels that follow from the ids alone."""
    self.show(len(rows))
    labels = len(self.prompt.label_ids)
    found = np.array([likely(row.ids, labels) for row in rows], np.float32).reshape(len(rows), labels)
    return lambda: found
