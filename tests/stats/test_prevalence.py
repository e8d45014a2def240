"""True shares: each estimator against its formula written out, ppi-python and simulated truth; coverage of intervals.

Deliberate break: fit g on all rows in `crossfit` (`fit(x, y)`), leave `naive` out of PPI++'s cells (`shares = [0.5,
0.5]`), or weigh by 1 instead of `1 / probability`; the formulas and the coverage turn red.
"""

from math import comb

import numpy
import pytest

from stats.prevalence import Coded, Machine, equal_probabilities, prevalence, strata_of
from stats.rates import moved, share_interval
from stats.surrogate import SMALLEST, answers, fit, folds
from tests.stats.designs import DESIGNS, drawn


def machine_of(predicted, labels=2, probabilities=None, group=None) -> Machine:
    group = numpy.zeros(len(predicted), dtype=int) if group is None else group
    return Machine(labels, predicted, group, int(group.max()) + 1, probabilities)


def population(stream, posts, share, found, false) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Truth and the machine's label: it finds `found` of the posts with the label, and gives it to `false` others."""
    truth = (stream.random(posts) < share).astype(int)
    return truth, numpy.where(truth, stream.random(posts) < found, stream.random(posts) < false).astype(int)


def example(design="equal", seed=0):
    stream = numpy.random.default_rng(seed)
    truth, predicted = population(stream, 900, 0.3, 0.8, 0.1)
    post, chance, stratum = drawn(stream, design, 900, 120, predicted == 1)
    return predicted, Coded(post, truth[post], chance, stratum)


@pytest.mark.parametrize("design", ["equal", "strata", "independent"])
def test_estimates_are_their_formulas(design):
    predicted, coded = example(design)
    share = prevalence(machine_of(predicted), coded)[1]
    y, m, w = (coded.label == 1).astype(float), (predicted[coded.post] == 1).astype(float), 1 / coded.probability
    mean = lambda values: numpy.average(values, weights=w)  # noqa: E731
    assert share.naive == numpy.mean(predicted == 1) and (share.n, share.n_coded) == (900, len(coded.post))
    assert share.coded.estimate == pytest.approx(mean(y), abs=1e-12)
    v = w**2 * (1 - coded.probability)
    slope = (v * (y - mean(y)) * (m - mean(m))).sum() / (v * (m - mean(m)) ** 2).sum()
    assert share.tuned == pytest.approx(slope, abs=1e-12)
    assert share.ppi.estimate == pytest.approx(slope * share.naive + mean(y - slope * m), abs=1e-12)
    x, fold = answers(predicted, 2), folds(len(y))
    g = [fit(x[coded.post][fold != k], y[fold != k])(x) for k in range(5)]
    own = numpy.array([g[k][post] for k, post in zip(fold, coded.post, strict=True)])
    rest = numpy.delete(numpy.mean(g, 0), coded.post)
    assert share.dsl.estimate == pytest.approx((own.sum() + rest.sum()) / 900 + mean(y - own), abs=1e-12)


def test_with_equal_chances_ppi_is_poststratification():
    predicted, coded = example()
    share, hand = prevalence(machine_of(predicted), coded)[1], predicted[coded.post]
    rates = [numpy.mean(coded.label[hand == h]) for h in (0, 1)]
    assert share.ppi.estimate == pytest.approx((1 - share.naive) * rates[0] + share.naive * rates[1], abs=1e-12)


def test_equals_ppi_python():
    ppi_py = pytest.importorskip("ppi_py")
    predicted, coded = example()
    share, n, posts = prevalence(machine_of(predicted), coded, beyond=True)[1], len(coded.post), len(predicted)
    rest = numpy.delete(predicted, coded.post).astype(float)
    hand = (coded.label.astype(float), predicted[coded.post].astype(float), rest)
    weight = (1 - n / posts) * share.tuned
    assert share.ppi.estimate == pytest.approx(ppi_py.ppi_mean_pointestimate(*hand, lam=weight).item(), abs=1e-12)
    low, high = (end.item() for end in ppi_py.ppi_mean_ci(*hand, alpha=0.05, lam=weight))
    assert share.ppi.low == pytest.approx(low, abs=0.01) and share.ppi.high == pytest.approx(high, abs=0.01)
    assert share.ppi.estimate == pytest.approx(ppi_py.ppi_mean_pointestimate(*hand).item(), abs=0.01)


