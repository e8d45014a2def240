"""Several contrasts at once: the more one tests, the likelier it is that one stands out by chance.

A family is declared before the data are seen. Two corrections are made for it:

**Holm** (1979, Scandinavian Journal of Statistics 6, 65-70) for tests: with p_(1) <= ... <= p_(K),

    adjusted p_(k) = max_{j <= k} min(1, (K - j + 1) p_(j))

so that the chance of one or more false claims stays below the level, however the tests depend on one another.

**Max-|t| bands** for intervals (Romano and Wolf 2005, Econometrica 73, 1237-1282; Montiel Olea and Plagborg-Moller
2019, Journal of Applied Econometrics 34, 1-17): with values v_k and joint bootstrap draws v*_k,

    s_k = sd(v*_k),    c = quantile over the draws of max_k |v*_k - v_k| / s_k,    band_k = v_k +- c s_k

All K bands hold at once as often as the level states. c takes the contrasts' dependence from the draws, so all
contrasts must be computed on the same drawn posts; separate draws would make c as large as for independent contrasts.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy

from report.intervals import LEVEL, percentiles
from stats.paired import DRAWS, mcnemar, permutation
from stats.predictions import Predictions, figures_of, pooled, resampled


class Contrast(NamedTuple):
    """One declared comparison: `figure` of the first model minus that of the second, over `languages` (None: all)."""

    name: str
    first: Predictions
    second: Predictions
    figure: str
    languages: Sequence[str] | None = None
    weight: str = "rows"


def holm(p: Sequence[float]) -> numpy.ndarray:
    """Holm's adjusted p-values (K,) float64. NaN stays NaN but counts in K, since the contrast was declared."""
    p = numpy.asarray(p, dtype=numpy.float64)
    order = numpy.argsort(p)  # NaN last
    adjusted = numpy.empty_like(p)
    adjusted[order] = numpy.minimum(1, numpy.maximum.accumulate(p[order] * numpy.arange(len(p), 0, -1)))
    return adjusted


def simultaneous(values: Sequence[float], draws: numpy.ndarray, level: float = LEVEL) -> numpy.ndarray:
    """Max-|t| bands for K values from joint draws (D, K): (K, 2) float64. Formula: see the module.

    A value that cannot be computed gives NaN; draws without it are left out of its spread. A contrast whose draws are
    all equal (models with the same answers) has a band of width 0 and is not used for c.
    """
    values, draws = numpy.asarray(values, dtype=numpy.float64), numpy.asarray(draws, dtype=numpy.float64)
    there = ~numpy.isnan(draws)
    count = numpy.maximum(there.sum(0), 1)
    filled = numpy.where(there, draws, 0)
    spread = numpy.sqrt((numpy.where(there, draws - filled.sum(0) / count, 0) ** 2).sum(0) / count)
    moving = (spread > 1e-12) & ~numpy.isnan(values)
    t = numpy.where(there, numpy.abs(draws - values), 0)[:, moving] / spread[moving]
    critical = numpy.quantile(t.max(1), level) if moving.any() else 0.0
    return numpy.stack([values - critical * spread, values + critical * spread], 1)


def family(contrasts: Sequence[Contrast | tuple], draws: int = DRAWS, seed: int = 0, level: float = LEVEL
           ) -> list[dict]:
    """One dict per declared contrast, in order: what it is, its value, intervals and tests, alone and in the family.

    `value`; `low`, `high` (percentiles, this contrast alone); `simultaneous_low`, `simultaneous_high` (max-|t|, all of
    them together); `test` and `p`; `p_holm`. The test of accuracy over rows is exact: McNemar's, or the sign flip over
    clusters if a cluster holds several rows; every other figure has the permutation test. All models are resampled
    together, so all contrasts use the same drawn posts. Raises `UserError` if models answered different tables.
    """
    contrasts = [Contrast(*contrast) for contrast in contrasts]
    if not contrasts:
        return []
    models = list({id(model): model for c in contrasts for model in (c.first, c.second)}.values())
    rows = models[0].rows
    asked = [list(c.languages or rows.languages) for c in contrasts]
    pairs = [[next(k for k, model in enumerate(models) if model is side) for side in (c.first, c.second)]
             for c in contrasts]
    drawn = []
    for parts in resampled(models, sorted({code for codes in asked for code in codes}), draws, seed):
        columns = []
        for c, codes, pair in zip(contrasts, asked, pairs, strict=True):
            found = pooled({code: parts[code][:, pair] for code in codes}, c.figure, rows.grouping, c.weight)
            columns.append(found[:, 0] - found[:, 1])
        drawn.append(numpy.stack(columns, 1))
    drawn = numpy.concatenate(drawn)  # (D, K)
    sides = [figures_of([c.first, c.second], c.figure, c.languages, c.weight) for c in contrasts]
    values = numpy.array([first - second for first, second in sides])
    alone = percentiles(drawn, [(1 - level) / 2, (1 + level) / 2])
    bands = simultaneous(values, drawn, level)
    tests = [_test(c, draws, seed) for c in contrasts]
    adjusted = holm([p for _, p in tests])
    return [{"name": c.name, "figure": c.figure, "languages": codes, "weight": c.weight, "first": float(side[0]),
             "second": float(side[1]), "value": float(value), "low": float(low), "high": float(high),
             "simultaneous_low": float(band[0]), "simultaneous_high": float(band[1]), "test": test, "p": p,
             "p_holm": float(p_holm)}
            for c, codes, side, value, low, high, band, (test, p), p_holm
            in zip(contrasts, asked, sides, values, *alone, bands, tests, adjusted, strict=True)]


def _test(contrast: Contrast, draws: int, seed: int) -> tuple[str, float]:
    if (contrast.figure, contrast.weight) == ("accuracy", "rows"):
        found = mcnemar(contrast.first, contrast.second, contrast.languages)
        return ("McNemar, exact", found["p"]) if found["p_clusters"] is None else \
               ("sign flip over clusters, exact", found["p_clusters"])
    found = permutation(*contrast[1:], draws, seed)
    return ("permutation, exact" if found["exact"] else "permutation"), found["p"]
