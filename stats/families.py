"""Several contrasts at once: the more one tests, the likelier it is that one stands out by chance.

A family is named in the plan. Each contrast's estimate is the mean over all fits of both recipes, and the interval and
the test that are shown are of this estimate. Two corrections are made:

**Holm** (1979, Scandinavian Journal of Statistics 6, 65-70) for tests: with p_(1) <= ... <= p_(K),

    adjusted p_(k) = max_{j <= k} min(1, (K - j + 1) p_(j))

so that the chance of one or more false claims stays below the level, however the tests depend on one another.

**Max-|t| bands** for intervals (Romano and Wolf 2005, Econometrica 73, 1237-1282; Montiel Olea and Plagborg-Moller
2019, Journal of Applied Econometrics 34, 1-17): with values v_k and joint bootstrap draws v*_k,

    s_k = sd(v*_k),    c = quantile over the draws of max_k |v*_k - v_k| / s_k,    band_k = v_k +- c s_k

All K bands hold at once as often as the level states. c takes the contrasts' dependence from the draws, so all
contrasts must be computed on the same drawn posts; separate draws would make c as large as for independent contrasts.

**With recipes** of enough seeds and draws (`stats.recipes.lacking`), interval and test hold for other fits too: value
+- t_df(1 - (1 - level) / 2 K) s with the recipe's standard error s and its df, and p = 2 P(T_df > |value| / s). The
bands are then Bonferroni's for the whole family, since a handful of seeds gives no joint distribution to take a maximum
from; contrasts of these fits alone have z in the place of t. Without recipes: max-|t| bands over posts, and the test of
these fits (stats/paired.py); fits of unequal number cannot be swapped, and have p = 2 P(Z > |value| / s) with the sd s
of the draws. In t, z and bands, value and s are corrected where the interval's are (stats/corrected.py), so that all
agree.
"""

from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy

from report.intervals import LEVEL
from report.student import t_cdf, t_quantile
from stats import corrected
from stats.paired import DRAWS, ERROR, exact_rate, mcnemar, permutation
from stats.predictions import Predictions, figures_of, pooled, resampled
from stats.recipes import ALL_ROWS, Fits, contrast, lacking, pairs_of

RECIPES, THESE = "other seeds, draws and test posts", "other test posts, with these fits"  # what it allows for
SEEDS = "other seeds and test posts, with these training posts"  # where both sides take all rows: there is no draw


def holds_for(first: Fits, second: Fits) -> str:
    """What the interval of two recipes allows for: `RECIPES`, `SEEDS`, or `THESE` where there are too few fits."""
    if lacking(first, second):
        return THESE
    return SEEDS if {draw for recipe in (first, second) for draw, _ in recipe} == {ALL_ROWS} else RECIPES


class Contrast(NamedTuple):
    """One comparison: `figure` of the first recipe minus that of the second, over `languages` (None: all).

    A recipe is its fits by (draw, seed), or the `Predictions` of a single one.
    """

    name: str
    first: Fits | Predictions
    second: Fits | Predictions
    figure: str
    languages: Sequence[str] | None = None
    weight: str = "rows"

    def sides(self) -> tuple[Fits, Fits]:
        """Both recipes as mappings."""
        return tuple(side if isinstance(side, Mapping) else {("one", "one"): side} for side in (self.first,
                                                                                               self.second))


def holm(p: Sequence[float]) -> numpy.ndarray:
    """Holm's adjusted p-values (K,) float64. NaN stays NaN but counts in K, since the contrast was declared."""
    p = numpy.asarray(p, dtype=numpy.float64)
    order = numpy.argsort(p)  # NaN last
    adjusted = numpy.empty_like(p)
    adjusted[order] = numpy.minimum(1, numpy.maximum.accumulate(p[order] * numpy.arange(len(p), 0, -1)))
    return adjusted


