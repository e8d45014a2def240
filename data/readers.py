"""Posts from files: what a row must hold to be a post, and what is counted, mended or refused on the way.

Refused, in one line with file and row (`UserError`), is what would silently give other posts than the file's author
meant: a missing or doubled column, a wrong delimiter, bytes that are not UTF-8, broken rows, text that is a number, a
label that the codebook does not have. Counted and shown (`Notes`) is what has one sensible reading: empty texts,
missing ids, language tags, ids that come twice. `iter_posts` streams, one row in memory; `read_posts` is its list, and
`check_posts` reads to the end and keeps nothing, so that millions of posts are known to be sound before the first is
used.

Ids are strings and never reformatted; a row without one is named after its file and row (`posts-2`). The text is kept
as it is: no stripping, no lower case, since the tokenizer sees all of it.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from common.errors import UserError, closest
from common.reading import check_path, file_state
from data.languages import reduce_language
from data.notes import Notes
from data.posts import Columns, Post
from data.rows import DELIMITER_NAMES, Number, Place, Table, kind_of, open_table, stem
from data.seen import SeenKeys

INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff"  # characters of no width: a text of these alone is empty


def read_posts(paths, columns: Columns | None = None, codebook=None, **options) -> tuple[list[Post], Notes]:
    """All posts of one or several files, and what was found; the options and errors of `iter_posts`.

    Files that hold no post at all are a `UserError`.
    """
    notes = Notes()
    posts = list(iter_posts(paths, columns, codebook, notes=notes, **options))
    _check_some(notes)
    return posts, notes


def check_posts(paths, columns: Columns | None = None, codebook=None, *, show=None, **options) -> Notes:
    """What `read_posts` finds and refuses, with no post kept: memory does not grow with the files.

    show(count) is told how many posts were read since it was last told.
    """
    notes = Notes()
    posts = iter_posts(paths, columns, codebook, notes=notes, **options)
    while count := sum(1 for _ in islice(posts, 1000)):
        if show is not None:
            show(count)
    _check_some(notes)
    return notes


def _check_some(notes: Notes) -> None:
    if not notes.kept:
        raise UserError(f"{', '.join(notes.files)}: none of the {notes.rows:,} rows is a post with text")


def iter_posts(
    paths: str | Path | Sequence[str | Path],
    columns: Columns | None = None,
    codebook=None,
    *,
    require_labels: bool = True,
    require_text: bool = True,
    keep_empty: bool = False,
    check_ids: bool = True,
    bad_labels: str = "error",
    notes: Notes | None = None,
) -> Iterator[Post]:
    """Posts of one or several files in their order, read as they are asked for; findings go into `notes`.

    `codebook` (anything with `labels`) says which labels there are. With `require_labels` a row without a label is
    an error, with `require_text` a file without a text column. Rows with empty text are dropped unless `keep_empty`.
    `check_ids` notices ids that come twice. `bad_labels` "error" raises after the last row, so that the line can say
    how many there are; "drop" drops and counts. Raises `UserError`; see the module's docstring for what is refused.
    """
    columns, notes = columns or Columns(), Notes() if notes is None else notes
    seen = SeenKeys() if check_ids else None
    first_bad: list[str] = []
    for path in _paths(paths):
        notes.files.append(path.name)
        notes.states[str(path)] = file_state(path)
        table = open_table(path, columns.delimiter, columns.quote, columns.longest)
        rows_before = notes.rows
        names = table.names
        if names is not None:
            _check_columns(names, columns, table, require_labels, require_text)
            absent = _absent(names, columns, path.name)
        for row in table.rows:
            notes.rows += 1
            if names is None:  # jsonl has no header: the first row stands for one
                names = list(row)
                _check_columns(names, columns, table, require_labels, require_text)
                absent = _absent(names, columns, path.name)
            post = _post(row, table.place, columns, notes, require_text, keep_empty, absent)
            if post is None:
                continue
            problem = _label_problem(post, codebook, require_labels and not is_annotated(names))
            if problem:
                kind, words = problem
                first_bad += [words] if not first_bad else []
                notes.add(kind, post.place, post.label or "")
                continue
            if seen is not None:
                _check_id(post, seen, columns, notes)
            notes.keep(post.language, post.label)
            yield post
        if notes.rows == rows_before:
            header = "a header but no" if names else "no"
            raise UserError(f"{path}: has {header} rows; a file of posts was expected")
    if first_bad and bad_labels == "error":
        count = notes.counts["missing_label"] + notes.counts["unknown_label"]
        raise UserError(first_bad[0] + (f" ({count:,} such rows in all)" if count > 1 else ""))


def _paths(paths) -> list[Path]:
    several = [Path(paths)] if isinstance(paths, (str, Path)) else [Path(path) for path in paths]
    if not several:
        raise UserError("--data: names no file; name one or several .jsonl, .csv or .tsv files")
    for path in several:
        check_path(path)
    resolved = [path.resolve() for path in several]
    for path, full in zip(several, resolved, strict=True):
        if resolved.count(full) > 1:
            raise UserError(f"{path}: is named twice; name each file once")
    return several


def _check_columns(names: list[str], columns: Columns, table: Table, labels: bool, text: bool) -> None:
    """The columns that must be there are, once each; else the error names those that are, and the option."""
    needed = ["text"] * text + ["label"] * (labels and not is_annotated(names))
    # A column that was asked for by a name of one's own must be there as well: a mistyped setting is never ignored.
    needed += [role for role in ("language", "id") if getattr(columns, role) != getattr(Columns, role)]
    for role in needed:
        name = getattr(columns, role)
        if name not in names:
            _raise_wrong_delimiter(table, name)
            there = ", ".join(repr(n[:24]) for n in names[:12]) + (", ..." if len(names) > 12 else "")
            row = f": row {table.place.row}" if table.names is None else ""
            raise UserError(
                f"{table.place.path}{row}: has no column '{name}'; it has {there}; "
                f"set --{role}-column to the one that holds the {role}{closest(name, names)}"
            )
    for name in (columns.text, columns.label, columns.language, columns.id):
        if names.count(name) > 1:
            raise UserError(f"{table.place.path}: has {names.count(name)} columns named '{name}'; rename all but one")


def _absent(names: list[str], columns: Columns, file: str) -> dict[str, str]:
    """For language and id, where the file has no such column at all: words that say so, and which option would help."""
    return {role: f"{file} has no column '{name}' (--{role}-column{closest(name, names)})" for role, name in
            (("language", columns.language), ("id", columns.id)) if name not in names}


def is_empty(text: str) -> bool:
    """Whether a text is nothing but white space and characters of no width."""
    return not text.strip().strip(INVISIBLE).strip()


def is_annotated(names: Iterable[str]) -> bool:
    """Whether a file has one label column per annotator (`label_ana`, `label_ben`): `data.annotators` joins them."""
    return any(name.startswith("label_") for name in names)


def _raise_wrong_delimiter(table: Table, name: str) -> None:
    """Name the delimiter under which the missing column would be there, or there would be columns at all."""
    if not table.delimiter:
        return
    others = [d for d in DELIMITER_NAMES if d != table.delimiter]
    split = {d: [cell.strip(' "') for cell in table.header.split(d)] for d in others}
    right = [d for d in others if name in split[d]]
    if not right and table.delimiter not in table.header:
        right = [d for d in others if len(split[d]) > 1]
    if right:
        delimiter = right[0]
        option = {"\t": "tab", "|": "bar", ";": "semicolon", ",": "comma"}[delimiter]
        raise UserError(
            f"{table.place.path}: row 1: is separated by {DELIMITER_NAMES[delimiter]}, not by "
            f"{DELIMITER_NAMES.get(table.delimiter, repr(table.delimiter))}; set --delimiter {option}"
            + (", or rename it to .tsv" if delimiter == "\t" else "")
        )


def _post(row: dict, place: Place, columns: Columns, notes: Notes, require_text: bool, keep_empty: bool,
          absent: dict[str, str]) -> Post | None:
    where = f"{place.path.name}: row {place.row}"
    text = row.get(columns.text)
    if columns.text not in row and require_text:
        there = ", ".join(repr(name[:24]) for name in list(row)[:12]) or "none"
        raise UserError(f"{place}: has no field '{columns.text}'; its fields: {there}; every row needs one")
    if text is not None and (isinstance(text, Number) or not isinstance(text, str)):
        raise UserError(f"{place}: the text is {kind_of(text)}, not a string; put it in quotes")
    written, text = text or "", mend(text or "")
    if text != written:
        notes.add("mended_text", where)
    if require_text and is_empty(text):
        notes.add("empty_kept" if keep_empty else "empty_dropped", where)
        if not keep_empty:
            return None
    tag = _string(row.get(columns.language))
    language, what = reduce_language(tag)
    if what == "missing":
        notes.add("missing_language", where, absent.get("language", ""))
    elif what != "same":
        notes.add(f"{what}_language", where, f"{tag.strip()} -> {language}" if what == "changed" else language)
    name = _string(row.get(columns.id))
    if not name:
        name = f"{stem(place.path)}-{place.row}"
        notes.add("made_id", where, absent.get("id", ""))
    own = {columns.text, columns.label, columns.language, columns.id}
    extra = {key: _string(value) for key, value in row.items() if key not in own and key}
    label = _string(row.get(columns.label)).strip() or None
    return Post(name, text, label, language, str(place.path), place.row, extra)


def mend(text: str) -> str:
    """`text` with U+FFFD for NUL and half surrogate pairs ("\\ud83d" alone in a JSON escape): no file can hold them."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.replace("\0", "\ufffd")


