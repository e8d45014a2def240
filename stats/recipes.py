"""Two recipes, not two fits: the training draw, the seed and the test posts could all have been different.

A recipe is fitted with I training draws crossed with J seeds: y_ij is a figure of the fit of draw i with seed j, and
all fits label the same posts. The model is a two-way table with random effects, plus the error of the test sample:

    y_ij = mu + draw_i + seed_j + fit_ij + (error of the test sample, in part common to all fits)

**Contrast** of two recipes' means. Its variance is estimated from the spread of the draws' means, of the seeds' means,
and of the resampled posts:

    V = var_i(m_i) / I + var_j(m_j) / J + var(bootstrap over posts)
    value +- t_df sqrt(V),    df = V^2 / sum_k V_k^2 / df_k    (Satterthwaite 1946, Biometrics Bulletin 2, 110-114)

m_i is the difference between draw i's two means if both recipes have the same draws (equal labels: paired); else each
recipe has a term of its own. The same holds for seeds. fit_ij is part of both the draws' and the seeds' terms, and the
part of the posts' error that differs between fits is in all three, so V is too large rather than too small. Subtracting
the mean square of the interaction would correct that on average but makes the interval too short in the cases that
matter, 2 to 5 of each. Percentiles of resampled draws and seeds (`draws`; Owen 2007, Annals of Applied Statistics 1,
386-411) are not used as an interval here: resampling two draws gives the spread of two draws, times 1/2. Coverage is
measured in tests/stats/test_recipes.py: it is close to the level or above, except with two draws or seeds whose
variance is about that of the test sample. With fewer than three the interval is still computed, but `lacking` says that
it should not be shown: it rests on one or two differences.

A draw that takes all rows there are is no draw: all of its "repetitions" would be the same model. Its label is
`ALL_ROWS`, and neither a variance nor a warning about other draws is made of it.

**Components**: analysis of variance (Searle, Casella and McCulloch 1992, Variance Components, chapter 4),

    draw = (MS_draw - MS_fit) / J,    seed = (MS_seed - MS_fit) / I,    fit = MS_fit,    cut at 0

less the posts' contribution to the mean squares, which is known: with U (M, G) the influence of each of G clusters on
each fit's figure (Jaeckel's infinitesimal jackknife; Efron 1982, The Jackknife, the Bootstrap and Other Resampling
Plans, chapter 6), S = U U' is the covariance of the M figures over test samples, the mean of its diagonal is the test
sample's component, and it adds trace(Q S) / df to a mean square y' Q y / df. So the four components are those of one
more fit scored on one more test sample. Intervals come from generalised pivots (Weerahandi 1993, Journal of the
American Statistical Association 88, 899-905): percentiles of the formulas with df MS / chi2_df in place of each MS. The
test sample's is log-normal, with the standard error of a sum of squared influences.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy

from common.errors import UserError
from report.intervals import EDGES, LEVEL
from report.student import t_quantile
from stats import corrected
from stats.predictions import Predictions, figures_of, pooled, resampled, rows_of, strata

Fits = Mapping[tuple, Predictions]  # (draw, seed) -> that fit's predictions
ALL_ROWS = "all rows"  # the label of a draw that takes every row there is: there is nothing to draw
FEWEST = 3  # seeds, and draws where there is anything to draw; from fewer, no interval for a recipe is made
PIVOTS = 20_000
STEP = 1e-3  # of a cluster, added and removed to find its influence
FACTORS = ("draw", "seed")


@dataclass(frozen=True)
class Grid:
    """A recipe's fits as a table: labels of draws (I,) and seeds (J,), fits in rows of one draw (I * J,)."""

    labels: tuple[list, list]
    fits: list[Predictions]

    @classmethod
    def of(cls, recipe: Fits, name: str) -> "Grid":
        """Raises `UserError` if the recipe is empty or a draw lacks a seed that another draw has."""
        draws, seeds = (sorted({key[k] for key in recipe}, key=lambda label: (str(type(label)), label)) for k in (0, 1))
        missing = [(draw, seed) for draw in draws for seed in seeds if (draw, seed) not in recipe]
        if missing or not recipe:
            lack = "draw {}, seed {}: no such fit".format(*missing[0]) if missing else "no fits"
            raise UserError(f"{name} recipe: {lack}; every draw must be fitted with every seed")
        return cls((draws, seeds), [recipe[draw, seed] for draw in draws for seed in seeds])

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.labels[0]), len(self.labels[1])


