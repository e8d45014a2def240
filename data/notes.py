"""What was found while reading: one object that counts every oddity, prints aligned lines and is stored in run.json.

Nothing that a reader changes, drops or makes up goes unreported. Each kind of finding has a name (the key in run.json),
a wording (the line in the terminal), a count, and the first few rows in which it was found.
"""

from collections import Counter
from dataclasses import dataclass, field

from common.reading import file_state

SHOWN = 3  # places or details that a line names; it ends with how many more there are
KEPT = 10  # places that run.json names
DISTINCT = 200  # details that are counted separately: setting --label-column to the text column must not fill memory
CELLS = 10_000  # pairs of language and label that are counted separately, for the same reason

KINDS = {
    "bad_row": "rows that could not be read, kept without a label",
    "empty_dropped": "rows without text, dropped",
    "empty_kept": "rows without text, kept",
    "missing_label": "rows without a label, dropped",
    "unknown_label": "rows with a label outside the codebook, dropped",
    "made_id": "rows without an id, named after their file and row",
    "duplicate_id": "rows whose id came before",
    "parallel_id": "rows whose id came before in another language (translations?)",
    "missing_language": "rows without a language, read as und",
    "changed_language": "language tags reduced to ISO 639-1",
    "unknown_language": "language tags that are not ISO 639-1 codes (such as de), kept in lower case",
    "nameless_cell": "cells in a column without a name (as of the row names that R writes), left out",
    "more_columns": "rows with columns beyond the first 1,000 names, which are left out",
    "mended_text": "texts with NUL or half characters, replaced by U+FFFD",
    "missing_value": "cells that say NA, nan or NULL without quotes, read as missing",
    "spreadsheet_error": "texts that are a spreadsheet's error value: the posts were lost before, look at the source",
    "mojibake": "texts with UTF-8 that was read as Windows-1252; undo it: iconv -f UTF-8 -t CP1252 FILE > mended",
    "stripped_label": "labels with invisible characters around them, taken off",
    "repeated_header": "rows that repeat the header, dropped",
    "survey_rows": "rows that Qualtrics writes under the header, dropped",
    "class_names": "files whose labels are numbers, read as the names that they have for these",
    "other_delimiter": "files separated otherwise than their name says",
}


@dataclass
class Notes:
    """Counts, details and first places of all findings; `rows` were read, `kept` of them as posts.

    `details["changed_language"]` counts each change ("in -> id"), `places[kind]` names up to `KEPT` rows, and
    `cells` counts the kept posts by (language, label), with `None` for posts without a label.
    """

    files: list[str] = field(default_factory=list)
    rows: int = 0
    columns: dict[str, None] = field(default_factory=dict)  # names of the posts' further columns, in order of coming
    lines_read: int = 0  # of csv and tsv files in which a row takes several lines
    long_rows: int = 0
    twice: dict[str, int] = field(default_factory=dict)  # names that several columns have: how many
    kept: int = 0
    counts: Counter = field(default_factory=Counter)
    details: dict[str, Counter] = field(default_factory=dict)
    places: dict[str, list[str]] = field(default_factory=dict)
    cells: Counter = field(default_factory=Counter)
    states: dict[str, tuple | None] = field(default_factory=dict)  # of the files, when they were opened
    first_bad: str = ""  # the first row that could not be read, as an error line says it

    def have_changed(self) -> list[str]:
        """The files that were replaced, removed, cut or written to since they were opened."""
        return [path for path, state in self.states.items() if file_state(path) != state]

    def keep(self, language: str, label: str | None) -> None:
        """Count one post that was kept."""
        self.kept += 1
        cell = language, label
        self.cells[cell if cell in self.cells or len(self.cells) < CELLS else ("others", "others")] += 1

    def add(self, kind: str, place: str, detail: str = "") -> None:
        """Count one finding of a kind in `KINDS` at a place ("posts.csv: row 3"); `detail`: what was found there."""
        if kind not in KINDS:
            raise KeyError(kind)
        self.counts[kind] += 1
        if detail:
            details = self.details.setdefault(kind, Counter())
            details[detail if detail in details or len(details) < DISTINCT else "others"] += 1
        places = self.places.setdefault(kind, [])
        if len(places) < KEPT:
            places.append(place)

    def lines(self) -> list[str]:
        """The findings as short lines with aligned counts; kinds that were not found have no line."""
        found = [(self.rows, f"rows read from {', '.join(self.files)}"), (self.kept, "posts kept")]
        if self.long_rows:
            found.insert(1, (self.long_rows, f"of them with line breaks in a cell ({self.lines_read:,} lines in the "
                                             "file)"))
        found += [(self.counts[kind], self._wording(kind)) for kind in KINDS if self.counts[kind]]
        width = max(len(f"{count:,}") for count, _ in found)
        return [f"  {count:>{width},}  {words}" for count, words in found]

    def _wording(self, kind: str) -> str:
        details = self.details.get(kind)
        if details:
            shown = [f"{what} ({count:,})" for what, count in details.most_common(SHOWN)]
            more = len(details) - len(shown)
        else:
            shown = self.places[kind][:SHOWN]
            more = self.counts[kind] - len(shown)
        return f"{KINDS[kind]}: {', '.join(shown)}" + (f" and {more:,} more" if more > 0 else "")

    def to_dict(self) -> dict:
        """For run.json: every kind's count, even if it is zero, so that two runs can be compared side by side."""
        languages, labels = Counter(), Counter()
        for (language, label), count in self.cells.items():
            languages[language] += count
            labels[label or ""] += count
        return {
            "files": list(self.files),
            "rows": self.rows,
            "kept": self.kept,
            "counts": {kind: self.counts[kind] for kind in KINDS},
            "details": {kind: dict(sorted(counter.items())) for kind, counter in self.details.items()},
            "places": {kind: list(places) for kind, places in self.places.items()},
            "languages": dict(sorted(languages.items())),
            "labels": dict(sorted(labels.items())),
        }

    def __str__(self) -> str:
        return "\n".join(self.lines())
