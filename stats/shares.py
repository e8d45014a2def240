"""A figure of each language against the language's share of pre-training: an association among a few languages.

The unit is the language: twelve values, not 875 posts, since every post of a language has the same share. The test is a
permutation test over languages (Fisher 1935; Pitman 1937, Supplement to the Journal of the Royal Statistical Society
4, 225-232): how often would values assigned to the languages at random be at least as closely associated with the
shares? All orders are enumerated up to ten languages; beyond, 100,000 are drawn, p = (1 + as close) / (1 + drawn)
(Phipson and Smyth 2010), and `exact` is false in the row. Two measures: Pearson's r on log10 share, and Spearman's rank
correlation (ties share ranks).

English has nearly all of the published share, so it alone can decide a slope: every analysis is made twice, with and
without it. A language that is not listed has an unknown share, not zero. Analysis "listed" leaves such languages out;
analysis "unlisted lowest" places them below every listed one, tied, which only ranks can express.

What this cannot show: languages differ in script, relatedness and in who wrote and labelled the posts, all of which are
related to the shares; and the test ignores the uncertainty of the figures themselves. It shows an association, no more.
"""

from collections.abc import Mapping
from itertools import combinations

import numpy

EXACT = 10  # languages up to which all orders are enumerated: 10! is 3,628,800
LARGEST = "en"


def association(values: Mapping[str, float], shares: Mapping[str, float], *, draws: int = 100_000, seed: int = 0
                ) -> list[dict]:
    """Six rows of a table: three analyses of `values` and shares (per cent) by language, each with and without English.

    A row: analysis, measure, english (bool: whether it is included), n, languages, unlisted (those without a share), r,
    p (two-sided), exact (bool), orders (number of permutations), smallest_p (the smallest p that these orders allow). r
    and p are None with fewer than three languages or if all values or all shares are the same. Values that are NaN or
    None are left out. float64.
    """
    values = {code: float(value) for code, value in values.items() if value is not None and not numpy.isnan(value)}
    listed = [code for code in values if shares.get(code, 0) > 0]
    unlisted = [code for code in values if code not in listed]
    logs = {code: float(numpy.log10(shares[code])) for code in listed}
    lowest = {**logs, **dict.fromkeys(unlisted, -numpy.inf)}
    table = []
    for analysis, measure, known in (("listed", "pearson, log10 share", logs), ("listed", "spearman", logs),
                                     ("unlisted lowest", "spearman", lowest)):
        for english in (True, False):
            codes = sorted(code for code in known if english or code != LARGEST)
            share, value = (numpy.array([of[code] for code in codes], dtype=float) for of in (known, values))
            if measure == "spearman":
                share, value = ranks(share), ranks(value)
            table.append({"analysis": analysis, "measure": measure, "english": english and LARGEST in codes,
                          "n": len(codes), "languages": codes, "unlisted": sorted(unlisted),
                          **permutation_test(share, value, draws, seed)})
    return table


def permutation_test(x: numpy.ndarray, y: numpy.ndarray, draws: int = 100_000, seed: int = 0) -> dict:
    """Pearson's r of x (n,) and y (n,), and its two-sided p over all n! orders of y, or `draws` random ones."""
    n, exact = len(x), len(x) <= EXACT
    none = {"r": None, "p": None, "exact": exact, "orders": 0, "smallest_p": None}
    if n < 3 or numpy.ptp(x) == 0 or numpy.ptp(y) == 0:
        return none
    x, y = x - x.mean(), y - y.mean()
    x, y = x / numpy.sqrt(x @ x), y / numpy.sqrt(y @ y)
    sums = order_sums(x, y, draws, seed)
    r, near = float(x @ y), 1e-9  # ties in exact arithmetic must stay ties after rounding
    close = int((abs(sums) >= abs(r) - near).sum())
    p = close / len(sums) if exact else (1 + close) / (1 + len(sums))
    best = (abs(sums) >= abs(sums).max() - near).mean() if exact else 1 / (1 + len(sums))
    return {"r": r, "p": p, "exact": exact, "orders": len(sums), "smallest_p": float(best)}


def order_sums(x: numpy.ndarray, y: numpy.ndarray, draws: int = 100_000, seed: int = 0) -> numpy.ndarray:
    """sum_i x_i y_o(i) for every order o of up to EXACT values, (n!,) float64; beyond, for `draws` random orders.

    The sequence of the orders depends on n, `draws` and `seed` alone. All orders are built up from the subsets of y
    that can belong to the first k of x: e n! additions in all, while summing each order separately takes n n!.
    """
    n = len(x)
    if n > EXACT:
        orders = numpy.tile(numpy.arange(n), (draws, 1))
        return y[numpy.random.default_rng([seed, n]).permuted(orders, axis=1)] @ x
    sums = {(): numpy.zeros(1)}
    for k, weight in enumerate(x, 1):
        sums = {held: numpy.concatenate([sums[held[:i] + held[i + 1:]] + weight * y[j] for i, j in enumerate(held)])
                for held in combinations(range(n), k)}
    return sums[tuple(range(n))]


def ranks(values: numpy.ndarray) -> numpy.ndarray:
    """Ranks from 1; equal values share their mean rank: [3, 1, 3] -> [2.5, 1, 2.5]; -inf is lower than all others."""
    _, index, counts = numpy.unique(values, return_inverse=True, return_counts=True)
    return (numpy.cumsum(counts) - (counts - 1) / 2)[index]
