"""Regressions with machine labels: against R's glm and sandwich, ppi-python, equations by hand; coverage.

Deliberate break: leave the last of `Draw.parts` out, divide by `self.posts` where `o` belongs, forget the cluster in
`summed`, or fit g on all rows in `stats.surrogate.crossfit`; the figures or the coverage turn red.
"""

import csv
import shutil
import subprocess
from dataclasses import replace

import numpy
import pytest

from common.errors import UserError
from report.student import t_quantile
from stats.regression import Question, regression
from stats.sandwich import Sample
from stats.surrogate import fit, folds
from tests.stats.designs import drawn

# Estimates and standard errors of the coded posts alone, by R 4.2.2 and its package sandwich 3.0-2 with `R_LINES`.
R_FIGURES = {
    "linear": [0.3851039893979, 0.2089289682639, 0.0974230537642, 0.0475756257352, 0.0792245423491, 0.0368076558802],
    "logistic": [-0.739821400966, 1.103703599247, 0.270687667307, 0.196800389265, 0.320419635846, 0.160274375232],
}
R_LINES = """library(sandwich)
d <- read.csv("rows.csv")
f <- glm(y ~ x1 + x2, family = FAMILY, weights = w, data = d, control = glm.control(epsilon = 1e-14))
cat(format(c(coef(f), sqrt(diag(vcovHC(f, type = "HC3")))), digits = 12), sep = "\\n")
"""
TIMES = 4.0  # how often a post of the machine's label is drawn, beside another
FAMILY = {"linear": "gaussian", "logistic": "quasibinomial"}
R = shutil.which("Rscript")


def logit(t):
    return 1 / (1 + numpy.exp(-t))


def example(model="logistic", side="outcome", design="equal", seed=0, posts=1500, rows=240, truth=(-0.8, 0.7, 0.5)):
    """A question, its sample and the true labels: the machine errs more often where x1 is 1."""
    stream = numpy.random.default_rng(seed)
    x1, x2 = (stream.random(posts) < 0.4).astype(float), stream.normal(size=posts)
    label = (stream.random(posts) < logit(-0.5 + 0.8 * x1)).astype(float)
    right = numpy.column_stack([numpy.ones(posts), label if side == "regressor" else x1, x2])
    score = right @ truth
    y = (stream.random(posts) < logit(score)).astype(float) if model == "logistic" else \
        score + stream.normal(size=posts) * (1 + 0.5 * x1)
    if side == "outcome" and model == "linear":
        y = (stream.random(posts) < 0.35 + 0.2 * x1 + 0.05 * numpy.clip(x2, -2, 2)).astype(float)
    coded = label if side == "regressor" else y
    said = numpy.where(stream.random(posts) < 0.12 + 0.15 * x1, 1 - coded, coded)
    post, chance, stratum = drawn(stream, design, posts, rows, said == 1, TIMES)
    wrong = right.copy()
    wrong[:, 1] = said if side == "regressor" else x1
    outcome = y if side == "regressor" else said
    asked = Question(model, ["(intercept)", "x1", "x2"], wrong, outcome, right[post], y[post],
                     (1,) if side == "regressor" else (), numpy.column_stack([1 - said, said]))
    return asked, Sample(post, chance, stratum)


SIDES = [(model, side) for model in ("linear", "logistic") for side in ("outcome", "regressor")]


@pytest.mark.parametrize(("model", "side"), SIDES)
def test_estimates_solve_their_equations(model, side):
    asked, sample = example(model, side, "independent")
    found, tuned = regression(asked, sample)
    assert 0 < tuned <= 1
    o = 1 / sample.probability
    o /= o.sum()

    def psi(matrix, outcome, b):
        return matrix * (outcome - (logit(matrix @ b) if model == "logistic" else matrix @ b))[:, None]

    def by(name):
        return numpy.array([getattr(one, name).estimate for one in found])

    machine, hand = (asked.matrix, asked.outcome), (asked.coded_matrix, asked.coded_outcome)
    assert psi(*machine, by("naive")).mean(0) == pytest.approx(numpy.zeros(3), abs=1e-9)
    assert o @ psi(*hand, by("coded")) == pytest.approx(numpy.zeros(3), abs=1e-9)
    s = psi(*machine, by("ppi"))
    assert tuned * s.mean(0) + o @ (psi(*hand, by("ppi")) - tuned * s[sample.post]) == pytest.approx(
        numpy.zeros(3), abs=1e-9)
    # DSL: g in the place of the label, cross-fitted on the answers and all other variables.
    others = [asked.matrix[:, 2:], asked.outcome[:, None]] if side == "regressor" else [asked.matrix[:, 1:]]
    x, known = numpy.concatenate([asked.answers, *others], 1), asked.coded_matrix[:, 1] if side == "regressor" else \
        asked.coded_outcome
    fold = folds(len(sample.post))
    fits = [fit(x[sample.post][fold != k], known[fold != k]) for k in range(5)]
    g = numpy.mean([one(x) for one in fits], 0)
    g[sample.post] = [fits[k](x[post:post + 1])[0] for k, post in zip(fold, sample.post, strict=True)]
    matrix = asked.matrix.copy()
    matrix[:, 1] = g if side == "regressor" else matrix[:, 1]
    s = psi(matrix, asked.outcome if side == "regressor" else g, by("dsl"))
    assert s.mean(0) + o @ (psi(*hand, by("dsl")) - s[sample.post]) == pytest.approx(numpy.zeros(3), abs=1e-8)


