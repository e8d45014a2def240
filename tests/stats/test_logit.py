"""Logistic regression: against statsmodels (if installed), scipy, and differences and refits by hand.

Deliberate break: keep the factor's other columns in `effects` (drop the line that sets them to 0) and
test_effects_equal_changing_every_row_by_hand turns red; leave the correction out of `sandwich` and
test_equals_statsmodels does; name nothing in `_separation` and test_separation_is_named does.
"""

import warnings

import numpy
import pytest
from scipy import optimize

from common.errors import UserError
from report.student import t_quantile
from stats.logit import design, effects, fit, jackknife, sandwich


def made(n=600, seed=0):
    """A design with two factors and a number, an outcome, and clusters of three rows."""
    rng = numpy.random.default_rng(seed)
    model, language = rng.choice(["en", "es", "multi"], n), rng.choice(["de", "en", "hi", "tr"], n)
    x = rng.normal(size=n)
    cluster_part = rng.normal(size=n // 3)[numpy.arange(n) // 3]
    score = 0.3 + 0.6 * (model == "multi") - 0.8 * (language == "hi") + 0.5 * x + 0.7 * cluster_part
    y = (rng.random(n) < 1 / (1 + numpy.exp(-score))).astype(float)
    of = design({"model": model, "language": language}, {"x": x}, {"model": "en", "language": "en"})
    return of, y, numpy.arange(n) // 3, model, language, x


def test_the_matrix_is_what_its_names_say():
    of, _, _, model, language, x = made(60)
    assert of.names == ["(intercept)", "model: es", "model: multi", "language: de", "language: hi", "language: tr", "x"]
    assert of.factors == {"model": ["en", "es", "multi"], "language": ["en", "de", "hi", "tr"]}
    by_hand = numpy.stack([numpy.ones(60), model == "es", model == "multi", language == "de", language == "hi",
                           language == "tr", x], 1)
    assert numpy.array_equal(of.matrix, by_hand)
    commonest = design({"model": ["b", "a", "b"]})
    assert commonest.factors["model"] == ["b", "a"]


def test_equals_the_optimum_that_scipy_finds():
    of, y, *_ = made()
    found = fit(of.matrix, y, of.names)

    def loss(b):
        return numpy.logaddexp(0, -(2 * y - 1) * (of.matrix @ b)).sum()

    def slope(b):
        return of.matrix.T @ (1 / (1 + numpy.exp(-of.matrix @ b)) - y)

    theirs = optimize.minimize(loss, numpy.zeros(7), jac=slope, method="BFGS", options={"gtol": 1e-7})
    assert found.beta == pytest.approx(theirs.x, abs=1e-7)
    assert found.log_likelihood == pytest.approx(-theirs.fun, abs=1e-9)
    assert abs(found.scores.sum(0)).max() < 1e-9


def test_equals_statsmodels():
    models = pytest.importorskip("statsmodels.discrete.discrete_model")
    of, y, clusters, *_ = made()
    found = fit(of.matrix, y, of.names)
    theirs = models.Logit(y, of.matrix).fit(disp=0, method="newton", tol=1e-12)
    assert found.beta == pytest.approx(theirs.params, abs=1e-8)
    assert found.bread == pytest.approx(theirs.cov_params(), abs=1e-8)
    clustered = models.Logit(y, of.matrix).fit(disp=0, method="newton", tol=1e-12, cov_type="cluster",
                                               cov_kwds={"groups": clusters})
    covariance = sandwich(found, clusters)
    assert covariance == pytest.approx(clustered.cov_params(), abs=1e-8)
    # Of a number, and of a factor with two levels, statsmodels' average effect means the same as ours.
    es = numpy.where(of.matrix[:, 1] == 1, "es", "other")
    two = design({"model": es}, {"x": of.matrix[:, -1]}, {"model": "other"})
    ours = fit(two.matrix, y, two.names)
    values, gradients = effects(two, ours.beta)
    margins = models.Logit(y, two.matrix).fit(disp=0, method="newton", tol=1e-12, cov_type="cluster",
                                              cov_kwds={"groups": clusters}).get_margeff(at="overall", dummy=True)
    errors = numpy.sqrt(numpy.diag(gradients @ sandwich(ours, clusters) @ gradients.T))
    assert values == pytest.approx(margins.margeff, abs=1e-8)
    assert errors == pytest.approx(margins.margeff_se, abs=1e-8)


def test_effects_equal_changing_every_row_by_hand():
    of, y, _, model, language, x = made(300)
    beta = fit(of.matrix, y, of.names).beta
    values, _ = effects(of, beta)

    def mean(model, x=x):
        return numpy.mean([1 / (1 + numpy.exp(-(beta[0] + {"en": 0, "es": beta[1], "multi": beta[2]}[m]
                                                + {"en": 0, "de": beta[3], "hi": beta[4], "tr": beta[5]}[c]
                                                + beta[6] * v))) for m, c, v in zip(model, language, x, strict=True)])

    assert list(of.columns)[:2] == [("model", "es"), ("model", "multi")] and list(of.columns)[-1] == ("x", "")
    assert values[1] == pytest.approx(mean(["multi"] * 300) - mean(["en"] * 300), abs=1e-12)
    assert values[-1] == pytest.approx((mean(model, x + 1e-5) - mean(model, x - 1e-5)) / 2e-5, abs=1e-8)


def test_a_numbers_effect_over_a_range_is_between_its_two_values():
    of, y, *_ = made(300)
    beta = fit(of.matrix, y, of.names).beta
    values, _ = effects(of, beta, {"x": (-1.0, 2.0)})

    def mean(value):
        matrix = of.matrix.copy()
        matrix[:, -1] = value
        return (1 / (1 + numpy.exp(-(matrix @ beta)))).mean()

    assert values[-1] == pytest.approx(mean(2.0) - mean(-1.0), abs=1e-12) and abs(values[-1]) < 1
    assert values[:-1] == pytest.approx(effects(of, beta)[0][:-1], abs=1e-15)


@pytest.mark.parametrize("ranges", [None, {"x": (-1.0, 2.0)}])
def test_gradients_equal_differences(ranges):
    of, y, *_ = made(300)
    beta = fit(of.matrix, y, of.names).beta
    _, gradients = effects(of, beta, ranges)
    for place in range(len(beta)):
        moved = numpy.zeros(len(beta))
        moved[place] = 1e-5
        slope = (effects(of, beta + moved, ranges)[0] - effects(of, beta - moved, ranges)[0]) / 2e-5
        assert gradients[:, place] == pytest.approx(slope, abs=1e-8)


def test_sandwich_by_hand():
    of, y, clusters, *_ = made(90)
    found = fit(of.matrix, y, of.names)
    middle = numpy.zeros((7, 7))
    for cluster in range(30):
        score = sum(of.matrix[k] * (y[k] - found.probability[k]) for k in range(90) if clusters[k] == cluster)
        middle += numpy.outer(score, score)
    expected = 30 / 29 * 89 / 83 * found.bread @ middle @ found.bread
    assert sandwich(found, clusters) == pytest.approx(expected, abs=1e-12)
    # The name of a cluster means nothing.
    assert sandwich(found, [f"post {c}" for c in clusters]) == pytest.approx(expected, abs=1e-12)
    with pytest.raises(UserError, match="5 clusters for 7 coefficients"):
        sandwich(found, numpy.arange(90) % 5)


def test_jackknife_by_refitting_by_hand():
    of, y, _, model, language, x = made(600, 3)
    full = effects(of, fit(of.matrix, y, of.names).beta)[0]
    found = jackknife(of, y, language, full)
    expected = []
    for code in ("de", "en", "hi", "tr"):
        kept = language != code
        part = design({"model": model[kept], "language": language[kept]}, {"x": x[kept]}, {"model": "en"})
        values = dict(zip(part.columns, effects(part, fit(part.matrix, y[kept], part.names).beta)[0], strict=True))
        expected.append([values["model", "es"], values["model", "multi"], values["x", ""]])
    apart = numpy.array(expected) - full[[0, 1, -1]]
    assert found.groups == ["de", "en", "hi", "tr"]
    assert found.without[:, [0, 1, -1]] == pytest.approx(numpy.array(expected), abs=1e-9)
    assert found.covariance[[0, 1, -1]][:, [0, 1, -1]] == pytest.approx(3 / 4 * apart.T @ apart, abs=1e-12)
    assert numpy.isnan(found.without[:, 2:5]).all() and "'language'" in found.notes[0]


def test_jackknife_errors_cover_better_than_errors_by_row():
    # Twelve languages, each with its own level: rows of one language are no independent witnesses of a number that has
    # one value per language.
    held = {"rows": 0, "languages": 0}
    language, share = numpy.repeat([f"l{k:02}" for k in range(12)], 50), numpy.repeat(numpy.linspace(-1, 1, 12), 50)
    for seed in range(150):
        rng = numpy.random.default_rng(seed)
        own = numpy.repeat(rng.normal(0, 0.6, 12), 50)
        y = (rng.random(600) < 1 / (1 + numpy.exp(-(0.5 + own)))).astype(float)  # the share has nothing to do with it
        of = design({}, {"share": share})
        found = fit(of.matrix, y, of.names)
        values, gradients = effects(of, found.beta)
        by_row = numpy.sqrt((gradients @ sandwich(found, numpy.arange(600)) @ gradients.T)[0, 0])
        by_language = numpy.sqrt(jackknife(of, y, language, values).covariance[0, 0])
        held["rows"] += abs(values[0]) <= 1.96 * by_row
        held["languages"] += abs(values[0]) <= t_quantile(0.95, 11) * by_language
    assert held["languages"] / 150 > 0.91 and held["rows"] / 150 < 0.75


def test_separation_is_named():
    of, y, _, _, language, _ = made(300)
    always = numpy.where(language == "hi", 1.0, y)
    with pytest.raises(UserError, match=r"no finite estimate, .* 'language: hi' \(all \d+ rows 1\)"):
        fit(of.matrix, always, of.names)
    # The reference level alone: no column of its own, so the ones that move together are named.
    reference = numpy.where(language == "en", 0.0, y)
    with pytest.raises(UserError, match=r"'\(intercept\)', 'language: de', 'language: hi', 'language: tr'"):
        fit(of.matrix, reference, of.names)
    with pytest.raises(UserError, match="told apart without error by 'x'"):
        fit(of.matrix[:, [0, 6]], (of.matrix[:, 6] > 0).astype(float), ["(intercept)", "x"])
    with pytest.raises(UserError, match="the outcome is 1 in all 300 rows"):
        fit(of.matrix, numpy.ones(300), of.names)


def test_near_separation_is_no_separation():
    of, y, _, _, language, _ = made(300)
    rare = numpy.where(language == "hi", 1.0, y)
    rare[numpy.flatnonzero(language == "hi")[0]] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert numpy.isfinite(fit(of.matrix, rare, of.names).beta).all()


def test_a_separated_refit_is_a_note():
    of, y, _, model, language, _ = made(300)
    rare = numpy.where(model == "es", 1.0, y)
    rare[numpy.flatnonzero((model == "es") & (language == "de"))[0]] = 0
    found = jackknife(of, rare, language, effects(of, fit(of.matrix, rare, of.names).beta)[0])
    assert numpy.isnan(found.covariance).all()
    assert any("without 'de'" in note and "'model: es'" in note for note in found.notes)


def test_collinearity_is_named():
    rng = numpy.random.default_rng(0)
    model, language = numpy.array(["a", "b", "c"])[rng.integers(0, 3, 90)], rng.choice(["de", "en", "hi"], 90)
    template = numpy.where(model == "a", "paper", "short")
    with pytest.raises(UserError, match=r"column 'template: \w+' is made of .*'model: \w'"):
        design({"model": model, "template": template})
    share = numpy.array([{"de": 0.17, "en": 89.7, "hi": 0.03}[code] for code in language])
    with pytest.raises(UserError, match=r"'share' is a function of 'language' .* keep one"):
        design({"model": model, "language": language}, {"share": share})
    once = rng.normal(size=90)
    with pytest.raises(UserError, match="column 'twice' is made of 'once'"):
        design({"model": model}, {"once": once, "twice": 2 * once})


def test_terms_that_make_no_sense():
    with pytest.raises(UserError, match="'model' has no level 'multy'; did you mean 'multi'"):
        design({"model": ["en", "multi"]}, references={"model": "multy"})
    with pytest.raises(UserError, match="'template' has only one level, 'paper'"):
        design({"template": ["paper", "paper"]})
    with pytest.raises(UserError, match="'x' is not a finite number in 1 rows"):
        design({}, {"x": [1.0, numpy.nan]})
    with pytest.raises(UserError, match="terms of 2, 3 rows"):
        design({"model": ["a", "b"]}, {"x": [1, 2, 3]})
    of, y, *_ = made(60)
    with pytest.raises(UserError, match="2 groups to leave out"):
        jackknife(of, y, ["a", "b"] * 30, numpy.zeros(6))
