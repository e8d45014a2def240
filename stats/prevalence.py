"""The share of a label among all posts, from machine labels of all and hand codes of a random sample.

N posts have machine labels; n of them, drawn with known probabilities pi_i, have codes as well. With the weights
w_i = 1 / pi_i, scaled to o_i = w_i / sum w within the group at hand, y_i = 1 where the code is the label, m_i = 1 where
the machine gives it, and M the mean of m over all posts of the group:

    naive    M                                    counts the machine's labels: as wrong as the machine
    coded    sum o_i y_i                          the codes alone (Hajek 1971)
    PPI++    L M + sum o_i (y_i - L m_i)          the naive share, corrected by the errors among the coded rows
    DSL      G + sum o_i (y_i - g_k(x_i))         the same with a prediction g in the place of m; G its mean over all

PPI++ (Angelopoulos, Duchi and Zrnic 2023, arXiv 2311.01453) tunes the weight so that useless labels are left out:

    L = sum o_i^2 (1 - pi_i) (y_i - mean y) (m_i - mean m) / sum o_i^2 (1 - pi_i) (m_i - mean m)^2,  within [0, 1]

With equal probabilities this is the slope of y on m, and PPI++ is post-stratification by the machine's label. Their
labelled and unlabelled rows are disjoint, ours are not: with f = n / N, their weight (1 - f) L gives our estimate.
The package ppi-python divides by the variance of m over all posts instead of that over the coded rows. That is the same
with many rows; where the machine gives the label to few of them, it biases the estimate by about -L (1 - 2 M) / n,
which is not small beside a rare label's share.
DSL (Egami, Hinck, Stewart and Wei 2023, NeurIPS, "Using imperfect surrogates for downstream inference") takes for g a
regression of the codes on the machine's answers, probabilities included, cross-fitted (stats/surrogate.py; k is the
fold of row i). For G a coded post counts with its own fold's g_k(x_i), any other with the mean of its g_k(x_j) over the
folds: so g cancels where all posts are coded, and what is left is their share. A group of which all posts are coded has
no chance in it, whatever theirs was: its pi_i are set to 1. The probabilities pi_i are known, so DSL
is approximately unbiased however poor g is: it is doubly robust. It borrows g from all groups, where PPI++ sees one
group alone.

**Variance**. The posts are fixed and only the draw is random: with u_i = o_i (deviation of row i),

    V = sum (1 - pi_i) u_i^2                                              rows drawn independently (Hajek's ratio)
    V = sum_s n_s / (n_s - 1) (1 - f_s) sum_{i in s} (u_i - mean_s u)^2   n_s rows drawn in stratum s

(Sarndal, Swensson and Wretman 1992, Model Assisted Survey Sampling, 5.7 and 3.7), the rows of a stratum that lie
outside the group counted with u = 0. The deviation is y_i - estimate for the codes alone; for PPI++ y_i - r_h, times
W_h over the coded rows' share of cell h, with two cells, h = 1 where the machine gives the label, and r_h the codes'
rate in the cell. For DSL it is y_i - g_k(x_i) less its mean, sum o_i (y_i - g_k(x_i)).

**Interval**: stats/rates.py, of rates that sum to the estimate. Its cells h are the two of the machine's label (one for
the codes alone), each cut into classes of chances that differ by less than a factor of `CLASS`; a class has its coded
rows' part of W_h, and of the prior. So a rate that was found in few rows of great weight is as uncertain as they are,
and no other. With one cell for all weights, intervals of rare labels are too wide, and those of few posts with very
unequal chances too narrow. Effective sizes and coded shares give V:

    n_h = (sum_h o_i)^2 / (R sum_h o_i^2),    1 - f_h = sum_h o_i^2 (1 - pi_i) / sum_h o_i^2

R is the ratio of V to what binomial rates would have, sum_h W_h^2 K_h r_h (1 - r_h) with K_h = sum_h o_i^2 (1 - pi_i) /
(sum_h o_i)^2. Where events are few, R is noise; `EVENTS` more that follow the binomial are added to both. For equal
probabilities and the codes alone R = 1, n_h = n and f_h = n / N.
"""

from dataclasses import dataclass

import numpy

from report.clusters import effective, worth
from stats.rates import PRIOR, moved, share_interval
from stats.surrogate import answers, folds, predictions

LEAST_SLOPE = 0.3  # of the machine's labels on the codes; below, they tell too little of clusters
EVENTS = 2.0  # binomial events that are added to the ratio R
CLASS = 4.0  # chances of one class differ by less than this factor
FIXED = 1e-3  # by which share the weights' sum may miss N for a design whose strata have fixed sizes


@dataclass(frozen=True, eq=False)
class Machine:
    """The answers to all N posts: predicted (N,) int64 in 0..C (C: a label outside the C at hand), group (N,) int64 in
    0..G-1, probabilities (N, C) float64 or None; cluster (N,) int64, equal for posts that belong together, or None."""

    labels: int
    predicted: numpy.ndarray
    group: numpy.ndarray
    groups: int
    probabilities: numpy.ndarray | None = None
    cluster: numpy.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Coded:
    """The coded rows: post (n,) int64, their places among the N; label (n,) int64, their codes; probability (n,)
    float64, of inclusion; stratum (n,) int64 where rows were drawn in strata of fixed sizes, else None."""

    post: numpy.ndarray
    label: numpy.ndarray
    probability: numpy.ndarray
    stratum: numpy.ndarray | None = None