def lacking(first: Fits, second: Fits) -> str:
    """What two recipes have too few of for an interval that holds for other fits: "2 seeds, 1 draw"; "" if enough."""
    words = []
    for k, name in ((1, "seed"), (0, "draw")):
        labels = [{key[k] for key in recipe} for recipe in (first, second)]
        counts = [len(one) for one in labels if not (name == "draw" and one == {ALL_ROWS})]
        if counts and min(counts) < FEWEST:
            words.append(f"{min(counts)} {name}{'s' * (min(counts) != 1)}")
    return ", ".join(words)


def pairs_of(first: Fits, second: Fits) -> list[tuple[Predictions, Predictions]]:
    """Fits to be compared: those with equal draw and seed, or every one with every one where the labels differ."""
    if set(first) == set(second):
        return [(first[key], second[key]) for key in first]
    return [(one, other) for one in first.values() for other in second.values()]


def contrast(first: Fits, second: Fits, figure: str, languages: Sequence[str] | None = None, weight: str = "rows",
             draws: int = 2000, seed: int = 0) -> dict:
    """The difference of two recipes' mean figures, first minus second, with draws, seeds and posts all uncertain.

    `value`, `low`, `high` (formula: see the module; about the value less its bias where each language counts
    the same, stats/corrected.py), `se`, `df`; `posts_low` and `posts_high` (over test posts alone:
    these fits) and `points` (each pair's own difference, `pairs_of`); `paired`: the factors whose labels are equal;
    `parts`: variance by source, None if a recipe has one draw or seed (`notes` then warns that the interval does not
    hold for others); `draws` (D,) float64: posts, draws and seeds resampled together. NaN if a fit has no figure.
    """
    grids = [Grid.of(first, "first"), Grid.of(second, "second")]
    fits, cut = [*grids[0].fits, *grids[1].fits], len(grids[0].fits)
    rows = rows_of(fits)
    languages = list(languages or rows.languages)
    values = figures_of(fits, figure, languages, weight)
    found = numpy.concatenate([pooled(parts, figure, rows.grouping, weight)
                               for parts in resampled(fits, languages, draws, seed)])  # (D, M)
    tables = [part.reshape(grid.shape) for part, grid in zip((values[:cut], values[cut:]), grids, strict=True)]
    paired = [name for k, name in enumerate(FACTORS) if grids[0].labels[k] == grids[1].labels[k]]
    terms, parts, notes = [], {}, {}
    for k, name in enumerate(FACTORS):
        means = [table.mean(1 - k) for table in tables]
        groups = [means[0] - means[1]] if name in paired else means
        own = [(float(group.var(ddof=1)) / len(group), len(group) - 1) for group in groups if len(group) > 1]
        parts[name] = sum(v for v, _ in own) if len(own) == len(groups) else None
        if len(own) < len(groups) and not _is_whole(grids, k):
            notes[name] = f"one {name}: the interval does not hold for other {name}s"
        terms += own
    posts = found[:, :cut].mean(1) - found[:, cut:].mean(1)
    parts["posts"] = float(numpy.nanvar(posts, ddof=1)) if numpy.isfinite(posts).sum() > 1 else numpy.nan
    centre = float(values[:cut].mean() - values[cut:].mean())
    if corrected.is_mean(languages, weight) and numpy.isfinite(centre):
        bias, error, _ = corrected.of_sides(fits, cut, figure, languages, weight)
        centre, parts["posts"] = centre - bias, error ** 2
    strata = len(numpy.unique(rows.clusters[rows.where(languages)])) - len(set(languages))
    terms.append((parts["posts"], max(1, strata)))
    variance = sum(v for v, _ in terms)
    df = variance ** 2 / sum(v ** 2 / df for v, df in terms) if variance > 0 else 1.0
    value = float(values[:cut].mean() - values[cut:].mean())
    half = t_quantile(LEVEL, df) * variance ** 0.5
    ends = corrected.interval(value, posts, fits, cut, figure, languages, weight)
    own = dict(zip(map(id, fits), values.tolist(), strict=True))
    points = [own[id(a)] - own[id(b)] for a, b in pairs_of(first, second)]
    return {"posts_low": ends[0], "posts_high": ends[1], "points": points, "value": value,
            "low": centre - half, "high": centre + half, "se": variance ** 0.5, "df": df,
            "paired": paired, "parts": parts, "notes": notes, "draws": _resampled_fits(found, grids, paired, seed)}


