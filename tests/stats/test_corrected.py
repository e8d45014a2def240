"""Intervals of a language-equal macro-F1 of small languages: how often they hold, beside percentiles.

Deliberate break: in stats/corrected.py return percentiles for weight "languages" as well, and the coverage falls to
.91; or leave the spread of the biases out of the covariance.
"""

import numpy
import pytest

from report.counts import Grouping
from report.student import t_quantile
from stats import corrected
from stats.families import family
from stats.paired import difference
from stats.predictions import Predictions, Rows, figure_of, pooled, resampled
from tests.stats.answered import made_answers, made_rows

LABELS = Grouping(("pro", "anti", "neutral", "unrelated"), ("pro", "anti", "neutral"))
CODES = tuple("abcdefghij")


def population(rng):
    """(10, 4, 4): shares of gold and predicted labels in each language, as unequal as those of tweets."""
    prior = rng.dirichlet([3, 3, 2, 6], size=10)
    right = rng.uniform(0.5, 0.85, size=(10, 1, 1))
    return prior[..., None] * ((1 - right) * rng.dirichlet([2] * 4, size=(10, 4)) + right * numpy.eye(4))


def truth(shares, figure):
    flat = numpy.zeros((10, LABELS.width))
    flat[:, :20] = numpy.concatenate([shares, numpy.zeros((10, 4, 1))], -1).reshape(10, 20)
    return float(figure_of(figure, flat, LABELS).mean())


