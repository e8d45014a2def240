"""Families of contrasts: Holm by hand and against statsmodels, and bands that hold together as often as their level.

Deliberate break: take one contrast's quantile instead of the maximum's (in `simultaneous`, `critical` from `t[:, 0]`)
and test_bands_hold_all_at_once turns red.
"""

import numpy
import pytest
import scipy.stats

from common.errors import UserError
from report.student import t_quantile
from stats import corrected
from stats.families import RECIPES, SEEDS, THESE, Contrast, family, holds_for, holm, simultaneous
from stats.paired import difference, mcnemar, permutation
from stats.predictions import Predictions, Rows, figure_of
from stats.recipes import ALL_ROWS, contrast
from tests.stats.answered import GROUPING, made_answers, made_rows


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]).tolist() == [1.0, 1.0] and holm([0.2]).tolist() == [0.2] and holm([]).size == 0
    with_none = holm([0.01, numpy.nan, 0.02])  # three were declared
    assert with_none[[0, 2]].tolist() == pytest.approx([0.03, 0.04]) and numpy.isnan(with_none[1])


def test_holm_equals_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    rng = numpy.random.default_rng(1)
    for k in (1, 2, 7, 40):
        p = rng.random(k) ** 3
        assert holm(p) == pytest.approx(multitest.multipletests(p, method="holm")[1], abs=1e-14)


def test_bands_of_normal_draws_have_known_widths():
    rng = numpy.random.default_rng(2)
    draws = rng.normal(size=(40_000, 5)) * [1, 2, 3, 4, 5] + 7
    bands = simultaneous([7.0] * 5, draws)
    # Independent normals: the quantile of the largest of five |z| is z at (1 + .95 ** (1 / 5)) / 2, 2.569.
    assert (bands[:, 1] - 7) / [1, 2, 3, 4, 5] == pytest.approx([2.569] * 5, abs=0.04)
    same = simultaneous([7.0] * 3, numpy.repeat(draws[:, :1], 3, axis=1))
    assert (same[:, 1] - 7) == pytest.approx([1.96] * 3, abs=0.03)  # one contrast, thrice: nothing to correct
    assert simultaneous([7.0], draws[:, :1]) == pytest.approx(same[:1])


def test_bands_without_spread_or_without_a_value():
    draws = numpy.random.default_rng(3).normal(size=(500, 3))
    draws[:, 1] = 0.0
    draws[:, 2] = numpy.nan
    bands = simultaneous([0.0, 0.0, numpy.nan], draws)
    assert numpy.isnan(bands[1:]).all()
    assert bands[0] == pytest.approx(simultaneous([0.0], draws[:, :1])[0])
    assert numpy.isnan(simultaneous([0.0], numpy.zeros((10, 1)))).all()
    some = numpy.where(numpy.arange(500) % 5 == 0, numpy.nan, draws[:, 0])  # a figure that some draws lack
    half = numpy.quantile(numpy.abs(numpy.nan_to_num(some)), 0.95)
    assert simultaneous([0.0], some[:, None])[0] == pytest.approx([-half, half])


def test_a_family_is_made_from_the_same_posts():
    rows = made_rows(240, seed=4)
    one, two, three = made_answers(rows, 5, 0.7), made_answers(rows, 6, 0.6), made_answers(rows, 7, 0.5)
    declared = [("a", one, two, "accuracy", None, "rows"), ("b", two, one, "accuracy", None, "rows"),
                Contrast("c", one, three, "macro_f1", ["de", "en"], "languages"), ("d", one, three, "topic.recall")]
    found = family(declared, draws=2000, seed=1)
    assert [row["name"] for row in found] == ["a", "b", "c", "d"]
    a, b, c, d = found
    assert a["value"] == -b["value"] and a["value"] == pytest.approx(a["first"] - a["second"])
    assert (a["low"], a["simultaneous_low"]) == pytest.approx((-b["high"], -b["simultaneous_high"]), abs=1e-12)
    for row in found:
        assert row["simultaneous_low"] < row["low"] < row["value"] < row["high"] < row["simultaneous_high"]
    assert a["test"] == "McNemar, exact" and a["p"] == mcnemar(one, two)["p"]
    assert (c["test"], d["test"]) == ("permutation", "sign flip over clusters, exact")
    assert c["languages"] == ["de", "en"]
    assert c["p"] == permutation(one, three, "macro_f1", ["de", "en"], "languages", draws=2000, seed=1)["p"]
    assert [row["p_holm"] for row in found] == holm([row["p"] for row in found]).tolist()
    alone = difference(one, three, "topic.recall", draws=2000)  # other random numbers, the same distribution
    assert [d["low"], d["high"]] == pytest.approx([alone["low"], alone["high"]], abs=0.02)
    assert family([]) == []
    with pytest.raises(UserError, match="different tables"):
        family([*declared, ("e", made_answers(made_rows(20), 1), one, "accuracy")])


