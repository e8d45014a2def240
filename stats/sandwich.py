"""The estimating equations of one draw of coded posts, how much their solutions vary, and what they rest on.

In the words and letters of stats/regression.py, whose coefficients these are:

**Variance**. With s_i the surrogate's psi (0, L psi_i(machine), psi_i(g)), d_i = psi_i(code) - s_i of the coded posts,
D = sum o d, and the sums of each cluster k (an author's posts, say; else each post is one), o_k and so on:

    u_k = A sum_{i in k} (s_i - mean s) / N + A_(k) sum_{i in k} o_i (d_i - D) / (1 - o_k)
    V = sum_k u_k u_k' - A B A',    B = sum_s n_s^2 / m_s (1 - f_s) o_s^2 (mean_s d - D)(mean_s d - D)'

A is the inverse of the equation's derivative, A_(k) that without the codes of cluster k: the second part is what a
Newton's step says of leaving them out, the jackknife that R's sandwich calls HC3. A alone would take the derivative as
known, and with some hundred codes of a regressor it is not: its intervals would be too narrow. B takes away what
differs between strata of fixed sizes: m_s rows were drawn, and n_s of them are in the regression; where some are not,
for want of a value, they count with 0, and n_s is chance (Sarndal, Swensson and Wretman 1992, Model Assisted Survey
Sampling, chapter 10). This is the sandwich for the process behind the posts, not for these posts alone, as is usual
with coefficients.

**Intervals**: estimate +- t V_jj^(1/2). A coefficient rests on those codes that move it, a level's on the level's: with
a_ij = o_i (A x_i)_j and, where residuals vary as mu' does, v_kj = sum_{i in k} a_ij^2 mu'_i,

    reach_j = (sum_k v_kj)^2 / sum_k v_kj^2,    degrees of freedom_j = min(G - p, reach_j - 1)

for G clusters with codes: with equal weights and a level of m codes beside many others, m - 1 (after Satterthwaite;
Bell and McCaffrey 2002, Survey Methodology 28, 169-181, take the exact weights). Below `FEWEST` clusters of reach V
itself is not to be had, nor, of an outcome of 0 and 1, below `EVENTS` ones or zeros on either side of a coefficient:
(sum_k c_k)^2 / sum_k c_k^2, c_kj the sum of |a_ij| mu'_i^(1/2) over the ones (or zeros) of cluster k with a_ij above 0
(or below it; a side of less than `MATTERS` of sum_k v_kj does not count). Such a coefficient has no interval.
tests/stats/test_sandwich.py measures how often the others cover.
"""

from dataclasses import dataclass

import numpy

from common.errors import UserError
from report.intervals import LEVEL
from report.student import t_quantile
from stats.prevalence import Estimate

MOST_STEPS = 60
FEWEST, EVENTS = 10, 3  # clusters that a coefficient rests on, and ones and zeros on either side, for an interval
MATTERS = 0.05  # a side with a smaller share of sum v leaves the variance to the other


@dataclass(frozen=True, eq=False)
class Sample:
    """The coded rows: post (n,) int64, their places among the N; probability (n,) float64, of inclusion; stratum (n,)
    int64 where rows were drawn in strata of fixed sizes, else None; cluster (N,) int64 of all posts, or None; drawn
    (S,): how many rows were drawn in each stratum, if not all of them are here."""

    post: numpy.ndarray
    probability: numpy.ndarray
    stratum: numpy.ndarray | None = None
    cluster: numpy.ndarray | None = None
    drawn: numpy.ndarray | None = None


@dataclass(frozen=True)
class Fitted(Estimate):
    """An estimate with its standard error, degrees of freedom and covariances with all coefficients; no interval, error
    or covariance where too few codes stand behind it."""

    error: float | None = None
    freedom: float | None = None
    covariances: tuple[float | None, ...] | None = None

    def to_dict(self) -> dict:
        covariances = self.covariances and list(self.covariances)
        return super().to_dict() | {"error": self.error, "df": self.freedom, "covariances": covariances}


