"""What the machine's answers say about the hand label: a regression on them, fitted where it is not used.

    g(x) = 1 / (1 + exp(-(b_0 + z b))),    z: the answers x, each column standardised

(b_0, b) maximise the log-likelihood minus ||b||^2 / 2 + (b_0 - logit((k + 1/2) / (n + 1)))^2 / 20 for k events in n
rows: the penalty keeps them finite where a label is rare or the machine never errs. A poor g costs precision and never
truth, since what it gets wrong is corrected by the coded rows (stats/prevalence.py).

The answers are the log probabilities where there are any, else the label given, as indicators. **Cross-fitting**: the
coded rows are dealt into K folds, and g_k is fitted on the others, so that no row is predicted by a fit that has seen
its code; else the corrections would be too small, and so would the intervals (Chernozhukov et al. 2018, Econometrics
Journal 21, C1-C68).
"""

import numpy

FOLDS = 5
SMALLEST = 1e-6  # probability whose logarithm is taken
RIDGE, RIDGE_INTERCEPT = 1.0, 0.1
STEPS = 50


def answers(predicted: numpy.ndarray, labels: int, probabilities: numpy.ndarray | None = None) -> numpy.ndarray:
    """The columns x (N, C) float64 of N answers: log probabilities (N, C), or indicators of `predicted` (N,) int64."""
    if probabilities is not None:
        return numpy.log(numpy.maximum(probabilities, SMALLEST))
    return (predicted[:, None] == numpy.arange(labels)).astype(numpy.float64)


def folds(rows: int, seed: int = 0) -> numpy.ndarray:
    """(n,) int64: the fold of each coded row, of sizes that differ by one at most, in random order."""
    return numpy.random.default_rng(seed).permutation(numpy.arange(rows) % min(FOLDS, max(rows, 1)))


def crossfit(x: numpy.ndarray, y: numpy.ndarray, fold: numpy.ndarray) -> list["Fit"]:
    """g_k for each fold k: answers x (n, C), outcomes y (n,) of 0 and 1; fitted on the rows that are not in it."""
    return [fit(x[fold != k], y[fold != k]) for k in range(int(fold.max()) + 1)]


def predictions(x: numpy.ndarray, y: numpy.ndarray, post: numpy.ndarray, fold: numpy.ndarray) -> numpy.ndarray:
    """g of all posts (N,), answers x (N, C): for the coded ones, outcomes y (n,) at places post (n,), that of their own
    fold, g_k(x_i), for the others the mean of all folds'; zeros where fewer than two are coded."""
    if len(y) < 2:
        return numpy.zeros(len(x))
    fits = crossfit(x[post], y, fold)
    found = sum(g(x) for g in fits) / len(fits)
    for k, g in enumerate(fits):
        own = post[fold == k]
        found[own] = g(x[own])
    return found


class Fit:
    """One g: called with answers (N, C), it gives probabilities (N,) float64."""

    def __init__(self, centre: numpy.ndarray, spread: numpy.ndarray, beta: numpy.ndarray):
        self.centre, self.spread, self.beta = centre, spread, beta

    def __call__(self, x: numpy.ndarray) -> numpy.ndarray:
        odds = self.beta[0] + ((x - self.centre) / self.spread) @ self.beta[1:]
        return numpy.exp(-numpy.logaddexp(0, -odds))


def fit(x: numpy.ndarray, y: numpy.ndarray) -> Fit:
    """g for answers x (n, C) and outcomes y (n,) of 0 and 1, by Newton's method; formula: see the module."""
    rows = len(y)
    centre = x.mean(0) if rows else numpy.zeros(x.shape[1])
    spread = x.std(0) if rows else numpy.ones(x.shape[1])
    spread = numpy.where(spread > 1e-9, spread, 1.0)
    z = numpy.concatenate([numpy.ones((rows, 1)), (x - centre) / spread], 1)
    start = numpy.zeros(z.shape[1])
    start[0] = numpy.log((y.sum() + 0.5) / (rows - y.sum() + 0.5))
    penalty = numpy.full(len(start), RIDGE)
    penalty[0] = RIDGE_INTERCEPT
    sign = 2 * y - 1

    def objective(b):
        return -numpy.logaddexp(0, -sign * (z @ b)).sum() - (penalty * (b - start) ** 2).sum() / 2

    beta = start
    for _ in range(STEPS):
        p = numpy.exp(-numpy.logaddexp(0, -(z @ beta)))
        gradient = z.T @ (y - p) - penalty * (beta - start)
        step = numpy.linalg.solve((z * (p * (1 - p))[:, None]).T @ z + numpy.diag(penalty), gradient)
        while objective(beta + step) < objective(beta) - 1e-9:
            step = step / 2
        beta = beta + step
        if abs(step).max() < 1e-8:
            break
    return Fit(centre, spread, beta)