def test_a_machine_that_is_never_wrong_and_one_that_guesses():
    asked, sample = example("logistic", "outcome")
    stream = numpy.random.default_rng(5)
    truth = asked.outcome.copy()
    truth[sample.post] = asked.coded_outcome
    right = Question("logistic", asked.names, asked.matrix, truth, asked.coded_matrix, truth[sample.post], (),
                     numpy.column_stack([1 - truth, truth]))
    found, tuned = regression(right, sample)
    assert tuned > 0.9
    for one in found:
        assert one.dsl.estimate == pytest.approx(one.naive.estimate, abs=0.05)
        assert one.dsl.width < 0.6 * one.coded.width and one.ppi.width < 0.6 * one.coded.width
    noise = stream.permutation(asked.outcome)
    guess = Question("logistic", asked.names, asked.matrix, noise, asked.coded_matrix, asked.coded_outcome, (),
                     numpy.column_stack([1 - noise, noise]))
    found, tuned = regression(guess, sample)
    assert tuned < 0.25 and all(0.85 < one.ppi.width / one.coded.width < 1.1 for one in found)


@pytest.mark.parametrize("model", ["linear", "logistic"])
def test_equals_ppi_python(model):
    ppi_py = pytest.importorskip("ppi_py")
    asked, sample = example(model)
    n, posts = len(sample.post), len(asked.matrix)
    found, tuned = regression(asked, sample)
    rest = numpy.delete(numpy.arange(posts), sample.post)
    hand = (asked.coded_matrix, asked.coded_outcome, asked.outcome[sample.post], asked.matrix[rest],
            asked.outcome[rest])
    weight = (1 - n / posts) * tuned
    point, ends = (ppi_py.ppi_ols_pointestimate, ppi_py.ppi_ols_ci) if model == "linear" else \
        (ppi_py.ppi_logistic_pointestimate, ppi_py.ppi_logistic_ci)
    # Its linear estimate takes x'x of coded and other posts apart, ours together: they differ by chance alone.
    near = 2e-5 if model == "logistic" else 0.01
    assert [one.ppi.estimate for one in found] == pytest.approx(point(*hand, lam=weight).tolist(), abs=near)
    low, high = ends(*hand, alpha=0.05, lam=weight)
    theirs = (numpy.array(high) - numpy.array(low)) * t_quantile(0.95, n - 3) / 1.959964
    assert [one.ppi.width for one in found] == pytest.approx(theirs.tolist(), rel=0.08)  # theirs has no jackknife


def errors_of(found) -> list[float]:
    return [one.coded.error for one in found]


@pytest.mark.parametrize("model", ["linear", "logistic"])
def test_equals_glm_and_sandwich_in_r(model):
    asked, sample = example(model, design="independent")
    found, _ = regression(asked, sample)
    ours = [one.coded.estimate for one in found] + errors_of(found)
    assert ours == pytest.approx(R_FIGURES[model], abs=1e-9)


@pytest.mark.skipif(not R, reason="needs R and its package sandwich")
@pytest.mark.parametrize("model", ["linear", "logistic"])
def test_the_recorded_figures_are_r_s(model, tmp_path):
    asked, sample = example(model, design="independent")
    with open(tmp_path / "rows.csv", "w", newline="") as handle:
        rows = csv.writer(handle)
        rows.writerow(["y", "x1", "x2", "w"])
        for y, x, pi in zip(asked.coded_outcome, asked.coded_matrix, sample.probability, strict=True):
            rows.writerow([repr(float(value)) for value in (y, x[1], x[2], 1 / pi)])
    (tmp_path / "lines.R").write_text(R_LINES.replace("FAMILY", FAMILY[model]))
    ended = subprocess.run([R, "lines.R"], cwd=tmp_path, capture_output=True, text=True)
    if "there is no package called" in ended.stderr:
        pytest.skip("needs R's package sandwich")
    assert [float(line) for line in ended.stdout.split()] == pytest.approx(R_FIGURES[model], abs=1e-9)


