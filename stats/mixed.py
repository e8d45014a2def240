"""Right answers by model and language, with a random intercept and random slopes for languages.

Languages are not of interest one by one, and a dozen of them do not carry a slope over anything that has one value per
language. Here they are a sample: cell (l, m) has k_lm of n_lm posts right,

    k_lm ~ Binomial(n_lm, p_lm),  logit p_lm = b_m + u_l + v_lm,  u_l ~ Normal(0, s^2),  v_lm ~ Normal(0, t^2)

with v_l1 = 0 for the first model, so b_m - b_1 is how much better model m is than the first in the mean language, and
t how much that difference varies from one language to another. In lme4, with `other` 1 for every model but the first
and `cell` the pair of language and model: glmer(cbind(right, posts - right) ~ 0 + model + (1 | language) + (0 + other |
cell)). Its (1 + model | language) has a variance for each model and all correlations, more than a dozen languages can
tell. b, u and v maximise the penalised likelihood for given s and t, and these maximise Laplace's approximation of
the marginal one,

    log L(s, t) = log Binomial(b, u, v) - u'u / 2 s^2 - v'v / 2 t^2 - log |I + D^(1/2) Z' W Z D^(1/2)| / 2

with D the variances of (u, v): penalised iteratively reweighted least squares, lme4's `nAGQ = 0` (Bates, Maechler,
Bolker and Walker 2015, Journal of Statistical Software 67(1)). Errors of b are from the penalised information. They
take posts as independent given the language; copies of one post by several models are not, which makes differences
between models look less sure than they are. For the same reason, and where counts are means over several fits, the
counts scatter less than a binomial's and the estimate of t leans towards 0: an estimate of 0 does not show that the
differences are alike. tests/stats/test_mixed.py compares with lme4 and with the likelihood integrated numerically.
"""

from dataclasses import dataclass

import numpy

from common.errors import UserError

STEPS, CONVERGED = 100, 1e-10
SPREADS = (0.0, 0.1, 0.25, 0.5, 0.9, 1.6, 3.0)  # s and t, first on this grid, then in steps around its best point
FIRST_STEP, PRECISE, LARGEST = 0.2, 1e-4, 10.0
FEWEST = 4  # languages


@dataclass(frozen=True)
class Mixed:
    """`fixed` (M,) log odds and `covariance` (M, M) of b; `intercept` s and `slope` t; `effects` (L, M) u_l + v_lm;
    `log_likelihood`, Laplace's."""

    fixed: numpy.ndarray
    covariance: numpy.ndarray
    intercept: float
    slope: float
    effects: numpy.ndarray
    log_likelihood: float

    def less_first(self, model: int) -> tuple[float, float]:
        """(b_m - b_1, its standard error)."""
        c = self.covariance
        return (float(self.fixed[model] - self.fixed[0]),
                float(max(0.0, c[model, model] + c[0, 0] - 2 * c[model, 0])) ** 0.5)


def fit(right: numpy.ndarray, posts: numpy.ndarray) -> Mixed:
    """Fit (L, M) right answers of (L, M) posts, languages by models; counts may be means over fits.

    Raises `UserError` with fewer than four languages, or for a model that is always or never right.
    """
    right, posts = numpy.asarray(right, dtype=numpy.float64), numpy.asarray(posts, dtype=numpy.float64)
    if len(right) < FEWEST:
        raise UserError(f"model by language: {len(right)} languages, but {FEWEST} are needed for a spread between them")
    total = right.sum(0)
    if (total <= 0).any() or (total >= posts.sum(0)).any():
        raise UserError("model by language: a model is right always or never, so its log odds are infinite")
    slopes = SPREADS if right.shape[1] > 1 else SPREADS[:1]
    best = max(((*_given(right, posts, s, t), s, t) for s in SPREADS for t in slopes), key=lambda one: one[0])
    step = FIRST_STEP
    while step > PRECISE:  # towards the best of the eight neighbours, and closer where none is better
        s, t = best[-2:]
        around = {(min(max(0.0, s + i * step), LARGEST), min(max(0.0, t + j * step), LARGEST * (len(slopes) > 1)))
                  for i in (-1, 0, 1) for j in (-1, 0, 1)} - {(s, t)}
        found = max(((*_given(right, posts, *at), *at) for at in sorted(around)), key=lambda one: one[0])
        best, step = (found, step) if found[0] > best[0] else (best, step / 2)
    value, fixed, covariance, effects, s, t = best
    return Mixed(fixed, covariance, float(s), float(t), effects, float(value))


def _given(right: numpy.ndarray, posts: numpy.ndarray, s: float, t: float):
    """(log likelihood, b, covariance of b, effects) for given spreads; languages are eliminated one by one."""
    count, models = right.shape
    slopes = numpy.ones(models)
    slopes[0] = 0
    prior = s**2 + numpy.diag(t**2 * slopes)  # (M, M): of a language's u + v
    root = numpy.linalg.cholesky(prior + 1e-12 * numpy.eye(models))
    fixed, effects = numpy.log((right.sum(0) + 0.5) / (posts.sum(0) - right.sum(0) + 0.5)), numpy.zeros((count, models))
    scaled = numpy.zeros((count, models))  # effects = root @ scaled
    for _ in range(STEPS):
        p = 1 / (1 + numpy.exp(-(fixed + effects)))
        weight, score = posts * p * (1 - p), right - posts * p
        inner = numpy.eye(models) + numpy.einsum("ji,lj,jk->lik", root, weight, root)
        cross = weight[:, :, None] * root  # (L, M, M): d score / d scaled
        solved = numpy.linalg.solve(inner, numpy.concatenate([cross.swapaxes(1, 2), (score @ root - scaled)[..., None]],
                                                             -1))
        left = numpy.diag(weight.sum(0)) - numpy.einsum("lij,ljk->ik", cross, solved[..., :models])
        step = numpy.linalg.solve(left, score.sum(0) - numpy.einsum("lij,lj->i", cross, solved[..., models]))
        change = solved[..., models] - solved[..., :models] @ step
        fixed, scaled = fixed + step, scaled + change
        effects = scaled @ root.T
        if max(abs(step).max(), abs(change).max()) < CONVERGED:
            break
    eta = fixed + effects
    likelihood = (right * eta - posts * numpy.logaddexp(0, eta)).sum() - (scaled**2).sum() / 2 - \
        numpy.linalg.slogdet(inner)[1].sum() / 2
    return likelihood, fixed, numpy.linalg.inv(left), effects
