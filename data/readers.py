"""Posts from files: what a row needs to be a post, and what is counted, mended or refused while reading.

Anything that would silently give other posts than the file's author meant is refused, in one line with file and row
(`UserError`): a missing or doubled column, a wrong delimiter, bytes that are not UTF-8, broken rows, text that is a
number, a label that the codebook does not have. Anything that has one sensible reading is counted and shown (`Notes`):
empty texts, missing ids, language tags, repeated ids. `iter_posts` streams with one row in memory; `read_posts` returns
its posts as a list, and `check_posts` reads to the end and keeps nothing, so that millions of posts can be checked
before the first is used.

Ids are strings and never reformatted; a row without one is named after its file and row (`posts-2`). The text is kept
as it is, without stripping or lower-casing, since the tokenizer sees all of it.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path

from common.errors import UserError, closest
from common.reading import check_path, file_state
from data.bad_rows import bad_post, note_bad, what_is_wrong
from data.cells import label_of, mend, present, string_of
from data.columns import (
    absent_columns,
    check_columns,
    further,
    has_value,
    is_annotated,
    names_in,
    open_posts,
    records_of,
    value_of,
)
from data.damage import Missing, is_missing, is_mojibake, is_spreadsheet_error
from data.json_rows import kind_of
from data.languages import reduce_language
from data.notes import Notes
from data.posts import Columns, Post
from data.rows import stem
from data.seen import SeenKeys
from data.shipped_labels import hint_of_codebook
from data.table import BadRow, NoRows, Place
from data.visible import composed, is_empty

MOST_COLUMNS = 1000  # that are remembered by name: objects whose keys all differ must not fill memory


def read_posts(paths, columns: Columns | None = None, codebook=None, **options) -> tuple[list[Post], Notes]:
    """All posts of one or several files, and what was found; options and errors as in `iter_posts`.

    Raises `UserError` also for files that hold no post at all.
    """
    notes = Notes()
    posts = list(iter_posts(paths, columns, codebook, notes=notes, **options))
    _check_some(notes)
    return posts, notes


def check_posts(paths, columns: Columns | None = None, codebook=None, *, show=None, **options) -> Notes:
    """Find and refuse what `read_posts` does but keep no post, so that memory does not grow with the files.

    `show(count)` is called with the number of posts read since its last call.
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
    keep_bad: bool = False,
    notes: Notes | None = None,
) -> Iterator[Post]:
    """Posts of one or several files in order, read lazily; findings go into `notes`.

    `codebook` (anything with `labels`) decides which labels are known. With `require_labels` a row without a label is
    an error, with `require_text` a file without a text column. Rows with empty text are dropped unless `keep_empty`.
    `check_ids` counts repeated ids. `bad_labels` "error" raises after the last row, so that the message can give the
    number of such rows; "drop" drops and counts them. With `keep_bad` a row that is wrong by itself (fields too many or
    too few, no JSON, bytes that are not UTF-8, a text that is a number) is a post without text whose `error` says why;
    what concerns the file (a column that is missing, a quote that is never closed) is refused as ever. Raises
    `UserError`; see the module's docstring for what is refused.
    """
    columns, notes = columns or Columns(), Notes() if notes is None else notes
    seen = SeenKeys() if check_ids else None
    # Labels are read composed; a run's codebook may be older than that, and keeps the spelling that it was trained on.
    other = {composed(label): label for label in codebook.labels if composed(label) != label} if codebook else {}
    first_bad: list[Post] = []
    for path in _paths(paths):
        notes.files.append(path.name)
        notes.states[str(path)] = file_state(path)
        with closing(open_posts(path, columns, require_labels, require_text, keep_bad)) as table:
            rows_before = notes.rows
            names = table.names
            if names is not None:
                check_columns(names, columns, table, require_labels, require_text)
                absent = absent_columns(names, columns, path.name)
                notes.twice |= {name: count for name, count in Counter(names).items() if name and count > 1}
            for number, row in records_of(table, columns):
                notes.rows += 1
                if isinstance(row, BadRow):
                    yield bad_post(row, table.place, number, notes)
                    continue
                if names is None:  # jsonl has no header: the first row stands for one
                    names = names_in(row, columns)
                    check_columns(names, columns, table, require_labels, require_text)
                    absent = absent_columns(names, columns, path.name)
                post = _post(row, table.place, number, columns, notes, require_text, keep_empty, absent)
                if post is None:
                    continue
                if require_labels and isinstance(found := value_of(row, columns.label), list | dict):
                    raise UserError(f"{table.place}: the label is {kind_of(found)}, and a post has one label here; "
                                    "write it as text, and of several labels a post make a file for each, with its own "
                                    "yes or no")
                if post.error:
                    note_bad(f"{table.place}: {post.error}", table.place, notes)
                if isinstance(post.label, Missing):
                    post = replace(post, label=_label_or_missing(post, codebook, notes))
                if post.label in other:
                    post = replace(post, label=other[post.label])
                problem = _label_problem(post, codebook, require_labels and not is_annotated(names))
                if problem:
                    first_bad += [post] if not first_bad else []
                    notes.add(problem[0], post.place, post.label or "")
                    continue
                if seen is not None:
                    _check_id(post, seen, columns, notes)
                notes.keep(post.language, post.label)
                if not post.extra.keys() <= notes.columns.keys():
                    if len(notes.columns) < MOST_COLUMNS:
                        notes.columns |= dict.fromkeys(post.extra)
                    else:
                        notes.add("more_columns", f"{path.name}: row {table.place.row}")
                yield post
            for finding in table.findings:
                notes.add(*finding)
            if table.long_rows:
                notes.lines_read, notes.long_rows = notes.lines_read + table.lines, notes.long_rows + table.long_rows
            if notes.rows == rows_before:
                header = "a header but no" if names else "no"
                raise NoRows(f"{path}: has {header} rows; a file of posts was expected")
    if first_bad and bad_labels == "error":
        missing, unknown = notes.counts["missing_label"], notes.counts["unknown_label"]
        strange = notes.details.get("unknown_label", ())
        labels = {*strange, *(label for _, label in notes.cells if label)}
        words = (f" ({missing:,} without a label and {unknown:,} with another one in all)" if missing and unknown else
                 f" ({missing + unknown:,} such rows in all)" if missing + unknown > 1 else "")
        raise UserError(_label_problem(first_bad[0], codebook, True, strange)[1] + words
                        + (hint_of_codebook(labels, getattr(codebook, "labels", ())) if strange else ""))


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


