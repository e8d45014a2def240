"""The slope of a line through a few points, with an interval that assumes no normal distribution.

With y_i = a + b x_i + e_i and the e_i exchangeable, the permutation test of stats/shares.py can be applied to y - b x
for any b. The interval is every b that it does not reject (Maritz 1981, Distribution-Free Statistical Methods;
Garthwaite 1996, Biometrics 52, 1387-1393), so it excludes 0 exactly if that test's p is at most 1 - level.

It has a closed form. With x and y about their means, A = sum x_i y_i, B = sum x_i^2, and A_o, B_o the same sums after
an order o of the second factor, the test of b counts the orders with

    |A_o - b B_o| >= |A - b B|,    that is, b between (A - A_o) / (B - B_o) and (A + A_o) / (B + B_o)

All these intervals contain the estimate A / B, so the share of orders counted falls on both sides of it, and the ends
are order statistics of the orders' upper and lower ends: no search over b is needed.
"""

from math import floor

import numpy

from report.intervals import LEVEL
from stats.shares import EXACT, order_sums


def slope(x: numpy.ndarray, y: numpy.ndarray, level: float = LEVEL, draws: int = 100_000, seed: int = 0) -> dict:
    """`slope` of y (n,) on x (n,) by least squares and its permutation interval, `low` and `high`; float64.

    All n! orders up to `stats.shares.EXACT` points, else `draws` random ones and the original order. None if there is
    no slope (fewer than three points, all x equal); both ends None if the interval is unbounded.
    """
    n = len(x)
    if n < 3 or numpy.ptp(x) == 0:
        return {"slope": None, "low": None, "high": None}
    x, y = x - x.mean(), y - y.mean()
    whole = numpy.array([x @ y, x @ x])[:, None]
    sums = numpy.stack([order_sums(x, other, draws, seed) for other in (y, x)])
    if n > EXACT:
        sums = numpy.concatenate([whole, sums], 1)
    size = numpy.array([numpy.sqrt((x @ x) * (y @ y)), x @ x])[:, None]  # the scale for rounding errors
    ends = []
    for parts in (whole - sums, whole + sums):
        parts[abs(parts) <= 1e-12 * size] = 0  # what is equal in exact arithmetic stays equal
        with numpy.errstate(divide="ignore", invalid="ignore"):
            ends.append(parts[0] / parts[1])
    low, high = numpy.minimum(*ends), numpy.maximum(*ends)
    always = numpy.isnan(low)  # 0 / 0: the order changes nothing and counts for every b
    low[always], high[always] = -numpy.inf, numpy.inf
    rank = floor((1 - level) * len(low) + 1e-9) + 1  # an end is where the share of orders is still above 1 - level
    found = {"low": float(numpy.partition(low, rank - 1)[rank - 1]),
             "high": float(-numpy.partition(-high, rank - 1)[rank - 1])}
    if not numpy.isfinite([*found.values()]).all():
        found = {"low": None, "high": None}
    return {"slope": float(whole[0, 0] / whole[1, 0]), **found}
