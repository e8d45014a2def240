"""What rows that belong together are worth as independent ones, so that Wilson's interval of a rate can be told so.

Posts by one author, or copies of a text, are right or wrong together, so n of them say less than n independent posts.
With n_g the rows of cluster g, e_g its hits beyond what the rate p gives it, G clusters, and t_d the quantile of
Student's distribution with d degrees of freedom:

    deff = G / (G - 1) sum_g e_g^2  /  (n / (n - 1) n p (1 - p))        worth = min(1, (t_(n-1) / t_(E-1))^2 / deff)

E = n^2 / sum_g n_g^2 is as many equal clusters as G unequal ones count for (Kish's count, as of unequal weights). Where
one cluster holds most rows, its e_g says next to nothing, E is near 1 and the interval near [0, 1]: so it is.

The interval is Wilson's for worth k of worth n rows: the "effective sample size" of Korn and Graubard (1998, Survey
Methodology 24, 193-201), there with G for E and another interval. Rows that all are by themselves are worth 1. Where
all are right, or all wrong, nothing tells how much they hang together, and deff is taken as 1: near 0 and 1 such
intervals cover the truth less often than their level. tests/report/test_intervals.py measures how often elsewhere.
"""

from dataclasses import dataclass

import numpy

from report.intervals import LEVEL, wilson
from report.student import t_quantile

WORTHS = "posts that belong together count as what they are worth as independent ones"  # beside such an interval
LEAST = 0.2  # degrees of freedom: with fewer the quantile is beyond all numbers, and the interval [0, 1] anyway
MIN_GROUPS = 10  # fewer clusters give the bootstrap too little to draw from: no interval for F1


def worth(hits: numpy.ndarray, clusters: numpy.ndarray) -> float:
    """The share of `n` independent rows that these are worth: hits (n,) within [0, 1], clusters (n,) ids.

    hits are 0 or 1, or a row's mean over several models; formula, in float64: see the module.
    """
    names, cluster = numpy.unique(clusters, return_inverse=True)
    n, groups, right = len(hits), len(names), float(hits.sum())
    if groups == n:
        return 1.0
    if groups == 1:
        return 1 / n
    sizes, own = numpy.bincount(cluster), numpy.bincount(cluster, hits)
    beyond = numpy.sort(n * own - right * sizes)  # n e_g, whole for hits of 0 and 1: no order of rows changes their sum
    spread = n / (n - 1) * n * right * (n - right)
    deff = groups / (groups - 1) * float(beyond @ beyond) / spread if spread else 1.0
    wider = t_quantile(LEVEL, max(LEAST, n * n / float(sizes @ sizes) - 1)) / t_quantile(LEVEL, n - 1)
    return min(1.0, 1 / (deff * wider**2)) if deff else 1.0


def effective(clusters: numpy.ndarray) -> float:
    """E: as many equal clusters as those of the rows (n,) count for; 0 without rows."""
    sizes = numpy.unique(clusters, return_counts=True)[1]
    return float(sizes.sum() ** 2 / (sizes @ sizes)) if len(sizes) else 0.0


def rate_interval(hits: numpy.ndarray, clusters: numpy.ndarray) -> tuple[float, float] | None:
    """Wilson's interval of the rate of hits (n,) within [0, 1], as many as they are `worth`; None without rows."""
    return wilson(*worth_of(hits, clusters)) if len(hits) else None


def worth_of(hits: numpy.ndarray, clusters: numpy.ndarray) -> tuple[float, float]:
    """(hits, rows) of n > 0 rows, as many as they are `worth`: what a formula for independent rows is given."""
    part = worth(hits, clusters)
    return part * float(hits.sum()), part * len(hits)


@dataclass(frozen=True)
class Worths:
    """What a table's rows are worth: all of them, those of each human label, those of each answer; and as how many
    equal clusters those of each human label count (`effective`)."""

    all: float
    gold: tuple[float, ...]
    predicted: tuple[float, ...]
    groups: tuple[float, ...]

    @classmethod
    def apart(cls, gold: numpy.ndarray) -> "Worths":
        """Of rows that all are by themselves: gold (K,), the rows of each human label."""
        ones = (1.0,) * len(gold)
        return cls(1.0, ones, ones, tuple(float(rows) for rows in gold))

    @classmethod
    def of(cls, gold: numpy.ndarray, predicted: numpy.ndarray, clusters: numpy.ndarray, classes: int) -> "Worths":
        """gold (n,), predicted (n,): classes, where an answer outside them has a number beyond them."""
        hits = gold == predicted

        def part(chosen: numpy.ndarray) -> float:
            return worth(hits[chosen], clusters[chosen]) if chosen.any() else 1.0

        sides = [tuple(part(side == k) for k in range(classes)) for side in (gold, predicted)]
        return cls(part(gold >= 0), *sides, tuple(effective(clusters[gold == k]) for k in range(classes)))