def _post(row: dict, place: Place, number: str, columns: Columns, notes: Notes, require_text: bool, keep_empty: bool,
          absent: dict[str, str]) -> Post | None:
    where = f"{notes.files[-1]}: row {place.row}"
    text, error = value_of(row, columns.text), ""
    if type(text) is not str:
        error = what_is_wrong(row, columns, require_text)
    if error:
        text, error = "", place.bad(f"{place}: {error}").removeprefix(f"{place}: ")
    written = present(text, "text", notes, where) if isinstance(text, Missing) else text or ""
    text = mend(written)
    if text != written:
        notes.add("mended_text", where)
    if require_text and not error and is_empty(text):
        notes.add("empty_kept" if keep_empty else "empty_dropped", where)
        if not keep_empty:
            return None
    if is_spreadsheet_error(text):
        notes.add("spreadsheet_error", where, text.strip())
    elif is_mojibake(text):
        notes.add("mojibake", where)
    tag = present(value_of(row, columns.language), "language", notes, where)
    language, what = reduce_language(tag)
    if what == "missing":
        notes.add("missing_language", where, absent.get("language", ""))
    elif what != "same":
        notes.add(f"{what}_language", where, f"{tag.strip()} -> {language}" if what == "changed" else language)
    name = present(value_of(row, columns.id), "id", notes, where)
    if not name:
        name = f"{stem(place.path)}-{number}"
        notes.add("made_id", where, absent.get("id", ""))
    if row.get(""):
        notes.add("nameless_cell", where)
    extra = {key: string_of(value) for key, value in further(row, columns).items()}
    for column in columns.others:
        if column not in columns.own and has_value(row, column):
            extra[column] = present(value_of(row, column), column, notes, where)
    given = value_of(row, columns.label)
    label = None if given is None or given == "" else label_of(given, notes, where)
    return Post(name, text, label, language, str(place.path), place.row, extra, error)


