"""Several models' predictions for one table of posts, as counts: the basis of every comparison.

A *figure* is a function of confusion counts (report/counts.py), so rows are never copied: the counts of models that
labelled the same posts form one vector of M * F counts, and resampling posts resamples all of them together, so that
paired predictions stay paired.

Names of figures: `accuracy`, `balanced_accuracy`, `macro_f1` and `weighted_f1` over all labels; the same with the
prefixes `topic.`, `topic_by_sum.`, `stance.end_to_end.`, `stance.given_detection.` and `stance.conditional.`; `recall`
and `specificity` with the two prefixes of topic.

Figures are pooled over languages in one of two ways. "rows": all rows are one set. "languages": the figure is computed
for each language and averaged, each language counting the same. A language for which it cannot be computed for one of
the models (no post was detected there) is left out for all of them, so that a difference compares the same languages.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy

from common.errors import UserError
from report.clusters import MIN_GROUPS, effective
from report.counts import MEANS, Grouping, figures, flat_indices, views
from report.intervals import CHUNK_BYTES, patterns, resample

WEIGHTS = ("rows", "languages")
QUESTIONS = {"": "all", "topic": "topic", "topic_by_sum": "topic_by_sum"}  # prefix of a figure -> key in `counts.views`
QUESTIONS |= {f"stance.{view}": view for view in ("end_to_end", "given_detection", "conditional")}
SMALL_ROWS = 30  # a cell with fewer rows, or with fewer than `MIN_GROUPS` groups of one class, is marked


@dataclass(frozen=True, eq=False)
class Rows:
    """Labelled posts, n of them: ids (n,) str, language (n,) str, gold (n,) indices in `grouping.labels`.

    `clusters` (n,) int64: equal for posts that belong together (copies of a text, posts by one author).
    """

    ids: numpy.ndarray
    language: numpy.ndarray
    gold: numpy.ndarray
    clusters: numpy.ndarray
    grouping: Grouping

    @classmethod
    def of(cls, posts: Sequence, groups: Sequence[int], grouping: Grouping) -> "Rows":
        """Labelled posts (each with `id`, `language` and `label`) as statistics take them; those of equal `groups` are
        one cluster."""
        return cls(numpy.array([post.id for post in posts], dtype=object),
                   numpy.array([post.language for post in posts], dtype=object),
                   numpy.array([grouping.labels.index(post.label) for post in posts], dtype=numpy.int64),
                   numpy.array(groups, dtype=numpy.int64), grouping)

    @cached_property
    def languages(self) -> list[str]:
        """The languages that occur, sorted."""
        return sorted(set(self.language.tolist()))

    def where(self, languages: Sequence[str]) -> numpy.ndarray:
        """(n,) bool: rows in one of `languages`."""
        return numpy.isin(self.language, list(languages))

    def span(self, languages: Sequence[str]) -> numpy.ndarray:
        """(n,) bool: rows in one of `languages` whose cluster has rows in another of them too."""
        chosen = self.where(languages)
        _, cluster = numpy.unique(self.clusters[chosen], return_inverse=True)
        _, index = numpy.unique(self.language[chosen].astype(str), return_inverse=True)
        pairs = numpy.unique(numpy.stack([cluster, index]), axis=1)  # a cluster and one of its languages
        spans = numpy.zeros(len(self.language), dtype=bool)
        spans[chosen] = (numpy.bincount(pairs[0]) > 1)[cluster]
        return spans

    def is_small(self, chosen: numpy.ndarray) -> bool:
        """Whether the chosen rows are fewer than 30, or those of some declared label worth fewer than 10 clusters."""
        gold, clusters = self.gold[chosen], self.clusters[chosen]
        fewest = min(effective(clusters[gold == k]) for k in range(len(self.grouping.labels)))
        return len(gold) < SMALL_ROWS or round(fewest) < MIN_GROUPS


@dataclass(frozen=True, eq=False)
class Predictions:
    """One model's labels for all of `rows`.

    predicted (n,) int64, an index into the labels, or C for an answer outside them; probabilities (n, C) float64 or
    None.
    """

    rows: Rows
    predicted: numpy.ndarray
    probabilities: numpy.ndarray | None = None

    @cached_property
    def indices(self) -> numpy.ndarray:
        """(n, 3) int64: the indices at which each row counts in a vector of F counts (`report.counts.flat_indices`)."""
        grouping, p = self.rows.grouping, self.probabilities
        conditional, side = None, None
        if p is not None and grouping.topic_of is not None:
            side = (p[:, grouping.topic_of == 0].sum(1) < p[:, grouping.topic_of == 1].sum(1)).astype(numpy.int64)
        if p is not None and grouping.stance_groups:
            sums = [p[:, grouping.stance_of == k].sum(1) for k in range(len(grouping.stance_groups))]
            conditional = numpy.argmax(numpy.stack(sums, 1), 1)
        return flat_indices(self.rows.gold, self.predicted, conditional, side, grouping)

    @property
    def correct(self) -> numpy.ndarray:
        """(n,) bool: the label is the human one."""
        return self.predicted == self.rows.gold

    def counts(self, chosen: numpy.ndarray | None = None) -> numpy.ndarray:
        """The chosen rows as one vector of counts, (F,) float64."""
        indices = self.indices if chosen is None else self.indices[chosen]
        return numpy.bincount(indices[indices >= 0], minlength=self.rows.grouping.width).astype(numpy.float64)

    def figure(self, name: str, languages: Sequence[str] | None = None, weight: str = "rows") -> float:
        """One figure over the rows of `languages` (None: all); NaN if it cannot be computed."""
        return float(figures_of([self], name, languages, weight)[0])


def figure_of(name: str, flat: numpy.ndarray, grouping: Grouping) -> numpy.ndarray:
    """The figure `name` of flat counts (..., F) -> (...,) float64, NaN if it cannot be computed.

    Raises `UserError` for an unknown name and for one whose question this codebook does not have.
    """
    question, _, kind = name.rpartition(".")
    tables = views(flat, grouping)
    there = [key for key, view in QUESTIONS.items() if view in tables]
    if question not in there:
        raise UserError(f"figure '{name}': this codebook has no question '{question}'; it has "
                        f"{', '.join(filter(None, there)) or 'none but the labels'}")
    table = tables[QUESTIONS[question]]
    if kind in MEANS:
        return figures(table)[kind]
    if kind in ("recall", "specificity") and question.startswith("topic"):
        return figures(table)["recall"][..., 0 if kind == "recall" else 1]
    raise UserError(f"figure '{name}': there is no '{kind}'; there are {', '.join(MEANS)} and, for the topic, recall "
                    "and specificity")


def pooled(parts: Mapping[str, numpy.ndarray], name: str, grouping: Grouping, weight: str) -> numpy.ndarray:
    """The figure `name` over languages: code -> counts (m, M, F) gives (m, M) float64 (`weight`: see the module)."""
    if weight == "rows":
        return figure_of(name, sum(parts.values()), grouping)
    if weight != "languages":
        raise UserError(f"weight '{weight}': is not one of {', '.join(WEIGHTS)}")
    values = numpy.stack([figure_of(name, counts, grouping) for counts in parts.values()])  # (L, m, M)
    there = ~numpy.isnan(values).any(-1, keepdims=True)
    with numpy.errstate(invalid="ignore"):
        return numpy.where(there, values, 0).sum(0) / numpy.where(there.any(0), there.sum(0), numpy.nan)


def figures_of(models: Sequence[Predictions], name: str, languages: Sequence[str] | None, weight: str) -> numpy.ndarray:
    """The figure `name` of several models on the rows as they are: (M,) float64.

    `languages` None means all. Raises `UserError` if the models answered different tables.
    """
    rows = rows_of(models)
    parts = {code: numpy.stack([model.counts(rows.language == code) for model in models])[None]
             for code in languages or rows.languages}
    return pooled(parts, name, rows.grouping, weight)[0]


def rows_of(models: Sequence[Predictions]) -> Rows:
    """The table that all the models answered. Raises `UserError` if they answered different ones."""
    if any(model.rows is not models[0].rows for model in models):
        raise UserError("models are compared on the same posts; these answered different tables")
    return models[0].rows


def side_by_side(models: Sequence[Predictions], chosen: numpy.ndarray, block: numpy.ndarray | int = 0) -> numpy.ndarray:
    """The indices of the chosen rows in a vector (blocks, M, F) of every model's counts: (k, 3 M) int64, -1 for none.

    `block` (k,) or one for all: the block that a row belongs to (its language, if languages are kept apart).
    """
    width = rows_of(models).grouping.width
    parts = [model.indices[chosen] for model in models]
    start = numpy.reshape(block, (-1, 1)) * len(models) * width
    return numpy.concatenate([numpy.where(part >= 0, part + start + k * width, -1) for k, part in enumerate(parts)], 1)


def strata(models: Sequence[Predictions], languages: Sequence[str]
           ) -> list[tuple[list[str], numpy.ndarray, numpy.ndarray]]:
    """The strata to draw from: (codes (L,), distinct clusters' counts (P, L, M, F), how many there are of each (P,)).

    There is one stratum per language, and one for clusters with rows in several languages (a text and its
    translations): drawn in each language separately, they would pass for independent posts. Raises `UserError` for a
    language without rows and if the models answered different tables.
    """
    rows = rows_of(models)
    if missing := sorted(set(languages) - set(rows.languages)):
        raise UserError(f"language '{missing[0]}': no row has it; there are {', '.join(rows.languages)}")
    languages, found = list(dict.fromkeys(languages)), []
    spans = rows.span(languages)
    for codes, inside in [([code], (rows.language == code) & ~spans) for code in languages] + [(languages, spans)]:
        if inside.any():
            block = numpy.array([codes.index(code) for code in rows.language[inside].tolist()])
            shape = (len(codes), len(models), rows.grouping.width)
            matrix, times = patterns(side_by_side(models, inside, block), rows.clusters[inside], math.prod(shape))
            found.append((codes, matrix.reshape(-1, *shape), times))
    return found


def resampled(models: Sequence[Predictions], languages: Sequence[str], draws: int, seed: int
              ) -> Iterator[dict[str, numpy.ndarray]]:
    """Resampled test sets, in chunks: code -> counts (m, M, F), M models on the same drawn posts, `draws` in all.

    Whole clusters are drawn with replacement inside each of `strata`, as many as there are. A stratum has its own
    random stream, seeded by the seed and its languages, so if no cluster spans languages, a language's draws do not
    depend on the other languages.
    """
    drawn_from, width = strata(models, languages), models[0].rows.grouping.width
    streams = [numpy.random.default_rng([seed, *" ".join(codes).encode()]) for codes, _, _ in drawn_from]
    chunk = max(1, CHUNK_BYTES // (8 * width * len(models) * max(1, len(languages))))
    for start in range(0, draws, chunk):
        size = min(chunk, draws - start)
        found = {code: numpy.zeros((size, len(models), width)) for code in languages}
        for (codes, matrix, times), stream in zip(drawn_from, streams, strict=True):
            drawn = resample(matrix.reshape(len(matrix), -1), times, size, stream).reshape(size, *matrix.shape[1:])
            for k, code in enumerate(codes):
                found[code] += drawn[:, k]
        yield found
