"""The machine's probabilities in a file of labels: columns p_LABEL, or the object `probabilities` that eval.py writes.

Not every column that is called p_ holds a label's probability: classify.py writes p_related, a sum of others, and keeps
the input's own columns, of which one may be called p_value. With a run its codebook says which are meant. Without one,
those are taken that hold every label that was given and whose sum is nearest to one in all rows: the first columns up
to one of them, since classify.py puts the input's own behind its own, or else those of the given labels alone. So a
label that was never given keeps its column.
"""

from array import array
from collections.abc import Iterator
from itertools import accumulate

import numpy

from common.errors import UserError
from common.reading import json_value
from data.codebook import Codebook
from data.posts import Post
from data.visible import composed

OBJECT, COLUMN, SUMMED = "probabilities", "p_", "related"
SUM = 0.01  # by which probabilities may miss one
ALIKE = 4  # decimals to which two sums are equally near to one: classify.py writes six


class Probabilities:
    """The numbers of N posts, added one by one; `names`: the labels that may have probabilities, in the file's order.

    codebook: that of the run, or None where there is no run.
    """

    def __init__(self, codebook: Codebook | None = None):
        self.names: list[str] | None = None
        self._codebook, self._is_known = codebook, codebook is not None
        self._numbers, self._gaps, self._first, self._odd = array("d"), {}, "", ""

    def add(self, post: Post) -> None:
        """One more post. Raises `UserError` for an object that is none."""
        there = _written(post)
        if self.names is None:
            self.names, self._first, self._is_known = self._named(there), post.place, self._is_known or \
                OBJECT in post.extra
        values = [_number(there.get(name)) for name in self.names]
        for name, value in zip(self.names, values, strict=True):
            if value != value:
                self._gaps.setdefault(name, post.place)
        self._numbers.extend(values)
        if not self._odd and not any(abs(total - 1) <= SUM for total in accumulate(values)):
            self._odd = post.place

    def _named(self, there: dict) -> list[str]:
        if self._codebook is not None:
            labels = [composed(label) for label in self._codebook.labels]
            return labels if any(label in there for label in labels) else []
        return list(there)

    def of(self, given: set[str]) -> tuple[list[str], numpy.ndarray] | None:
        """(C labels, (N, C) float64) with all that were `given` among them; None where one of these has no column.

        Raises `UserError` where they have columns that lack a number, or that do not sum to one.
        """
        if not self._numbers or not given <= set(self.names):
            return None
        numbers = numpy.frombuffer(self._numbers).reshape(-1, len(self.names))  # millions of rows: no copy for a try
        column = {name: numbers[:, n] for n, name in enumerate(self.names)}
        best, apart = [], numpy.inf
        for names in self._tries(given):
            total = sum((column[name] for name in names), numpy.zeros(len(numbers)))
            missed = float(abs(total - 1).max())
            if round(missed, ALIKE) < apart and missed <= SUM:
                best, apart = names, round(missed, ALIKE)
                if apart == 0:  # none is nearer
                    break
        if best:
            return best, numbers[:, [self.names.index(name) for name in best]]
        needed = self.names if self._is_known else [name for name in self.names if name in given]
        if not needed:
            return None
        lacking = next((name for name in needed if name in self._gaps), None)
        if lacking is not None:
            raise UserError(f"{self._gaps[lacking]}: lacks a probability for one of {', '.join(needed)}, a number of 0 "
                            "or more; label the posts again, or leave these columns out")
        words = ", ".join(name for name in self.names if name not in self._gaps)
        raise UserError(f"{self._odd or self._first}: probabilities of {words} must be 0 or more and sum to 1")

    def _tries(self, given: set[str]) -> Iterator[list[str]]:
        """Which labels it may be, the most likely first."""
        if self._is_known:
            yield self.names
            return
        for names in ([name for name in self.names if name != SUMMED], self.names):
            for end in range(len(names), 0, -1):
                if given <= set(names[:end]):
                    yield names[:end]
        yield [name for name in self.names if name in given]


def _written(post: Post) -> dict:
    """label -> what stands there: the object in the column `probabilities`, or the columns p_LABEL."""
    if OBJECT not in post.extra:
        return {composed(name.removeprefix(COLUMN)): cell for name, cell in post.extra.items()
                if name.startswith(COLUMN)}
    try:
        found = json_value(post.extra[OBJECT] or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{post.place}: probabilities are no JSON object of a number for each label")
    return {composed(name): value for name, value in sorted(found.items())}


def share_of(cell) -> float | None:
    """A cell as a number: `share_of("0.5") -> 0.5`, and "0,5" as well, since spreadsheets of many countries write it
    so and a share has no thousands; `None` for what is none."""
    text = cell.replace(",", ".") if isinstance(cell, str) and "." not in cell and cell.count(",") == 1 else cell
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


def spoilt(cell) -> str:
    """What may have happened to a share that is a large whole number, as the end of a message; else ""."""
    value = share_of(cell)
    return ("; a spreadsheet may have taken its point for one between thousands: let it read the column as text"
            if value is not None and value > 1 else "")


def _number(cell) -> float:
    """A cell as a probability; not a number for anything else."""
    value = share_of(cell)
    return value if value is not None and value >= 0 else numpy.nan
