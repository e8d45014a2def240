"""All inputs read to their end before anything is labelled: what they hold, and how many rows are wrong.

A row that is wrong by itself is kept without a label and with a reason, but where more than `--max-bad-rows` of all
rows are, something else is wrong than a row: the first of them is the error, and nothing is labelled.
"""

from collections.abc import Callable
from pathlib import Path

from common.errors import UserError, closest
from common.terminal import progress
from data.notes import Notes
from data.readers import check_posts
from data.table import NoRows

READING = {"require_labels": False, "keep_empty": True, "keep_bad": True}  # a row out for every row in


def check_inputs(sources: list[Path], options, check: Callable[[], object] = lambda: None, many: bool = False
                 ) -> list[Notes | None]:
    """What was found in each of `sources`; `check` is called now and then, and may raise. Raises `UserError`.

    many: of the files of a folder or of a pattern, one without rows is passed over, with None, and said.
    """
    found = []
    for source in sources:
        with progress(None, "post", "reading") as bar:

            def show(count: int, bar=bar) -> None:
                bar.update(count)
                check()

            try:
                notes = check_posts([source], options.columns(), show=show, **READING)
            except NoRows as error:
                if not many:
                    raise
                print(f"  passed over: {str(error).partition(';')[0]}")
                notes = None
        found.append(notes)
        if notes is None:
            continue
        if len(sources) == 1:  # before the lines on all the rest
            check_share(found, options.max_bad_rows)
        print("\n".join(notes.lines()))
    check_share([notes for notes in found if notes is not None], options.max_bad_rows)
    return found


def check_share(found: list[Notes], most: float) -> None:
    """Raise `UserError` where more than `most` of all rows are wrong."""
    bad, rows = sum(notes.counts["bad_row"] for notes in found), sum(notes.rows for notes in found)
    if bad > most * rows:
        first = next(notes.first_bad for notes in found if notes.first_bad)
        raise UserError(first if bad == 1 else f"{first} ({bad:,} of {rows:,} rows are wrong, more than "
                        f"--max-bad-rows {most:g})")


def check_date_column(name: str | None, kept: list[list[str]]) -> None:
    """Raise `UserError` for a column of the date that none of the outputs will have, of which `kept` lists the columns
    that come from their inputs."""
    names = sorted({column for columns in kept for column in columns})
    if name is not None and kept and name not in names:
        raise UserError(f"--date-column {name}: no output has such a column{closest(name, names)}; of the inputs' own "
                        f"columns they keep {', '.join(names[:12]) or 'none'} (--keep-columns)")


def kept_columns(options, notes: Notes, source: Path) -> list[str]:
    """The input's own columns that are written as well. Raises `UserError` for one that is not there, or that several
    columns are called."""
    names = [*([options.label_column] if any(label for _, label in notes.cells) else []), *notes.columns]
    given = list(options.keep_columns)
    kept = names if given == ["all"] else [] if given == ["none"] else given
    for name in kept:
        if name not in names:
            raise UserError(f"--keep-columns {name}: {source} has no such further column{closest(name, names)}; it has "
                            f"{', '.join(names[:12]) or 'none'}")
        if name in notes.twice:
            raise UserError(f"{source}: has {notes.twice[name]} columns named '{name}', of which one alone could be "
                            "kept; rename all but one, or name those to keep with --keep-columns (none: no column)")
    return kept