def test_a_rare_label_is_biased_by_the_variance_over_all_posts():
    """The reason for another variance than ppi-python's: -L (1 - 2 M) / n, here a tenth of the share."""
    stream, apart, n, posts = numpy.random.default_rng(3), [], 250, 4_000
    truth, predicted = population(stream, posts, 0.02, 0.8, 0.008)
    mean = predicted.mean()
    for _ in range(1500):
        post = stream.choice(posts, n, replace=False)
        y, m = truth[post], predicted[post]
        weight = ((y - y.mean()) * (m - m.mean())).mean() / predicted.var()
        apart.append(weight * mean + (y - weight * m).mean() - truth.mean())
    slope = numpy.cov(truth, predicted)[0, 1] / predicted.var()
    assert numpy.mean(apart) == pytest.approx(-slope * (1 - 2 * mean) / n, abs=5 * numpy.std(apart) / 1500**0.5)
    assert numpy.mean(apart) < -0.1 * truth.mean()


def test_a_machine_that_is_never_wrong_and_one_that_is_useless():
    stream = numpy.random.default_rng(1)
    truth = (stream.random(2000) < 0.3).astype(int)
    post, chance, stratum = drawn(stream, "equal", 2000, 150, truth == 1)
    right = prevalence(machine_of(truth), Coded(post, truth[post], chance, stratum))[1]
    assert right.ppi.estimate == pytest.approx(truth.mean(), abs=1e-12) and right.ppi.width < right.coded.width / 3
    noise = (stream.random(2000) < 0.3).astype(int)
    useless = prevalence(machine_of(noise), Coded(post, truth[post], chance, stratum))[1]
    assert useless.ppi.width > 0.98 * useless.coded.width
    never = prevalence(machine_of(0 * truth), Coded(post, truth[post], chance, stratum))[1]
    assert never.tuned == 0 and never.naive == 0 and never.ppi.width == pytest.approx(never.coded.width)


def test_a_group_of_which_all_posts_are_coded_is_known():
    """One post, and two of other chances; a group beside them is as it was without these."""
    predicted, coded = example("strata")
    chances = numpy.unique(coded.probability)
    first, second = (coded.post[coded.probability == chance][:2] for chance in chances)
    group = numpy.zeros(900, dtype=int)
    group[first[0]], group[[first[1], second[0]]] = 1, 2
    found = prevalence(machine_of(predicted, group=group), coded)
    code = dict(zip(coded.post.tolist(), coded.label.tolist(), strict=True))
    for share, posts in ((found[3], first[:1]), (found[5], [first[1], second[0]])):
        known = numpy.mean([code[post] for post in posts])
        for one in (share.coded, share.ppi, share.dsl):
            assert (one.estimate, one.low, one.high) == pytest.approx((known, known, known), abs=1e-12)
    assert 0.05 < found[1].dsl.width < 0.3


def test_groups_have_their_own_posts_and_codes():
    predicted, coded = example()
    group = numpy.arange(900) // 300
    both = prevalence(machine_of(predicted, group=group), coded)
    assert [share.group for share in both] == [0, 0, 1, 1, 2, 2] and sum(s.n_coded for s in both[1::2]) == 120
    own = group[coded.post] == 1
    assert both[3].coded.estimate == pytest.approx(coded.label[own].mean(), abs=1e-12)
    none = Coded(coded.post[~own], coded.label[~own], coded.probability[~own], None)
    empty = prevalence(machine_of(predicted, group=group), none)[3]
    assert empty.n == 300 and empty.n_coded == 0 and empty.coded.estimate is None and empty.dsl.low is None


def test_the_whole_population_coded_leaves_nothing_open():
    stream = numpy.random.default_rng(2)
    truth, predicted = population(stream, 80, 0.3, 0.8, 0.1)
    share = prevalence(machine_of(predicted), Coded(numpy.arange(80), truth, *equal_probabilities(80, 80)))[1]
    for one in (share.coded, share.ppi, share.dsl):
        assert one.low == pytest.approx(truth.mean(), abs=1e-12) == one.high
    wider = prevalence(machine_of(predicted), Coded(numpy.arange(80), truth, *equal_probabilities(80, 80)), beyond=True)
    assert wider[1].coded.width > 0.15