@dataclass(frozen=True)
class Estimate:
    """An estimate and its interval, each None where there is none."""

    estimate: float | None
    low: float | None
    high: float | None

    @property
    def width(self) -> float:
        return float("inf") if self.low is None else self.high - self.low

    def to_dict(self) -> dict:
        return {"estimate": self.estimate, "low": self.low, "high": self.high}


NONE = Estimate(None, None, None)


@dataclass(frozen=True)
class Share:
    """One label in one group: n posts, n_coded codes, the naive share, three estimates, and PPI++'s weight `tuned`."""

    group: int
    label: int
    n: int
    n_coded: int
    naive: float
    coded: Estimate
    ppi: Estimate
    dsl: Estimate
    tuned: float


def equal_probabilities(coded: int, posts: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """(probability, stratum) of a simple random sample: n / N each, one stratum."""
    return numpy.full(coded, coded / posts), numpy.zeros(coded, dtype=numpy.int64)


def strata_of(probability: numpy.ndarray, posts: int) -> numpy.ndarray | None:
    """Strata by equal probabilities, if the weights' sum is N as fixed sizes make it; else None: drawn independently.

    In a stratum of N_s posts of which n_s are drawn the weights sum to N_s. If rows are drawn independently, the sum is
    N on average only.
    """
    if abs((1 / probability).sum() - posts) > FIXED * posts:
        return None
    values, stratum, sizes = numpy.unique(probability, return_inverse=True, return_counts=True)
    return stratum if (sizes > 1).all() or (values == 1).all() else None


def prevalence(machine: Machine, coded: Coded, seed: int = 0, beyond: bool = False) -> list[Share]:
    """The share of every label in every group, groups first; float64. Formulas and sources: see the module.

    beyond: intervals for the chances behind the posts, of which these are N draws, instead of the share among them; or
    as many draws as the clusters' posts are worth (`_Part.drawn`).
    """
    x = answers(machine.predicted, machine.labels, machine.probabilities)
    fold = folds(len(coded.post), seed)
    inside = [numpy.flatnonzero(machine.group == g) for g in range(machine.groups)]
    at = [numpy.flatnonzero(machine.group[coded.post] == g) for g in range(machine.groups)]
    sizes = None if coded.stratum is None else numpy.bincount(coded.stratum)
    found = {}
    for label in range(machine.labels):
        y = (coded.label == label).astype(numpy.float64)
        g_of = predictions(x, y, coded.post, fold)
        residual = y - g_of[coded.post]
        for g in range(machine.groups):
            rows, m = at[g], machine.predicted[inside[g]] == label
            chance = coded.probability[rows] if len(rows) < len(m) else numpy.ones(len(m))  # all coded: none is left
            part = _Part(y[rows], machine.predicted[coded.post[rows]] == label, chance,
                         None if sizes is None else coded.stratum[rows], sizes, m, beyond)  # fmt: skip
            if beyond and machine.cluster is not None and len(rows):
                part.posts = part.drawn(machine.cluster[inside[g]], machine.cluster[coded.post[rows]])
            found[g, label] = part.share(g, label, g_of[inside[g]], residual[rows])
    return [found[g, label] for g in range(machine.groups) for label in range(machine.labels)]


class _Part:
    """The coded rows of one group and label: y, m (n,), and what the interval needs of their design."""

    def __init__(self, y, m, probability, stratum, sizes, every, beyond):
        self.y, self.m, self.pi, self.stratum, self.sizes = y, m.astype(numpy.float64), probability, stratum, sizes
        self.every, self.posts = every, len(every) if beyond else None
        weights = 1 / probability
        self.o = weights / weights.sum() if len(y) else weights
        self.chance = numpy.floor(numpy.log(probability.max() / probability * (1 + 1e-9)) / numpy.log(CLASS)) if len(
            y) else weights  # the class of each row

    def share(self, group: int, label: int, predicted: numpy.ndarray, residual: numpy.ndarray) -> Share:
        """predicted: g of all posts of the group; residual: y - g of its coded rows."""
        n, naive = len(self.every), float(self.every.mean()) if len(self.every) else 0.0
        if not len(self.y):
            return Share(group, label, n, 0, naive, NONE, NONE, NONE, 0.0)
        alone, tuned = float(self.o @ self.y), self.tuned()
        ppi = float(tuned * naive + self.o @ (self.y - tuned * self.m))
        apart = float(self.o @ residual)
        dsl = float(predicted.mean()) + apart
        whole, cells = [numpy.ones(len(self.y), dtype=bool)], [self.m == 1, self.m == 0]
        split = tuned > 0 and all(cell.any() for cell in cells)
        shares = [naive, 1 - naive] if split else [1.0]
        cells = cells if split else whole
        rates = [float(self.o[cell] @ self.y[cell] / self.o[cell].sum()) for cell in cells]
        deviation = sum(cell * (w / self.o[cell].sum()) * (self.y - r)
                        for cell, w, r in zip(cells, shares, rates, strict=True))
        estimates = (self.around(alone, whole, [1.0], self.y - alone), self.around(ppi, cells, shares, deviation),
                     self.around(dsl, cells, shares, residual - apart))
        return Share(group, label, n, len(self.y), naive, *estimates, tuned)

    def drawn(self, cluster: numpy.ndarray, coded: numpy.ndarray) -> float:
        """As how many independent draws all posts count, cluster (N,), coded (n,) the clusters of the codes.

        Var of the machine's labels m beyond independent ones is lambda^2 that of the codes y, lambda = P(m | y = 1) -
        P(m | y = 0), since errors know nothing of clusters; in units of p (1 - p) it is (1 / worth - 1), so

            1 / worth(y) - 1 = (1 / worth(m) - 1) M (1 - M) / (lambda^2 mean y (1 - mean y))

        Below `LEAST_SLOPE` lambda tells too little. Then the codes' own design effect gives their correlation within
        clusters, rho = (1 / worth - 1) / (c - 1), and 1 / worth = 1 + (b - 1) rho of all posts: b and c are the mean
        sizes sum_g n_g^2 / n of the clusters of all posts and of the codes. rho is 1 where c is 1: no two codes share
        a cluster.
        """
        share, rate = float(self.every.mean()), float(self.o @ self.y)
        apart = self.y - rate
        spread = float(self.o @ apart**2)
        slope = abs(float(self.o @ (apart * self.m)) / spread) if spread > 0 else 0.0
        if slope >= LEAST_SLOPE and 0 < share < 1:
            beyond = (1 / worth(self.every, cluster) - 1) * share * (1 - share) / (slope**2 * spread)
        else:
            all_of, own = (len(part) / effective(part) for part in (cluster, coded))
            alike = min(1.0, (1 / worth(self.y, coded) - 1) / (own - 1)) if own > 1 else 1.0
            beyond = (all_of - 1) * alike
        return len(cluster) / (1 + beyond)

    def tuned(self) -> float:
        """L, float64, in [0, 1]: 0 where the machine gives all coded rows the label, or none."""
        y, m, drawn = self.y - self.o @ self.y, self.m - self.o @ self.m, self.o**2 * (1 - self.pi)
        below = float(drawn @ (m * m))
        return min(1.0, max(0.0, float(drawn @ (y * m)) / below)) if below > 1e-15 else 0.0

    def around(self, estimate: float, cells, shares, deviation) -> Estimate:
        """The estimate, within [0, 1], with its interval."""
        classes = [(cell, share, numpy.unique(self.chance[cell])) for cell, share in zip(cells, shares, strict=True)]
        shares = [share * float(self.o[cell & (self.chance == k)].sum() / self.o[cell].sum())
                  for cell, share, own in classes for k in own]
        cells = [cell & (self.chance == k) for cell, _, own in classes for k in own]
        priors = [PRIOR / len(own) for _, _, own in classes for _ in own]
        o2 = self.o**2 * (1 - self.pi)
        kish = [float(o2[cell].sum() / self.o[cell].sum() ** 2) for cell in cells]
        estimate = min(1.0, max(0.0, estimate))
        rates = moved(estimate, shares, [float(self.o[cell] @ self.y[cell] / self.o[cell].sum()) for cell in cells])
        binomial = sum(w * w * k * r * (1 - r) for w, k, r in zip(shares, kish, rates, strict=True))
        more = EVENTS * sum(w * w * k / cell.sum() for w, k, cell in zip(shares, kish, cells, strict=True))
        ratio = (self.variance(self.o * deviation) + more) / (binomial + more) if more > 0 else 1.0
        whole = [float((self.o[cell] ** 2).sum() / self.o[cell].sum() ** 2) for cell in cells]
        known = [1 - k / all_of for k, all_of in zip(kish, whole, strict=True)]
        left = [round((1 - f) * w * len(self.every) / ratio) for f, w in zip(known, shares, strict=True)]
        left = [max(1, count) if f < 1 else 0 for f, count in zip(known, left, strict=True)]
        sizes = [1 / (k * ratio) for k in whole]
        ends = share_interval(estimate, shares, rates, sizes, known, left, self.posts, priors)
        return Estimate(estimate, *ends)

    def variance(self, u: numpy.ndarray) -> float:
        """V of sum u_i over the draw; a lone stratum's n / (n - 1) is left to the interval, as in Wilson's."""
        if self.stratum is None:
            return float((1 - self.pi) @ u**2)
        used = numpy.unique(self.stratum)
        total = 0.0
        for s in used:
            own, n = self.stratum == s, int(self.sizes[s])
            about = (u[own] ** 2).sum() - u[own].sum() ** 2 / n
            factor = n / (n - 1) if n > 1 and len(self.sizes) > 1 else 1.0
            total += factor * (1 - self.pi[own]).mean() * about
        return float(total)
