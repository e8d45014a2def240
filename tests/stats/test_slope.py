"""The slope's interval against trying out slopes.

Deliberate break: in stats/slope.py take `rank` one lower (the interval leaves out slopes that the test keeps).
"""

import sys

import numpy as np
import pytest

from stats import shares
from stats.shares import permutation_test
from stats.slope import slope


@pytest.mark.parametrize("n,level", [(4, 0.8), (5, 0.9), (6, 0.95), (7, 0.95)])
def test_interval_holds_exactly_the_slopes_that_the_test_does_not_reject(n, level):
    stream = np.random.default_rng(n)
    for repeat in range(4):
        x, y = stream.normal(size=n), stream.normal(size=n)
        if repeat == 3:
            x[1] = x[0]  # a tie, as of two languages with one share
        found = slope(x, y, level)
        assert found["slope"] == pytest.approx(np.polyfit(x, y, 1)[0])
        assert found["low"] <= found["slope"] <= found["high"]
        step = 1e-6 * (found["high"] - found["low"])
        for end, out in ((found["low"], -1), (found["high"], 1)):
            assert permutation_test(x, y - (end + out * step) * x)["p"] <= 1 - level + 1e-9  # 1 - 0.9 < 0.1
            assert permutation_test(x, y - (end - out * step) * x)["p"] > 1 - level + 1e-9
        p = permutation_test(x, y)["p"]
        assert (found["low"] <= 0 <= found["high"]) == (p > 1 - level + 1e-9)


def test_interval_of_drawn_orders_is_near_that_of_all(monkeypatch):
    x, y = np.random.default_rng(5).normal(size=(2, 8))
    every = slope(x, y)
    for module in (shares, sys.modules["stats.slope"]):
        monkeypatch.setattr(module, "EXACT", 4)
    drawn = slope(x, y, draws=20_000)
    # The share of orders at an end has a standard error of sqrt(.05 * .95 / 20000) = .0015.
    assert [drawn[key] for key in ("low", "high")] == pytest.approx([every[key] for key in ("low", "high")], rel=0.1)
    assert drawn == slope(x, y, draws=20_000)


def test_no_slope_and_no_end_are_none():
    none = {"slope": None, "low": None, "high": None}
    assert slope(np.array([1.0, 2.0]), np.array([0.0, 1.0])) == none
    assert slope(np.ones(5), np.arange(5.0)) == none
    three = slope(np.array([0.0, 1.0, 3.0]), np.array([0.2, 0.5, 0.6]))  # of 6 orders, p cannot be below 1 / 6
    assert three["slope"] == pytest.approx(np.polyfit([0, 1, 3], [0.2, 0.5, 0.6], 1)[0])
    assert three["low"] is three["high"] is None
