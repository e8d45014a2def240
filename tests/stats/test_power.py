"""How small a difference can be shown: known values without seeds, simulated studies with them, posts needed.

Deliberate break: in stats/power.py leave the seeds' mean out of the errors, or take the level of one contrast for a
family of several.
"""

from statistics import NormalDist

import numpy
import pytest

from report.student import t_quantile
from stats.power import Design, detectable, halves, posts_needed, width

Z = NormalDist().inv_cdf


def test_without_seeds_it_is_the_textbooks_formula():
    design = Design(posts=0.02, clusters=500)
    assert detectable(design, studies=40_000) == pytest.approx((Z(0.975) + Z(0.8)) * 0.02, rel=0.02)
    family = Design(posts=0.02, clusters=500, family=5)
    assert detectable(family, studies=40_000) == pytest.approx((Z(0.995) + Z(0.8)) * 0.02, rel=0.02)
    assert width(family) == pytest.approx(Z(0.995) * 0.02)
    needed = posts_needed(design, 0.03)
    assert needed == pytest.approx(500 * ((Z(0.975) + Z(0.8)) * 0.02 / 0.03) ** 2, rel=0.05)
    assert posts_needed(design, 0.02, of=width) == pytest.approx(500 * Z(0.975) ** 2, rel=0.01)


def test_seeds_alone_give_the_t_test():
    design = Design(posts=1e-9, clusters=500, seed=0.03, seeds=4)
    error, half = halves(design, 20_000)
    values = 0.03 * numpy.random.default_rng(1).normal(size=(20_000, 4))
    assert error.std() == pytest.approx(0.015, rel=0.03)
    by_hand = t_quantile(0.95, 3) * values.std(1, ddof=1) / 2
    assert numpy.median(half) == pytest.approx(numpy.median(by_hand), rel=0.03)
    assert posts_needed(design, 0.02) is None  # no number of posts makes up for seeds


@pytest.mark.parametrize("design", [Design(0.02, 300, 0.02, 0.0, 3, 0, 3), Design(0.03, 120, 0.02, 0.02, 3, 3, 1)])
def test_that_difference_is_shown_by_80_of_100_studies(design):
    smallest = detectable(design)
    rng, shown = numpy.random.default_rng(7), []
    for _ in range(500):
        parts, value = [(design.posts ** 2, design.clusters - 1)], smallest + design.posts * rng.normal()
        for sd, count in ((design.seed, design.seeds), (design.draw, design.draws)):
            if count:
                own = sd * rng.normal(size=count)
                value += own.mean()
                parts.append((own.var(ddof=1) / count, count - 1))
        variance = sum(v for v, _ in parts)
        df = variance ** 2 / sum(v ** 2 / d for v, d in parts)
        shown.append(abs(value) > t_quantile(1 - 0.05 / design.family, df) * variance ** 0.5)
    assert numpy.mean(shown) == pytest.approx(0.8, abs=0.075)  # four standard errors, and 4,000 studies of its own


def test_more_posts_and_more_seeds_show_smaller_differences():
    design = Design(0.03, 200, 0.02, 0.0, 3)
    assert detectable(design.with_posts(800)) < detectable(design)
    assert detectable(Design(0.03, 200, 0.02, 0.0, 8)) < detectable(design)
    assert not Design(0.03, 200, seeds=2).holds_for_others and not Design(0.03, 200, seeds=3, draws=2).holds_for_others
    assert Design(0.03, 200, seeds=3, draws=0).holds_for_others
