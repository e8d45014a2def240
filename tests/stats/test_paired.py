"""Two models on the same posts: tests against scipy, statsmodels and brute force, intervals by simulation.

Deliberate break: swap rows instead of clusters (in `_swaps`, replace `rows.clusters[chosen]` by
`numpy.arange(chosen.sum())`) and test_permutation_equals_every_swap_by_hand turns red.
"""

import itertools

import numpy
import pytest
from scipy import stats

from common.errors import UserError
from stats.paired import binomial, difference, mcnemar, paired_rates, permutation, sign_flip
from stats.predictions import Predictions, Rows, figure_of
from tests.stats.answered import GROUPING, made_answers, made_rows, slow_figure


def pair(n=200, seed=0, follow=0.5, **keywords):
    rows = made_rows(n, seed, **keywords)
    first = made_answers(rows, seed + 1)
    return first, made_answers(rows, seed + 2, like=first, follow=follow)


def test_mcnemar_equals_the_binomial_test():
    for seed in range(20):
        first, second = pair(60, 10 * seed)
        found = mcnemar(first, second)
        n01 = int((second.correct & ~first.correct).sum())
        n10 = int((first.correct & ~second.correct).sum())
        assert (found["rows"], found["n01"], found["n10"]) == (60, n01, n10) and n01 + n10
        assert found["p"] == pytest.approx(stats.binomtest(n01, n01 + n10).pvalue, rel=1e-12)
        assert found["difference"] == pytest.approx(first.figure("accuracy") - second.figure("accuracy"), abs=1e-14)
        assert found["rows_in_clusters"] == 0 and found["p_clusters"] is None
    assert mcnemar(first, first)["p"] == 1.0


def test_mcnemar_equals_statsmodels():
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    for first, second in (pair(40, 1), pair(300, 2), pair(300, 3, follow=0.9)):
        found = mcnemar(first, second)
        theirs = tables.mcnemar([[0, found["n10"]], [found["n01"], 0]], exact=True)
        assert found["p"] == pytest.approx(theirs.pvalue, rel=1e-10)


def gains_of(n01: int, n10: int, n: int) -> numpy.ndarray:
    return numpy.repeat([1, -1, 0], [n01, n10, n - n01 - n10])


def test_the_interval_of_paired_rates_by_hand():
    # The 21 children of Bentur et al. (2009), the example of Fagerland et al.: one and seven of them changed.
    root = (10 / 23 - (6 / 23) ** 2) ** 0.5 / 23**0.5
    apart = numpy.arange(21)
    found = paired_rates(gains_of(1, 7, 21), apart)
    assert found == pytest.approx((-6 / 23 - 1.959964 * root, -6 / 23 + 1.959964 * root))
    assert paired_rates(gains_of(1, 7, 21), apart) == pytest.approx((-0.508, -0.013), abs=5e-4)
    low, high = paired_rates(gains_of(0, 0, 21), apart)
    assert high == -low > 0.1 and paired_rates(gains_of(0, 0, 0), numpy.arange(0)) is None
    assert paired_rates(gains_of(2, 0, 2), numpy.arange(2))[1] == 1.0
    clusters = numpy.arange(60) // 3
    gain = numpy.random.default_rng(3).integers(-1, 2, 60)
    d = gain.sum() / 62
    parts = [gain[clusters == c].sum() - 3 * d for c in range(20)] + [1 - d, -1 - d]
    wider = stats.t.ppf(0.975, 19) / stats.t.ppf(0.975, 59)
    half = wider * stats.norm.ppf(0.975) * (22 / 21 * numpy.sum(numpy.square(parts))) ** 0.5 / 62
    assert paired_rates(gain, clusters) == pytest.approx((d - half, d + half), rel=1e-9)


def covers(n: int, sides: tuple[float, float], size: int = 1, draws: int = 400) -> float:
    """How often the interval has the true difference; of `size` posts in a cluster some 70 % are right together."""
    rng, clusters, chances = numpy.random.default_rng(n), numpy.arange(n) // size, (*sides, 1 - sum(sides))
    hits = 0
    for _ in range(draws):
        own, shared = rng.choice([1, -1, 0], n, p=chances), rng.choice([1, -1, 0], n, p=chances)[clusters]
        low, high = paired_rates(numpy.where(rng.random(n) < 0.7, shared, own) if size > 1 else own, clusters)
        hits += low <= sides[0] - sides[1] <= high
    return hits / draws


