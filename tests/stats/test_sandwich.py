"""What a coefficient rests on: degrees of freedom, which have no interval, what is refused, and how often the others
cover.

Deliberate break: take G - p for the degrees of freedom, or set FEWEST and EVENTS to 0; the coverage turns red.
"""

from dataclasses import replace

import numpy
import pytest

from common.errors import UserError
from report.student import t_quantile
from stats.regression import Question, regression
from stats.sandwich import EVENTS, FEWEST, Sample

WAYS = ("coded", "ppi", "dsl")


def level(codes, rate=0.35, model="linear", seed=0, others=300, authors=0, right=0.85):
    """A level of 1,000 posts with `codes` codes beside 4,000 posts with `others`, outcome and machine alike in both; or
    one of `authors` authors of fifty posts, ten of them coded, beside a hundred authors of twenty."""
    stream = numpy.random.default_rng(seed)
    if authors:
        cluster = numpy.r_[numpy.repeat(numpy.arange(100), 20), numpy.repeat(100 + numpy.arange(authors), 50)]
        sizes, drawn = (2000, 50 * authors), (250, 10 * authors)
        chance = 1 / (1 + numpy.exp(0.6 - 0.6 * stream.normal(size=100 + authors)[cluster]))
    else:
        cluster, sizes, drawn = None, (4000, 1000), (others, codes)
        chance = numpy.full(5000, rate)
    posts = sum(sizes)
    x = (numpy.arange(posts) >= sizes[0]).astype(float)
    y = (stream.random(posts) < chance).astype(float)
    said = numpy.where(stream.random(posts) < right, y, 1 - y)
    post = numpy.r_[stream.choice(sizes[0], drawn[0], replace=False),
                    sizes[0] + stream.choice(sizes[1], drawn[1], replace=False)]
    pi = numpy.repeat([drawn[0] / sizes[0], drawn[1] / sizes[1]], drawn)
    matrix = numpy.column_stack([numpy.ones(posts), x])
    asked = Question(model, ["(intercept)", "x"], matrix, said, matrix[post], y[post], (),
                     numpy.column_stack([1 - said, said]))
    return asked, Sample(post, pi, numpy.repeat([0, 1], drawn), cluster)


def test_a_level_rests_on_its_own_codes():
    asked, sample = level(12)
    asked.coded_outcome[300:] = numpy.arange(12) % 2
    found = regression(asked, sample)[0]
    assert found[1].reach == pytest.approx((1 / 300 + 1 / 12) ** 2 / (1 / 300**3 + 1 / 12**3))
    assert found[1].coded.freedom == found[1].ppi.freedom == found[1].dsl.freedom == found[1].reach - 1
    assert found[0].reach == pytest.approx(300) and found[0].coded.freedom == pytest.approx(299)
    one = found[1].dsl
    assert (one.low, one.high) == pytest.approx([one.estimate + sign * t_quantile(0.95, one.freedom) * one.error
                                                 for sign in (-1, 1)])
    assert found[1].naive.freedom > 900  # which rests on the posts themselves
    by_author = regression(*level(0, authors=15))[0][1]
    assert 15 < by_author.reach < 40 and by_author.naive.freedom < 40  # of 115, of which fifteen are the level's


@pytest.mark.parametrize("model", ["linear", "logistic"])
def test_what_too_few_codes_stand_behind_has_no_interval(model):
    asked, sample = level(20, model=model)
    inside = numpy.flatnonzero(asked.coded_matrix[:, 1] == 1)
    for ones, there in ((EVENTS, True), (EVENTS - 1, False), (20 - EVENTS, True), (21 - EVENTS, False)):
        asked.coded_outcome[inside] = numpy.arange(20) < ones
        found = regression(asked, sample)[0]
        assert found[1].events == pytest.approx(min(ones, 20 - ones)) and found[0].dsl.low is not None
        for way in WAYS:
            one = getattr(found[1], way)
            assert one.estimate is not None and (one.low is not None) is there and (one.error is not None) is there
    for codes, there in ((FEWEST, True), (FEWEST - 2, False)):
        asked, sample = level(codes, model=model, rate=0.5, seed=1)
        asked.coded_outcome[300:] = numpy.arange(codes) % 2
        assert (regression(asked, sample)[0][1].ppi.low is not None) is there


