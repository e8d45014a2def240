"""A difference in stance between two models, post by post: told better, newly found, newly lost.

Stance end to end is right where a related post is found and its stance is told. A model that finds more posts also
keeps the harder ones, so its share of right stances among the posts that it found is an average over other posts than
the other model's. Compared post by post, the difference of right answers is exactly

    sum (c1 - c2)  =  sum over posts that both found (c1 - c2)
                      + sum over posts that only the first found (c1)
                      - sum over posts that only the second found (c2)

with c = 1 where the stance is right end to end. The first sum is about telling the stance, on the same posts for both;
the other two are about which posts were found. Divided by the number of related posts, the three terms add up to the
difference in end-to-end accuracy. For the posts that both found, McNemar's exact test (stats/paired.py) gives a p; if
clusters hold several of these posts, signs are flipped per cluster.

Several fits of two recipes: the terms are averaged over pairs of fits, those with equal draw and seed if the recipes
have the same ones, else every fit of the one with every fit of the other. Each pair's identity is exact, and so is the
mean's.
"""

from collections.abc import Sequence

import numpy

from report.intervals import bootstrap, patterns, percentiles
from stats.paired import DRAWS, sign_flip
from stats.predictions import Predictions, Rows, rows_of

PARTS = ("both", "newly_found", "newly_lost")
CELLS = 6  # of a pair: (c1, c2) among posts that both found, right among newly found, right among newly lost


def related_of(rows: Rows, languages: Sequence[str] | None) -> numpy.ndarray:
    """(n,) bool: rows of `languages` (None: all) whose human label has a stance."""
    return rows.where(languages or rows.languages) & (rows.grouping.stance_of[rows.gold] >= 0)


def told(model: Predictions) -> tuple[numpy.ndarray, numpy.ndarray]:
    """(found, right), both (n,) bool: the answer has a stance; it is the human label's."""
    of = numpy.append(model.rows.grouping.stance_of, -1)  # an answer outside the labels has none
    answer = of[model.predicted]
    return answer >= 0, (answer >= 0) & (answer == of[model.rows.gold])


def split(first: Predictions, second: Predictions, languages: Sequence[str] | None = None) -> dict:
    """The identity of two models in counts of posts, and the test on posts that both found.

    `rows` (related posts), `both`, `newly_found` and `newly_lost` with `both` + `newly_found` - `newly_lost` =
    `difference`, all counts; `both_rows`, `both_first` and `both_second` (how many of these rows each gets right), `p`
    (exact, over clusters where they hold several rows). Raises `UserError` if the models answered different tables.
    """
    rows = rows_of([first, second])
    chosen = related_of(rows, languages)
    (found1, right1), (found2, right2) = ((a[chosen], b[chosen]) for a, b in map(told, (first, second)))
    shared = found1 & found2
    gain = right1.astype(int) - right2.astype(int)
    _, cluster = numpy.unique(rows.clusters[chosen][shared], return_inverse=True)
    return {"rows": int(chosen.sum()), "difference": int(gain.sum()), "both": int(gain[shared].sum()),
            "newly_found": int(right1[found1 & ~found2].sum()), "newly_lost": int(right2[found2 & ~found1].sum()),
            "both_rows": int(shared.sum()), "both_first": int(right1[shared].sum()),
            "both_second": int(right2[shared].sum()),
            "p": sign_flip(numpy.bincount(cluster, weights=gain[shared]).astype(int))}


def splits(pairs: Sequence[tuple[Predictions, Predictions]], languages: Sequence[str] | None = None,
           draws: int = DRAWS, seed: int = 0) -> dict[str, dict]:
    """The identity as rates of the related posts, averaged over pairs of fits, with bootstrap intervals over posts.

    "end_to_end", "both", "newly_found", "newly_lost" and "on_both", the accuracy's difference among the posts that both
    found: each {value, low, high, variance, points}, where `points` (P,) are the pairs' own values. Whole clusters are
    drawn with replacement inside each language, and clusters that span languages as a stratum of their own.
    """
    rows = rows_of([model for pair in pairs for model in pair])
    chosen = related_of(rows, languages)
    index = numpy.full((len(rows.gold), 1 + len(pairs)), -1)
    index[chosen, 0] = 0
    for k, (first, second) in enumerate(pairs):
        (found1, right1), (found2, right2) = told(first), told(second)
        cell = numpy.where(found1 & found2, 2 * right1 + right2, -1)
        cell = numpy.where(found1 & ~found2 & right1, 4, numpy.where(found2 & ~found1 & right2, 5, cell))
        index[:, 1 + k] = numpy.where(chosen & (cell >= 0), 1 + CELLS * k + cell, -1)
    width, strata = 1 + CELLS * len(pairs), {}
    codes = sorted(set(rows.language[chosen].tolist()))
    spans = rows.span(codes) & chosen
    for name, inside in [(code, chosen & (rows.language == code) & ~spans) for code in codes] + [(" ".join(codes) + "+",
                                                                                                  spans)]:
        if inside.any():
            strata[name] = patterns(index[inside], rows.clusters[inside], width)
    flat = sum((times @ matrix for matrix, times in strata.values()), numpy.zeros(width))
    points = _rates(flat[None], len(pairs))[0]  # (P, 5)
    drawn: list[numpy.ndarray] = []

    def statistic(counts: numpy.ndarray) -> numpy.ndarray:
        drawn.append(_rates(counts, len(pairs)).mean(1))
        return drawn[-1]

    bootstrap(strata, {"all": list(strata)}, statistic, draws=draws, seed=seed)
    every = numpy.concatenate(drawn) if drawn else numpy.full((1, 5), numpy.nan)
    low, high = percentiles(every)
    there = numpy.isfinite(every).sum(0)
    return {name: {"value": float(points[:, k].mean()), "low": float(low[k]), "high": float(high[k]),
                   "variance": float(numpy.nanvar(every[:, k], ddof=1)) if there[k] > 1 else numpy.nan,
                   "points": points[:, k].tolist()}
            for k, name in enumerate(("end_to_end", *PARTS, "on_both"))}


def _rates(counts: numpy.ndarray, pairs: int) -> numpy.ndarray:
    """Counts (m, 1 + 6 P) -> rates (m, P, 5): end to end, the three terms (lost ones negative), and on shared posts."""
    cells = counts[:, 1:].reshape(-1, pairs, CELLS)
    net, shared = cells[..., 2] - cells[..., 1], cells[..., :4].sum(-1)
    related = numpy.where(counts[:, :1] > 0, counts[:, :1], numpy.nan)
    terms = numpy.stack([net, cells[..., 4], -cells[..., 5]], -1) / related[..., None]
    on_both = net / numpy.where(shared > 0, shared, numpy.nan)
    return numpy.concatenate([terms.sum(-1, keepdims=True), terms, on_both[..., None]], -1)
