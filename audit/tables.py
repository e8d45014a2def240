"""What changing parts of a run does to its labels, as a table and as a picture: of four bits and of the adapter."""

import math
from collections.abc import Mapping, Sequence

from audit.picture import both_widths
from audit.words import brief, named, percents, short
from report.markup import Html, folded, grid, join
from report.words import interval, number, signed

MOST = 14  # rows of a table or picture before the rest is folded


def decimals(rows: Sequence[Mapping]) -> int:
    """As many as give the largest KL two digits that say something, four at least: `1 e-5 -> 0.000010`."""
    largest = max((row["kl"] for row in rows), default=0.0)
    return max(4, 1 - math.floor(math.log10(largest))) if largest > 0 else 4


def changes(rows: Sequence[Mapping], whole: Mapping, level: str) -> Html:
    """A table of changes, the whole first; what is beyond `MOST` rows is folded, in columns as wide as the table's."""
    header = [level, "KL", "interval of KL", "flips", "flips, %", "interval of flips, %", "macro-F1", "F1 change",
              "interval of F1 change"]
    digits = decimals(rows)
    body = [[named(row["name"]), number(row["kl"], digits), interval(row["kl_ci"], digits), row["flips"],
             f"{100 * row['flip_rate']:.1f}", percents(row["flip_rate_ci"]), number(row["macro_f1"]),
             signed(row["f1_change"], 3), interval(row["f1_change_ci"], 3)]
            for row in [{**whole, "name": "all together"}, *rows]]
    name = f"What each {level} does alone"
    table = grid(name, header, body[: MOST + 1], class_="wide changes")
    rest = body[MOST + 1 :]
    if not rest:
        return table
    return join([table, folded("The rest", grid(f"{name}: the rest", header, rest, class_="wide changes"))])


def picture(rows: Sequence[Mapping], words: str) -> Html:
    """KL of the first rows with intervals."""
    return both_widths([(short(row["name"]), brief(row["name"]), row["kl"], row["kl_ci"]) for row in rows[:MOST]],
                       "KL, nats", words)
