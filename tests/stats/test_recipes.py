"""Recipes: intervals and components against scipy, loops and the bootstrap, and by simulation with two to five fits.

Deliberate break: leave out the draws' term (in `contrast`, `FACTORS[1:]` in the loop over factors) and
test_one_seed_gives_the_t_interval_of_the_draws turns red.
"""

import numpy
import pytest
from scipy import stats

from common.errors import UserError
from stats.paired import difference
from stats.predictions import Predictions, Rows, pooled, resampled
from stats.recipes import ALL_ROWS, Grid, _over_posts, components, contrast, lacking, pairs_of
from tests.stats.answered import GROUPING, made_answers, made_rows


def made_recipe(rows, draws, seeds, right, seed=0, spread=0.05):
    rng = numpy.random.default_rng(seed)
    return {(i, j): made_answers(rows, int(rng.integers(1 << 40)), right + spread * rng.normal())
            for i in draws for j in seeds}


def table_of(recipe, figure="accuracy"):
    grid = Grid.of(recipe, "the")
    return numpy.array([fit.figure(figure) for fit in grid.fits]).reshape(grid.shape)


def test_one_seed_gives_the_t_interval_of_the_draws():
    # All posts in one cluster: the resampled test set is the test set, so only the draws are uncertain.
    rows = made_rows(200, 1, languages=("en",), clusters=numpy.zeros(200, dtype=int))
    first, second = made_recipe(rows, range(4), [0], 0.7, 2), made_recipe(rows, range(4), [0], 0.6, 3)
    a, b = table_of(first).ravel(), table_of(second).ravel()
    found = contrast(first, second, "accuracy", draws=20)
    theirs = stats.ttest_rel(a, b).confidence_interval()
    assert found["paired"] == ["draw", "seed"] and found["df"] == pytest.approx(3)
    assert (found["low"], found["high"]) == pytest.approx((theirs.low, theirs.high), abs=1e-8)
    other = made_recipe(rows, ["x", "y", "z"], [0], 0.6, 4, spread=0.2)  # other draws: Welch's interval
    theirs = stats.ttest_ind(a, table_of(other).ravel(), equal_var=False)
    found = contrast(first, other, "accuracy", draws=20)
    assert found["paired"] == ["seed"] and found["df"] == pytest.approx(theirs.df)
    interval = theirs.confidence_interval()
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high), abs=1e-8)
    assert found["parts"]["seed"] is None and found["notes"] == {
        "seed": "one seed: the interval does not hold for other seeds"}


def test_crossed_terms_by_hand():
    rows = made_rows(150, 5)
    first, second = made_recipe(rows, range(3), "ab", 0.7, 6), made_recipe(rows, range(3), "abc", 0.6, 7)
    found = contrast(first, second, "macro_f1", draws=4000)
    a, b = table_of(first, "macro_f1"), table_of(second, "macro_f1")
    draw = (a.mean(1) - b.mean(1)).var(ddof=1) / 3
    seed = a.mean(0).var(ddof=1) / 2 + b.mean(0).var(ddof=1) / 3
    assert found["paired"] == ["draw"] and found["value"] == pytest.approx(a.mean() - b.mean())
    assert (found["parts"]["draw"], found["parts"]["seed"]) == pytest.approx((draw, seed))
    assert found["se"] ** 2 == pytest.approx(draw + seed + found["parts"]["posts"])
    assert found["draws"].shape == (4000,)
    # Resampled draws and seeds on top of posts: further apart than posts alone, centred where the value is.
    assert found["draws"].var() > found["parts"]["posts"]
    assert found["draws"].mean() == pytest.approx(found["value"], abs=0.01)


def test_one_fit_each_is_a_paired_difference():
    rows = made_rows(300, 8)
    first, second = made_recipe(rows, [0], [0], 0.7, 9), made_recipe(rows, [0], [0], 0.5, 10)
    found = contrast(first, second, "accuracy", draws=4000)
    alone = difference(first[0, 0], second[0, 0], "accuracy")
    assert found["value"] == alone["value"] and set(found["notes"]) == {"draw", "seed"}
    assert (found["low"], found["high"]) == pytest.approx((alone["low"], alone["high"]), abs=0.01)
    same = contrast(first, first, "accuracy", draws=50)
    assert (same["value"], same["low"], same["high"]) == (0.0, 0.0, 0.0)