@pytest.mark.parametrize("model", ["linear", "logistic"])
def test_covariances_give_the_error_of_any_contrast(model):
    """That between two levels is the coefficient of the one where the other is left out."""
    asked, sample = level(60, model=model)
    other = numpy.arange(5000) % 3 == 1
    asked.matrix[:, 1] *= ~other
    columns = {name: asked.matrix[:, 1] if name == "x" else other * 1.0 for name in "xz"}
    columns["rest"] = 1 - columns["x"] - columns["z"]
    ones, errors = numpy.ones(5000), {}
    for pair in (("x", "z"), ("x", "rest")):
        matrix = numpy.column_stack([ones, *(columns[name] for name in pair)])
        found = regression(replace(asked, names=["(intercept)", *pair], matrix=matrix,
                                   coded_matrix=matrix[sample.post]), sample)[0]
        for way in ("naive", "coded"):
            fitted = [getattr(one, way) for one in found]
            v = numpy.array([one.covariances for one in fitted])
            assert v == pytest.approx(v.T, rel=1e-9) and [one.error**2 for one in fitted] == pytest.approx(v.diagonal())
            against = numpy.array([0, 1, -1]) if pair[1] == "z" else numpy.array([0, 1, 0])
            errors.setdefault(way, []).append((against @ v @ against) ** 0.5)
    for two in errors.values():
        assert two[0] == pytest.approx(two[1], rel=1e-8)


def test_rows_of_a_stratum_outside_the_regression_count_with_zero():
    """A mean of those posts that have a value; the rows of the whole sample, most of them without one."""
    stream = numpy.random.default_rng(3)
    pi, stratum, y = numpy.repeat([0.1, 0.3], [120, 90]), numpy.repeat([0, 1], [120, 90]), stream.random(210) < 0.4
    y, inside = numpy.where(stratum == 1, 1.0 * y, 0.0), stream.random(210) < 0.4
    ones, rows = numpy.ones((700, 1)), numpy.flatnonzero(inside)
    sample = Sample(numpy.arange(len(rows)), pi[rows], stratum[rows], drawn=numpy.array([120, 90]))
    asked = Question("linear", ["(intercept)"], ones, stream.random(700), ones[rows], y[rows], (), ones)
    o = inside / pi / (inside / pi).sum()
    u = o * (y - o @ y)
    wanted = ((u / (1 - o)) ** 2).sum() - sum(
        (stratum == s).sum() * (1 - pi[stratum == s][0]) * u[stratum == s].mean() ** 2 for s in (0, 1))
    assert regression(asked, sample)[0][0].coded.error ** 2 == pytest.approx(wanted, rel=1e-9)


def test_what_has_no_interval_has_no_covariance():
    asked, sample = level(FEWEST - 2, rate=0.5, seed=1)
    asked.coded_outcome[300:] = numpy.arange(FEWEST - 2) % 2
    there, few = regression(asked, sample)[0]
    assert there.dsl.to_dict()["covariances"] == [pytest.approx(there.dsl.error**2), None]
    assert few.dsl.to_dict()["covariances"] is None


def test_numbers_as_outcome_have_no_events():
    asked, sample = level(30)
    y = numpy.random.default_rng(1).normal(size=5000)
    asked = replace(asked, outcome=y, coded_outcome=y[sample.post], labelled=(1,))  # the level is a label here
    found = regression(asked, sample)[0]
    assert found[1].events is None and found[1].coded.low is not None and found[1].reach == pytest.approx(30, rel=0.25)


def test_what_rests_on_one_post_or_one_cluster_is_refused():
    with pytest.raises(UserError, match="'x' rests on a single coded post, so nothing tells how much it varies"):
        regression(*level(1))
    with pytest.raises(UserError, match="'x' rests on a single cluster with codes"):
        regression(*level(0, authors=1))
    asked, sample = level(40)
    asked.coded_matrix[:, 1] = numpy.arange(340) == 7  # a label that one coded post has, as the regressor
    asked = replace(asked, labelled=(1,))
    with pytest.raises(UserError, match="'x' rests on a single coded post"):
        regression(asked, sample)