def simultaneous(values: Sequence[float], draws: numpy.ndarray) -> numpy.ndarray:
    """Max-|t| bands for K values from joint draws (D, K): (K, 2) float64. Formula: see the module.

    A value that cannot be computed gives NaN; draws without it are left out of its spread. A contrast whose draws are
    all equal (models with the same answers, posts that are one cluster) has no band, NaN, and is not used for c.
    """
    values, draws = numpy.asarray(values, dtype=numpy.float64), numpy.asarray(draws, dtype=numpy.float64)
    there = ~numpy.isnan(draws)
    count = numpy.maximum(there.sum(0), 1)
    filled = numpy.where(there, draws, 0)
    spread = numpy.sqrt((numpy.where(there, draws - filled.sum(0) / count, 0) ** 2).sum(0) / count)
    moving = (spread > 1e-12) & ~numpy.isnan(values)
    t = numpy.where(there, numpy.abs(draws - values), 0)[:, moving] / spread[moving]
    critical = numpy.quantile(t.max(1), LEVEL) if moving.any() else 0.0
    half = critical * numpy.where(moving, spread, numpy.nan)
    return numpy.stack([values - half, values + half], 1)


def family(contrasts: Sequence[Contrast | tuple], draws: int = DRAWS, seed: int = 0,
           error: float = ERROR) -> list[dict]:
    """One dict per contrast, in order: what it is, its value, intervals and tests, alone and in the family.

    `value`, mean over all fits; `points`, each pair of fits' own; `holds`: `holds_for` both, with `lacking` in words;
    `low`, `high` (this contrast alone); `simultaneous_low`, `simultaneous_high` (all of them together); `test`
    and `p`; `p_holm`. Formulas: see the module. All fits are resampled together, so all contrasts use the same
    drawn posts. `error`: of a p from random swaps. Raises `UserError` if fits answered different tables.
    """
    contrasts = [Contrast(*contrast) for contrast in contrasts]
    if not contrasts:
        return []
    sides = [c.sides() for c in contrasts]
    models = list({id(fit): fit for pair in sides for recipe in pair for fit in recipe.values()}.values())
    place, rows = {id(model): k for k, model in enumerate(models)}, models[0].rows
    asked = [list(c.languages or rows.languages) for c in contrasts]
    index = [[[place[id(fit)] for fit in recipe.values()] for recipe in pair] for pair in sides]
    drawn = []
    for parts in resampled(models, sorted({code for codes in asked for code in codes}), draws, seed):
        columns = []
        for c, codes, (one, two) in zip(contrasts, asked, index, strict=True):
            found = pooled({code: parts[code][:, one + two] for code in codes}, c.figure, rows.grouping, c.weight)
            columns.append(found[:, : len(one)].mean(1) - found[:, len(one):].mean(1))
        drawn.append(numpy.stack(columns, 1))
    drawn = numpy.concatenate(drawn)  # (D, K)
    found = [_one(c, pair, codes, draws, seed, error)
             for c, pair, codes in zip(contrasts, sides, asked, strict=True)]
    alone, centres = [], []
    for k, (line, pair, codes) in enumerate(zip(found, sides, asked, strict=True)):
        fits, cut = [fit for recipe in pair for fit in recipe.values()], len(pair[0])
        alone.append(corrected.interval(line["value"], drawn[:, k], fits, cut, line["figure"], codes, line["weight"]))
        centres.append(line["value"])
        if corrected.is_mean(codes, line["weight"]) and not numpy.isnan(line["value"]):
            bias, se, _ = corrected.of_sides(fits, cut, line["figure"], codes, line["weight"])
            centres[k] = centres[k] - bias if numpy.isfinite(se) else numpy.nan
            spread = float(numpy.nanstd(drawn[:, k])) or 1.0 if numpy.isfinite(se) else numpy.nan
            drawn[:, k] = centres[k] + (drawn[:, k] - numpy.nanmean(drawn[:, k])) * se / spread
    if any(line["holds"] != THESE for line in found):
        bands = [_bonferroni(line, centre, column, len(found))
                 for line, centre, column in zip(found, centres, drawn.T, strict=True)]
    else:
        bands = simultaneous(centres, drawn)
    for line, (low, high), band, centre, column in zip(found, alone, bands, centres, drawn.T, strict=True):
        if line["holds"] == THESE:
            line |= {"low": low, "high": high}
        if not line["test"]:  # unequal numbers of fits cannot be swapped
            spread = _spread(column)
            line |= {"test": "z, by the bootstrap over posts",
                     "p": 2 * NormalDist().cdf(-abs(centre) / spread) if spread > 0 else numpy.nan}
        line |= {"simultaneous_low": float(band[0]), "simultaneous_high": float(band[1])}
    for line, p_holm in zip(found, holm([line["p"] for line in found]), strict=True):
        line["p_holm"] = float(p_holm)
    return found