def around(points: Mapping[tuple, float], posts: tuple[float, float]) -> tuple[float, float]:
    """The interval of a mean over pairs of fits, by (draw, seed): the module's formula, draws and seeds paired.

    `posts`: the variance over test posts, and its degrees of freedom. The pairs must be a whole table of draws and
    seeds.
    """
    draws, seeds = (list(dict.fromkeys(key[k] for key in points)) for k in (0, 1))
    table = numpy.array([[points[draw, seed] for seed in seeds] for draw in draws])
    terms = [posts]
    for k in (0, 1):
        means = table.mean(1 - k)
        terms += [(float(means.var(ddof=1)) / len(means), len(means) - 1)] if len(means) > 1 else []
    variance = sum(v for v, _ in terms)
    df = variance ** 2 / sum(v ** 2 / df for v, df in terms) if variance > 0 else 1.0
    half = t_quantile(LEVEL, df) * variance ** 0.5
    return float(table.mean()) - half, float(table.mean()) + half


def _is_whole(grids: Sequence[Grid], factor: int) -> bool:
    """Whether the grids that have one label of a factor have it because every draw takes all rows."""
    short = [grid for grid in grids if len(grid.labels[factor]) == 1]
    return all(grid.labels[factor] == [ALL_ROWS] for grid in short)


def _resampled_fits(found: numpy.ndarray, grids: list[Grid], paired: list[str], seed: int) -> numpy.ndarray:
    """The contrast with draws and seeds resampled as well: (D, M) figures on resampled posts -> (D,)."""
    stream, size = numpy.random.default_rng([seed, 0xF17]), len(found)
    tables = numpy.split(found, [len(grids[0].fits)], axis=1)
    means, weights = [], {}
    for grid, table in zip(grids, tables, strict=True):
        for name, count in zip(FACTORS, grid.shape, strict=True):
            if name not in paired or name not in weights:
                weights[name] = stream.multinomial(count, [1 / count] * count, size=size) / count
        means.append(numpy.einsum("bij,bi,bj->b", table.reshape(size, *grid.shape), *(weights[n] for n in FACTORS)))
    return means[0] - means[1]


