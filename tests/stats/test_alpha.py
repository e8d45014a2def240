"""Alpha with its interval: the one of data/annotators.py, a hand-counted ceiling, and intervals that hold.

Deliberate break: in stats/alpha.py leave the annotator's own label among the others (`labels` in `alone`).
"""

import numpy
import pytest

from data.annotators import krippendorff_alpha
from stats.alpha import alone, alpha


def made_units(rng, posts, noise=0.25, annotators=3):
    """Labels of `posts` posts: each annotator gives the true one or, with probability `noise`, any."""
    gold = rng.choice(3, posts, p=[0.5, 0.3, 0.2])
    return [["abc"[g if rng.random() > noise else rng.integers(3)] for _ in range(rng.integers(1, annotators + 1))]
            for g in gold]


def test_alpha_is_that_of_the_readers():
    rng = numpy.random.default_rng(1)
    for _ in range(5):
        units = made_units(rng, 60)
        found = alpha(units, 300)
        assert found["alpha"] == pytest.approx(krippendorff_alpha(units), abs=1e-12)
        assert found["low"] < found["alpha"] < found["high"] and found["posts"] == sum(len(u) > 1 for u in units)


def test_the_ceiling_by_hand():
    assert alone(["a", "a", "b"]) == [0.5, 0.5, 0.0] and alone(["a", "a"]) == [1.0, 1.0]
    found = alpha([["a", "a", "b"], ["a", "a"], ["b", "b", "b"], ["a"]], 200)
    assert found["ceiling"] == pytest.approx((1.0 + 2 + 3) / 8) and found["posts"] == 3
    assert found["ceiling_low"] <= found["ceiling"] <= found["ceiling_high"]


def test_what_cannot_be_computed_is_none():
    same = alpha([["a", "a"], ["a", "a"]], 50)
    assert same["alpha"] is None and same["low"] is None and same["ceiling"] == 1.0
    assert alpha([["a"], []], 50)["posts"] == 0 and alpha([], 50)["ceiling"] is None


def copied(rng, posts, passed_on=0.4):
    """Labels of posts of which some are copies of an earlier one, labelled alike; and whose copy each is."""
    units, whose = made_units(rng, posts, 0.3), numpy.arange(posts)
    for k in range(1, posts):
        if rng.random() < passed_on:
            whose[k] = whose[rng.integers(k)]
            units[k] = units[whose[k]]
    return units, whose.tolist()


def test_copies_count_together():
    rng = numpy.random.default_rng(4)
    units, whose = copied(rng, 80)
    apart, found = alpha(units, 300), alpha(units, 300, clusters=whose)
    assert {key: apart[key] for key in ("alpha", "ceiling", "posts")} == {
        key: found[key] for key in ("alpha", "ceiling", "posts")} and found["low"] < apart["low"]
    assert alpha(units, 300, clusters=range(80)) == apart
    true = alpha(made_units(rng, 20_000, 0.3), 1)["alpha"]
    held = numpy.array([[one["low"] <= true <= one["high"] for one in (alpha(units, 200, k, clusters=whose),
                                                                       alpha(units, 200, k))]
                        for k, (units, whose) in enumerate(copied(rng, 150) for _ in range(120))]).mean(0)
    assert held[0] > 0.82 > held[1], held  # 3.5 standard errors of 120 tables below .93


def test_the_interval_holds():
    rng, noise = numpy.random.default_rng(2), 0.3
    true = alpha(made_units(rng, 20_000, noise), 1)["alpha"]
    held = [found["low"] <= true <= found["high"]
            for found in (alpha(made_units(rng, 100, noise), 200, k) for k in range(60))]
    assert numpy.mean(held) > 0.85  # 3.5 standard errors of 60 tables
