"""The terminal's table: a row per language, seen and unseen apart, pooled rows on top, intervals beside accuracies.

    text = language_table(metrics)                                                # ready to print
    header_of(metrics), groups_of_rows(metrics), cells_of(cell)                   # the same cells for the page
    short_header(metrics), short_cells(cell)                                      # six of them: the page's first table

Marks: ° a cell with fewer than 30 rows; † a macro-F1 that includes a class with fewer than ten rows and so has no
interval. A dash is a figure that cannot be estimated; `notes` in metrics.json gives the reason.
"""

import textwrap
from collections.abc import Callable, Mapping

from common.terminal import table
from report.words import SMALL, interval, language_name, number

HOW_TO_READ = {  # by the column that a line explains
    "acc": "acc: accuracy; base: accuracy of always giving the most frequent label; F1: macro-F1",
    "topic F1": "topic F1, recall, specif.: related or not, by the predicted label",
    "by sum": "by sum: topic F1, if a post counts as related when the related labels' probabilities add up to at least "
              "half",
    "stance": "stance: right side, over all related posts (one that was not found is wrong); detected: over those "
              "found related",
}
MOST = 40  # values of a column of --by that the terminal shows
MARKS = (f"° fewer than {SMALL} posts", "† no interval: fewer than 10 posts or groups of a label", "– not estimable")


def groups_of_rows(metrics: Mapping, names: Mapping[str, str] | None = None) -> list[tuple[str, list[tuple]]]:
    """(heading, [(name, cell), ...]): pooled rows, then languages seen and not seen in training, or all if unknown."""
    languages = {code: (language_name(code, names), cell) for code, cell in metrics["by_language"].items()}
    pooled, groups = [("All", metrics)], []
    if metrics["seen"] is None:
        groups.append(("Languages", list(languages)))
    else:
        for key, pooled_name, heading in (("seen", "Seen", "Seen in training"),
                                          ("unseen", "Unseen", "Not seen in training")):
            if metrics[key]["n"]:
                pooled.append((pooled_name, metrics[key]))
                groups.append((heading, metrics[key]["languages"]))
    if len(pooled) == 2:  # all rows are on one side: the pooled row would appear twice
        pooled.pop()
    named = [(heading, sorted((languages[code] for code in codes), key=lambda pair: pair[0]))
             for heading, codes in groups]
    return [("Together", pooled), *named]


def by_language(metrics: Mapping, names: Mapping[str, str] | None, rows_of: Callable[[str, Mapping], list]) -> list:
    """`rows_of(name, cell)` of all posts, of each side and of each language, with headings in between, as
    `report.markup.grid` wants them."""
    rows: list = []
    for heading, lines in groups_of_rows(metrics, names):
        rows += [heading] if heading != "Together" else []
        for name, cell in lines:
            rows += rows_of(name, cell)
    return rows


def marked(cell: Mapping) -> tuple[str, str]:
    """The marks for a cell's size and for its macro-F1."""
    few = cell["macro_f1"] is not None and cell["macro_f1_ci"] is None
    return "°" if cell["n"] < SMALL else "", "†" if few else ""


def cells_of(cell: Mapping, agreement: float | None = None, with_agreement: bool = False) -> list[str]:
    """One row's cells after the name: n, accuracy, interval, base, F1, then topic and stance if there are any."""
    small, few = marked(cell)
    row = [f"{cell['n']:,}{small}", number(cell["accuracy"]), interval(cell["accuracy_ci"]),
           number(cell["majority"]["accuracy"]), number(cell["macro_f1"]) + few]
    if cell["topic"]:
        row += [number(cell["topic"][name]) for name in ("macro_f1", "recall", "specificity")]
        row += [number(cell["topic"]["by_sum"]["macro_f1"])] if cell["topic"]["by_sum"] else []
    if cell["stance"]:
        row += [number(cell["stance"][name]["accuracy"]) for name in ("end_to_end", "given_detection")]
    return [*row, number(agreement)] if with_agreement else row


def header_of(metrics: Mapping, with_agreement: bool = False) -> list[str]:
    head = ["", "n", "acc", f"{metrics['intervals']['level'] * 100:g} % interval", "base", "F1"]
    head += ["topic F1", "recall", "specif."] if metrics["topic"] else []
    head += ["by sum"] if metrics["topic"] and metrics["topic"]["by_sum"] else []
    head += ["stance", "detected"] if metrics["stance"] else []
    return [*head, "people"] if with_agreement else head


def short_header(metrics: Mapping) -> list[str]:
    """At most six columns, the name's among them: what most readers want to know first."""
    return ["", "n", "accuracy", "base", "macro-F1", *(["topic macro-F1"] if metrics["topic"] else [])]


def short_cells(cell: Mapping) -> list[tuple[str, str]]:
    """One row's cells under `short_header`, after the name: a figure and, below accuracy, its interval."""
    small, few = marked(cell)
    row = [(f"{cell['n']:,}{small}", ""), (number(cell["accuracy"]), interval(cell["accuracy_ci"])),
           (number(cell["majority"]["accuracy"]), ""), (number(cell["macro_f1"]) + few, "")]
    return [*row, (number(cell["topic"]["macro_f1"]), "")] if cell["topic"] else row


def language_table(metrics: Mapping, *, names: Mapping[str, str] | None = None,
                   agreement: Mapping[str, float | None] | None = None) -> str:
    """The table as text. `agreement`: code (and "all") -> annotators' agreement, shown as a last column "people"."""
    header, with_agreement = header_of(metrics, bool(agreement)), bool(agreement)
    codes = {id(cell): code for code, cell in metrics["by_language"].items()} | {id(metrics): "all"}
    rows, breaks = [], {}
    for heading, lines in groups_of_rows(metrics, names):
        if heading != "Together":
            breaks[len(rows)] = heading
        for name, cell in lines:
            shared = (agreement or {}).get(codes.get(id(cell), ""))
            rows.append([name, *cells_of(cell, shared, with_agreement)])
    lines = table(header, rows).split("\n")
    body = lines[2:]
    out = lines[:2]
    for index, line in enumerate(body):
        if index in breaks:
            out += ["", f"  {breaks[index]}"]
        out.append(line)
    how = "; ".join(words for column, words in HOW_TO_READ.items() if column in header) + "."
    return "\n".join([*out, "", "  " + "   ".join(MARKS), *(f"  {line}" for line in textwrap.wrap(how, 98))])


def how_to_read(header: list[str]) -> str:
    """What the short titles of such a header's columns stand for."""
    return "n: posts; " + "; ".join(words for column, words in HOW_TO_READ.items() if column in header) + "."


def label_table(metrics: Mapping) -> str:
    """Precision, recall and F1 per label, as text."""
    rows = [[name, f"{row['support']:,}", f"{row['predicted']:,}", number(row["precision"]), number(row["recall"]),
             number(row["f1"]), interval(row["f1_ci"])] for name, row in metrics["labels"].items()]
    return table(["label", "gold", "predicted", "precision", "recall", "F1",
                  f"{metrics['intervals']['level'] * 100:g} % interval"], rows)


def group_tables(metrics: Mapping) -> str:
    """A table for each column of `--by`, as text, an empty line in front of each."""
    parts = []
    for column, values in metrics["by"].items():
        rows = [[name, *cells_of(cell)] for name, cell in list(values.items())[:MOST]]
        more = len(values) - len(rows)
        parts += ["", table([column, *header_of(metrics)[1:]], rows),
                  *([f"  and {more} more in the report"] if more > 0 else [])]
    return "\n".join(parts)