def test_the_interval_of_paired_rates_covers_the_truth():
    assert covers(200, (0.2, 0.1)) > 0.91 and covers(200, (0.2, 0.05), size=5) > 0.91  # 3.7 standard errors


@pytest.mark.slow
@pytest.mark.parametrize("n, size", [(50, 1), (200, 1), (1000, 1), (100, 2), (200, 10), (400, 4)])
@pytest.mark.parametrize("sides", [(0.1, 0.1), (0.2, 0.05), (0.3, 0.02), (0.02, 0.02)])
def test_the_interval_of_paired_rates_in_4000_tables(n, size, sides):
    assert covers(n, sides, size, draws=4000) > 0.92


def test_many_rows_keep_their_tail():
    # 3,000 posts on which one model alone is right, 1,200 to 1,800: far below what 1 - cdf could tell from 0.
    gains = numpy.repeat([1, -1], [1200, 1800])
    assert sign_flip(gains) == pytest.approx(stats.binomtest(1200, 3000).pvalue, rel=1e-10) and sign_flip(gains) < 1e-25
    for m in (0, 1, 2, 7, 1000, 1001):
        assert binomial(m) == pytest.approx(stats.binom.pmf(numpy.arange(m + 1), m, 0.5), rel=1e-10, abs=1e-300)


def test_sign_flip_equals_every_sign_by_hand():
    rng = numpy.random.default_rng(1)
    for _ in range(30):
        gains = rng.integers(-4, 5, rng.integers(1, 11))
        sums = [sum(s * g for s, g in zip(signs, gains, strict=True))
                for signs in itertools.product((-1, 1), repeat=len(gains))]
        assert sign_flip(gains) == pytest.approx(numpy.mean(numpy.abs(sums) >= abs(gains.sum())), abs=1e-14)
    assert sign_flip([]) == 1.0


def test_rows_in_clusters_are_counted_and_their_signs_flip_together():
    # Fifty clusters of four copies: as rows, four times the evidence; as clusters, what a single copy of each says.
    rows = made_rows(50, 5)
    first, second = made_answers(rows, 6, right=0.7), made_answers(rows, 7, right=0.5)
    four = Rows(*(numpy.tile(part, 4) for part in (rows.ids, rows.language, rows.gold, rows.clusters)), GROUPING)
    single = mcnemar(first, second)
    found = mcnemar(*(Predictions(four, numpy.tile(model.predicted, 4)) for model in (first, second)))
    assert found["rows_in_clusters"] == 200 and found["n01"] == 4 * single["n01"]
    assert found["p_clusters"] == pytest.approx(single["p"], rel=1e-12) and found["p"] < single["p"] / 5


def by_hand(first, second, name, weight):
    """(difference, p), with clusters swapped in all possible ways and rows counted one at a time."""
    rows = first.rows

    def gap(one, two):
        if weight == "rows":
            return slow_figure(name, rows.gold, one) - slow_figure(name, rows.gold, two)
        return numpy.mean([slow_figure(name, rows.gold[inside], one[inside])
                           - slow_figure(name, rows.gold[inside], two[inside])
                           for inside in (rows.language == code for code in rows.languages)])

    value, found = gap(first.predicted, second.predicted), []
    names = numpy.unique(rows.clusters)
    for signs in itertools.product((False, True), repeat=len(names)):
        swap = numpy.array(signs)[numpy.searchsorted(names, rows.clusters)]
        found.append(gap(numpy.where(swap, second.predicted, first.predicted),
                         numpy.where(swap, first.predicted, second.predicted)))
    return value, numpy.mean(numpy.abs(found) >= abs(value) - 1e-12)


