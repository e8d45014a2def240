"""A page on what was labelled, counted from the files themselves: cuts, wrong rows, repeats, shares by language and
month.

These are counts of the model's answers. What share of the posts truly has a label is another question, since the model
errs; the page names the command that estimates it from a hand-coded sample.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from bulk.manifest import manifest_path, read_manifest
from common.files import atomic_write
from data.columns import open_posts
from data.dates import date_column, day_comes_first, months_of
from data.posts import Columns
from report.markup import Html, grid, tag
from report.page import document
from report.words import counted, language_name, percent

CELLS = 20_000  # languages and months with their labels that are counted apart; the rest are "others"
REASONS = 8  # kinds of wrong rows that the page names
# What was written here is read again, with commas or semicolons, as its column of labels tells; rows of any length.
OUTPUTS = Columns(text="predicted", quote='"', longest=10_000)
UNSURE = "its probability is below what was asked for"  # and so it got none, but could be read
ERRORS = ("has no text", UNSURE)  # reasons that make no row wrong
ESTIMATE = "python -m tools.prevalence --labels {} --coded CODED.csv"


@dataclass
class Counts:
    """What the rows of the outputs say; `cells` counts by (language, month, label)."""

    rows: int = 0
    cells: Counter = field(default_factory=Counter)
    reasons: Counter = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)  # of each reason, as the first such row has it
    date: str | None = None  # the column that the months come from
    first: Counter = field(default_factory=Counter)  # dates that can only have the day first (True), or the month
    unclear: int = 0  # posts with a date of which nothing tells whether the day or the month comes first

    def add(self, row: dict, date: str | None) -> None:
        """Count one row of an output."""
        self.rows += 1
        if not row.get("predicted"):
            reason = str(row.get("error") or (UNSURE if row.get("probability") else ""))
            written = reason.split(";")[0].split(" (")[0]
            kind = re.sub(r"[\d,]*\d", "N", written)
            kind = kind if kind in self.reasons or len(self.reasons) < 200 else "others"
            self.reasons[kind] += 1
            self.examples.setdefault(kind, written)
            return
        month = self.month(row.get(date)) if date else ""
        cell = str(row.get("language") or "und"), month, str(row["predicted"])
        self.cells[cell if cell in self.cells or len(self.cells) < CELLS else ("others", "others", cell[2])] += 1

    def month(self, written) -> str:
        """The month of a date as it is written; "A|B" where it is A if the day comes first and B if the month does."""
        self.first[day_comes_first(written)] += 1
        readings = months_of(written)
        return "unknown" if readings is None else "|".join(dict.fromkeys(readings))

    def decide(self) -> None:
        """Read dates such as 04/05/2024 as the others of the files are written; unknown where these do not tell."""
        shown = [bool(self.first[way]) for way in (True, False)]
        place = shown.index(True) if sum(shown) == 1 else None
        cells, self.cells = self.cells, Counter()
        for (language, month, label), number in cells.items():
            if "|" in month:
                self.unclear += number if place is None else 0
                month = "unknown" if place is None else month.split("|")[place]
            self.cells[language, month, label] += number

    @property
    def labels(self) -> list[str]:
        """The labels that occur, the most frequent first."""
        return [label for label, _ in self.by(2).most_common()]

    def by(self, *places: int) -> Counter:
        """The cells summed over all but some of their places: `by(0, 2)` counts by (language, label)."""
        found: Counter = Counter()
        for cell, count in self.cells.items():
            found[tuple(cell[place] for place in places) if len(places) > 1 else cell[places[0]]] += count
        return found


def count(paths: list[Path], date: str | None = None) -> Counts:
    """All rows of finished outputs, in one pass; date: the column of the date, by default one that is named as such."""
    counts, is_there = Counts(), False
    for path in paths:
        table, column = open_posts(path, OUTPUTS, labels=False), date
        for row in table.rows:
            is_there |= column in row
            if column is None:
                column = date_column(row) or ""
                counts.date = counts.date or column or None
            counts.add(row, column)
    counts.decide()
    if date is not None and is_there:
        counts.date = date
    elif date is not None:
        print(f"  --date-column {date}: no file has such a column, so the report has no months")
    return counts


def write_page(path: str | Path, where: Path, date: str | None = None, noted: Counter | None = None,
               called: str = "") -> None:
    """Count the outputs in the folder `where`, or the one that it is, and write the page, whole or not at all.

    noted: of one file, what was counted while it was labelled and its rows do not say: cuts and repeats.
    called: what the page calls the outputs, if not by where they are now.
    """
    files = read_manifest(manifest_path(where)) if where.is_dir() else {}
    gone = [name for name in files if not (where / name).exists()]
    if gone:
        print(f"  not in the report, since they are gone: {', '.join(gone)}")
    files = {name: facts for name, facts in files.items() if name not in gone}
    paths = [where / name for name in files] if where.is_dir() else [where]
    sums = sum((Counter(facts["counts"]) for facts in files.values()), Counter(noted))
    text = page(count(paths, date), files, called or where, sums)
    with atomic_write(path) as handle:
        handle.write(text)
    print(f"report: {path}")


def page(counts: Counts, files: dict[str, dict], where: str | Path, sums: Counter) -> str:
    """The page as text; sums: of what was counted while it was labelled."""
    labelled = sum(counts.cells.values())
    wrong = sum(number for reason, number in counts.reasons.items() if reason not in ERRORS)
    lines = [f"{labelled:,} of {counted(counts.rows, 'row')} got a label."]
    if unsure := counts.reasons[UNSURE]:
        lines.append(f"{counted(unsure, 'post')} got none, with a probability below what was asked for: the labels "
                     f"cover {percent(labelled / (labelled + unsure))} of the posts with text.")
    if sums["cut"]:
        lines.append(f"{counted(sums['cut'], 'post')} too long for the prompt lost the end.")
    if wrong:
        lines.append(f"{counted(wrong, 'row')} could not be read: the column named error says why.")
    if sums["repeats"]:
        lines.append(f"{counted(sums['repeats'], 'post')} had come before and were not computed again.")
    lines.append("The shares below are counts of the model's answers, not estimates: the model errs, and not in each "
                 "language and month alike. To estimate the true shares, with intervals, code a random sample by hand "
                 "and run:")
    sections = [tag("h1", "What was labelled"), tag("div", *(tag("p", line) for line in lines), class_="found"),
                tag("pre", ESTIMATE.format(where) + " --by language")]
    if labelled:
        sections += [tag("h2", "By language"), shares(counts, 0, language_name)]
        if counts.date:
            sections += [tag("h2", f"By month, from the column {counts.date}"), shares(counts, 1, str)]
            if counts.unclear:
                why = "others tell both" if counts.first[True] else "no other date tells"
                sections.append(tag("p", f"The dates of {counted(counts.unclear, 'post')} are written as 04/05/2024, "
                                    f"and {why} whether the day or the month comes first: write them as 2024-05-04, or "
                                    "add a column month.", class_="note"))
    if counts.reasons:
        most = [[shown(reason, counts), f"{number:,}"] for reason, number in counts.reasons.most_common(REASONS)]
        sections += [tag("h2", "Rows without a label"), grid("Rows without a label", ["why", "rows"], most)]
    if files:
        rows = [[name, facts["input"], f"{facts['counts'].get('rows', 0):,}", facts["sha256"][:16]]
                for name, facts in sorted(files.items())]
        sections += [tag("h2", "Files"),
                     grid("Files", ["file", "from", "rows", "SHA-256"], rows, numbers=[0, 0, 1, 0])]
    return document("What was labelled", sections)


def shown(reason: str, counts: Counts) -> str:
    """A reason as the page says it: in the words of the first row that has it, where others have other numbers."""
    example = counts.examples.get(reason, reason)
    same = example == reason or counts.reasons[reason] == 1 or reason == "others"
    return (reason if reason == "others" else example or "no reason given") + ("" if same else ", and the like")


def shares(counts: Counts, place: int, name) -> Html:
    """A table with a row for each language (place 0) or month (1): posts, and each label's share of them."""
    totals, cells, labels = counts.by(place), counts.by(place, 2), counts.labels
    order = sorted(totals) if place else [key for key, _ in totals.most_common()]
    rows = [[name(key), f"{totals[key]:,}", *(percent(cells[key, label] / totals[key]) for label in labels)]
            for key in order]
    everything = sum(totals.values())
    rows.append(["all", f"{everything:,}", *(percent(counts.by(2)[label] / everything) for label in labels)])
    of = "month" if place else "language"
    return grid(f"Shares of the labels, by {of}", [of, "posts", *labels], rows, class_="months" if place else "")