def coverage(tables, figures, draws, seed, rows=25):
    """(figures, 2): how often the interval, and percentiles, hold the truth of ten languages with `rows` rows."""
    rng, held = numpy.random.default_rng(seed), []
    language = numpy.repeat(numpy.array(CODES, dtype=object), rows)
    for number in range(tables):
        shares = population(rng)
        cells = numpy.concatenate([rng.choice(16, rows, p=one.ravel() / one.sum()) for one in shares])
        table = Rows(numpy.arange(10 * rows), language, cells // 4, numpy.arange(10 * rows), LABELS)
        model, line = Predictions(table, cells % 4), []
        parts = list(resampled([model], CODES, draws, number))
        for figure in figures:
            drawn = numpy.concatenate([pooled(one, figure, LABELS, "languages")[:, 0] for one in parts])
            value, wanted = model.figure(figure, CODES, "languages"), truth(shares, figure)
            ends = (corrected.interval(value, drawn, [model], 1, figure, CODES, kind) for kind in ("languages", "rows"))
            line.append([low <= wanted <= high for low, high in ends])
        held.append(line)
    return numpy.mean(held, 0)


def test_bias_and_error_are_those_of_leaving_out_each_cluster():
    rows = made_rows(40, 3, languages=("de", "en"), clusters=numpy.arange(40) // 4 * 2 + numpy.arange(40) % 2)
    models = [made_answers(rows, seed, 0.7) for seed in (1, 2)]
    bias, covariance, freedom = corrected.jackknife(models, "macro_f1", ["de", "en"])
    whole = numpy.array([model.figure("macro_f1", None, "languages") for model in models])
    by_hand, square, each = numpy.zeros(2), numpy.zeros((2, 2)), []
    for code in ("de", "en"):
        names = numpy.unique(rows.clusters[rows.language == code])
        left = []
        for name in names:
            keep = rows.clusters != name
            part = Rows(*(array[keep] for array in (rows.ids, rows.language, rows.gold, rows.clusters)), rows.grouping)
            left.append([Predictions(part, model.predicted[keep]).figure("macro_f1", None, "languages")
                         for model in models])
        left, n = numpy.array(left), len(names)
        by_hand += (n - 1) * (left.mean(0) - whole)
        square += (n - 1) / n * (left - left.mean(0)).T @ (left - left.mean(0))
        each.append((n - 1) * (left.mean(0) - whole))
    apart = each - numpy.mean(each, 0)
    square += 2 / 1 * apart.T @ apart  # two languages: L / (L - 1)
    assert bias == pytest.approx(by_hand) and covariance == pytest.approx(square) and freedom == 18


def test_the_interval_is_centred_on_the_value_less_its_bias():
    rows = made_rows(120, 3)
    one, other = made_answers(rows, 1, 0.7), made_answers(rows, 2, 0.5)
    found = difference(one, other, "macro_f1", weight="languages", draws=500)
    bias, error, freedom = corrected.of_sides([one, other], 1, "macro_f1", rows.languages, "languages")
    half = t_quantile(0.95, freedom) * error
    assert (found["low"], found["high"]) == pytest.approx((found["value"] - bias - half, found["value"] - bias + half))
    assert error == pytest.approx(found["draws"].std(), rel=0.25)
    percent = corrected.interval(0.5, numpy.array([0.4, 0.5, 0.6, numpy.nan]), [one], 1, "accuracy", ["de"], "rows")
    assert percent == pytest.approx((0.405, 0.595))


def single(clusters):
    """Two models on 60 posts of three languages."""
    rows = made_rows(60, 3, clusters=clusters)
    return made_answers(rows, 1, 0.7), made_answers(rows, 2, 0.5)


def test_a_language_of_one_cluster_leaves_no_interval_and_no_p():
    """Its posts say nothing of how its clusters differ; an error of 0 in its place made the interval too narrow."""
    one, other = single(numpy.where(numpy.arange(60) % 3 == 2, 1000, numpy.arange(60)))
    found = difference(one, other, "macro_f1", weight="languages", draws=200)
    assert numpy.isfinite(found["value"]) and numpy.isnan([found["low"], found["high"]]).all()
    both = [(f"{k}", one, other, "macro_f1", codes, "languages") for k, codes in enumerate((None, ["de", "en"]))]
    lines = family(both, draws=200)
    keys = ("low", "high", "simultaneous_low", "simultaneous_high")
    assert numpy.isnan([lines[0][key] for key in keys]).all()
    assert numpy.isfinite([lines[1][key] for key in keys]).all() and lines[1]["low"] < lines[1]["high"]
    recipes = [{(draw, seed): fit for draw in range(3) for seed in range(3)} for fit in (one, other)]
    line, whole = family([(name, *recipes, "macro_f1", codes, "languages") for name, *_, codes, _ in both], draws=200)
    assert numpy.isnan([line["p"], line["low"]]).all() and whole["p"] < 1


def test_answers_that_are_all_alike_leave_no_interval_of_their_difference():
    """That two models agree on sixty posts does not say that they agree on all others."""
    one, other = single(None)
    alike = Predictions(one.rows, one.predicted.copy())
    for weight in ("rows", "languages"):
        found, between = (difference(one, second, "macro_f1", weight=weight, draws=100) for second in (alike, other))
        assert found["value"] == 0 and numpy.isnan([found["low"], found["high"]]).all()
        assert between["low"] < between["value"] < between["high"]


def test_a_family_shows_nothing_of_posts_that_are_one_cluster():
    """Its band had no width and so left out zero, though the contrast alone had no interval."""
    one, other = single(numpy.zeros(60, dtype=int))
    lines = family([(figure, one, other, figure, ["de"], "rows") for figure in ("accuracy", "macro_f1")], draws=200)
    for line in lines:
        assert line["value"] > 0 and line["p"] == 1
        assert numpy.isnan([line[key] for key in ("low", "high", "simultaneous_low", "simultaneous_high")]).all()


def test_one_cluster_over_two_languages_does_no_harm():
    one, other = single(numpy.where(numpy.isin(numpy.arange(60), (0, 1)), 1000, numpy.arange(60)))
    found = difference(one, other, "macro_f1", weight="languages", draws=200)
    assert found["low"] < found["value"] < found["high"]


def test_the_interval_holds_more_often_than_percentiles():
    held = coverage(tables=60, figures=("topic.macro_f1",), draws=150, seed=1)
    assert held[0, 0] > 0.85 and held[0, 0] >= held[0, 1]


@pytest.mark.slow
def test_it_holds_94_of_100_truths_in_2000_tables():
    figures = ("topic.macro_f1", "macro_f1")
    held = coverage(tables=2000, figures=figures, draws=400, seed=2)
    print(dict(zip(figures, held.round(3).tolist(), strict=True)))
    assert ((held[:, 0] >= 0.94) & (held[:, 0] <= 0.97)).all() and (held[:, 1] < 0.93).all()
