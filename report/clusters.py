"""What rows that belong together are worth as independent ones, so that Wilson's interval of a rate can be told so.

Posts by one author, or copies of a text, are right or wrong together, so n of them say less than n independent posts.
With e_g the hits of cluster g beyond what the rate p gives it, G clusters, and t and z the quantiles of Student's
distribution with G - 1 degrees of freedom and of the normal one:

    deff = G / (G - 1) sum_g e_g^2  /  (n / (n - 1) n p (1 - p))        worth = 1 / max(1, deff (t / z)^2)

The interval is Wilson's for worth k of worth n rows: the "effective sample size" of Korn and Graubard (1998, Survey
Methodology 24, 193-201). Rows that all are by themselves are worth 1. Where all are right, or all wrong, nothing tells
how much they hang together, and a cluster counts as one row. tests/report/test_intervals.py measures how often such
intervals cover the truth.
"""

from statistics import NormalDist

import numpy

from report.intervals import LEVEL
from report.student import t_quantile

MIN_GROUPS = 10  # fewer clusters give the bootstrap too little to draw from: no interval for F1


def worth(hits: numpy.ndarray, clusters: numpy.ndarray, level: float = LEVEL) -> float:
    """The share of `n` independent rows that these are worth: hits (n,) of 0 and 1, clusters (n,) ids."""
    names, cluster = numpy.unique(clusters, return_inverse=True)
    n, groups, right = len(hits), len(names), int(hits.sum())
    if groups == n:
        return 1.0
    if groups == 1 or right in (0, n):
        return groups / n
    sizes, own = numpy.bincount(cluster), numpy.bincount(cluster, hits).astype(numpy.int64)
    beyond = numpy.sort(n * own - right * sizes).astype(numpy.float64)  # n e_g; no order of rows changes their sum
    deff = groups / (groups - 1) * float(beyond @ beyond) / (n / (n - 1) * n * right * (n - right))
    wider = t_quantile(level, groups - 1) / NormalDist().inv_cdf((1 + level) / 2)
    return 1 / max(1.0, deff * wider**2)