def test_a_group_coded_whole_has_its_share_beside_one_that_is_not():
    stream = numpy.random.default_rng(4)
    truth, predicted = population(stream, 400, 0.3, 0.8, 0.1)
    post = numpy.concatenate([numpy.arange(60), 60 + stream.choice(340, 50, replace=False)])
    chance, group = numpy.repeat([1.0, 50 / 340], [60, 50]), (numpy.arange(400) >= 60).astype(int)
    found = prevalence(machine_of(predicted, group=group), Coded(post, truth[post], chance, (post >= 60).astype(int)))
    for one in (found[1].coded, found[1].ppi, found[1].dsl):
        assert one.low == pytest.approx(truth[:60].mean(), abs=1e-12) == one.high
    assert found[3].dsl.low < truth[60:].mean() < found[3].dsl.high


def test_one_cell_is_jeffreys_interval():
    """Against the Beta distribution's tails, which for whole a and b are binomial sums: here a = 7, b = 14."""
    low, high = share_interval(6.5 / 20, [1.0], [6.5 / 20], [20], [0.0], [10**9])
    tail = lambda p: sum(comb(20, k) * p**k * (1 - p) ** (20 - k) for k in range(7, 21))  # noqa: E731
    assert tail(low) == pytest.approx(0.025, abs=0.008) and tail(high) == pytest.approx(0.975, abs=0.008)
    low, high = share_interval(0.0, [1.0], [0.0], [30], [0.0], [10**9])
    assert low == 0 and high == pytest.approx(0.079, abs=0.005)  # Jeffreys for 0 of 30


def test_rates_are_moved_to_the_estimate_and_their_interval_reaches_below_it():
    for estimate in (0.0, 0.1, 0.35, 0.9, 1.0):
        for rates in ([0.0, 0.0], [0.3, 0.1], [1.0, 1.0], [0.0, 1.0]):
            found = moved(estimate, [0.2, 0.8], rates)
            assert all(0 <= rate <= 1 for rate in found) and numpy.dot([0.2, 0.8], found) == pytest.approx(estimate)
    rates = moved(0.1, [0.2, 0.8], [0.0, 0.0])  # no event among the coded, and an estimate above 0
    low, high = share_interval(0.1, [0.2, 0.8], rates, [3, 12], [0.0, 0.0], [80, 320])
    assert low < 0.04 and high > 0.2


def test_one_event_among_the_few_posts_left_is_allowed_for():
    """10 of 15 posts coded, none has the label: two of the other five can have it, four hardly."""
    assert 1 / 15 <= share_interval(0.0, [1.0], [0.0], [10], [10 / 15], [5])[1] <= 3 / 15


def test_strata_are_seen_by_the_sum_of_weights():
    assert strata_of(numpy.array([0.1] * 10 + [0.5] * 20), 140).tolist() == [0] * 10 + [1] * 20
    assert strata_of(numpy.array([0.1] * 12 + [0.5] * 20), 140) is None


def test_g_fits_what_it_sees():
    x = numpy.log(numpy.maximum(numpy.array([[0.9, 0.1], [0.2, 0.8]] * 300), SMALLEST))
    y = numpy.array([0, 1] * 300) ^ (numpy.arange(600) % 10 == 0)
    g = fit(x, y.astype(float))(x[:2])
    assert g == pytest.approx([y[::2].mean(), y[1::2].mean()], abs=0.02)
    assert 0 < fit(x, numpy.zeros(600))(x[:2]).max() < 0.01


CASES = {  # share, found, false, N, n
    "common": (0.18, 0.6, 0.06, 4000, 200), "rare": (0.02, 0.8, 0.008, 4000, 250),
    "much coded": (0.18, 0.55, 0.05, 250, 100), "five codes": (0.3, 0.7, 0.05, 1000, 5),
}  # fmt: skip


def covered(design, case, times) -> dict[str, float]:
    """How often each interval holds the share among the posts of a population that is new each time."""
    share, found, false, posts, rows = CASES[case]
    stream, inside = numpy.random.default_rng(7), {"coded": 0, "ppi": 0, "dsl": 0}
    for _ in range(times):
        truth, predicted = population(stream, posts, share, found, false)
        unsure, post = (predicted == 1) | (stream.random(posts) < 0.1), ()
        while not len(post):  # of rows drawn one by one there may be none
            post, chance, stratum = drawn(stream, design, posts, rows, unsure)
        shares = prevalence(machine_of(predicted), Coded(post, truth[post], chance, stratum))[1]
        for name in inside:
            one = getattr(shares, name)
            inside[name] += one.low <= truth.mean() <= one.high
    return {name: count / times for name, count in inside.items()}