def test_recipes_with_holes_are_refused_and_figures_that_lack_are_nan():
    rows = made_rows(30)
    whole = made_recipe(rows, range(2), range(2), 0.6)
    holed = {key: fit for key, fit in whole.items() if key != (1, 0)}
    with pytest.raises(UserError, match="second recipe: draw 1, seed 0: no such fit; every draw"):
        contrast(whole, holed, "accuracy")
    with pytest.raises(UserError, match="the recipe: no fits"):
        components({}, "accuracy")
    silent = {**whole, (0, 0): Predictions(rows, numpy.full(30, 3))}
    name = "stance.given_detection.accuracy"
    assert numpy.isnan([contrast(silent, whole, name, draws=20)[key] for key in ("value", "low", "high")]).all()
    found = components(silent, name)
    assert found["draw"] is None and found["test_sample"] is None and "every fit" in found["notes"]["fit"]


def test_components_are_the_mean_squares_less_the_posts():
    rows = made_rows(200, 11)
    recipe = made_recipe(rows, range(3), range(4), 0.6, 12, spread=0.15)
    y = table_of(recipe)
    covariance, _ = _over_posts(Grid.of(recipe, "the").fits, "accuracy", None, "rows")
    own = covariance.reshape(3, 4, 3, 4)
    square = {"draw": 4 * y.mean(1).var(ddof=1), "seed": 3 * y.mean(0).var(ddof=1)}
    rest = y - y.mean(1, keepdims=True) - y.mean(0) + y.mean()
    fit = (rest ** 2).sum() / 6
    # Posts' part of the fits' mean square, from 40,000 normal tables with the posts' covariance.
    noise = numpy.random.default_rng(0).multivariate_normal(numpy.zeros(12), covariance, 40_000).reshape(-1, 3, 4)
    left = noise - noise.mean(2, keepdims=True) - noise.mean(1, keepdims=True) + noise.mean((1, 2), keepdims=True)
    fit -= (left ** 2).sum((1, 2)).mean() / 6
    square["draw"] -= 4 * noise.mean(2).var(1, ddof=1).mean()
    square["seed"] -= 3 * noise.mean(1).var(1, ddof=1).mean()
    found = components(recipe, "accuracy")
    assert found["fit"]["variance"] == pytest.approx(max(fit, 0), rel=0.02) and fit > 0
    assert found["draw"]["variance"] == pytest.approx(max(0, (square["draw"] - fit) / 4), abs=2e-4)
    assert found["seed"]["variance"] == pytest.approx(max(0, (square["seed"] - fit) / 3), abs=2e-4)
    assert found["test_sample"]["variance"] == pytest.approx(numpy.trace(covariance) / 12) and own.shape[0] == 3
    for name in ("draw", "seed", "fit", "test_sample"):
        assert 0 <= found[name]["low"] <= found[name]["variance"] <= found[name]["high"]


@pytest.mark.parametrize("figure, weight", [("accuracy", "rows"), ("macro_f1", "rows"), ("topic.recall", "languages"),
                                            ("stance.given_detection.accuracy", "languages")])