def _label_or_missing(post: Post, codebook, notes: Notes) -> str | None:
    """A label that may be a word for a missing value: it is one unless the codebook has such a label."""
    known = post.label in codebook.labels if codebook is not None else not is_missing(post.label, True)
    if known:
        return str(post.label)
    notes.add("missing_value", f"{Path(post.file).name}: row {post.row}", f"label: {post.label}")
    return None


def _label_problem(post: Post, codebook, required: bool, others: Iterable[str] = ()) -> tuple[str, str] | None:
    """What is wrong with a post's label: (kind of finding, error line), or None; others: labels that are wrong, too."""
    if post.label is None:
        words = f"{post.place}: has no label; label it, leave the row out, or set --bad-labels drop"
        return ("missing_label", words) if required else None
    if codebook is None or post.label in codebook.labels:
        return None
    labels = list(codebook.labels)
    shown = ", ".join(labels[:12]) + (", ..." if len(labels) > 12 else "")
    symbols = dict(zip(getattr(codebook, "symbols", ()), labels, strict=False))
    same = {label.casefold(): label for label in labels}.get(post.label.casefold())
    symbol = re.sub(r"\.0+$", "", post.label)
    if symbol in symbols and any(re.fullmatch(r"0(\.0+)?", other) for other in others):
        hint = "; numbers that count from 0 are not its symbols: write each label's name"
    elif symbol in symbols:
        why = "" if symbol == post.label else " (a number with a point, as spreadsheets and pandas write it)"
        hint = f"; write the label, not its symbol{why}: '{symbols[symbol]}'"
    else:
        hint = f"; did you mean '{same}'?" if same else closest(post.label, labels)
    return "unknown_label", f"{post.place}: label '{post.label[:40]}' is not in the codebook, which has {shown}{hint}"


def _check_id(post: Post, seen: SeenKeys, columns: Columns, notes: Notes) -> None:
    """Count an id that came before, either in the same language or (without annotators) in another."""
    known = seen.add(post.id)
    if seen.add((post.id, post.language, post.extra.get(columns.annotator, ""))):
        notes.add("duplicate_id", f"{Path(post.file).name}: row {post.row} (id {post.id[:40]})")
    elif known and columns.annotator not in post.extra:
        notes.add("parallel_id", f"{Path(post.file).name}: row {post.row} (id {post.id[:40]})")


def read_predictions(paths, columns: Columns | None = None, codebook=None, **options) -> tuple[list[Post], Notes]:
    """Predictions made elsewhere, as posts whose `extra[columns.predicted]` is the predicted label.

    Text and gold label may be absent. An empty or unknown prediction is kept, since it is a wrong answer. Raises
    `UserError` for a file without the column.
    """
    columns = columns or Columns()
    options = {"require_labels": False, "require_text": False} | options
    posts, notes = read_posts(paths, columns.of_predictions(), codebook, **options)
    for post in posts:
        if columns.predicted not in post.extra:
            there = ", ".join(repr(name[:24]) for name in list(post.extra)[:12]) or "none"
            raise UserError(
                f"{post.place}: has no column '{columns.predicted}'; its further columns: {there}; "
                "set --predicted-column to the one that holds the predicted label"
            )
        post.extra[columns.predicted] = composed(post.extra[columns.predicted])
    return posts, notes


def by_id(posts: Iterable[Post]) -> dict[tuple[str, str], Post]:
    """Posts by (id, language), for joining files. Raises `UserError` for an id that occurs twice in a language."""
    table: dict[tuple[str, str], Post] = {}
    for post in posts:
        first = table.setdefault((post.id, post.language), post)
        if first is not post:
            raise UserError(f"{post.place}: id '{post.id}' came before ({first.place}); ids must differ to be joined")
    return table
