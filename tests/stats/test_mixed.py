"""The mixed model: its likelihood against direct numerical integration, spreads found again, errors by simulation.

lme4 is not at hand where this was written, so nothing here is an R figure: the reference is the marginal likelihood of
a random intercept, summed over a fine grid for each language.

Deliberate break: in stats/mixed.py leave half the log determinant out of the likelihood, or give the first model a
slope as well.
"""

import numpy
import pytest
from scipy import optimize

from common.errors import UserError
from stats.mixed import _given, fit

NODES = numpy.linspace(-7, 7, 1401)  # of a standard normal effect; a language's own peak is much narrower than that
WEIGHTS = numpy.exp(-(NODES**2) / 2)


def made(rng, languages=10, posts=60, fixed=(0.5, 1.1, 0.2), intercept=0.6, slope=0.3):
    u = intercept * rng.normal(size=(languages, 1))
    v = slope * rng.normal(size=(languages, len(fixed)))
    v[:, 0] = 0
    n = numpy.full((languages, len(fixed)), posts)
    return rng.binomial(n, 1 / (1 + numpy.exp(-(numpy.array(fixed) + u + v)))), n


def integrated(right, posts, fixed, s):
    """The log likelihood of a random intercept, up to the binomials' constants."""
    eta = numpy.asarray(fixed)[None, :, None] + s * NODES  # (1, M, Q)
    inside = (right[..., None] * eta - posts[..., None] * numpy.logaddexp(0, eta)).sum(1)  # (L, Q)
    top = inside.max(1, keepdims=True)
    return float((top[:, 0] + numpy.log((numpy.exp(inside - top) * WEIGHTS).sum(1) / WEIGHTS.sum())).sum())


def test_laplaces_likelihood_is_near_the_integrated_one():
    right, posts = made(numpy.random.default_rng(1), slope=0.0)
    for s in (0.2, 0.6, 1.2):
        value, fixed, *_ = _given(right, posts, s, 0.0)
        assert value == pytest.approx(integrated(right, posts, fixed, s), abs=0.1)


def test_a_random_intercept_is_that_of_the_integrated_likelihood():
    right, posts = made(numpy.random.default_rng(2), languages=12, slope=0.0)
    theirs = optimize.minimize(lambda x: -integrated(right, posts, x[:3], abs(x[3])), [0.5, 1, 0.2, 0.5],
                               method="Nelder-Mead", options={"maxiter": 400, "xatol": 1e-3, "fatol": 1e-4})
    values = [_given(right, posts, s, 0.0)[0] for s in numpy.linspace(0.05, 1.5, 60)]
    s = numpy.linspace(0.05, 1.5, 60)[int(numpy.argmax(values))]
    assert s == pytest.approx(abs(theirs.x[3]), rel=0.06)
    assert _given(right, posts, s, 0.0)[1] == pytest.approx(theirs.x[:3], abs=0.05)


def test_without_spread_it_is_the_binomial_mean():
    right, posts = numpy.array([[30, 40]] * 6), numpy.full((6, 2), 60)
    found = fit(right, posts)
    assert found.fixed == pytest.approx(numpy.log([1.0, 2.0]), abs=1e-6) and (found.intercept, found.slope) == (0, 0)
    assert found.less_first(1)[1] == pytest.approx((1 / 180 + 1 / 180 + 1 / 240 + 1 / 120) ** 0.5, rel=1e-4)
    assert abs(found.effects).max() < 1e-4


def test_spreads_and_differences_are_found_again_and_their_errors_hold():
    rng, truths = numpy.random.default_rng(3), []
    for _ in range(12):
        found = fit(*made(rng, languages=13, posts=80))
        value, error = found.less_first(1)
        truths.append((abs(value - 0.6) < 2.2 * error, found.intercept, found.slope))
    held, intercepts, slopes = numpy.array(truths, dtype=float).T
    assert held.mean() > 0.6 and numpy.mean(intercepts) == pytest.approx(0.6, abs=0.2)
    assert numpy.mean(slopes) == pytest.approx(0.3, abs=0.12)


def test_what_cannot_be_fitted_is_said():
    with pytest.raises(UserError, match="3 languages, but 4"):
        fit(numpy.ones((3, 2)), numpy.full((3, 2), 9))
    with pytest.raises(UserError, match="always or never"):
        fit(numpy.tile([9, 3], (5, 1)), numpy.full((5, 2), 9))
