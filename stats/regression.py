"""A regression in which the outcome or regressors are machine labels, corrected by hand codes of a random sample.

Treating the machine's labels as true biases a regression even where the machine is right most of the time, since its
errors follow the other variables. N posts have all variables, labels by the machine; n of them, drawn with known
probabilities pi_i, have codes as well. With o_i = w_i / sum w, w_i = 1 / pi_i, and the estimating function of a
linear or logistic regression, psi_i(b) = x_i (y_i - mu(x_i b)), mu(t) = t or 1 / (1 + exp(-t)):

    naive    sum_i psi_i(machine) / N = 0                            all posts, the machine taken at its word
    coded    sum o_i psi_i(code) = 0                                 the coded posts alone
    PPI++    L sum_i psi_i(machine) / N + sum o_i (psi_i(code) - L psi_i(machine)) = 0
    DSL      sum_i psi_i(g) / N + sum o_i (psi_i(code) - psi_i(g)) = 0

PPI++ is Angelopoulos, Duchi and Zrnic 2023 (arXiv 2311.01453), their unlabelled rows being our others (stats/
prevalence.py); L in [0, 1] makes sum_j V_jj / V_jj(L = 0) of the centred variables smallest, so that no unit matters.
DSL is Egami, Hinck, Stewart and Wei 2023 (NeurIPS), with g the cross-fitted prediction of the code from the machine's
answers and all other variables of the regression (stats/surrogate.py), in the place of the label, be it outcome or
regressor; their weights are R_i / (N pi_i). Both are doubly robust: with known pi_i they are right however wrong the
machine and g are. What cannot be had is a coefficient that the coded posts alone do not have: a level without a code is
refused.

**Variance**. With s_i the surrogate's psi (0, L psi_i(machine), psi_i(g)), d_i = psi_i(code) - s_i of the coded posts,
D = sum o d, and the sums of each cluster k (an author's posts, say; else each post is one), o_k and so on:

    u_k = A sum_{i in k} (s_i - mean s) / N + A_(k) sum_{i in k} o_i (d_i - D) / (1 - o_k)
    V = sum_k u_k u_k' - A B A',    B = sum_s n_s (1 - f_s) o_s^2 (mean_s d - D)(mean_s d - D)'

A is the inverse of the equation's derivative, A_(k) that without the codes of cluster k: the second part is what a
Newton's step says of leaving them out, the jackknife that R's sandwich calls HC3. A alone would take the derivative as
known, and with some hundred codes of a regressor it is not: its intervals would be too narrow. B takes away what
differs between strata of fixed sizes. This is the sandwich for the process behind the posts, not for these posts alone,
as is usual with coefficients. Intervals: estimate +- t V_jj^(1/2), G - p degrees of freedom for G clusters with codes.
float64 throughout.
"""

from dataclasses import dataclass, replace

import numpy

from common.errors import UserError
from report.intervals import LEVEL
from report.student import t_quantile
from stats.logit import check_columns, fit
from stats.prevalence import Estimate
from stats.surrogate import folds, predictions

MOST_STEPS = 60
MODELS = ("linear", "logistic")


@dataclass(frozen=True, eq=False)
class Question:
    """What is regressed on what, for N posts of which n are coded.

    matrix (N, p) and outcome (N,): with the machine's labels; the matrix begins with ones and its columns have `names`.
    coded_matrix (n, p) and coded_outcome (n,): the same rows with the codes. labelled: the columns that are labels, or
    none if the outcome is. answers (N, C): what the machine said of each post.
    """

    model: str
    names: list[str]
    matrix: numpy.ndarray
    outcome: numpy.ndarray
    coded_matrix: numpy.ndarray
    coded_outcome: numpy.ndarray
    labelled: tuple[int, ...]
    answers: numpy.ndarray


