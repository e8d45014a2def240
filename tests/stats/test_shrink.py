"""Partial pooling: against sums and integrals computed in another way, and against the raw figures by simulation.

Deliberate break: use only the likeliest m and c (in `pool_rates`, `weight = weight == weight.max()`) and
test_pooled_rates_equal_scipys_beta_binomial and test_pooled_rates_are_nearer_the_truth turn red.
"""

import numpy
import pytest
from scipy import integrate, stats

from common.errors import UserError
from report.student import t_cdf, t_quantile
from stats.predictions import Predictions, Rows
from stats.shrink import MEANS, SPREADS, partially_pooled, pool_rates, pool_values, rate_counts
from tests.stats.answered import GROUPING, made_answers, made_rows


def test_pooled_rates_equal_scipys_beta_binomial():
    right, rows = numpy.array([14, 11, 255, 25, 0]), numpy.array([25, 25, 375, 25, 10])
    total, mean, weight = 0.0, numpy.zeros(5), 0.0
    below = {0.5: 0.0}
    for m in MEANS:
        c = SPREADS**-2.0
        likelihood = numpy.prod(stats.betabinom.pmf(right[:, None], rows[:, None], m * c, (1 - m) * c), axis=0)
        total += likelihood.sum()
        mean += ((right[:, None] + m * c) / (rows[:, None] + c)) @ likelihood
        weight += m * likelihood.sum()
        below[0.5] += (stats.beta.cdf(0.5, 14 + m * c, 11 + (1 - m) * c) * likelihood).sum()
    found = pool_rates(right, rows)
    assert found.value == pytest.approx(mean / total, abs=1e-6)
    # The quantile at the level that scipy's mixture has below 0.5 must be 0.5 again.
    level = abs(1 - 2 * below[0.5] / total)
    edges = pool_rates(right, rows, level)
    assert min(abs(edges.low[0] - 0.5), abs(edges.high[0] - 0.5)) < 1e-3  # the grid of logits has steps of 0.02


def test_pooled_values_equal_an_integral():
    y, v = numpy.array([0.62, 0.35, 0.71, 0.5]), numpy.array([0.0006, 0.01, 0.002, 0.008])

    def mixture(tau):
        covariance = numpy.diag(v + tau**2)
        inverse = numpy.linalg.inv(covariance)
        ones = numpy.ones(4)
        precision = ones @ inverse @ ones
        mu = ones @ inverse @ y / precision
        # The density of y with mu summed out: generalised least squares, from the matrices.
        evidence = (numpy.linalg.det(covariance) * precision) ** -0.5 * numpy.exp(-(y - mu) @ inverse @ (y - mu) / 2)
        return evidence, mu + tau**2 * inverse @ (y - mu)

    total = integrate.quad(lambda tau: mixture(tau)[0], 0, 0.5)[0]
    mean = [integrate.quad(lambda tau, k=k: mixture(tau)[0] * mixture(tau)[1][k], 0, 0.5)[0] / total for k in range(4)]
    assert pool_values(y, v).value == pytest.approx(mean, abs=2e-4)  # [0, 1] cuts tails that the integral keeps


def test_the_ends_of_pooling():
    found = pool_rates([5_000, 9_000, 2_000], [10_000] * 3)
    assert found.value == pytest.approx([0.5, 0.9, 0.2], abs=2e-3) and (found.kept > 0.99).all()
    found = pool_rates([20, 1, 1, 1], [25, 1, 1, 1])
    assert found.kept[0] > 2 * found.kept[1] and abs(found.value[0] - 0.8) < 0.05
    for pooled in (pool_rates([25, 25, 25], [25, 25, 25]), pool_values([1, 1, 1], [0.001] * 3)):
        assert (pooled.low < pooled.value).all() and (pooled.value < 1).all() and (pooled.high <= 1).all()
    assert numpy.diff(pool_values([0.2, 0.6, 0.7], [0.01] * 3).value).min() > 0  # the order stays


def trial(truth, rows, sets, seed):
    """Mean squared error of raw and pooled rates, and how often the pooled interval contains the truth."""
    rng = numpy.random.default_rng(seed)
    raw, pooled, held = [], [], []
    for _ in range(sets):
        p = truth(rng)
        right = rng.binomial(rows, p)
        found = pool_rates(right, rows)
        raw.append((right / rows - p) ** 2)
        pooled.append((found.value - p) ** 2)
        held.append((found.low <= p) & (p <= found.high))
    return numpy.mean(raw), numpy.mean(pooled), numpy.mean(held)


ROWS = numpy.array([375, 250, *[25] * 10])  # the paper's test rows, roughly


def test_pooled_rates_are_nearer_the_truth():
    raw, pooled, held = trial(lambda rng: rng.beta(14, 6, 12), ROWS, 100, 1)
    assert pooled < 0.75 * raw
    # 1,200 values in 100 sets: a standard error of about 0.007 were they independent.
    assert 0.93 < held < 0.975


def test_intervals_cover_also_where_languages_hardly_differ():
    raw, pooled, held = trial(lambda rng: rng.beta(700, 300, 12), ROWS, 60, 2)
    assert pooled < 0.5 * raw and held > 0.95