@pytest.mark.parametrize("design", ["equal", "sizes"])
def test_intervals_cover_in_a_short_simulation(design):
    assert all(0.87 <= value <= 1 for value in covered(design, "rare", 60).values())


@pytest.mark.slow
@pytest.mark.parametrize("case", ["common", "rare", "much coded"])
@pytest.mark.parametrize("design", DESIGNS)
def test_intervals_cover_the_truth(design, case):
    found = covered(design, case, 2000)
    print(design, case, found)
    # .93 to .97, less and plus two Monte Carlo errors of 2,000 draws.
    assert all(0.919 <= value <= 0.978 for value in found.values()), found


def test_weights_of_rare_rows_do_not_widen_what_was_found_elsewhere():
    """Two cells of chance: the heavy rows have no event, so the interval is about the light ones, and far narrower than
    one for all rows of the same effective size."""
    y, pi = numpy.array([1.0] * 20 + [0.0] * 80 + [0.0] * 150), numpy.repeat([0.5, 0.05], [100, 150])
    predicted = numpy.zeros(3200, dtype=int)
    post, stratum = numpy.arange(250), numpy.repeat([0, 1], [100, 150])
    one = prevalence(machine_of(predicted), Coded(post, y.astype(int), pi, stratum))[1].coded
    assert one.estimate == pytest.approx(40 / 3200) and one.low > 0.008 and one.high < 0.03
    o = 1 / pi / (1 / pi).sum()
    size = 1 / (o**2).sum()
    whole = share_interval(40 / 3200, [1.0], [40 / 3200], [size], [0.0], [10**9])
    assert one.high - one.low < 0.45 * (whole[1] - whole[0])


@pytest.mark.slow
def test_of_five_codes_with_different_chances_intervals_are_too_narrow():
    """What tools.prevalence says below ten codes, and a bound for how bad it is."""
    found = covered("sizes", "five codes", 1000)
    print(found)
    assert all(0.85 <= value <= 0.95 for value in found.values()), found


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "share"), [(6, 0.3), (6, 0.08), (14, 0.08)])
def test_intervals_cover_the_truth_of_groups_with_few_codes(rows, share):
    stream, inside, groups = numpy.random.default_rng(5), {"coded": 0, "ppi": 0, "dsl": 0}, numpy.arange(4400) % 11
    for _ in range(180):
        truth, predicted = population(stream, 4400, share, 0.7, 0.1)
        post = numpy.concatenate([stream.choice(numpy.flatnonzero(groups == k), rows, replace=False)
                                  for k in range(11)])
        found = prevalence(machine_of(predicted, group=groups), Coded(
            post, truth[post], numpy.full(len(post), rows / 400), numpy.repeat(numpy.arange(11), rows)))
        for one in found[1::2]:
            mean = truth[groups == one.group].mean()
            for name in inside:
                inside[name] += getattr(one, name).low <= mean <= getattr(one, name).high
    print(rows, share, {name: count / 1980 for name, count in inside.items()})
    assert all(0.92 <= count / 1980 <= 0.995 for count in inside.values()), inside


@pytest.mark.parametrize(("sensitivity", "specificity"), [(0.0, 1.0), (0.5, 0.5), (0.1, 1.0), (0.7, 0.9), (0.95, 0.95)])
def test_beyond_the_posts_clusters_count_whatever_the_machine_is_worth(sensitivity, specificity):
    """Sixty authors of fifty posts whose rates differ: what the clusters add must not hang on the machine."""
    stream, held, widths = numpy.random.default_rng(5), [], []
    cluster = numpy.repeat(numpy.arange(60), 50)
    for _ in range(40):
        y = (stream.random(3000) < stream.beta(0.3 * 4, 0.7 * 4, 60)[cluster]).astype(int)
        said = (stream.random(3000) < numpy.where(y == 1, sensitivity, 1 - specificity)).astype(int)
        post = numpy.sort(stream.choice(3000, 600, replace=False))
        coded = Coded(post, y[post], *equal_probabilities(600, 3000))
        machine = Machine(2, said, numpy.zeros(3000, dtype=int), 1, None, cluster)
        together, apart = (prevalence(one, coded, beyond=True)[1].ppi
                           for one in (machine, Machine(2, said, machine.group, 1)))
        held.append(together.low <= 0.3 <= together.high)
        widths.append(together.width / apart.width)
    assert numpy.mean(held) > 0.85 and numpy.median(widths) > 1.7