def _one(c: Contrast, pair: tuple[Fits, Fits], codes: list[str], draws: int, seed: int, error: float) -> dict:
    """A contrast by itself: the estimate, what it holds for, its own interval and test."""
    values = [dict(zip(map(id, recipe.values()), figures_of(list(recipe.values()), c.figure, codes, c.weight).tolist(),
                       strict=True)) for recipe in pair]
    means, lack = [float(numpy.mean(list(one.values()))) for one in values], lacking(*pair)
    line = {"name": c.name, "figure": c.figure, "languages": codes, "weight": c.weight, "first": means[0],
            "second": means[1], "value": means[0] - means[1], "fits": [len(recipe) for recipe in pair],
            "holds": holds_for(*pair), "lacking": lack,
            "points": [values[0][id(a)] - values[1][id(b)] for a, b in pairs_of(*pair)]}
    if lack:
        test, p = _test(c, pair, draws, seed, error)
        return line | {"test": test, "p": p, "se": None, "df": None}
    recipe = contrast(*pair, c.figure, codes, c.weight, min(2000, draws), seed)
    centre = (recipe["low"] + recipe["high"]) / 2  # the value less its bias, so that p and interval agree
    p = 2 * t_cdf(-abs(centre) / recipe["se"], recipe["df"]) if recipe["se"] > 0 else numpy.nan
    return line | {"test": f"t with {recipe['df']:.1f} df, over fits and posts", "p": float(p), "se": recipe["se"],
                   "df": recipe["df"], "low": recipe["low"], "high": recipe["high"]}


def _bonferroni(line: dict, centre: float, drawn: numpy.ndarray, count: int) -> tuple[float, float]:
    """The band of one of `count` contrasts: t of the recipe's error, z of the posts' for a contrast of these fits."""
    each = 1 - (1 - LEVEL) / count
    half = t_quantile(each, line["df"]) * line["se"] if line["holds"] != THESE else \
        NormalDist().inv_cdf((1 + each) / 2) * _spread(drawn)
    return centre - half, centre + half


def _spread(drawn: numpy.ndarray) -> float:
    """The standard deviation of the draws (D,) that have a value; NaN with fewer than two, or where all are equal."""
    there = numpy.isfinite(drawn).sum() > 1 and not corrected.are_alike(drawn)
    return float(numpy.nanstd(drawn, ddof=1)) if there else numpy.nan


def _test(c: Contrast, pair: tuple[Fits, Fits], draws: int, seed: int, error: float) -> tuple[str, float]:
    """The test of these fits: McNemar's for accuracy of one fit each, else signs or labels swapped; "" for none."""
    first, second = (list(recipe.values()) for recipe in pair)
    if len(first) != len(second):
        return "", numpy.nan
    if len(first) == 1 and (c.figure, c.weight) == ("accuracy", "rows"):
        found = mcnemar(first[0], second[0], c.languages)
        return ("McNemar, exact", found["p"]) if found["p_clusters"] is None else \
               ("sign flip over clusters, exact", found["p_clusters"])
    found = permutation(first, second, c.figure, c.languages, c.weight, draws, seed, error)
    words = "sign flip over clusters" if exact_rate(c.figure, c.weight) else "permutation"
    return words + (", exact" if found["exact"] else ""), found["p"]
