"""How a figure grows with labels: an inverse power law through a learning curve, up to four times its end.

    y(n) = a - b n^(-c),    b >= 0, c between .05 and 2, a within the figure's bounds

the law that learning curves mostly follow (Cortes et al. 1993, NeurIPS 6; Viering and Loog 2023, IEEE TPAMI 45,
7799-7819). For a given c it is linear in a and b, so c is searched on a grid and the two are least squares. The
interval comes from refitting resampled draws of rows, all counts of a draw together since they are nested, with noise
of the test posts' size added to the whole curve. It holds for other draws and test posts if the law does; nothing in
the data says that it does beyond their end, so values are given up to `FARTHEST` times the largest count and no
further.

A handful of draws says little of how much draws differ. With D of them, the resampled means' deviations from the mean
are made wider by sqrt(D / (D - 1)), which the bootstrap lacks, and by the ratio of the quantiles of t with D - 1
degrees of freedom and of the normal at `LEVEL`: 2.2 for three draws, 1.4 for five.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy

from report.intervals import EDGES, LEVEL
from report.student import t_quantile

EXPONENTS = numpy.geomspace(0.05, 2.0, 60)
FARTHEST = 4
FEWEST_COUNTS, FEWEST_DRAWS = 3, 3


@dataclass(frozen=True)
class Curve:
    """`a`, `b`, `c` of the law, those of each refit, (draws, 3) float64, and `most`, the largest count of rows."""

    a: float
    b: float
    c: float
    refits: numpy.ndarray
    most: int

    def at(self, rows: float) -> tuple[float, float, float]:
        """(value, low, high) at a number of rows. Raises `ValueError` beyond four times the largest count."""
        if not 0 < rows <= FARTHEST * self.most:
            raise ValueError(f"{rows} rows: the curve ends at {self.most}; no word beyond {FARTHEST} times that")
        found = self.refits[:, 0] - self.refits[:, 1] * float(rows) ** -self.refits[:, 2]
        value = self.a - self.b * float(rows) ** -self.c
        low, high = numpy.quantile(found, EDGES)
        return value, float(min(value, low)), float(max(value, high))

    def rows_for(self, value: float) -> int | None:
        """The fewest rows at which the curve reaches a value; None if it does not within `FARTHEST` times its end."""
        counts = numpy.arange(1, FARTHEST * self.most + 1)
        reached = self.a - self.b * counts ** -self.c >= value
        return int(counts[reached][0]) if reached.any() else None


def fit(rows: Sequence[int], values: numpy.ndarray, posts: float = 0.0, bounds: tuple[float, float] = (0.0, 1.0),
        draws: int = 1000, seed: int = 0) -> Curve | None:
    """The law through `values` (draws of rows, counts) at `rows` (counts,); None with too few of either.

    `posts`: the standard error over test posts of one value. Rows must be above zero.
    """
    rows, values = numpy.asarray(rows, dtype=numpy.float64), numpy.atleast_2d(numpy.asarray(values, numpy.float64))
    if len(rows) < FEWEST_COUNTS or len(values) < FEWEST_DRAWS or numpy.isnan(values).any():
        return None
    stream = numpy.random.default_rng([seed, 0x1C])
    chosen = stream.integers(len(values), size=(draws, len(values)))
    freedom = len(values) - 1
    wider = (len(values) / freedom) ** 0.5 * t_quantile(LEVEL, freedom) / NormalDist().inv_cdf((1 + LEVEL) / 2)
    centre = values.mean(0)
    means = centre + (values[chosen].mean(1) - centre) * wider + posts * stream.normal(size=(draws, 1))
    found = _laws(rows, numpy.concatenate([centre[None], means]), bounds)
    return Curve(*map(float, found[0]), found[1:], int(rows.max()))


def _laws(rows: numpy.ndarray, curves: numpy.ndarray, bounds: tuple[float, float]) -> numpy.ndarray:
    """(m, counts) -> (m, 3): a, b and c of each curve."""
    best, least = numpy.zeros((len(curves), 3)), numpy.full(len(curves), numpy.inf)
    for c in EXPONENTS:
        x = rows**-c
        spread = ((x - x.mean()) ** 2).sum()
        b = numpy.maximum(0, -((curves - curves.mean(1, keepdims=True)) * (x - x.mean())).sum(1) / spread)
        a = numpy.clip(curves.mean(1) + b * x.mean(), *bounds)
        b = numpy.where(b > 0, numpy.maximum(0, ((a[:, None] - curves) * x).sum(1) / (x**2).sum()), 0)
        error = ((curves - (a[:, None] - b[:, None] * x)) ** 2).sum(1)
        better = error < least - 1e-15
        best[better] = numpy.stack([a, b, numpy.full(len(a), c)], 1)[better]
        least = numpy.minimum(least, error)
    return best
