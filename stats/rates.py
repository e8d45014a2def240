"""The interval of a weighted sum of rates, with rare classes in mind.

A share is theta = sum_h W_h p_h: cells h with known weights W_h (the share of posts that the machine gave one
label, say) and rates p_h, of which n_h coded rows give the estimates r_h. The usual interval, estimate +- z times its
standard error, fails where classes are rare, since a cell without an event has a standard error of 0. Here each rate
has the posterior of a prior Beta(a, a), the sum's distribution comes from draws, and the interval from its percentiles:

    p_h ~ Beta(n_h r_h + a, n_h (1 - r_h) + a),    X_h ~ Binomial(N_h, p_h)
    theta = sum_h W_h (f_h r_h + (1 - f_h) X_h / N_h)

A share f_h of the cell's posts is coded and known; only of the N_h others is the number of events open (Ericson 1969,
Journal of the Royal Statistical Society B 31, 195-233). Its variance is r (1 - r) (1 - f) / n, as a finite population's
should be, and where no event was found among most of the posts it still allows for one among the rest.

With one cell and a = 1/2 this is Jeffreys' interval (Brown, Cai and DasGupta 2001, Statistical Science 16, 101-133);
what counts is how often it covers, which tests/stats/test_prevalence.py measures. The n_h may be effective sizes: any
positive number. The draws are the same at every call.
"""

from collections.abc import Sequence

import numpy

from report.intervals import EDGES

PRIOR = 0.5  # a
DRAWS = 4_000  # an end's Monte Carlo error is about 2 % of half the interval


def moved(estimate: float, weights: Sequence[float], rates: Sequence[float]) -> list[float]:
    """Rates in [0, 1] with sum_h W_h r_h = `estimate`: all made smaller, or their distances from 1, by one factor.

    An estimate that is not the sum itself (DSL's) could also be met by a shift of theta; but then the interval of rates
    near 0 would begin at the shift, and miss the truth below it.
    """
    now = float(numpy.dot(weights, rates))
    if estimate <= now:
        return [rate * estimate / now if now > 0 else 0.0 for rate in rates]
    return [1 - (1 - rate) * (1 - estimate) / (1 - now) for rate in rates]


def share_interval(estimate: float, weights: Sequence[float], rates: Sequence[float], sizes: Sequence[float],
                   coded: Sequence[float], left: Sequence[int], posts: float | None = None,
                   priors: Sequence[float] | None = None) -> tuple[float, float]:
    """(low, high) of theta, float64, in [0, 1]; formula and source: see the module.

    estimate: of theta, sum_h W_h r_h (`moved` makes them agree), which stays inside the interval. weights: W_h; rates:
    r_h in [0, 1]; sizes: n_h > 0; coded: f_h in [0, 1]; left: N_h, 0 where all are coded. posts: N, if theta is
    the chance behind N posts that are themselves drawn from it, and not the share among them: then theta ~
    Beta(N t + a, N (1 - t) + a) given their share t. priors: a of each cell, else `PRIOR`.
    """
    stream = numpy.random.default_rng(0)
    drawn = numpy.zeros(DRAWS)
    priors = [PRIOR] * len(rates) if priors is None else priors
    for weight, rate, size, known, others, a in zip(weights, rates, sizes, coded, left, priors, strict=True):
        chance = stream.beta(size * rate + a, size * (1 - rate) + a, DRAWS)
        among = stream.binomial(others, chance) / others if others else rate
        drawn += weight * (known * rate + (1 - known) * among)
    drawn = numpy.clip(drawn, 0, 1)
    if posts is not None:
        drawn = stream.beta(posts * drawn + PRIOR, posts * (1 - drawn) + PRIOR)
    low, high = numpy.quantile(drawn, EDGES)
    return float(min(low, estimate)), float(max(high, estimate))
