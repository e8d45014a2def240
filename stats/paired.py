"""Two fits on the same posts: is one better, and by how much?

    mcnemar       accuracy: exact test on the posts that only one of them labels correctly
    permutation   any figure: how often does it differ as much if the two fits' labels are swapped at random?
    difference    any figure: how large is the difference, with a bootstrap interval

The results hold for these two fits. Another seed or another draw of training rows gives other fits of the same recipes;
stats/recipes.py compares recipes.

**McNemar's test**, exact (McNemar 1947, Psychometrika 12, 153-157; with binomial probabilities: Fagerland, Lydersen and
Laake 2013, BMC Medical Research Methodology 13:91). On n01 + n10 posts only one model is right; if the models were
equally good, it would be either of them with probability 1/2:

    p = min(1, 2 P(X <= min(n01, n10))),    X ~ Binomial(n01 + n10, 1/2)

It takes posts as independent. If a cluster holds several (copies of a text, posts by an author), the sign is flipped
per cluster: S = sum_c s_c d_c with d_c = (posts of cluster c that only the second model gets right) minus (only the
first), s_c = +-1 with probability 1/2, p = P(|S| >= |sum_c d_c|). The sum's distribution is a convolution of binomials,
one per size |d_c|, so this is exact as well; with clusters of one post it is McNemar's p.

**Permutation** (Noreen 1989, Computer-Intensive Methods for Testing Hypotheses; Yeh 2000, COLING 947-953, for F1). If
the models did not differ, each cluster's two sets of labels could as well be swapped. Clusters with equal pairs of
counts are interchangeable: k of the m clusters of a pattern are swapped, k ~ Binomial(m, 1/2), and each swap moves the
pattern's counts from one model to the other, so no row is copied. If there are no more outcomes, prod_p (m_p + 1), than
draws, all are enumerated with their probabilities and p is exact. Else p = (1 + hits) / (1 + draws) (Phipson and Smyth
2010, Statistical Applications in Genetics and Molecular Biology 9:39). The hypothesis tested is that the models label
alike, which is stronger than that the figure is equal.

A swap for which the figure cannot be computed counts as a hit, which can only make p larger.
"""

from collections.abc import Iterator, Sequence
from math import nan, prod

import numpy

from report.intervals import CHUNK_BYTES, LEVEL, patterns, percentiles
from stats.predictions import Predictions, figures_of, pooled, resampled, rows_of, side_by_side

DRAWS = 10_000
SAME = 1e-12  # equal counts, summed in another order, differ by less


def mcnemar(first: Predictions, second: Predictions, languages: Sequence[str] | None = None) -> dict:
    """Exact McNemar test of two models' accuracy over all rows of `languages` (None: all).

    Returns n01 (only the second is right), n10 (only the first), `difference` (first minus second) and `p`; also
    `rows_in_clusters`, how many of these rows share a cluster, and `p_clusters`, the sign-flip p over clusters, None if
    no cluster holds several rows. Formulas: see the module.
    """
    rows = rows_of([first, second])
    chosen = rows.where(languages or rows.languages)
    gain = second.correct[chosen].astype(int) - first.correct[chosen].astype(int)
    _, cluster, sizes = numpy.unique(rows.clusters[chosen], return_inverse=True, return_counts=True)
    together = int(sizes[sizes > 1].sum())
    gains = numpy.bincount(cluster, weights=gain).astype(int)
    return {"rows": len(gain), "n01": int((gain > 0).sum()), "n10": int((gain < 0).sum()),
            "difference": -float(gain.mean()) if len(gain) else nan, "p": sign_flip(gain),
            "rows_in_clusters": together, "p_clusters": sign_flip(gains) if together else None}


def sign_flip(gains: Sequence[int]) -> float:
    """P(|sum_c s_c d_c| >= |sum_c d_c|) for whole numbers d_c and fair signs s_c: exact, by convolution, in float64."""
    gains = numpy.asarray(gains, dtype=int)
    sizes, times = numpy.unique(numpy.abs(gains[gains != 0]), return_counts=True)
    mass = numpy.ones(1)  # of the sums -S, -S + 1, ..., S with S = sum_c |d_c|
    for size, m in zip(sizes.tolist(), times.tolist(), strict=True):
        step = numpy.zeros(2 * m * size + 1)
        step[:: 2 * size] = binomial(m)
        mass = numpy.convolve(mass, step)
    sums = numpy.arange(len(mass)) - len(mass) // 2
    return min(1.0, float(mass[numpy.abs(sums) >= abs(gains.sum())].sum()))