class Draw:
    """The estimating equations of one sample, and how much their solutions vary."""

    def __init__(self, logistic: bool, posts: int, sample: Sample, back: numpy.ndarray):
        """posts: N; back (p, p): turns the solutions' coefficients into those that are asked for."""
        self.logistic, self.posts, self.back, self.post = logistic, posts, back, sample.post
        self.pi, self.stratum, self.cluster = sample.probability, sample.stratum, sample.cluster
        self.o = 1 / self.pi / (1 / self.pi).sum()
        own = self.post if self.cluster is None else self.cluster[self.post]
        self.place, self.group = numpy.unique(own, return_inverse=True)  # clusters with codes, and those of the codes
        self.groups, self.held = len(self.place), numpy.bincount(self.group, self.o)
        if self.groups <= len(back):
            raise UserError(f"regression: {self.groups} clusters with coded posts for {len(back)} "
                            "coefficients; code more, or name fewer variables")
        fixed = self.stratum is not None and self.stratum.max() > 0
        self.strata = [numpy.flatnonzero(self.stratum == s) for s in numpy.unique(self.stratum)] if fixed else []
        self.inside = [1.0 if sample.drawn is None else len(at) / sample.drawn[self.stratum[at[0]]]
                       for at in self.strata]

    def mean(self, matrix: numpy.ndarray, b: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray | float]:
        """mu (rows,) and its derivative."""
        if not self.logistic:
            return matrix @ b, 1.0
        p = numpy.exp(-numpy.logaddexp(0, -(matrix @ b)))
        return p, p * (1 - p)

    def psi(self, data: tuple[numpy.ndarray, numpy.ndarray], b: numpy.ndarray) -> numpy.ndarray:
        """(rows, p)."""
        matrix, outcome = data
        return matrix * (outcome - self.mean(matrix, b)[0])[:, None]

    def equation(self, parts, b: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
        """sum over parts (matrix, outcome, weights) of weights @ psi, (p,), and minus its derivative, (p, p)."""
        value, slope = numpy.zeros(len(b)), numpy.zeros((len(b), len(b)))
        for matrix, outcome, weights in parts:
            mu, change = self.mean(matrix, b)
            value += matrix.T @ (weights * (outcome - mu))
            slope += (matrix * (weights * change)[:, None]).T @ matrix
        return value, slope

    def parts(self, hand, surrogate, weight: float) -> list:
        """Of the corrected equation."""
        matrix, outcome = surrogate
        return [(matrix, outcome, numpy.full(self.posts, weight / self.posts)), (*hand, self.o),
                (matrix[self.post], outcome[self.post], -weight * self.o)]

    def solve(self, parts, b: numpy.ndarray) -> numpy.ndarray:
        """The solution near b, by Newton's method; a step is halved until the equation's value gets smaller."""
        value, slope = self.equation(parts, b)
        for _ in range(MOST_STEPS):
            try:
                inverse = numpy.linalg.inv(slope)
            except numpy.linalg.LinAlgError:
                break
            step, size = inverse @ value, 1.0
            if abs(step).max() < 1e-10 * max(1.0, abs(b).max()):
                return b
            before = numpy.linalg.norm(inverse @ value)
            while True:
                found, there = self.equation(parts, b + size * step)
                if numpy.linalg.norm(inverse @ found) < before or size < 1e-6:
                    break
                size /= 2
            if size < 1e-6:
                if before < 1e-6 * max(1.0, abs(b).max()):  # rounding leaves no smaller value
                    return b
                break
            b, value, slope = b + size * step, found, there
        raise UserError("regression: an estimating equation has no solution; code more posts, or name fewer variables")

    def corrected(self, start, hand, surrogate, weight: float) -> list[Fitted]:
        return self.estimates(self.solve(self.parts(hand, surrogate, weight), start), hand, surrogate, weight)

    def estimates(self, b, hand, surrogate, weight: float) -> list[Fitted]:
        """The coefficients with their intervals."""
        moved = self.moved(b, hand, surrogate, weight)
        return self.intervals(b, self.cross(moved, moved), self.groups, self.reach)

    def look_behind(self, b, hand, names: list[str]) -> None:
        """Find what the coefficients rest on: `reach`. Raises `UserError` for one that rests on a single cluster."""
        root = numpy.linalg.inv(numpy.linalg.cholesky(self.equation([(*hand, self.o)], b)[1]))
        shares, vectors = numpy.linalg.eigh(root @ self.slopes(hand[0], b, self.o) @ root.T)
        if shares[:, -1].max() > 1 - 1e-9:  # without that cluster's codes the columns depend on one another
            contrast = abs(self.back @ root.T @ vectors[shares[:, -1].argmax(), :, -1])[1:]
            own = numpy.flatnonzero(contrast > 1e-6 * contrast.max(initial=0.0)) + 1
            which = (f"'{names[own[0]]}'" if len(own) == 1 else  # all values of a column: it is the one left out
                     f"the value that is left out beside '{names[own[0]]}'" if len(own) else "the regression")
            what = "coded post" if self.cluster is None else "cluster with codes"
            raise UserError(f"{which} rests on a single {what}, so nothing tells how much it varies; code more, merge "
                            "values, or leave it out")
        self.reach = self.behind(b, hand, self.o, self.group)

    def behind(self, b, data, weights, group) -> tuple[numpy.ndarray, numpy.ndarray | None]:
        """reach (p,), and the ones or zeros on the weaker side (p,), None of an outcome with other values."""
        matrix, outcome = data
        root = weights * numpy.sqrt(self.mean(matrix, b)[1])
        turn = self.back @ numpy.linalg.inv(self.equation([(matrix, outcome, weights)], b)[1])
        is_binary, reach, events = bool(numpy.isin(outcome, (0, 1)).all()), [], []

        def kish(values: numpy.ndarray) -> float:
            sums = numpy.bincount(group, values)
            return float(sums.sum() ** 2 / max(sums @ sums, 1e-300))

        for row in turn:  # one coefficient at a time: N posts in each of their columns would be much memory
            a = root * (matrix @ row)
            a[abs(a) < 1e-9 * abs(a).max()] = 0.0
            reach.append(kish(a**2))
            sides = [side for side in (a > 0, a < 0) if (a[side] ** 2).sum() > MATTERS * (a**2).sum()]
            events.append(min((kish(abs(a) * side * (outcome == y)) for side in sides for y in (0, 1)),
                              default=float("inf")) if is_binary else None)
        return numpy.array(reach), numpy.array(events) if is_binary else None

    def moved(self, b, hand, surrogate, weight: float) -> tuple[numpy.ndarray, numpy.ndarray]:
        """u (K, p) of all clusters, and A (mean_s d - D) times the root of its factor in B, (S, p)."""
        s = weight * self.psi(surrogate, b)
        d = self.psi(hand, b) - s[self.post]
        slope = self.equation(self.parts(hand, surrogate, weight), b)[1]
        inverse, apart = numpy.linalg.inv(slope), self.o[:, None] * (d - self.o @ d)
        u = self.summed((s - s.mean(0)) / self.posts) @ inverse.T
        own = numpy.zeros((self.groups, len(b)))
        numpy.add.at(own, self.group, apart)
        u[self.place] += numpy.linalg.solve(self.without(b, hand, surrogate, weight, slope),
                                            (own / (1 - self.held)[:, None])[:, :, None])[:, :, 0]
        between = [(part * ((1 - self.pi[at]) * self.o[at] ** 2).sum()) ** 0.5 * (d[at].mean(0) - self.o @ d)
                   for at, part in zip(self.strata, self.inside, strict=True)]
        return u, numpy.array(between).reshape(-1, len(b)) @ inverse.T

    def without(self, b, hand, surrogate, weight: float, slope: numpy.ndarray) -> numpy.ndarray:
        """The slope without the codes of each cluster that has some, (G, p, p)."""
        matrix, outcome = surrogate
        of_all = self.equation([(matrix, outcome, numpy.full(self.posts, weight / self.posts))], b)[1]
        own = self.slopes(hand[0], b, self.o) + self.slopes(matrix[self.post], b, -weight * self.o)
        return of_all + (slope - of_all - own) / (1 - self.held)[:, None, None]

    def slopes(self, rows: numpy.ndarray, b, weights) -> numpy.ndarray:
        """Minus the derivative of the codes' part of each cluster that has some, (G, p, p)."""
        own = numpy.zeros((self.groups, len(b), len(b)))
        each = (weights * self.mean(rows, b)[1])[:, None, None] * rows[:, :, None] * rows[:, None, :]
        numpy.add.at(own, self.group, each)
        return own

    def cross(self, one, other) -> numpy.ndarray:
        """sum_k u_k v_k' - A B A' for two (u, between), (p, p)."""
        return one[0].T @ other[0] - one[1].T @ other[1]

    def summed(self, u: numpy.ndarray) -> numpy.ndarray:
        """Sums of the clusters, (K, p)."""
        if self.cluster is None:
            return u
        return numpy.stack([numpy.bincount(self.cluster, column) for column in u.T], 1)

    def tuned(self, b, hand, machine) -> float:
        """L, within [0, 1]: at the coded posts' own estimate u is nearly linear in it, and V a parabola."""
        none, full = self.moved(b, hand, machine, 0.0), self.moved(b, hand, machine, 1.0)
        change = (none[0] - full[0], none[1] - full[1])
        worth = 1 / numpy.diag(self.cross(none, none))
        below = float(worth @ numpy.diag(self.cross(change, change)))
        above = float(worth @ numpy.diag(self.cross(none, change)))
        return min(1.0, max(0.0, above / below)) if below > 1e-15 else 0.0

    def naive(self, machine) -> list[Fitted]:
        """The machine's labels taken as true."""
        matrix, _ = machine
        parts = [(*machine, numpy.full(self.posts, 1 / self.posts))]
        b = self.solve(parts, numpy.zeros(matrix.shape[1]))
        u = self.summed(self.psi(machine, b) / self.posts) @ numpy.linalg.inv(self.equation(parts, b)[1]).T
        group = numpy.arange(self.posts) if self.cluster is None else self.cluster
        reach = self.behind(b, machine, numpy.full(self.posts, 1 / self.posts), group)
        return self.intervals(b, u.T @ u, len(u), reach)

    def intervals(self, b: numpy.ndarray, variance: numpy.ndarray, groups: int, reach) -> list[Fitted]:
        """Of all coefficients, in the units that were asked for; `reach`: as `behind` gives it."""
        value = self.back @ b
        variance = self.back @ variance @ self.back.T
        error = numpy.sqrt(numpy.maximum(0.0, numpy.diag(variance)))
        freedom = numpy.maximum(1.0, numpy.minimum(groups - len(b), reach[0] - 1))
        few = (reach[0].round() < FEWEST) | (False if reach[1] is None else reach[1].round() < EVENTS)
        half = [t_quantile(LEVEL, df) * e for df, e in zip(freedom.tolist(), error.tolist(), strict=True)]
        rows = numpy.where(few, None, variance)  # (p, p) of floats, and None
        return [Fitted(x, None, None) if none else Fitted(x, x - h, x + h, e, df, tuple(row))
                for x, h, e, df, row, none in zip(value.tolist(), half, error.tolist(), freedom.tolist(), rows.tolist(),
                                                  few.tolist(), strict=True)]