def test_where_the_value_that_is_left_out_has_one_code_it_is_said():
    def columns(value):  # 0 is left out, 1 and 2 have a column
        return numpy.column_stack([numpy.ones(len(value)), value == 1, value == 2]).astype(float)

    asked, sample = level(150)
    codes = 1 + numpy.arange(450) % 2
    codes[0] = 0
    asked = replace(asked, names=["(intercept)", "language: en", "language: es"],
                    matrix=columns(numpy.arange(5000) % 3), coded_matrix=columns(codes))
    with pytest.raises(UserError, match="the value that is left out beside 'language: en' rests on a single coded"):
        regression(asked, sample)


def test_a_machine_that_never_gives_the_label_has_no_naive_coefficient():
    asked, sample = level(60, model="logistic")
    asked.outcome[:] = 0
    found, tuned = regression(asked, sample)
    assert all(one.naive.estimate is None for one in found)
    assert found[1].coded.low < found[1].ppi.estimate < found[1].coded.high and 0 <= tuned <= 1


def held(times: int, **words) -> dict[str, tuple[float, float]]:
    """Of each way: how often its interval holds 0, where there is one; and how often there is none."""
    inside = {way: [] for way in WAYS}
    for seed in range(times):
        one = regression(*level(seed=seed, **words))[0][1]
        for way in WAYS:
            got = getattr(one, way)
            inside[way].append(numpy.nan if got.low is None else got.low <= 0 <= got.high)
    return {way: (float(numpy.nanmean(found)), float(numpy.isnan(found).mean())) for way, found in inside.items()}


def test_intervals_of_small_levels_cover_in_a_short_simulation():
    for words in ({"codes": 12}, {"codes": 0, "authors": 12}):
        found = held(60, **words)
        assert min(inside for inside, _ in found.values()) > 0.85, (words, found)


@pytest.mark.slow
@pytest.mark.parametrize("words", [{"codes": 10}, {"codes": 15}, {"codes": 30}, {"codes": 30, "rate": 0.1},
                                   {"codes": 100, "rate": 0.04}, {"codes": 0, "authors": 10},
                                   {"codes": 0, "authors": 20}], ids=str)
def test_intervals_of_small_levels_cover(words):
    found = held(800, **words)
    print(words, found)
    assert all(0.9 < inside <= 1 for inside, _ in found.values()), found


@pytest.mark.slow
@pytest.mark.parametrize("codes", [300, 600, 1000])
def test_a_rare_label_drawn_by_the_machine_s_is_held_less_often(codes):
    """Two or three posts in a hundred have the label, and half of the codes are of posts that the machine gives it."""
    inside = {way: [] for way in WAYS}
    truth = 0.7
    for seed in range(600):
        stream = numpy.random.default_rng(seed)
        x = (stream.random(10_000) < 0.4).astype(float)
        y = (stream.random(10_000) < 1 / (1 + numpy.exp(4 - truth * x))).astype(float)
        said = (stream.random(10_000) < numpy.where(y == 1, 0.7, 0.02)).astype(float)
        parts = [stream.choice(numpy.flatnonzero(said == k), min(int((said == k).sum()), codes // 2), replace=False)
                 for k in (0, 1)]
        post, stratum = numpy.concatenate(parts), numpy.repeat([0, 1], [len(part) for part in parts])
        pi = numpy.array([len(part) / (said == k).sum() for k, part in enumerate(parts)])[stratum]
        matrix = numpy.column_stack([numpy.ones(10_000), x])
        asked = Question("logistic", ["(intercept)", "x"], matrix, said, matrix[post], y[post], (),
                         numpy.column_stack([1 - said, said]))
        one = regression(asked, Sample(post, pi, stratum))[0][1]
        for way in WAYS:
            got = getattr(one, way)
            inside[way].append(numpy.nan if got.low is None else got.low <= truth <= got.high)
    found = {way: float(numpy.nanmean(held)) for way, held in inside.items()}
    print(codes, found)
    assert all(0.85 < held < 0.94 for held in found.values()), found