def test_clusters_take_mcnemars_place():
    rows = made_rows(60, seed=8, clusters=numpy.arange(60) // 3)
    one, two = made_answers(rows, 9, 0.8), made_answers(rows, 10, 0.4)
    [found] = family([("a", one, two, "accuracy")], draws=200)
    assert found["test"] == "sign flip over clusters, exact" and found["p"] == mcnemar(one, two)["p_clusters"]


def together(tables, rows, draws, seed):
    """How often six contrasts' bands all hold, and their separate intervals; how often Holm makes a false claim."""
    rng = numpy.random.default_rng(seed)
    prior, rates = numpy.array([0.4, 0.3, 0.2, 0.1]), (0.65, 0.55, 0.65, 0.6)
    figures = ("accuracy", "macro_f1")

    def truth(name, rate):
        flat = numpy.zeros(GROUPING.width)
        flat[:20].reshape(4, 5)[:] = prior[:, None] * ((1 - rate) / 5 + rate * numpy.eye(4, 5))
        return figure_of(name, flat, GROUPING)

    bands, alone, false = [], [], []
    for number in range(tables):
        table = made_rows(rows, seed=int(rng.integers(1 << 40)), languages=("en",), prior=prior)
        u, noise = rng.random(rows), rng.choice(5, rows)
        models = []
        for rate in rates:
            shared = rng.random(rows) < 0.5
            luck = numpy.where(shared, u, rng.random(rows))
            other = numpy.where(shared, noise, rng.choice(5, rows))
            models.append(Predictions(table, numpy.where(luck < rate, table.gold, other)))
        declared = [(f"{k} {name}", models[0], models[k], name) for k in (1, 2, 3) for name in figures]
        truths = [truth(name, rates[0]) - truth(name, rates[k]) for k in (1, 2, 3) for name in figures]
        found = family(declared, draws=draws, seed=number, error=1.0)
        pairs = list(zip(found, truths, strict=True))
        bands.append(all(f["simultaneous_low"] <= t <= f["simultaneous_high"] for f, t in pairs))
        alone.append(all(f["low"] <= t <= f["high"] for f, t in pairs))
        false.append(any(f["p_holm"] <= 0.05 and t == 0 for f, t in pairs))
    return numpy.mean(bands), numpy.mean(alone), numpy.mean(false)


def test_bands_hold_all_at_once():
    bands, alone, false = together(tables=80, rows=150, draws=300, seed=5)
    assert bands > 0.87 and alone < bands and false < 0.13  # 3.3 standard errors of 80 tables


@pytest.mark.slow
def test_bands_hold_all_at_once_in_2000_tables():
    bands, alone, false = together(tables=2000, rows=200, draws=600, seed=6)
    print("bands, intervals alone, false claims:", bands, alone, false)
    assert abs(bands - 0.95) < 0.02 and alone < 0.9 and false < 0.065


def test_spanning_clusters_serve_a_family_too():
    rows = Rows(numpy.arange(40).astype(str).astype(object), numpy.repeat(["de", "en"], 20).astype(object),
                numpy.tile(numpy.arange(20) % 4, 2), numpy.tile(numpy.arange(20), 2), GROUPING)
    one, two = made_answers(rows, 1, 0.8), made_answers(rows, 2, 0.3)
    [found] = family([("a", one, two, "macro_f1")], draws=300)
    assert found["low"] < found["value"] < found["high"] and found["test"].startswith("permutation")


def recipe(rows, seeds, right, seed, draw=ALL_ROWS):
    return {(draw, j): made_answers(rows, 100 * seed + j, right) for j in range(seeds)}


def test_the_shown_interval_and_p_are_of_all_fits():
    rows = made_rows(150, 30)
    many, other, two = recipe(rows, 3, 0.75, 1), recipe(rows, 3, 0.5, 2), recipe(rows, 2, 0.6, 3)
    found = family([("a", many, other, "macro_f1", None, "languages"), ("b", two, other, "accuracy"),
                    ("c", many, two[ALL_ROWS, 0], "accuracy")], draws=400)
    a, b, c = found
    whole = contrast(many, other, "macro_f1", None, "languages", 400, 0)
    assert a["holds"] == SEEDS and (a["value"], a["low"], a["high"]) == (whole["value"], whole["low"], whole["high"])
    assert len(a["points"]) == 3 and a["value"] == pytest.approx(numpy.mean(a["points"]))
    half = t_quantile(1 - 0.05 / 3, whole["df"]) * whole["se"]
    bias = corrected.of_sides([*many.values(), *other.values()], 3, "macro_f1", rows.languages, "languages")[0]
    centre = a["value"] - bias
    assert (a["simultaneous_low"], a["simultaneous_high"]) == pytest.approx((centre - half, centre + half))
    theirs = scipy.stats.t.sf(abs(centre) / whole["se"], whole["df"]) * 2
    assert a["p"] == pytest.approx(theirs, rel=1e-6) and a["test"].startswith("t with")
    assert b["holds"] == c["holds"] == THESE and b["lacking"] == "2 seeds" and c["lacking"] == "1 seed, 1 draw"
    assert b["value"] == pytest.approx(b["first"] - b["second"]) and c["test"].startswith("z")
    assert all(row["simultaneous_low"] < row["low"] <= row["high"] < row["simultaneous_high"] for row in found)
    # A single fit stands for itself: no first fit speaks for the others.
    assert b["value"] != two[ALL_ROWS, 0].figure("accuracy") - other[ALL_ROWS, 0].figure("accuracy")


def test_draws_are_named_only_where_some_were_made():
    rows = made_rows(40, 8)
    whole, other = (recipe(rows, 3, 0.7, seed) for seed in (1, 2))
    drawn = {key: fit for draw in range(3) for key, fit in recipe(rows, 3, 0.6, 10 + draw, draw).items()}
    assert holds_for(whole, other) == SEEDS and "draws" not in SEEDS
    assert holds_for(whole, drawn) == holds_for(drawn, whole) == RECIPES
    assert holds_for(whole, recipe(rows, 2, 0.7, 3)) == THESE


def test_z_is_of_the_corrected_value():
    rows = made_rows(60, 32)
    two, one = recipe(rows, 2, 0.6, 6), made_answers(rows, 7, 0.3)
    [found] = family([("a", two, one, "macro_f1", None, "languages")], draws=400)
    bias, se, _ = corrected.of_sides([*two.values(), one], 2, "macro_f1", rows.languages, "languages")
    assert abs(bias) > 0.05 * se and found["test"].startswith("z")
    half = 400 / 399  # the draws' sd has n - 1 below, the corrected spread n
    assert found["p"] == pytest.approx(2 * scipy.stats.norm.sf(abs(found["value"] - bias) / se / half**0.5), rel=1e-9)


def test_fits_of_equal_number_are_swapped_together():
    rows = made_rows(90, 31)
    one, other = recipe(rows, 2, 0.75, 4), recipe(rows, 2, 0.55, 5)
    [found] = family([("a", one, other, "macro_f1")], draws=300)
    assert found["holds"] == THESE and found["test"] == "permutation"
    assert found["p"] == permutation(list(one.values()), list(other.values()), "macro_f1", draws=300)["p"]