def test_clusters_are_left_out_whole():
    """Of a linear fit the step without a cluster is exact, so the error is that of fitting again without each."""
    asked, sample = example("linear", design="independent")
    cluster = numpy.arange(len(asked.matrix)) // 5
    found, _ = regression(asked, replace(sample, cluster=cluster))
    own, x, y, w = cluster[sample.post], asked.coded_matrix, asked.coded_outcome, 1 / sample.probability

    def refit(kept):
        root = numpy.sqrt(w[kept])[:, None]
        return numpy.linalg.lstsq(x[kept] * root, y[kept] * root[:, 0], rcond=None)[0]

    whole = refit(numpy.ones(len(y), dtype=bool))
    square = sum((refit(own != k) - whole) ** 2 for k in set(own.tolist()))
    assert errors_of(found) == pytest.approx(numpy.sqrt(square).tolist(), rel=1e-9)
    alone, _ = regression(asked, sample)
    assert errors_of(found) != pytest.approx(errors_of(alone), rel=1e-3)


@pytest.mark.parametrize(("model", "side"), SIDES)
def test_no_unit_changes_an_estimate(model, side):
    """A column as seconds since 1970: x2 in minutes around the year 2024."""
    asked, sample = example(model, side, "independent")
    plain, tuned = regression(asked, sample)
    change = numpy.array([[1, 0, 1.7e9], [0, 1, 0], [0, 0, 60.0]])
    found, again = regression(replace(asked, matrix=asked.matrix @ change, coded_matrix=asked.coded_matrix @ change),
                              sample)
    assert again == pytest.approx(tuned, abs=1e-6)
    for name in ("naive", "coded", "ppi", "dsl"):
        for one, other, unit in ((plain[1], found[1], 1), (plain[2], found[2], 60)):
            facts, wanted = getattr(other, name).to_dict(), getattr(one, name).to_dict()
            covariances = unit * numpy.array(facts.pop("covariances")[1:]) * [1, 60]
            assert wanted.pop("covariances")[1:] == pytest.approx(covariances, abs=1e-9, rel=1e-6)
            assert wanted == pytest.approx(
                {key: value * (1 if key == "df" else unit) for key, value in facts.items()}, abs=1e-6, rel=1e-6)


def test_strata_take_away_what_differs_between_them():
    asked, sample = example("linear", "outcome", "strata")
    fixed, free = (regression(asked, s)[0] for s in (sample, replace(sample, stratum=None)))
    assert all(one.coded.width < other.coded.width for one, other in zip(fixed, free, strict=True))
    assert fixed[0].coded.width < 0.97 * free[0].coded.width


def test_what_the_codes_do_not_have_is_refused():
    asked, sample = example()
    none = replace(asked, coded_matrix=asked.coded_matrix * [1, 0, 1])
    with pytest.raises(UserError, match="'x1' is the same for all 240 coded posts"):
        regression(none, sample)
    apart = replace(asked, coded_outcome=asked.coded_matrix[:, 1])
    with pytest.raises(UserError, match="the coded posts alone: no finite estimate"):
        regression(apart, sample)
    few = replace(asked, coded_matrix=asked.coded_matrix[:3], coded_outcome=asked.coded_outcome[:3])
    with pytest.raises(UserError, match="3 coded posts for 3 coefficients"):
        regression(few, Sample(sample.post[:3], sample.probability[:3]))
    with pytest.raises(UserError, match="2 clusters with coded posts for 3 coefficients"):
        regression(asked, replace(sample, cluster=numpy.arange(len(asked.matrix)) % 2))


def covered(model, side, design, times, truth=(-0.8, 0.7, 0.5)) -> dict[str, list[float]]:
    """How often each interval holds the coefficients of the process behind the posts."""
    inside = {name: numpy.zeros(3) for name in ("naive", "coded", "ppi", "dsl")}
    if side == "outcome" and model == "linear":
        whole = example(model, side, "equal", 999, 2_000_000, 10)[0]
        truth = numpy.linalg.lstsq(whole.matrix, 0.35 + 0.2 * whole.matrix[:, 1] + 0.05 * numpy.clip(
            whole.matrix[:, 2], -2, 2), rcond=None)[0]
    for seed in range(times):
        found, _ = regression(*example(model, side, design, seed))
        for name in inside:
            inside[name] += [getattr(one, name).low <= value <= getattr(one, name).high
                             for one, value in zip(found, truth, strict=True)]
    return {name: (count / times).tolist() for name, count in inside.items()}


def test_intervals_cover_in_a_short_simulation():
    found = covered("logistic", "outcome", "equal", 30)
    assert min(found["ppi"] + found["dsl"]) > 0.8 > min(found["naive"])


@pytest.mark.slow
@pytest.mark.parametrize("design", ["equal", "strata", "independent"])
@pytest.mark.parametrize(("model", "side"), SIDES)
def test_intervals_cover_the_truth(model, side, design):
    found = covered(model, side, design, 2000)
    print(design, model, side, found)
    # .93 to .97, less and plus two Monte Carlo errors of 2,000 draws.
    assert all(0.919 <= value <= 0.978 for name in ("coded", "ppi", "dsl") for value in found[name]), found