@pytest.mark.parametrize("name", ["accuracy", "macro_f1", "topic.recall"])
@pytest.mark.parametrize("weight", ["rows", "languages"])
def test_permutation_equals_every_swap_by_hand(name, weight):
    for seed in range(3):
        first, second = pair(24, 30 + seed, 0.3, languages=("de", "en"), clusters=numpy.arange(24) // 4 * 7)
        value, p = by_hand(first, second, name, weight)
        found = permutation(first, second, name, weight=weight)
        assert found["exact"] and found["difference"] == pytest.approx(value, abs=1e-14)
        assert found["p"] == pytest.approx(p, abs=1e-12) and 0 < p <= 1


def test_drawn_permutations_agree_with_enumerated_ones_and_with_scipy(monkeypatch):
    first, second = pair(150, 50, 0.4)
    for name in ("accuracy", "macro_f1", "stance.given_detection.accuracy"):
        def statistic(one, two, axis, name=name):
            shape = numpy.moveaxis(numpy.stack([one, two]), axis, -1)
            places = numpy.broadcast_to(first.rows.gold, shape.shape) * 5 + shape.astype(int)
            flat = numpy.stack([(places == k).sum(-1) for k in range(20)], -1)
            flat = numpy.concatenate([flat, numpy.zeros((*flat.shape[:-1], GROUPING.width - 20))], -1)
            return figure_of(name, flat[0], GROUPING) - figure_of(name, flat[1], GROUPING)

        found = permutation(first, second, name, draws=20_000, seed=3)
        theirs = stats.permutation_test((first.predicted, second.predicted), statistic, vectorized=True, rng=1,
                                        permutation_type="samples", n_resamples=4000, batch=500)
        assert found["exact"] == (name == "accuracy")
        assert found["difference"] == pytest.approx(theirs.statistic, abs=1e-12)
        # Two Monte Carlo estimates, of 4,000 and 20,000 draws: four standard errors of their difference at p = 1/2.
        assert found["p"] == pytest.approx(theirs.pvalue, abs=0.035), name
    small, other = pair(30, 60, 0.6)
    exact = permutation(small, other, "macro_f1", draws=200_000)
    drawn = permutation(small, other, "macro_f1", draws=min(20_000, exact["draws"] - 1), error=1.0)
    assert exact["exact"] and not drawn["exact"] and drawn["p"] == pytest.approx(exact["p"], abs=0.05)
    monkeypatch.setattr("stats.paired.CHUNK_BYTES", 50_000)
    assert permutation(small, other, "macro_f1", draws=200_000)["p"] == pytest.approx(exact["p"], abs=1e-12)


def test_models_that_answer_alike_do_not_differ():
    first, _ = pair(40, 3)
    assert permutation(first, first, "macro_f1") == {"difference": 0.0, "p": 1.0, "exact": True, "draws": 1}
    found = difference(first, first, "macro_f1", draws=50)
    assert found["value"] == 0.0 and numpy.isnan([found["low"], found["high"]]).all()  # an interval of no width is none
    silent = Predictions(first.rows, numpy.full(40, 3))  # detects nothing: its stance given detection cannot be made
    name = "stance.given_detection.accuracy"
    assert numpy.isnan(permutation(first, silent, name)["p"])
    assert numpy.isnan([difference(first, silent, name, draws=50)[key] for key in ("value", "low", "high")]).all()
    with pytest.raises(UserError, match="different tables"):
        mcnemar(first, pair(40, 3)[0])


@pytest.mark.parametrize("figure, weight", [("accuracy", "rows"), ("topic.recall", "rows"), ("accuracy", "languages"),
                                            ("stance.end_to_end.accuracy", "rows"), ("topic.accuracy", "languages")])
def test_rates_of_several_fits_flip_signs_as_the_swaps_of_counts_do(figure, weight, monkeypatch):
    rows = made_rows(21, 80, languages=("de", "en"), clusters=numpy.arange(21) // 2)
    sides = [[made_answers(rows, 10 * k + j, 0.7 - 0.3 * k) for j in range(2)] for k in range(2)]
    found = permutation(*sides, figure, weight=weight)
    monkeypatch.setattr("stats.paired.FIXED", ())  # by counts, as any other figure
    theirs = permutation(*sides, figure, weight=weight)
    assert found["exact"] and theirs["exact"] and found["p"] == pytest.approx(theirs["p"], abs=1e-12)
    assert found["difference"] == theirs["difference"] and 0 < found["p"] <= 1


def test_signs_are_drawn_where_the_weights_have_no_small_multiple(monkeypatch):
    first, second = pair(160, 90, 0.4, languages=("de", "en", "tr"))
    exact = permutation(first, second, "accuracy", weight="languages")
    monkeypatch.setattr("stats.paired.LATTICE", 10)
    drawn = permutation(first, second, "accuracy", weight="languages")
    assert exact["exact"] and not drawn["exact"] and drawn["draws"] >= 60_000
    assert drawn["p"] == pytest.approx(exact["p"], abs=0.008)  # four Monte Carlo errors


def test_a_random_p_has_draws_enough():
    first, second = pair(150, 50, 0.4)
    found = permutation(first, second, "macro_f1", draws=500)
    assert not found["exact"] and (found["p"] * (1 - found["p"]) / found["draws"]) ** 0.5 < 0.002


@pytest.mark.parametrize("weight", ["rows", "languages"])
def test_difference_agrees_with_drawing_row_numbers(weight):
    first, second = pair(240, 70, 0.3)
    rows = first.rows
    found = difference(first, second, "macro_f1", weight=weight, draws=4000)
    assert found["draws"].shape == (4000,)
    of_language = [numpy.flatnonzero(rows.language == code) for code in rows.languages]
    rng, drawn = numpy.random.default_rng(4), []
    for _ in range(1500):
        sets = [rng.choice(inside, len(inside)) for inside in of_language]
        sets = sets if weight == "languages" else [numpy.concatenate(sets)]
        drawn.append(numpy.mean([slow_figure("macro_f1", rows.gold[s], first.predicted[s])
                                 - slow_figure("macro_f1", rows.gold[s], second.predicted[s])
                                 for s in sets]))
    # Two Monte Carlo estimates of a tail quantile, of a difference with a spread of about 0.04.
    assert [found["low"], found["high"]] == pytest.approx(numpy.quantile(drawn, [0.025, 0.975]), abs=0.01)
    assert found["low"] < found["value"] < found["high"]


def trial(tables, rows, prior, names, draws, seed, right=(0.65, 0.55)):
    """How often the interval of each figure's difference contains the truth, and the test of equal models rejects.

    The models share a third of their answers, so that they are paired. Returns (names,) coverages and (names,) rates.
    """
    rng = numpy.random.default_rng(seed)
    prior = numpy.asarray(prior)

    def population(rate):
        flat = numpy.zeros(GROUPING.width)
        flat[:20].reshape(4, 5)[:] = prior[:, None] * ((1 - rate) / 5 + rate * numpy.eye(4, 5))
        return flat

    truth = [figure_of(name, population(right[0]), GROUPING) - figure_of(name, population(right[1]), GROUPING)
             for name in names]
    covered, rejected = [], []
    for number in range(tables):
        table = made_rows(rows, seed=int(rng.integers(1 << 40)), languages=("en",), prior=prior)
        one, other, u = rng.random((3, rows))
        noise = rng.choice(5, (2, rows))
        noise[1] = numpy.where(u < 1 / 3, noise[0], noise[1])
        other = numpy.where(u < 1 / 3, one, other)

        def model(which, rate, table=table, one=one, other=other, noise=noise):
            return Predictions(table, numpy.where((one, other)[which] < rate, table.gold, noise[which]))

        first, second, equal = model(0, right[0]), model(1, right[1]), model(1, right[0])
        found = [difference(first, second, name, draws=draws, seed=number) for name in names]
        covered.append([f["low"] <= t <= f["high"] for f, t in zip(found, truth, strict=True)])
        p = [mcnemar(first, equal)["p"] if name == "accuracy" else
             permutation(first, equal, name, draws=draws, seed=number, error=1.0)["p"] for name in names]
        rejected.append([one <= 0.05 for one in p])
    return numpy.mean(covered, 0), numpy.mean(rejected, 0)


COMMON, RARE = (0.4, 0.3, 0.2, 0.1), (0.5, 0.3, 0.17, 0.03)
NAMES = ("accuracy", "macro_f1", "weighted_f1", "topic.recall", "stance.given_detection.macro_f1")


def test_intervals_hold_and_tests_reject_as_often_as_they_say():
    covered, rejected = trial(tables=80, rows=200, prior=COMMON, names=NAMES, draws=300, seed=1)
    assert (covered > 0.87).all() and (rejected < 0.13).all()  # 3.3 standard errors of 80 tables


@pytest.mark.slow
def test_intervals_hold_in_2000_tables():
    covered, rejected = trial(tables=2000, rows=250, prior=COMMON, names=NAMES, draws=600, seed=2)
    print("250 rows:", covered.round(3), rejected.round(3))
    assert (numpy.abs(covered - 0.95) < 0.02).all(), covered  # four standard errors of 2,000 tables: .0195
    assert (rejected < 0.065).all() and (rejected > 0.02).all(), rejected  # exact tests lie below their level


@pytest.mark.slow
@pytest.mark.parametrize("rows, least", [(250, 0.93), (40, 0.91)])
def test_intervals_with_rare_classes_in_2000_tables(rows, least):
    covered, rejected = trial(tables=2000, rows=rows, prior=RARE, names=NAMES, draws=600, seed=3)
    print(rows, "rows, rare:", covered.round(3), rejected.round(3))
    assert (covered > least).all(), covered
    assert (rejected < 0.065).all(), rejected  # the tests keep their level whatever the intervals do