@dataclass(frozen=True, eq=False)
class Sample:
    """The coded rows: post (n,) int64, their places among the N; probability (n,) float64, of inclusion; stratum (n,)
    int64 where rows were drawn in strata of fixed sizes, else None; cluster (N,) int64 of all posts, or None."""

    post: numpy.ndarray
    probability: numpy.ndarray
    stratum: numpy.ndarray | None = None
    cluster: numpy.ndarray | None = None


@dataclass(frozen=True)
class Coefficient:
    """One coefficient, estimated in four ways."""

    name: str
    naive: Estimate
    coded: Estimate
    ppi: Estimate
    dsl: Estimate


def regression(asked: Question, sample: Sample, level: float = LEVEL, seed: int = 0) -> tuple[list[Coefficient], float]:
    """(the coefficients in the order of the columns, PPI++'s weight L). Formulas and sources: see the module.

    Raises `UserError` for a coefficient that the coded posts do not have (a level without a code, separation), too few
    of them, and an equation without a solution.
    """
    if len(asked.coded_outcome) <= asked.matrix.shape[1]:
        raise UserError(f"regression: {len(asked.coded_outcome)} coded posts for {asked.matrix.shape[1]} coefficients; "
                        "code more, or name fewer variables")
    asked, back = _standardised(asked)
    _check(asked)
    draw = _Draw(asked, sample, back)
    hand = (asked.coded_matrix, asked.coded_outcome)
    machine = (asked.matrix, asked.outcome)
    alone = draw.solve([(*hand, draw.o)], numpy.zeros(asked.matrix.shape[1]))
    coded = draw.estimates(alone, hand, machine, 0.0, level)
    naive = draw.naive(machine, level)
    tuned = draw.tuned(alone, hand, machine)
    ppi = draw.corrected(alone, hand, machine, tuned, level)
    dsl = draw.corrected(alone, hand, _predicted(asked, sample, seed), 1.0, level)
    return [Coefficient(*row) for row in zip(asked.names, naive, coded, ppi, dsl, strict=True)], tuned


def _standardised(asked: Question) -> tuple[Question, numpy.ndarray]:
    """The question with its columns centred and in units of their deviation, but for labels, so that no unit makes the
    arithmetic inexact; and the matrix (p, p) that turns its coefficients into those asked for."""
    centre, spread = asked.matrix.mean(0), asked.matrix.std(0)
    kept = [0, *asked.labelled, *numpy.flatnonzero(spread == 0).tolist()]
    centre[kept], spread[kept] = 0.0, 1.0
    back = numpy.diag(1 / spread)
    back[0, 1:] = -centre[1:] / spread[1:]
    return replace(asked, matrix=(asked.matrix - centre) / spread,
                   coded_matrix=(asked.coded_matrix - centre) / spread), back


def _check(asked: Question) -> None:
    """Raise `UserError` for coefficients that cannot be had, from the codes or from the machine's labels."""
    for name, whole, column in zip(asked.names[1:], asked.matrix.T[1:], asked.coded_matrix.T[1:], strict=True):
        if numpy.ptp(column) == 0 < numpy.ptp(whole):
            raise UserError(f"'{name}' is the same for all {len(column):,} coded posts, so they say nothing of it; "
                            "code others too, merge values, or leave it out")
    for x, y, whose in ((asked.coded_matrix, asked.coded_outcome, "the coded posts alone"),
                        (asked.matrix, asked.outcome, "the machine's labels")):
        try:
            fit(x, y, asked.names) if asked.model == "logistic" else check_columns(x, asked.names)
        except UserError as error:
            raise UserError(f"{whose}: {str(error).removeprefix('regression: ')}") from error


