"""What models said about one table of posts, side by side, as counts: the ground that every comparison stands on.

A *figure* is a function of confusion counts (report/counts.py), so a set of rows is never copied: models that answered
the same posts are laid beside each other as one vector of M * F counts, and resampling posts resamples all of them
together. What is paired stays paired.

Names of figures: `accuracy`, `macro_f1` and `weighted_f1` over all labels; the same and `recall`, `specificity`,
`balanced_accuracy` of `topic.` and `topic_by_sum.`; `accuracy` and `macro_f1` of `stance.end_to_end.`,
`stance.given_detection.` and `stance.conditional.`.

Pooled over languages there are two weightings. "rows": all rows are one set. "languages": the figure is made inside
each language and averaged, each language counting the same; languages where it cannot be made are left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy

from common.errors import UserError
from report.counts import Grouping, figures, flat_places, views
from report.intervals import CHUNK_BYTES, patterns, resample

WEIGHTS = ("rows", "languages")
SMALL_ROWS, SMALL_CLASS = 30, 10  # a cell with fewer rows in all, or of one class, is marked


@dataclass(frozen=True, eq=False)
class Rows:
    """Labelled posts, n of them: ids (n,) str, language (n,) str, gold (n,) places in `grouping.labels`.

    `clusters` (n,) int64: equal for posts that stand or fall together (copies of a text, posts of an author).
    """

    ids: numpy.ndarray
    language: numpy.ndarray
    gold: numpy.ndarray
    clusters: numpy.ndarray
    grouping: Grouping

    @cached_property
    def languages(self) -> list[str]:
        """The languages there are, sorted."""
        return sorted(set(self.language.tolist()))

    def where(self, languages: Sequence[str]) -> numpy.ndarray:
        """(n,) bool: rows in one of `languages`."""
        return numpy.isin(self.language, list(languages))

    def is_small(self, chosen: numpy.ndarray) -> bool:
        """Whether the chosen rows are fewer than 30, or fewer than 10 of some declared label."""
        counts = numpy.bincount(self.gold[chosen], minlength=len(self.grouping.labels))
        return counts.sum() < SMALL_ROWS or counts.min() < SMALL_CLASS


@dataclass(frozen=True, eq=False)
class Answers:
    """One model's labels for all of `rows`.

    predicted (n,) int64, a place in the labels, or C for what is outside them; probabilities (n, C) float64 or None.
    """

    rows: Rows
    predicted: numpy.ndarray
    probabilities: numpy.ndarray | None = None

    @cached_property
    def places(self) -> numpy.ndarray:
        """(n, 3) int64: where each row counts in a vector of F counts (`report.counts.flat_places`)."""
        grouping, p = self.rows.grouping, self.probabilities
        conditional, side = None, None
        if p is not None and grouping.topic_of is not None:
            side = (p[:, grouping.topic_of == 0].sum(1) < p[:, grouping.topic_of == 1].sum(1)).astype(numpy.int64)
        if p is not None and grouping.stance_groups:
            sums = [p[:, grouping.stance_of == k].sum(1) for k in range(len(grouping.stance_groups))]
            conditional = numpy.argmax(numpy.stack(sums, 1), 1)
        return flat_places(self.rows.gold, self.predicted, conditional, side, grouping)

    @property
    def correct(self) -> numpy.ndarray:
        """(n,) bool: the label is the human one."""
        return self.predicted == self.rows.gold

    def counts(self, chosen: numpy.ndarray | None = None) -> numpy.ndarray:
        """The chosen rows as one vector of counts, (F,) float64."""
        places = self.places if chosen is None else self.places[chosen]
        return numpy.bincount(places[places >= 0], minlength=self.rows.grouping.width).astype(numpy.float64)

    def figure(self, name: str, languages: Sequence[str] | None = None, weight: str = "rows") -> float:
        """One figure over the rows of some languages (all, if none are named); NaN where it cannot be made."""
        parts = {code: self.counts(self.rows.language == code)[None, None] for code in languages or self.rows.languages}
        return float(pooled(parts, name, self.rows.grouping, weight)[0, 0])


def figure_of(name: str, flat: numpy.ndarray, grouping: Grouping) -> numpy.ndarray:
    """The figure `name` of flat counts (..., F) -> (...,) float64, NaN where it cannot be made.

    Raises `UserError` for a name that does not exist or that this codebook has no question for.
    """
    question, _, kind = name.rpartition(".")
    tables = views(flat, grouping)
    view = {"": "all"}.get(question, question.removeprefix("stance."))
    known = ("accuracy", "balanced_accuracy", "macro_f1", "weighted_f1")
    if view not in tables or (question and view == "all"):
        raise UserError(f"figure '{name}': this codebook has no question '{question}'; questions: {', '.join(tables)}")
    if kind in known:
        return figures(tables[view])[kind]
    if kind in ("recall", "specificity") and view in ("topic", "topic_by_sum"):
        return figures(tables[view])["recall"][..., 0 if kind == "recall" else 1]
    raise UserError(f"figure '{name}': there is no '{kind}'; there are {', '.join(known)} and, for the topic, recall "
                    "and specificity")


def pooled(parts: Mapping[str, numpy.ndarray], name: str, grouping: Grouping, weight: str) -> numpy.ndarray:
    """The figure `name` over languages: code -> counts (m, M, F) gives (m, M) float64 (`weight`: see the module)."""
    if weight == "rows":
        return figure_of(name, sum(parts.values()), grouping)
    if weight != "languages":
        raise UserError(f"weight '{weight}': one of {', '.join(WEIGHTS)} fits")
    values = numpy.stack([figure_of(name, counts, grouping) for counts in parts.values()])  # (L, m, M)
    there = ~numpy.isnan(values)
    with numpy.errstate(invalid="ignore"):
        return numpy.where(there, values, 0).sum(0) / numpy.where(there.any(0), there.sum(0), numpy.nan)


def resampled(models: Sequence[Answers], languages: Sequence[str], draws: int, seed: int
              ) -> Iterator[dict[str, numpy.ndarray]]:
    """Test sets drawn anew, in chunks: code -> counts (m, M, F), M models on the same drawn posts, `draws` in all.

    Clusters are drawn with replacement inside each language, as many as there are. Each language has a stream of its
    own, from the seed and its code, so the other languages asked for do not change its draws. Raises `UserError` where
    the models answered different tables.
    """
    rows, width = models[0].rows, models[0].rows.grouping.width
    if any(model.rows is not rows for model in models):
        raise UserError("models are compared on the same posts; these answered different tables")
    places = numpy.concatenate([numpy.where(model.places >= 0, model.places + k * width, -1)
                                for k, model in enumerate(models)], axis=1)  # (n, 3 M)
    strata = {code: patterns(places[rows.language == code], rows.clusters[rows.language == code], width * len(models))
              for code in languages}
    streams = {code: numpy.random.default_rng([seed, *code.encode()]) for code in languages}
    chunk = max(1, CHUNK_BYTES // (8 * width * len(models) * max(1, len(languages))))
    for start in range(0, draws, chunk):
        size, shape = min(chunk, draws - start), (-1, len(models), width)
        yield {code: resample(*strata[code], size, streams[code]).reshape(shape) for code in languages}
