"""The interval of a weighted sum of rates, with rare classes in mind.

A share is theta = sum_h W_h p_h + shift: cells h with known weights W_h (the share of posts that the machine gave one
label, say) and rates p_h, of which n_h coded rows give the estimates r_h. The usual interval, estimate +- z times its
standard error, fails where classes are rare, since a cell without an event has a standard error of 0. Here each rate
has the posterior of a prior Beta(a, a), the sum's distribution comes from draws, and the interval from its percentiles:

    p_h ~ Beta(n_h r_h + a, n_h (1 - r_h) + a),    theta = sum_h W_h p_h + shift

With one cell and a = 1/2 this is Jeffreys' interval (Brown, Cai and DasGupta 2001, Statistical Science 16, 101-133);
what counts is how often it covers, which tests/stats/test_prevalence.py measures. The n_h may be effective sizes: any
positive number, infinity for a rate that is known. The draws are the same at every call.
"""

from collections.abc import Sequence
from math import isinf

import numpy

from report.intervals import LEVEL

PRIOR = 0.5  # a
DRAWS = 4_000  # an end's Monte Carlo error is about 2 % of half the interval


def share_interval(estimate: float, weights: Sequence[float], rates: Sequence[float], sizes: Sequence[float],
                   level: float = LEVEL, posts: float | None = None) -> tuple[float, float]:
    """(low, high) of theta, float64, in [0, 1]; formula and source: see the module.

    estimate: of theta, which stays inside the interval; its distance from sum_h W_h r_h is the shift. weights: W_h;
    rates: r_h in [0, 1]; sizes: n_h > 0. posts: N, if theta is the chance behind N posts that are themselves drawn from
    it, and not the share among them: then theta ~ Beta(N t + a, N (1 - t) + a) given their share t.
    """
    stream = numpy.random.default_rng(0)
    drawn = numpy.full(DRAWS, estimate - float(numpy.dot(weights, rates)))
    for weight, rate, size in zip(weights, rates, sizes, strict=True):
        drawn += weight * (rate if isinf(size) else stream.beta(size * rate + PRIOR, size * (1 - rate) + PRIOR, DRAWS))
    drawn = numpy.clip(drawn, 0, 1)
    if posts is not None:
        drawn = stream.beta(posts * drawn + PRIOR, posts * (1 - drawn) + PRIOR)
    low, high = numpy.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    nothing_above, nothing_below = all(r == 1 for r in rates), all(r == 0 for r in rates)
    return (0.0 if nothing_below else float(min(low, estimate))), (1.0 if nothing_above else float(max(high, estimate)))