def _string(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return mend(str(value))
    return str(value).lower() if isinstance(value, bool) else json.dumps(value, ensure_ascii=False)


def _label_problem(post: Post, codebook, required: bool) -> tuple[str, str] | None:
    if post.label is None:
        words = f"{post.place}: has no label; label it, leave the row out, or set --bad-labels drop"
        return ("missing_label", words) if required else None
    if codebook is None or post.label in codebook.labels:
        return None
    labels = list(codebook.labels)
    shown = ", ".join(labels[:12]) + (", ..." if len(labels) > 12 else "")
    symbols = dict(zip(getattr(codebook, "symbols", ()), labels, strict=False))
    same = {label.casefold(): label for label in labels}.get(post.label.casefold())
    if post.label in symbols:
        hint = f"; write the label, not its symbol: '{symbols[post.label]}'"
    else:
        hint = f"; did you mean '{same}'?" if same else closest(post.label, labels)
    return "unknown_label", f"{post.place}: label '{post.label[:40]}' is not in the codebook, which has {shown}{hint}"


def _check_id(post: Post, seen: SeenKeys, columns: Columns, notes: Notes) -> None:
    """Count an id that came before: in its language, or (without annotators) in another."""
    known = seen.add(post.id)
    if seen.add((post.id, post.language, post.extra.get(columns.annotator, ""))):
        notes.add("duplicate_id", f"{Path(post.file).name}: row {post.row} (id {post.id[:40]})")
    elif known and columns.annotator not in post.extra:
        notes.add("parallel_id", f"{Path(post.file).name}: row {post.row} (id {post.id[:40]})")


def read_predictions(paths, columns: Columns | None = None, codebook=None, **options) -> tuple[list[Post], Notes]:
    """Labels made elsewhere, as posts whose `extra[columns.predicted]` is the prediction.

    Text and gold label may be absent. A file without the column is a `UserError`; an empty or unknown prediction is
    kept, since it is a wrong answer.
    """
    columns = columns or Columns()
    options = {"require_labels": False, "require_text": False} | options
    posts, notes = read_posts(paths, columns, codebook, **options)
    for post in posts:
        if columns.predicted not in post.extra:
            there = ", ".join(repr(name[:24]) for name in list(post.extra)[:12]) or "none"
            raise UserError(
                f"{post.place}: has no column '{columns.predicted}'; its further columns: {there}; "
                "set --predicted-column to the one that holds the predicted label"
            )
    return posts, notes


def by_id(posts: Iterable[Post]) -> dict[tuple[str, str], Post]:
    """Posts under (id, language), for joining files; an id that comes twice in a language is a `UserError`."""
    table: dict[tuple[str, str], Post] = {}
    for post in posts:
        first = table.setdefault((post.id, post.language), post)
        if first is not post:
            raise UserError(f"{post.place}: id '{post.id}' came before ({first.place}); ids must differ to be joined")
    return table
