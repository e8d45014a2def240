"""The inverse power law: found again where it holds, its interval by simulation, and no word beyond its end.

Deliberate break: in stats/learning_curve.py let `Curve.at` answer for any number of rows, or drop `wider`
and the posts' noise from the refits.
"""

import numpy
import pytest

from stats.learning_curve import FARTHEST, fit

ROWS = [5, 10, 25, 75]


def law(rows, a=0.8, b=0.5, c=0.5):
    return a - b * numpy.asarray(rows, float) ** -c


def test_an_exact_law_is_found_again():
    found = fit(ROWS, numpy.tile(law(ROWS), (3, 1)))
    assert (found.a, found.b) == pytest.approx((0.8, 0.5), abs=0.02) and found.c == pytest.approx(0.5, abs=0.04)
    value, low, high = found.at(300)
    assert value == pytest.approx(law(300), abs=0.005) and (low, high) == pytest.approx((value, value), abs=1e-6)
    assert found.rows_for(0.7) == pytest.approx(25, abs=2) and found.rows_for(0.79) is None


def test_nothing_is_said_beyond_four_times_the_end_or_from_too_little():
    found = fit(ROWS, numpy.tile(law(ROWS), (3, 1)))
    with pytest.raises(ValueError, match="ends at 75"):
        found.at(FARTHEST * 75 + 1)
    assert fit(ROWS[:2], numpy.zeros((3, 2))) is None and fit(ROWS, law(ROWS)) is None
    assert fit(ROWS, numpy.full((3, 4), numpy.nan)) is None
    assert fit(ROWS, numpy.tile(law(ROWS), (2, 1))) is None  # two draws say nothing of how much draws differ


def test_a_curve_that_falls_is_taken_as_flat():
    found = fit(ROWS, numpy.tile([0.7, 0.68, 0.66, 0.64], (3, 1)))
    assert found.b == 0 and found.at(300)[0] == pytest.approx(0.67)


@pytest.mark.parametrize("posts", [0.0, 0.015])
@pytest.mark.parametrize("draws", [3, 5])
def test_its_interval_holds_at_the_end_of_the_curve(draws, posts):
    rng, held = numpy.random.default_rng(3), []
    for number in range(150):
        noise = 0.02 * rng.normal(size=(draws, 1)) + 0.01 * rng.normal(size=(draws, 4)) + posts * rng.normal()
        found = fit(ROWS, law(ROWS) + noise, posts=posts, draws=200, seed=number)
        value, low, high = found.at(75)
        assert low <= value <= high
        held.append(low <= law(75) <= high)
    assert numpy.mean(held) > 0.89  # three standard errors of 150 curves below .95
