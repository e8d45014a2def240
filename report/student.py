"""Student's t distribution: for standard errors from a handful of languages the normal quantile is too small.

With t = sqrt(df) tan(theta) the density becomes c cos(theta)^(df - 1), c = Gamma((df + 1) / 2) / (sqrt(pi)
Gamma(df / 2)), smooth on a finite range: 64 Gauss-Legendre nodes give the integral. The quantile is found by bisection.
"""

from math import atan, cos, exp, lgamma, pi, sqrt
from statistics import NormalDist

import numpy

NODES, WEIGHTS = (array.tolist() for array in numpy.polynomial.legendre.leggauss(64))
NEARLY_NORMAL = 5_000.0  # degrees of freedom; from here on the normal quantile is used, less than 1e-3 away


def t_cdf(t: float, df: float) -> float:
    """P(T <= t) for `df` > 0 degrees of freedom, to about 1e-12."""
    if df >= NEARLY_NORMAL:
        return NormalDist().cdf(t)
    half = atan(t / sqrt(df)) / 2
    area = half * sum(w * cos(half * (x + 1)) ** (df - 1) for x, w in zip(NODES, WEIGHTS, strict=True))
    return 0.5 + exp(lgamma((df + 1) / 2) - lgamma(df / 2)) / sqrt(pi) * area


def t_quantile(level: float, df: float) -> float:
    """The half-width, in standard errors, of a two-sided interval: t with P(|T| <= t) = `level`."""
    if df >= NEARLY_NORMAL:
        return NormalDist().inv_cdf((1 + level) / 2)
    low, high = 0.0, 1e4
    while high - low > 1e-10 * max(1.0, low):
        middle = (low + high) / 2
        low, high = (middle, high) if t_cdf(middle, df) < (1 + level) / 2 else (low, middle)
    return (low + high) / 2
