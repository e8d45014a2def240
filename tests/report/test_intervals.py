"""Intervals: Wilson against published numbers and scipy, the bootstrap against one that copies rows, coverage by trial.

Deliberate break: draw rows instead of clusters (in `patterns`, replace `clusters` by `numpy.arange(len(clusters))`) and
test_bootstrap_equals_copying_clusters turns red.
"""

import random
import zlib

import numpy
import pytest
from scipy import stats

from report.clusters import effective, rate_interval, worth
from report.counts import Grouping, figures, flat_indices, views
from report.intervals import bootstrap, patterns, rate_difference, wilson

GROUPING = Grouping(("pro", "anti", "neutral", "unrelated"), ("pro", "anti", "neutral"))


def statistic(flat):
    found = figures(views(flat, GROUPING)["all"])
    return numpy.stack([found["accuracy"], found["macro_f1"], found["weighted_f1"]], -1)


def random_rows(rows, seed, classes=4):
    rng = numpy.random.default_rng(seed)
    gold = rng.choice(classes, rows, p=[0.4, 0.3, 0.2, 0.1])
    predicted = numpy.where(rng.random(rows) < 0.65, gold, rng.choice(classes + 1, rows))
    return gold, predicted


def test_wilson_equals_scipy_and_its_paper():
    for successes, n in ((0, 25), (25, 25), (13, 25), (578, 875), (1, 1), (0, 1)):
        for level in (0.9, 0.95):
            expected = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
            assert wilson(successes, n, level) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert wilson(0, 0) is None
    assert wilson(0, 25)[0] == 0.0 and wilson(25, 25)[1] == 1.0


def test_wilson_covers_as_often_as_it_says():
    # Exact: the sum of binomial probabilities over the outcomes whose interval holds the true rate, no simulation.
    for n in (25, 100, 375):
        inside = numpy.zeros(99)
        rates = numpy.arange(1, 100) / 100
        for k in range(n + 1):
            low, high = wilson(k, n)
            inside += stats.binom.pmf(k, n, rates) * ((low <= rates) & (rates <= high))
        assert 0.945 < inside.mean() < 0.96  # the mean over rates is close to the level; single rates oscillate
        assert inside.min() > 0.82  # its known dips near 0 and 1 (Brown, Cai and DasGupta 2001)


def test_difference_of_rates_equals_newcombe():
    # Newcombe (1998), table II, row (a) 56/70 against 48/80, method 10.
    difference, low, high = rate_difference((56, 70), (48, 80))
    assert (round(difference, 4), round(low, 4), round(high, 4)) == (0.2, 0.0524, 0.3339)
    assert rate_difference((1, 2), (0, 0)) is None


def copying(rows_of_cluster, places, order, multiplicities, draws, stream):
    """The slow way: for each draw, put the rows of the drawn clusters into a list and count them one by one."""
    result = []
    clusters = sum(multiplicities)
    for drawn in stream.multinomial(clusters, numpy.array(multiplicities) / clusters, size=draws):
        table = [[0] * 5 for _ in range(4)]
        for pattern, times in zip(order, drawn, strict=True):
            for _ in range(times):
                for row in rows_of_cluster[pattern]:
                    gold, predicted = divmod(int(places[row, 0]), 5)
                    table[gold][predicted] += 1
        f1s, weighted, right, total = [], 0.0, sum(table[i][i] for i in range(4)), sum(map(sum, table))
        for i in range(4):
            gold, predicted = sum(table[i]), sum(line[i] for line in table)
            if gold + predicted:
                f1s.append(2 * table[i][i] / (gold + predicted))
                weighted += f1s[-1] * gold / total
        result.append((right / total, sum(f1s) / len(f1s), weighted))
    return numpy.array(result)


def test_bootstrap_equals_copying_clusters():
    gold, predicted = random_rows(120, seed=3)
    clusters = numpy.array([random.Random(i).randrange(50) for i in range(120)])
    places = flat_indices(gold, predicted, None, None, GROUPING)
    matrix, multiplicity = patterns(places, clusters, GROUPING.width)
    assert multiplicity.sum() == len(set(clusters.tolist())) and (multiplicity @ matrix).sum() == 120
    members = [numpy.flatnonzero(clusters == c) for c in sorted(set(clusters.tolist()))]
    counts = [tuple(numpy.bincount(places[rows, 0], minlength=GROUPING.width)) for rows in members]
    of_pattern = [members[counts.index(tuple(line.astype(int)))] for line in matrix]
    assert [counts.count(tuple(line.astype(int))) for line in matrix] == multiplicity.tolist()
    stream = numpy.random.default_rng([5, zlib.crc32(b"en")])
    slow = copying(of_pattern, places, range(len(of_pattern)), multiplicity.tolist(), 200, stream)
    found = bootstrap({"en": (matrix, multiplicity)}, {"cell": ["en"]}, statistic, draws=200, seed=5)["cell"]
    assert found == pytest.approx(numpy.quantile(slow, [0.025, 0.975], axis=0), abs=1e-12)