def binomial(m: int) -> numpy.ndarray:
    """C(m, k) / 2^m for k = 0..m, (m + 1,) float64, each rounded once from the exact fraction."""
    whole, ways, found = 1 << m, 1, []
    for k in range(m // 2 + 1):
        found.append(ways / whole)
        ways = ways * (m - k) // (k + 1)
    return numpy.array(found + found[: (m + 1) // 2][::-1])


def permutation(first: Predictions, second: Predictions, figure: str, languages: Sequence[str] | None = None,
                weight: str = "rows", draws: int = DRAWS, seed: int = 0) -> dict:
    """Permutation test of the difference in a figure, first minus second: `difference`, `p`, `exact`, `draws`.

    p is two-sided and NaN if the figure cannot be computed; if p is exact, `draws` is the number of outcomes. See the
    module.
    """
    values = figures_of([first, second], figure, languages, weight)
    value = float(values[0] - values[1])
    if numpy.isnan(value):
        return {"difference": nan, "p": nan, "exact": False, "draws": 0}
    codes, held, steps, times = _swaps(first, second, languages, weight)
    outcomes = numpy.prod(times.astype(float) + 1)
    exact = bool(outcomes <= draws)
    hits = 0.0
    chunk = max(1, CHUNK_BYTES // (8 * (len(times) + 3 * held.size)))
    for swapped, mass in _swapped(times, int(outcomes) if exact else draws, exact, seed, chunk):
        moved = numpy.tensordot(swapped, steps, 1)  # (m, blocks, F)
        counts = numpy.stack([held[0] + moved, held[1] - moved], 2)  # (m, blocks, 2, F)
        parts = {code: counts[:, k] for k, code in enumerate(codes)}
        found = pooled(parts, figure, first.rows.grouping, weight)
        hits += float(mass[~(numpy.abs(found[:, 0] - found[:, 1]) < abs(value) - SAME)].sum())
    p = min(1.0, hits) if exact else (1 + hits) / (1 + draws)
    return {"difference": value, "p": p, "exact": exact, "draws": int(outcomes) if exact else draws}


def _swaps(first: Predictions, second: Predictions, languages: Sequence[str] | None, weight: str):
    """Blocks of rows; each model's counts (M, blocks, F); and, of each pattern in which the models differ, what a swap
    adds to the first model's counts and takes from the second's (P, blocks, F) and how many clusters have it (P,)."""
    rows = first.rows
    codes = list(dict.fromkeys(languages or rows.languages))
    chosen = rows.where(codes)
    block, blocks = 0, [""]
    if weight == "languages":  # else all languages are one block, in which more clusters have equal counts
        block, blocks = numpy.array([codes.index(code) for code in rows.language[chosen].tolist()], dtype=int), codes
    shape = (len(blocks), 2, rows.grouping.width)
    matrix, times = patterns(side_by_side([first, second], chosen, block), rows.clusters[chosen], prod(shape))
    matrix = matrix.reshape(-1, *shape)
    held = numpy.tensordot(times.astype(float), matrix, 1).swapaxes(0, 1)
    steps = matrix[:, :, 1] - matrix[:, :, 0]
    differ = steps.any((1, 2))
    return blocks, held, steps[differ], times[differ]


def _swapped(times: numpy.ndarray, draws: int, exact: bool, seed: int, chunk: int
             ) -> Iterator[tuple[numpy.ndarray, numpy.ndarray]]:
    """In chunks: how many clusters of each pattern are swapped, (m, P) float64, and each outcome's weight, (m,)."""
    stream = numpy.random.default_rng([seed, 0x5A])
    chances = [binomial(m) for m in times.tolist()] if exact else []
    for start in range(0, draws, chunk):
        size = min(chunk, draws - start)
        if not exact:
            yield stream.binomial(times, 0.5, size=(size, len(times))).astype(float), numpy.ones(size)
            continue
        number, mass, swapped = numpy.arange(start, start + size), numpy.ones(size), numpy.zeros((size, len(times)))
        for p, m in enumerate(times.tolist()):
            number, swapped[:, p] = number // (m + 1), number % (m + 1)
            mass *= chances[p][swapped[:, p].astype(int)]
        yield swapped, mass


def difference(first: Predictions, second: Predictions, figure: str, languages: Sequence[str] | None = None,
               weight: str = "rows", draws: int = DRAWS, seed: int = 0, level: float = LEVEL) -> dict:
    """The difference in a figure, first minus second: `value`, `low`, `high` (percentiles), `draws` (D,) float64.

    Both models are scored on the same resampled posts (`stats.predictions.resampled`). NaN if it cannot be computed.
    """
    values = figures_of([first, second], figure, languages, weight)
    grouping = first.rows.grouping
    found = numpy.concatenate([pooled(parts, figure, grouping, weight)
                               for parts in resampled([first, second], languages or first.rows.languages, draws, seed)])
    drawn = found[:, 0] - found[:, 1]
    low, high = percentiles(drawn[:, None], [(1 - level) / 2, (1 + level) / 2])[:, 0]
    return {"value": float(values[0] - values[1]), "low": float(low), "high": float(high), "draws": drawn}