def components(recipe: Fits, figure: str, languages: Sequence[str] | None = None, weight: str = "rows",
               seed: int = 0) -> dict:
    """The sources of a figure's variance: `draw`, `seed`, `fit` (their interaction and the fit itself), `test_sample`.

    Each is {variance, low, high}, or None with the reason in `notes` under the same key; `mean` is the mean figure,
    `draws` and `seeds` are their numbers. Formulas: see the module.
    """
    grid = Grid.of(recipe, "the")
    (count_i, count_j), fits = grid.shape, grid.fits
    table = figures_of(fits, figure, languages, weight).reshape(grid.shape)
    result = {"mean": float(table.mean()), "draws": count_i, "seeds": count_j,
              "draw": None, "seed": None, "fit": None, "test_sample": None, "notes": {}}
    if numpy.isnan(table).any():
        result["notes"] = dict.fromkeys((*FACTORS, "fit", "test_sample"), "the figure cannot be made for every fit")
        return result
    covariance, error = _over_posts(fits, figure, languages, weight)
    result["test_sample"] = _log_normal(float(numpy.trace(covariance)) / len(fits), error)
    average = [numpy.full((count, count), 1 / count) for count in grid.shape]
    rest = [numpy.eye(count) - mean for count, mean in zip(grid.shape, average, strict=True)]
    squares = {}  # of each source of the table: pivots of its expected mean square without the posts' part, (1 + n,)
    stream = numpy.random.default_rng([seed, 0xC0])
    for name, form in (("draw", numpy.kron(rest[0], average[1])), ("seed", numpy.kron(average[0], rest[1])),
                       ("fit", numpy.kron(rest[0], rest[1]))):
        if df := round(float(numpy.trace(form))):
            square, noise = (float((form * outer).sum()) / df
                             for outer in (numpy.outer(table, table), covariance))
            squares[name] = square * numpy.append(1.0, df / stream.chisquare(df, PIVOTS)) - noise
    for name, other in (("draw", count_j), ("seed", count_i)):
        if name not in squares and _is_whole([grid], FACTORS.index(name)):
            result["notes"][name] = "every draw takes all rows, so there is nothing to draw"
        elif name not in squares:
            result["notes"][name] = f"one {name}: nothing to compare it with"
        elif "fit" in squares:
            result[name] = _pivoted((squares[name] - squares["fit"]) / other)
        else:
            result[name] = _pivoted(squares[name])
            result["notes"]["fit"] = f"one {FACTORS[name == 'draw']}: the fit's own part is not told from the {name}'s"
    if "fit" in squares:
        result["fit"] = _pivoted(squares["fit"])
    if not squares:
        result["notes"]["fit"] = "one fit: nothing to compare it with"
    return result


def _pivoted(pivots: numpy.ndarray) -> dict:
    """The estimate followed by its pivots, (1 + n,), as {variance, low, high}, cut at 0."""
    low, high = numpy.quantile(pivots[1:], EDGES)
    return {"variance": max(0.0, float(pivots[0])), "low": max(0.0, float(low)), "high": max(0.0, float(high))}


def _log_normal(variance: float, error: float) -> dict:
    factor = numpy.exp(t_quantile(LEVEL, numpy.inf) * error / variance) if variance > 0 else 1.0
    return {"variance": variance, "low": float(variance / factor), "high": float(variance * factor)}


def _over_posts(fits: list[Predictions], figure: str, languages: Sequence[str] | None, weight: str):
    """The covariance of the fits' figures over test samples, (M, M), and the standard error of its mean diagonal."""
    rows = rows_of(fits)
    codes = list(dict.fromkeys(languages or rows.languages))
    held = {code: numpy.stack([fit.counts(rows.language == code) for fit in fits])[None] for code in codes}
    covariance, error = numpy.zeros((len(fits), len(fits))), 0.0
    for inside, matrix, times in strata(fits, codes):
        steps = {code: STEP * matrix[:, k] for k, code in enumerate(inside)}  # (P, M, F)
        ends = [pooled({code: counts + sign * steps.get(code, numpy.zeros((len(times), 1, 1)))
                        for code, counts in held.items()}, figure, rows.grouping, weight) for sign in (1, -1)]
        influence = (ends[0] - ends[1]) / (2 * STEP)  # (P, M)
        influence -= times @ influence / times.sum()
        several = times.sum() / max(1, times.sum() - 1)  # a sample's spread about its own mean
        covariance += several * (influence * times[:, None]).T @ influence
        squared = several * (influence ** 2).mean(1)
        error += float(times @ (squared - times @ squared / times.sum()) ** 2)
    return covariance, error ** 0.5
