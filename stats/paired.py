"""Two fits on the same posts: is one better, and by how much?

    mcnemar       accuracy: exact test on the posts that only one of them labels correctly
    paired_rates  accuracy: how large is the difference, with an interval that has a width even where no post differs
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

**The interval beside it** (Bonett and Price 2012, Journal of Educational and Behavioral Statistics 37, 479-488; one of
three that Fagerland, Lydersen and Laake 2014, Statistics in Medicine 33, 2850-2875, recommend). Two posts are added,
one that only the first model gets right and one that only the second does; then, with z the normal quantile,

    d = (n01 - n10) / (n + 2),    d +- z sqrt(((n01 + 1) + (n10 + 1) - (n + 2) d^2) / (n + 2)^2)

With clusters the sum under the root is that of (d_c - n_c d)^2 over clusters, the two posts each one of their own,
times G / (G - 1) for G clusters, and z is widened by t_(E - 1) / t_(n - 1), E being as many equal clusters as they
count for (report/clusters.py). The interval is approximate and the test exact: now and then they see 0 differently.

**Permutation** (Noreen 1989, Computer-Intensive Methods for Testing Hypotheses; Yeh 2000, COLING 947-953, for F1). If
the models did not differ, each cluster's two sets of labels could as well be swapped. Clusters with equal pairs of
counts are interchangeable: k of the m clusters of a pattern are swapped, k ~ Binomial(m, 1/2), and each swap moves the
pattern's counts from one model to the other, so no row is copied. If there are no more outcomes, prod_p (m_p + 1), than
draws, all are enumerated with their probabilities and p is exact. Else p = (1 + hits) / (1 + draws) (Phipson and Smyth
2010, Statistical Applications in Genetics and Molecular Biology 9:39), with as many draws as bring p's Monte Carlo
error, sqrt(p (1 - p) / draws), below `ERROR`. The hypothesis tested is that the models label
alike, which is stronger than that the figure is equal.

**Rates with a fixed denominator** (accuracy, the topic's recall and specificity, the stance end to end: `exact_rate`)
need no draws of swaps: their difference is a weighted sum of signs, as McNemar's is. With all rows weighted alike it is
the convolution above; with languages weighted alike too, if the weights 1 / n_l have a small common multiple.

**Several fits** of two recipes, equally many: a post's labels by all fits of the one are swapped with those by all fits
of the other, and the figure's mean over fits is compared.

A swap for which the figure cannot be computed counts as a hit, which can only make p larger.
"""

from collections.abc import Iterator, Sequence
from math import gcd, lcm, nan, prod

import numpy

from report.clusters import LEAST, effective
from report.intervals import CHUNK_BYTES, LEVEL, patterns
from report.student import NEARLY_NORMAL, t_quantile
from stats import corrected
from stats.predictions import Predictions, figures_of, pooled, resampled, rows_of, side_by_side

DRAWS = 10_000
ERROR = 0.002  # of a p from random swaps
LATTICE = 20_000  # sums that an exact sign flip may take; beyond, signs are drawn
FIXED = ("accuracy", "topic.accuracy", "topic.recall", "topic.specificity", "stance.end_to_end.accuracy")
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


def paired_rates(gain: numpy.ndarray, clusters: numpy.ndarray) -> tuple[float, float] | None:
    """Interval of the difference of two models' accuracies on the same posts, second minus first; None without posts.

    gain (n,): 1 where only the second is right, -1 where only the first is, 0 elsewhere; clusters (n,): ids. Formula,
    in float64 and within [-1, 1]: see the module.
    """
    n = len(gain)
    if not n:
        return None
    _, cluster, sizes = numpy.unique(clusters, return_inverse=True, return_counts=True)
    sums, wider = numpy.bincount(cluster, weights=gain), 1.0
    d = float(sums.sum()) / (n + 2)
    square = float(((sums - sizes * d) ** 2).sum()) + (1 - d) ** 2 + (-1 - d) ** 2
    if len(sizes) < n:
        groups = len(sizes) + 2
        square *= groups / (groups - 1)
        wider = t_quantile(LEVEL, max(LEAST, effective(clusters) - 1)) / t_quantile(LEVEL, n - 1)
    half = wider * t_quantile(LEVEL, NEARLY_NORMAL) * square**0.5 / (n + 2)
    return max(-1.0, d - half), min(1.0, d + half)


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


