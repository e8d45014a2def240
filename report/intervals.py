"""How certain a figure is: Wilson's interval for rates, the cluster bootstrap for everything else.

Wilson (1927), Journal of the American Statistical Association 22, 209-212: for k of n, with z the normal quantile,

    (k + z^2 / 2 +- z sqrt(k (n - k) / n + z^2 / 4)) / (n + z^2)

It stays inside [0, 1], has a width even at k = 0 and k = n, and keeps its level with 25 rows, which the textbook
interval p +- z sqrt(p (1 - p) / n) does not. It takes rows as independent.

An F1 is not a rate, so its interval comes from a bootstrap: percentiles over resampled test sets. Two choices decide
whether it is honest. It resamples *clusters* (all copies of a text, or all posts by an author), since such rows are
right or wrong together; and it does so inside each language, since the number of rows per language was chosen by
whoever built the set and is not random. Languages that share a cluster are resampled as one where they are taken
together (report/metrics.py): an author's posts in two languages come and go together.

It is fast because figures depend on counts alone. Clusters with equal counts are interchangeable, so there are only P
patterns with multiplicities m_1..m_P. Drawing G clusters with replacement is then one multinomial draw (G; m_1/G, ...,
m_P/G), and draws @ patterns are the resampled counts; no row is copied. 875 posts in four labels have at most 16 or so
patterns per language. Draws are made in chunks of bounded size, which does not change the numbers. Each stratum has its
own random stream, seeded by the seed and the stratum's name, so an interval depends neither on the order of rows nor on
the other languages in the file.

tests/report/test_intervals.py measures how often each formula covers the truth.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist

import numpy

LEVEL = 0.95
EDGES = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]  # the shares of draws below the ends of an interval
CHUNK_BYTES = 32_000_000  # of resampled counts held in memory at once


def wilson(successes: float, n: float, level: float = LEVEL) -> tuple[float, float] | None:
    """Wilson's score interval for `successes` of `n` independent rows; None without rows. Formula: see the module."""
    if n <= 0:
        return None
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = successes + z * z / 2
    half = z * (successes * (n - successes) / n + z * z / 4) ** 0.5
    low, high = (centre - half) / (n + z * z), (centre + half) / (n + z * z)
    # At the ends the formula gives 0 and 1 exactly; rounding must not leave the figure outside its interval.
    return (0.0 if successes == 0 else low), (1.0 if successes == n else high)


def rate_difference(first: tuple[float, float], second: tuple[float, float], level: float = LEVEL):
    """Difference of two independent rates, (k1, n1) minus (k2, n2): (difference, low, high), or None without rows.

    Newcombe's hybrid score interval (1998, Statistics in Medicine 17, 873-890, method 10): with Wilson limits l and u,
    d - sqrt((p1 - l1)^2 + (u2 - p2)^2) and d + sqrt((u1 - p1)^2 + (p2 - l2)^2). Seen and unseen languages are compared
    in this way, since two rates can differ although their intervals overlap.
    """
    one, two = wilson(*first, level), wilson(*second, level)
    if one is None or two is None:
        return None
    p1, p2 = first[0] / first[1], second[0] / second[1]
    below = ((p1 - one[0]) ** 2 + (two[1] - p2) ** 2) ** 0.5
    above = ((one[1] - p1) ** 2 + (p2 - two[0]) ** 2) ** 0.5
    return p1 - p2, p1 - p2 - below, p1 - p2 + above


def patterns(indices: numpy.ndarray, clusters: numpy.ndarray, width: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The distinct count vectors of the clusters, (P, width) float64, and how many clusters have each, (P,) int64.

    `indices` (n, m) int64: the counts to which a row adds one, -1 for none; `clusters` (n,): ids of any kind, equal for
    rows of one cluster.
    """
    _, cluster, sizes = numpy.unique(clusters, return_inverse=True, return_counts=True)
    alone = sizes[cluster] == 1  # most rows; their patterns are found without a (G, width) matrix
    rows, times = numpy.unique(indices[alone], axis=0, return_counts=True)
    found = [_one_hot(rows, numpy.arange(len(rows)), len(rows), width)]
    multiplicity = [times]
    if not alone.all():
        _, number = numpy.unique(cluster[~alone], return_inverse=True)
        counts = _one_hot(indices[~alone], number, int(number.max()) + 1, width)
        counts, times = numpy.unique(counts, axis=0, return_counts=True)
        found.append(counts)
        multiplicity.append(times)
    return numpy.concatenate(found), numpy.concatenate(multiplicity)


def _one_hot(indices, number, groups: int, width: int) -> numpy.ndarray:
    counts = numpy.zeros((groups, width))
    for column in indices.T:
        counted = column >= 0
        numpy.add.at(counts, (number[counted], column[counted]), 1)
    return counts


def bootstrap(
    strata: Mapping[str, tuple[numpy.ndarray, numpy.ndarray]],
    cells: Mapping[str, Sequence[str]],
    statistic: Callable[[numpy.ndarray], numpy.ndarray],
    *,
    draws: int,
    seed: int,
) -> dict[str, numpy.ndarray]:
    """Percentile intervals of a statistic for cells that are unions of strata: cell -> (2, S), NaN without an interval.

    `strata`: name -> `patterns(...)`. `statistic`: counts (m, F) -> figures (m, S), NaN if a resampled set has none
    (such draws are left out of the percentiles). A stratum is resampled once for all cells that contain it.
    """
    streams = {name: numpy.random.default_rng([seed, zlib.crc32(name.encode())]) for name in strata}
    widest = max((sum(matrix.shape) for matrix, _ in strata.values()), default=1)
    chunk = max(1, CHUNK_BYTES // (8 * widest * (len(cells) + 1)))
    used = {name: [cell for cell, members in cells.items() if name in members] for name in strata}
    collected: dict[str, list[numpy.ndarray]] = {cell: [] for cell in cells}
    for start in range(0, draws, chunk):
        size = min(chunk, draws - start)
        sums: dict[str, numpy.ndarray] = {}
        for name, (matrix, multiplicity) in strata.items():
            resampled = resample(matrix, multiplicity, size, streams[name])
            for cell in used[name]:
                sums[cell] = sums[cell] + resampled if cell in sums else resampled
        for cell, counts in sums.items():
            collected[cell].append(statistic(counts))
    return {cell: percentiles(numpy.concatenate(parts)) for cell, parts in collected.items() if parts}


def resample(matrix, multiplicity, size: int, stream: numpy.random.Generator) -> numpy.ndarray:
    """`size` resampled test sets as counts (size, F): G of G clusters drawn with replacement, as one multinomial."""
    clusters = int(multiplicity.sum())
    return stream.multinomial(clusters, multiplicity / clusters, size=size).astype(numpy.float64) @ matrix


def percentiles(values: numpy.ndarray) -> numpy.ndarray:
    """The ends over the first dimension without NaN draws: (draws, S) -> (2, S); all NaN gives NaN."""
    result = numpy.full((2, values.shape[1]), numpy.nan)
    for column in range(values.shape[1]):
        present = values[:, column][~numpy.isnan(values[:, column])]
        if len(present):
            result[:, column] = numpy.quantile(present, EDGES)
    return result