def test_bootstrap_agrees_with_drawing_row_numbers():
    # Without clusters, against the textbook: indices drawn with replacement within each language, other random numbers.
    gold, predicted = random_rows(300, seed=4)
    language = numpy.arange(300) % 3
    places = flat_indices(gold, predicted, None, None, GROUPING)
    strata = {str(x): patterns(places[language == x], numpy.flatnonzero(language == x), GROUPING.width)
              for x in range(3)}
    found = bootstrap(strata, {"cell": ["0", "1", "2"]}, statistic, draws=4000, seed=1)["cell"]
    rng = numpy.random.default_rng(9)
    drawn = []
    for _ in range(4000):
        rows = numpy.concatenate([rng.choice(numpy.flatnonzero(language == x), 100) for x in range(3)])
        drawn.append(statistic(numpy.bincount(places[rows, 0], minlength=GROUPING.width).astype(float)))
    # Two Monte Carlo estimates of a tail quantile, 4,000 draws each, of a figure with a spread of about 0.03.
    assert found == pytest.approx(numpy.quantile(numpy.stack(drawn), [0.025, 0.975], axis=0), abs=0.006)


def test_chunks_do_not_change_the_numbers(monkeypatch):
    gold, predicted = random_rows(200, seed=6)
    places = flat_indices(gold, predicted, None, None, GROUPING)
    strata = {"en": patterns(places, numpy.arange(200) // 2, GROUPING.width)}
    whole = bootstrap(strata, {"cell": ["en"]}, statistic, draws=500, seed=2)["cell"]
    monkeypatch.setattr("report.intervals.CHUNK_BYTES", 20_000)
    assert numpy.array_equal(bootstrap(strata, {"cell": ["en"]}, statistic, draws=500, seed=2)["cell"], whole)


def test_figures_that_no_draw_has_are_nan():
    strata = {"en": patterns(numpy.array([[0, -1]]), numpy.array([0]), GROUPING.width)}
    found = bootstrap(strata, {"cell": ["en"], "empty": []}, lambda flat: flat[:, :1] * numpy.nan, draws=5, seed=0)
    assert numpy.isnan(found["cell"]).all() and "empty" not in found


def coverage(sets, rows, clusters, seed, error=0.35, prior=(0.4, 0.3, 0.2, 0.1)):
    """How often intervals for (macro-F1, weighted F1, F1 per class) contain the true value, by class size."""
    classes = len(prior)
    population = numpy.full((classes, classes + 1), error / (classes - 1))
    population[:, -1] = 0
    numpy.fill_diagonal(population, 1 - error)
    population *= numpy.array(prior)[:, None]
    truth, rng = figures(population), numpy.random.default_rng(seed)
    truth = numpy.concatenate([[truth["macro_f1"], truth["weighted_f1"]], truth["f1"]])

    def all_figures(flat):
        found = figures(views(flat, GROUPING)["all"])
        return numpy.concatenate([found["macro_f1"][:, None], found["weighted_f1"][:, None], found["f1"]], -1)

    covered, sizes = [], []
    for number in range(sets):
        # Each cluster repeats one post: the strongest dependence there is.
        kinds = rng.choice(population.size, clusters, p=population.ravel() / population.sum())
        places = numpy.full((rows, 2), -1)
        places[:, 0] = numpy.repeat(kinds, rows // clusters)
        strata = {way: patterns(places, ids, GROUPING.width) for way, ids in
                  (("clusters", numpy.repeat(numpy.arange(clusters), rows // clusters)), ("rows", numpy.arange(rows)))}
        found = bootstrap(strata, {way: [way] for way in strata}, all_figures, draws=600, seed=number)
        covered.append([(found[way][0] <= truth) & (truth <= found[way][1]) for way in ("clusters", "rows")])
        sizes.append(numpy.bincount(kinds // (classes + 1), minlength=classes))
    return numpy.array(covered), numpy.array(sizes)


@pytest.mark.slow
def test_bootstrap_covers_as_often_as_it_says():
    covered, _ = coverage(sets=1000, rows=400, clusters=400, seed=1)
    rate = covered[:, 0].mean(0)  # standard error of a coverage near .95 over 1,000 sets: .007
    assert ((rate > 0.925) & (rate < 0.97)).all(), rate


@pytest.mark.slow
def test_clusters_must_be_resampled_whole():
    covered, _ = coverage(sets=600, rows=800, clusters=200, seed=2)
    assert covered[:, 0, :2].mean() > 0.92  # clusters
    assert covered[:, 1, :2].mean() < 0.75  # rows: four copies of each look like four times the evidence


@pytest.mark.slow
def test_small_classes_are_not_covered_and_ten_rows_are():
    covered, sizes = coverage(sets=1500, rows=40, clusters=40, seed=3)
    of_class = covered[:, 0, 2:]
    assert of_class[(sizes == 1) | (sizes == 2)].mean() < 0.85
    assert of_class[(sizes >= 10) & (sizes < 15)].mean() > 0.92
    assert covered[sizes.min(1) < 3, 0, 0].mean() < 0.9  # macro-F1 suffers with the class


def test_the_worth_of_rows_is_that_of_the_formula_and_of_known_cases():
    hits, clusters = numpy.array([1, 1, 1, 0, 0, 0, 1]), numpy.array([3, 3, 3, 5, 5, 8, 9])
    rate, n, groups = 4 / 7, 7, 4
    beyond = [(hits[clusters == name] - rate).sum() for name in (3, 5, 8, 9)]
    deff = groups / (groups - 1) * sum(e * e for e in beyond) / (n / (n - 1) * n * rate * (1 - rate))
    equal = n * n / (3**2 + 2**2 + 1 + 1)  # clusters of one size, for which these count
    wider = stats.t.ppf(0.975, equal - 1) / stats.t.ppf(0.975, n - 1)
    assert effective(clusters) == equal
    assert worth(hits, clusters) == pytest.approx(min(1, 1 / (deff * wider**2)), rel=1e-9) and deff > 1
    assert worth(hits, numpy.arange(7)) == 1 and worth(hits, numpy.zeros(7)) == pytest.approx(1 / 7)
    tens = numpy.repeat(numpy.arange(20), 10)  # all right, and one wrong: about the same
    assert worth(numpy.ones(200), tens) == pytest.approx((stats.t.ppf(0.975, 199) / stats.t.ppf(0.975, 19)) ** 2)
    assert worth((numpy.arange(200) > 0).astype(int), tens) == pytest.approx(worth(numpy.ones(200), tens), rel=0.1)
    pair = numpy.array([0, 0, *range(1, 19)])  # a single pair among twenty
    assert 0.85 < worth(numpy.arange(20) % 2, pair) <= 1
    copies = numpy.repeat(numpy.array([1, 0, 1, 1, 0, 1, 0, 1, 1, 1] * 20), 2)  # each row twice: worth half
    assert worth(copies, numpy.repeat(numpy.arange(200), 2)) == pytest.approx(0.5, rel=0.02)
    assert worth(copies / 2, numpy.repeat(numpy.arange(200), 2)) == 1  # two models' means vary less than right or wrong
    assert rate_interval(copies, numpy.arange(400)) == wilson(280, 400) and rate_interval(copies[:0], tens[:0]) is None
    assert rate_interval(copies, numpy.arange(400) // 2) == pytest.approx(wilson(140, 200), abs=0.003)


@pytest.mark.parametrize("groups", [5, 10, 20])
def test_wilson_of_what_clusters_are_worth_covers_where_the_plain_one_does_not(groups):
    """Authors whose rates differ (intra-class correlation .3) around .8, of 1 to some twenty posts each."""
    rng, trials, covered = numpy.random.default_rng(groups), 1500, numpy.zeros(2)
    for _ in range(trials):
        sizes = rng.geometric(0.2, groups)
        hits = rng.binomial(1, numpy.repeat(rng.beta(0.8 * 7 / 3, 0.2 * 7 / 3, groups), sizes))
        share = worth(hits, numpy.repeat(numpy.arange(groups), sizes))
        for place, part in enumerate((1.0, share)):
            low, high = wilson(part * hits.sum(), part * len(hits))
            covered[place] += low <= 0.8 <= high
    plain, told = covered / trials
    assert plain < 0.82 and told > 0.9


def test_one_author_of_most_posts_leaves_nothing_to_say():
    """Rates that differ between authors, one of whom wrote 960 of 1,138 posts: the interval must hold the truth."""
    rng, sizes = numpy.random.default_rng(0), numpy.array([960, *[3] * 54, 16])
    clusters, held, plain = numpy.repeat(numpy.arange(56), sizes), 0, 0
    for _ in range(200):
        hits = rng.binomial(1, numpy.repeat(rng.beta(0.6 * 7 / 3, 0.4 * 7 / 3, 56), sizes))
        low, high = rate_interval(hits, clusters)
        held += low <= 0.6 <= high
        low, high = wilson(hits.sum(), len(hits))
        plain += low <= 0.6 <= high
    assert held / 200 > 0.93 and plain / 200 < 0.3


@pytest.mark.parametrize("steep", [1.0, 1.5])
def test_authors_as_unequal_as_they_are(steep):
    """A hundred authors whose numbers of posts follow Zipf's law."""
    rng, held = numpy.random.default_rng(1), 0
    sizes = numpy.maximum(1, 1000 * numpy.arange(1, 101) ** -steep / (numpy.arange(1, 101) ** -steep).sum()).astype(int)
    clusters = numpy.repeat(numpy.arange(100), sizes)
    for _ in range(400):
        hits = rng.binomial(1, numpy.repeat(rng.beta(0.6 * 9, 0.4 * 9, 100), sizes))  # intra-class correlation .1
        low, high = rate_interval(hits, clusters)
        held += low <= 0.6 <= high
    assert held / 400 > 0.9