def _predicted(asked: Question, sample: Sample, seed: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """(matrix, outcome) with g in the place of the labels."""
    others = [k for k in range(1, asked.matrix.shape[1]) if k not in asked.labelled]
    x = numpy.concatenate([asked.answers, asked.matrix[:, others],
                           *([asked.outcome[:, None]] if asked.labelled else [])], 1)
    if sample.cluster is None:
        fold = folds(len(sample.post), seed)
    else:  # a cluster lies in one fold
        number = numpy.unique(sample.cluster[sample.post], return_inverse=True)[1]
        fold = numpy.unique(folds(int(number.max()) + 1, seed)[number], return_inverse=True)[1]
    if not asked.labelled:
        return asked.matrix, predictions(x, asked.coded_outcome, sample.post, fold)
    matrix = asked.matrix.copy()
    for column in asked.labelled:
        matrix[:, column] = predictions(x, asked.coded_matrix[:, column], sample.post, fold)
    return matrix, asked.outcome


class _Draw:
    """The estimating equations of one sample, and how much their solutions vary."""

    def __init__(self, asked: Question, sample: Sample, back: numpy.ndarray):
        self.back = back
        self.logistic, self.post, self.posts = asked.model == "logistic", sample.post, len(asked.matrix)
        self.pi, self.stratum, self.cluster = sample.probability, sample.stratum, sample.cluster
        self.o = 1 / self.pi / (1 / self.pi).sum()
        own = self.post if self.cluster is None else self.cluster[self.post]
        self.place, self.group = numpy.unique(own, return_inverse=True)  # clusters with codes, and those of the codes
        self.groups, self.held = len(self.place), numpy.bincount(self.group, self.o)
        if self.groups <= asked.matrix.shape[1]:
            raise UserError(f"regression: {self.groups} clusters with coded posts for {asked.matrix.shape[1]} "
                            "coefficients; code more, or name fewer variables")
        fixed = self.stratum is not None and self.stratum.max() > 0
        self.strata = [numpy.flatnonzero(self.stratum == s) for s in numpy.unique(self.stratum)] if fixed else []

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

    def corrected(self, start, hand, surrogate, weight: float, level: float) -> list[Estimate]:
        return self.estimates(self.solve(self.parts(hand, surrogate, weight), start), hand, surrogate, weight, level)

    def estimates(self, b, hand, surrogate, weight: float, level: float) -> list[Estimate]:
        """The coefficients with their intervals."""
        moved = self.moved(b, hand, surrogate, weight)
        return self.intervals(b, self.cross(moved, moved), self.groups - len(b), level)

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
        between = [((1 - self.pi[at]) * self.o[at] ** 2).sum() ** 0.5 * (d[at].mean(0) - self.o @ d)
                   for at in self.strata]
        return u, numpy.array(between).reshape(-1, len(b)) @ inverse.T

    def without(self, b, hand, surrogate, weight: float, slope: numpy.ndarray) -> numpy.ndarray:
        """The slope without the codes of each cluster that has some, (G, p, p)."""
        matrix, outcome = surrogate
        of_all = self.equation([(matrix, outcome, numpy.full(self.posts, weight / self.posts))], b)[1]
        own = numpy.zeros((self.groups, len(b), len(b)))
        for rows, factor in ((hand[0], 1.0), (matrix[self.post], -weight)):
            each = (factor * self.o * self.mean(rows, b)[1])[:, None, None] * rows[:, :, None] * rows[:, None, :]
            numpy.add.at(own, self.group, each)
        return of_all + (slope - of_all - own) / (1 - self.held)[:, None, None]

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

    def naive(self, machine, level: float) -> list[Estimate]:
        """The machine's labels taken as true."""
        matrix, _ = machine
        parts = [(*machine, numpy.full(self.posts, 1 / self.posts))]
        b = self.solve(parts, numpy.zeros(matrix.shape[1]))
        u = self.summed(self.psi(machine, b) / self.posts) @ numpy.linalg.inv(self.equation(parts, b)[1]).T
        return self.intervals(b, u.T @ u, len(u) - len(b), level)

    def intervals(self, b: numpy.ndarray, variance: numpy.ndarray, freedom: int, level: float) -> list[Estimate]:
        b, error = self.back @ b, numpy.diag(self.back @ variance @ self.back.T)
        half = t_quantile(level, max(1, freedom)) * numpy.sqrt(numpy.maximum(0.0, error))
        return [Estimate(float(value), float(value - h), float(value + h)) for value, h in zip(b, half, strict=True)]
