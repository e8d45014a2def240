"""How small a difference a study can show, before it is paid for.

A contrast is shown where its interval, which holds for a family of K contrasts at once, leaves out zero
(stats/families.py). With the true difference d, J seeds, I draws of rows and n clusters of test posts, the estimate is

    v = d + e,    e ~ Normal(0, s_p^2) + mean of J seeds' noise + mean of I draws' noise,    s_p^2 = s_1^2 / n

and its interval v +- t_df(1 - .05 / K) sqrt(s_p^2 + var(seeds) / J + var(draws) / I), in which the two variances are
estimated from the J and I values themselves and df is Satterthwaite's (stats/recipes.py). So the smallest difference
that is shown with a chance of `power` is the `power` quantile of (half-width - e), over simulated studies. s_1 and the
spread over seeds and draws come from a pilot's own paired answers: the error of a difference between models that answer
alike is much smaller than that of one model's figure. A source with fewer than three values has no part in the
interval, which then holds for these fits only.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy

from report.intervals import LEVEL
from report.student import t_quantile
from stats.recipes import FEWEST

STUDIES = 4000
POWER = 0.8
MOST_POSTS = 10_000_000


@dataclass(frozen=True)
class Design:
    """`posts`: standard error over test posts, of `clusters` clusters; `seed` and `draw`: standard deviations of a
    difference from one seed and one draw to another; `seeds` and `draws`: how many there are (draws 0: all rows are
    taken); `family`: contrasts in all."""

    posts: float
    clusters: int
    seed: float = 0.0
    draw: float = 0.0
    seeds: int = 1
    draws: int = 0
    family: int = 1

    @property
    def holds_for_others(self) -> bool:
        """Whether the interval is the recipe's: enough seeds, and draws where there are any."""
        return self.seeds >= FEWEST and (self.draws == 0 or self.draws >= FEWEST)

    def with_posts(self, clusters: int) -> "Design":
        """The same with another number of test posts."""
        return Design(self.posts * (self.clusters / clusters) ** 0.5, clusters, self.seed, self.draw, self.seeds,
                      self.draws, self.family)


def halves(design: Design, studies: int = STUDIES) -> tuple[numpy.ndarray, numpy.ndarray]:
    """(errors, half-widths) of simulated studies, (studies,) float64 each. Formulas: see the module."""
    stream = numpy.random.default_rng([0, 0x90])
    error = design.posts * stream.normal(size=studies)
    each = 1 - (1 - LEVEL) / design.family
    if not design.holds_for_others:
        return error, numpy.full(studies, NormalDist().inv_cdf((1 + each) / 2) * design.posts)
    variance, squares = numpy.full(studies, design.posts**2), numpy.full(studies, design.posts**4 / max(
        1, design.clusters - 1))
    for sd, count in ((design.seed, design.seeds), (design.draw, design.draws)):
        if count:
            values = sd * stream.normal(size=(studies, count))
            error = error + values.mean(1)
            own = values.var(1, ddof=1) / count
            variance, squares = variance + own, squares + own**2 / (count - 1)
    df = variance**2 / squares
    grid = numpy.geomspace(1, max(2.0, float(df.max())), 60)  # t is smooth in df: a table in place of 4,000 bisections
    times = numpy.interp(numpy.log(numpy.maximum(df, 1)), numpy.log(grid), [t_quantile(each, one) for one in grid])
    return error, times * numpy.sqrt(variance)


def detectable(design: Design, studies: int = STUDIES) -> float:
    """The smallest true difference that is shown with a chance of `POWER`."""
    error, half = halves(design, studies)
    return float(numpy.quantile(half - error, POWER))


def chance(design: Design, difference: float) -> float:
    """How likely it is that a true difference of this size is shown."""
    error, half = halves(design)
    return float(numpy.mean(half - error <= difference))


def width(design: Design) -> float:
    """The median half-width of the interval."""
    return float(numpy.median(halves(design)[1]))


def posts_needed(design: Design, difference: float, of=detectable) -> int | None:
    """Clusters of test posts for a difference to be shown with a chance of `POWER`; None if no number is enough.

    `of`: `detectable`, or `width` for an interval of that half-width.
    """
    def reached(clusters: int) -> bool:
        return of(design.with_posts(clusters)) <= difference

    if not reached(MOST_POSTS):
        return None
    low, high = 1, MOST_POSTS
    while high - low > max(1, low // 200):
        middle = int((low * high) ** 0.5) if high > 4 * low else (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high