def exact_rate(figure: str, weight: str = "rows") -> bool:
    """Whether the figure's denominator is the same whatever a model answers, so that signs can be flipped."""
    return figure in FIXED and weight in ("rows", "languages")


def permutation(first: Predictions | Sequence[Predictions], second: Predictions | Sequence[Predictions], figure: str,
                languages: Sequence[str] | None = None, weight: str = "rows", draws: int = DRAWS, seed: int = 0,
                error: float = ERROR) -> dict:
    """Permutation test of the difference in a figure, first minus second: `difference`, `p`, `exact`, `draws`.

    Either side is a model or several fits of one recipe, equally many. `draws`: the fewest random ones; more are drawn
    until p's Monte Carlo error is below `error`. p is two-sided and NaN if the figure cannot be computed; if p is
    exact, `draws` is the number of outcomes. See the module.
    """
    sides = [[side] if isinstance(side, Predictions) else list(side) for side in (first, second)]
    values = [figures_of(side, figure, languages, weight).mean() for side in sides]
    value = float(values[0] - values[1])
    if numpy.isnan(value):
        return {"difference": nan, "p": nan, "exact": False, "draws": 0}
    if exact_rate(figure, weight):
        return {"difference": value, **_signs(sides, figure, languages, weight, max(draws, enough(0.5, error)), seed)}
    codes, held, steps, times = _swaps(sides, languages, weight)
    outcomes = numpy.prod(times.astype(float) + 1)
    exact, fits = bool(outcomes <= draws), len(sides[0])
    chunk = max(1, CHUNK_BYTES // (8 * (len(times) + 3 * held.size)))

    def hits_of(count: int, stream: int) -> float:
        hits = 0.0
        for swapped, mass in _swapped(times, count, exact, stream, chunk):
            moved = numpy.tensordot(swapped, steps, 1)  # (m, blocks, fits, F)
            counts = numpy.concatenate([held[0] + moved, held[1] - moved], 2)  # (m, blocks, 2 fits, F)
            parts = {code: counts[:, k] for k, code in enumerate(codes)}
            found = pooled(parts, figure, sides[0][0].rows.grouping, weight)
            gap = found[:, :fits].mean(1) - found[:, fits:].mean(1)
            hits += float(mass[~(numpy.abs(gap) < abs(value) - SAME)].sum())
        return hits

    if exact:
        return {"difference": value, "p": min(1.0, hits_of(int(outcomes), seed)), "exact": True, "draws": int(outcomes)}
    hits = hits_of(draws, seed)
    more = enough((1 + hits) / (1 + draws), error) - draws
    if more > 0:
        hits, draws = hits + hits_of(more, seed + 1), draws + more
    return {"difference": value, "p": (1 + hits) / (1 + draws), "exact": False, "draws": draws}


def enough(p: float, error: float = ERROR) -> int:
    """Draws after which a p of this size has a Monte Carlo error below `error`, with a tenth to spare."""
    return int(1.1 * p * (1 - p) / error**2) + 1


def gains(first: Predictions, second: Predictions, figure: str) -> tuple[numpy.ndarray, numpy.ndarray]:
    """(counted (n,) bool, gain (n,) of -1, 0, 1): rows in a rate's denominator, and who is right there, of `FIXED`."""
    rows = rows_of([first, second])
    grouping, question, kind = rows.grouping, *figure.rpartition(".")[::2]
    of = {"": numpy.arange(len(grouping.labels)), "topic": grouping.topic_of,
          "stance.end_to_end": grouping.stance_of if grouping.stance_groups else None}[question]
    gold = of[rows.gold]
    counted = {"recall": gold == 0, "specificity": gold == 1}.get(kind, gold >= 0)
    one, other = (numpy.append(of, -2)[model.predicted] == gold for model in (first, second))
    return counted, numpy.where(counted, one.astype(int) - other.astype(int), 0)


def _signs(sides, figure: str, languages: Sequence[str] | None, weight: str, draws: int, seed: int) -> dict:
    """`p`, `exact` and `draws` of a rate with a fixed denominator: signs flipped per cluster."""
    rows = rows_of([model for side in sides for model in side])
    codes = list(dict.fromkeys(languages or rows.languages))
    pairs = [gains(one, other, figure) for one, other in zip(*sides, strict=True)]
    counted, gain = pairs[0][0] & rows.where(codes), sum(gain for _, gain in pairs)
    step = numpy.ones(len(gain), dtype=object)
    if weight == "languages":
        sizes = {code: int((counted & (rows.language == code)).sum()) for code in codes}
        common = lcm(*(size for size in sizes.values() if size))
        step = numpy.array([common // max(1, sizes.get(code, 1)) for code in rows.language.tolist()], dtype=object)
    _, cluster = numpy.unique(rows.clusters[counted], return_inverse=True)
    sums = [0] * (int(cluster.max()) + 1 if len(cluster) else 0)
    for index, amount in zip(cluster.tolist(), (step * gain)[counted].tolist(), strict=True):
        sums[index] += amount  # whole numbers of any size
    shared = gcd(*sums) or 1
    sums = [amount // shared for amount in sums if amount]
    if sum(map(abs, sums)) <= LATTICE:
        return {"p": sign_flip(sums), "exact": True, "draws": 2 ** min(len(sums), 60)}
    sizes, times = numpy.unique(numpy.abs(numpy.array(sums, dtype=numpy.float64)), return_counts=True)
    stream = numpy.random.default_rng([seed, 0x51])
    flipped = (2 * stream.binomial(times, 0.5, size=(draws, len(times))) - times) @ sizes
    hits = int((numpy.abs(flipped) >= abs(float(sum(sums))) * (1 - 1e-9)).sum())
    return {"p": (1 + hits) / (1 + draws), "exact": False, "draws": draws}


def _swaps(sides, languages: Sequence[str] | None, weight: str):
    """Blocks of rows; each side's counts (2, blocks, fits, F); and, of each pattern in which the sides differ, what a
    swap adds to the first side's counts and takes from the second's (P, blocks, fits, F) and how many clusters have it
    (P,)."""
    models, fits = [*sides[0], *sides[1]], len(sides[0])
    rows = rows_of(models)
    codes = list(dict.fromkeys(languages or rows.languages))
    chosen = rows.where(codes)
    block, blocks = 0, [""]
    if weight == "languages":  # else all languages are one block, in which more clusters have equal counts
        block, blocks = numpy.array([codes.index(code) for code in rows.language[chosen].tolist()], dtype=int), codes
    shape = (len(blocks), 2, fits, rows.grouping.width)
    matrix, times = patterns(side_by_side(models, chosen, block), rows.clusters[chosen], prod(shape))
    matrix = matrix.reshape(-1, *shape)
    held = numpy.tensordot(times.astype(float), matrix, 1).swapaxes(0, 1)
    steps = matrix[:, :, 1] - matrix[:, :, 0]
    differ = steps.any((1, 2, 3))
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
               weight: str = "rows", draws: int = DRAWS, seed: int = 0) -> dict:
    """The difference in a figure, first minus second: `value`, `low`, `high`, `draws` (D,) float64.

    The ends are percentiles, or those of stats/corrected.py where each language counts the same.

    Both models are scored on the same resampled posts (`stats.predictions.resampled`). NaN if it cannot be computed.
    """
    values = figures_of([first, second], figure, languages, weight)
    grouping = first.rows.grouping
    found = numpy.concatenate([pooled(parts, figure, grouping, weight)
                               for parts in resampled([first, second], languages or first.rows.languages, draws, seed)])
    drawn, value, codes = found[:, 0] - found[:, 1], float(values[0] - values[1]), languages or first.rows.languages
    low, high = corrected.interval(value, drawn, [first, second], 1, figure, codes, weight)
    return {"value": value, "low": low, "high": high, "draws": drawn}