def test_pooling_costs_little_where_languages_are_nothing_alike():
    raw, pooled, held = trial(lambda rng: rng.uniform(0.05, 0.95, 12), ROWS, 60, 3)
    assert pooled < 1.05 * raw and held > 0.92


def test_pooled_values_are_nearer_the_truth():
    rng, raw, pooled, held = numpy.random.default_rng(4), [], [], []
    v = numpy.array([0.0006, 0.001, *[0.009] * 10])
    for _ in range(60):
        truth = rng.normal(0.55, 0.07, 12)
        y = rng.normal(truth, numpy.sqrt(v))
        found = pool_values(y, v)
        raw.append((y - truth) ** 2)
        pooled.append((found.value - truth) ** 2)
        held.append((found.low <= truth) & (truth <= found.high))
    assert numpy.mean(pooled) < 0.75 * numpy.mean(raw) and 0.93 < numpy.mean(held) < 0.975


@pytest.mark.parametrize("figure", ["accuracy", "macro_f1", "topic.recall", "topic.specificity",
                                    "stance.end_to_end.accuracy"])
def test_each_language_has_its_raw_figure_beside(figure):
    rows = made_rows(200, 5, languages=("ar", "de", "en", "tr"))
    model = made_answers(rows, 6, right=0.7)
    table, pooled = partially_pooled(model, figure, draws=400)
    assert [line["language"] for line in table] == ["ar", "de", "en", "tr"]
    for line in table:
        chosen = rows.language == line["language"]
        assert line["raw"] == pytest.approx(model.figure(figure, [line["language"]]), abs=1e-12)
        assert line["raw_low"] < line["raw"] < line["raw_high"] and line["low"] < line["pooled"] < line["high"]
        assert line["small"] == rows.is_small(chosen)
        if figure != "macro_f1":
            right, n = rate_counts(figure, model.counts(chosen), GROUPING)
            assert right / n == pytest.approx(line["raw"], abs=1e-12) and n == line["n"]
    spread = numpy.ptp([line["raw"] for line in table])
    assert numpy.ptp([line["pooled"] for line in table]) < spread
    assert partially_pooled(model, figure, draws=400)[0] == table
    assert pooled.centre[1] < pooled.centre[0] < pooled.centre[2]


def test_rates_count_posts_of_one_author_as_what_they_are_worth():
    """Each post four times over, as four by one author: the same figures and intervals as once."""
    rows = made_rows(150, 5, languages=("ar", "de", "en", "tr"))
    model = made_answers(rows, 6, right=0.7)
    for figure in ("accuracy", "topic.recall"):
        found, clusters = [], numpy.arange(len(rows.gold))
        for times, groups in ((1, clusters), (4, numpy.repeat(clusters, 4)), (4, numpy.arange(4 * len(clusters)))):
            parts = [numpy.repeat(part, times) for part in (rows.ids, rows.language, rows.gold)]
            copied = Rows(*parts, groups, rows.grouping)
            found.append(partially_pooled(Predictions(copied, numpy.repeat(model.predicted, times)), figure)[0])
        for once, together, apart in zip(*found, strict=True):
            for key in ("raw", "raw_low", "raw_high", "pooled", "low", "high"):
                assert together[key] == pytest.approx(once[key], abs=0.01), (figure, key)  # t of few groups is wider
            assert apart["raw_high"] - apart["raw_low"] < 0.6 * (once["raw_high"] - once["raw_low"])


def test_cells_without_a_figure_and_perfect_cells():
    rows = made_rows(120, 7, languages=("ar", "de", "en", "tr"))
    perfect = Predictions(rows, rows.gold)
    table, pooled = partially_pooled(perfect, "macro_f1", draws=200)
    assert all(line["raw"] == 1 and line["low"] < line["pooled"] < 1 for line in table) and pooled is not None
    rows.gold[rows.language == "ar"] = 3
    table, pooled = partially_pooled(made_answers(rows, 8), "topic.recall")
    assert table[0]["raw"] is None and table[0]["pooled"] is None and table[1]["pooled"] is not None
    table, pooled = partially_pooled(perfect, "accuracy", ["de", "en"])
    assert pooled is None and table[0]["raw"] is not None and table[0]["pooled"] is None
    with pytest.raises(UserError, match="there is no 'kappa'"):
        partially_pooled(perfect, "kappa")


def test_student_equals_scipy():
    for df in (1, 2, 8, 11, 11.5, 100, 4000, 1e6):
        for t in (-30, -2.5, 0, 0.3, 2.2, 7):
            exact = stats.t.cdf(t, df)
            assert t_cdf(t, df) == pytest.approx(exact, abs=1e-10 if df < 5000 else 1e-5)
        for level in (0.5, 0.95, 0.99):
            assert t_quantile(level, df) == pytest.approx(stats.t.ppf((1 + level) / 2, df), rel=1e-6 if df < 5000
                                                         else 1e-3)


@pytest.mark.filterwarnings("error")
def test_languages_of_one_cluster_each_have_a_figure_and_no_interval_of_their_own():
    one = made_rows(60, clusters=numpy.arange(60) % 3)
    table, pooled = partially_pooled(made_answers(one, 1), "macro_f1", draws=50)
    assert all(line["raw_low"] is line["raw_high"] is None and line["low"] < line["high"] for line in table)
    assert numpy.isfinite(pooled.value).all()
