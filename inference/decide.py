"""The label that probabilities stand for: the one place where a row of them becomes an answer.

    label     the most probable one; of equally probable ones the first in the codebook
    related   the sum over the codebook's related labels, in float64, one after another in the codebook's order

Several related labels share that sum, so it can be above one half while the single most probable label is unrelated. A
row of NaN stands for a post without text and has neither.
"""

from dataclasses import dataclass

import numpy as np

from data.codebook import Codebook

NO_LABEL = -1  # what `decide` returns for a row without probabilities


@dataclass(frozen=True)
class Label:
    """One post's answer. Without text: `label` and `related` are None, and `probabilities` is empty.

    probabilities: of every label, in the codebook's order, unrounded; `repr` and `str` show three decimals.
    related: the probability that the post is on topic; None if the codebook has no topic.
    language: the one that the caller gave, as its ISO 639-1 code; None if none was given.
    """

    label: str | None
    probabilities: dict[str, float]
    related: float | None
    language: str | None = None

    @property
    def probability(self) -> float | None:
        """The label's own probability; None without text."""
        return None if self.label is None else self.probabilities[self.label]

    def __repr__(self) -> str:
        shown = ", ".join(f"{name!r}: {p:.3f}" for name, p in self.probabilities.items())
        related = "None" if self.related is None else f"{self.related:.3f}"
        language = "" if self.language is None else f", language={self.language!r}"
        return f"Label(label={self.label!r}, probabilities={{{shown}}}, related={related}{language})"

    def __str__(self) -> str:
        if self.label is None:
            return "no text, no label"
        return f"{self.label} ({self.probability:.3f}" + ("" if self.related is None else
                                                          f"; related {self.related:.3f}") + ")"


def decide(probabilities: np.ndarray) -> np.ndarray:
    """Index of the most probable label, the first of equals: (n, C) -> (n,) int64; `NO_LABEL` for a row with NaN.

    Ordinal labels, or other costs, change this and `finetune.loop.label_loss`; see there for several labels a post.
    """
    return np.where(np.isnan(probabilities).any(1), NO_LABEL, probabilities.argmax(1)).astype(np.int64)


def related(probabilities: np.ndarray, book: Codebook) -> np.ndarray | None:
    """The probability of being on topic: (n, C) -> (n,) float64, NaN for a row of NaN; None without a topic."""
    if not book.related:
        return None
    result = np.zeros(len(probabilities))
    for label in book.related:  # one after another: numpy's sum may take another order and give other bits
        result += probabilities[:, book.index(label)]
    return result


def as_labels(probabilities: np.ndarray, book: Codebook, languages: list[str] | None = None) -> list[Label]:
    """Rows of probabilities (n, C) as n `Label`s, in their order."""
    chosen, sums = decide(probabilities).tolist(), related(probabilities, book)
    sums = [None] * len(chosen) if sums is None else sums.tolist()
    languages = [None] * len(chosen) if languages is None else languages
    return [Label(None, {}, None, language) if index == NO_LABEL else
            Label(book.labels[index], dict(zip(book.labels, row, strict=True)), total, language)
            for index, row, total, language in zip(chosen, probabilities.tolist(), sums, languages, strict=True)]