def test_the_influence_of_posts_agrees_with_the_bootstrap(figure, weight):
    plain = made_rows(600, 13)
    for rows in (plain, Rows(plain.ids, plain.language, plain.gold, numpy.arange(600) // 2, GROUPING)):
        fits = list(made_recipe(rows, range(2), range(1), 0.6, 14).values())
        covariance, _ = _over_posts(fits, figure, None, weight)
        drawn = numpy.concatenate([pooled(parts, figure, GROUPING, weight)
                                   for parts in resampled(fits, rows.languages, 6000, 1)])
        # A first-order formula beside 6,000 draws (2 per cent on a variance), with 50 to 200 posts per language.
        assert numpy.diag(covariance) == pytest.approx(drawn.var(0, ddof=1), rel=0.12)


def test_what_cannot_be_estimated_is_said():
    rows = made_rows(60)
    found = components(made_recipe(rows, [0], range(3), 0.6), "accuracy")
    assert found["draw"] is None and found["fit"] is None and found["seed"]["variance"] >= 0
    assert found["notes"] == {"draw": "one draw: nothing to compare it with",
                              "fit": "one draw: the fit's own part is not told from the seed's"}
    found = components(made_recipe(rows, [0], [0], 0.6), "accuracy")
    assert found["seed"] is None and found["test_sample"]["variance"] > 0 and set(found["notes"]) == {
        "draw", "seed", "fit"}


def fitted(rng, rows, shape, base, spreads, draw, common):
    """A recipe whose fits are right at rate base + draw + seed + fit, with partly shared luck of posts; the rates."""
    rate = base + draw[:, None] + rng.normal(size=shape[1]) * spreads[1] + rng.normal(size=shape) * spreads[2]
    n = len(rows.gold)
    luck = numpy.where(rng.random((*shape, n)) < 0.5, common, rng.random((*shape, n)))
    right = luck < rate[..., None]
    return {(i, j): Predictions(rows, numpy.where(right[i, j], rows.gold, (rows.gold + 1) % 4))
            for i in range(shape[0]) for j in range(shape[1])}, rate


def trial(tables, shape, spreads, seed, rows=200, draws=200):
    """Coverage of (contrast, percentiles of its draws, components draw, seed, fit, test sample) in simulated studies.
    """
    rng, covered = numpy.random.default_rng(seed), []
    for number in range(tables):
        table = made_rows(rows, int(rng.integers(1 << 40)), languages=("en",))
        common, base = rng.random(rows), 0.65
        shared = rng.normal(size=shape[0]) * spreads[0]
        half = [(shared + rng.normal(size=shape[0]) * spreads[0]) / 2 ** 0.5 for _ in range(2)]  # paired in part
        first, rate = fitted(rng, table, shape, base, spreads, half[0], common)
        second, _ = fitted(rng, table, shape, base - 0.05, spreads, half[1], common)
        found = contrast(first, second, "accuracy", draws=draws, seed=number)
        low, high = numpy.quantile(found["draws"], [0.025, 0.975])
        line = [found["low"] <= 0.05 <= found["high"], low <= 0.05 <= high]
        truth = {"draw": spreads[0] ** 2, "seed": spreads[1] ** 2, "fit": spreads[2] ** 2}
        truth["test_sample"] = (rate * (1 - rate)).mean() / rows  # of these fits
        parts = components(first, "accuracy", seed=number)
        line += [parts[name]["low"] <= value <= parts[name]["high"] for name, value in truth.items()]
        covered.append(line)
    return numpy.mean(covered, 0)


def test_intervals_of_recipes_hold():
    covered = trial(tables=80, shape=(3, 3), spreads=(0.03, 0.03, 0.02), seed=1)
    assert (covered[[0, 2, 3, 4, 5]] > 0.85).all(), covered  # four standard errors of 80 studies: .10


@pytest.mark.slow
@pytest.mark.parametrize("shape, least", [((2, 2), 0.88), ((3, 3), 0.92), ((5, 2), 0.92)])
@pytest.mark.parametrize("spreads", [(0.04, 0.04, 0.02), (0.1, 0.0, 0.0), (0.0, 0.0, 0.04)])
def test_intervals_of_recipes_hold_in_2000_studies(shape, least, spreads):
    covered = trial(tables=2000, shape=shape, spreads=spreads, seed=2)
    print(shape, spreads, covered.round(3))
    assert covered[0] > least and (covered[2:] > 0.92).all(), covered
    if spreads[0]:
        assert covered[1] < covered[0]  # percentiles of a few resampled fits are too narrow


def test_a_draw_of_all_rows_is_no_draw():
    rows = made_rows(120, 21)
    whole = {(ALL_ROWS, seed): made_answers(rows, 40 + seed, 0.7) for seed in range(3)}
    drawn = made_recipe(rows, range(3), range(3), 0.6, 22)
    assert lacking(whole, whole) == lacking(whole, drawn) == ""
    assert lacking({(0, seed): fit for (_, seed), fit in whole.items()}, whole) == "1 draw"
    assert lacking(dict(list(whole.items())[:2]), drawn) == "2 seeds" and lacking({(0, 0): whole[ALL_ROWS, 0]},
                                                                                 whole) == "1 seed, 1 draw"
    found = contrast(whole, whole, "accuracy", draws=50)
    assert found["notes"] == {} and found["parts"]["draw"] is None
    assert contrast(whole, {(0, seed): fit for (_, seed), fit in whole.items()}, "accuracy", draws=50)["notes"]
    parts = components(whole, "accuracy")
    assert parts["draw"] is None and "nothing to draw" in parts["notes"]["draw"] and parts["seed"] is not None


def test_the_points_of_all_fits_are_those_of_pairs():
    rows = made_rows(90, 23)
    first, second = made_recipe(rows, range(2), range(2), 0.7, 24), made_recipe(rows, range(2), range(2), 0.6, 25)
    found = contrast(first, second, "accuracy", draws=200)
    assert found["points"] == pytest.approx((table_of(first) - table_of(second)).ravel().tolist())
    assert numpy.mean(found["points"]) == pytest.approx(found["value"])
    assert found["posts_low"] < found["value"] < found["posts_high"]
    assert len(pairs_of(first, {("x", 0): second[0, 0], ("x", 1): second[0, 1]})) == 8
