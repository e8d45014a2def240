"""The regression of correctness: the rows it is made of, its notes, and what it refuses.

Deliberate break: give every row its own cluster (in `regress`, `numpy.arange(len(outcome))` for `clusters`) and
test_a_post_is_one_cluster turns red; take an unlisted share as 0.001 and test_unlisted_shares_leave_rows_out does.
"""

import numpy
import pytest

from common.errors import UserError
from report.student import t_quantile
from stats.correctness import SHARE, Cell, regress
from stats.logit import design, effects, fit, jackknife, sandwich
from stats.predictions import Predictions
from tests.stats.answered import made_answers, made_rows

LANGUAGES = ("ar", "de", "en", "hi", "tr")
SHARES = {"en": 89.7, "de": 0.17, "tr": 0.02, "ar": 0.01}


def cells(n=400, templates=("paper",)):
    rows = made_rows(n, 1, languages=LANGUAGES)
    return [Cell(model, template, made_answers(rows, 10 * k + j, right))
            for k, (model, right) in enumerate((("en", 0.5), ("es", 0.6), ("multi", 0.75)))
            for j, template in enumerate(templates)]


def test_equals_its_parts():
    made = cells(templates=("paper", "short"))
    rows = made[0].answers.rows
    found = regress(made, references={"model": "en", "language": "en", "template": "paper", "label": "neutral"})
    assert (found.n, found.posts, found.languages) == (2400, 400, 5)
    label = numpy.tile(numpy.array(rows.grouping.labels)[rows.gold], 6)
    of = design({"model": numpy.repeat([c.model for c in made], 400), "label": label,
                 "template": numpy.repeat([c.template for c in made], 400), "language": numpy.tile(rows.language, 6)},
                references={"model": "en", "language": "en", "template": "paper", "label": "neutral"})
    y = numpy.concatenate([c.answers.correct for c in made]).astype(float)
    fitted = fit(of.matrix, y, of.names)
    values, gradients = effects(of, fitted.beta)
    by_post = numpy.sqrt(numpy.diag(gradients @ sandwich(fitted, numpy.tile(numpy.arange(400), 6)) @ gradients.T))
    by_language = numpy.sqrt(numpy.diag(jackknife(of, y, numpy.tile(rows.language, 6), values).covariance))
    assert [(e["term"], e["level"]) for e in found.effects] == list(of.columns)
    assert [e["effect"] for e in found.effects] == pytest.approx(values, abs=1e-12)
    assert [e["error_posts"] for e in found.effects] == pytest.approx(by_post, abs=1e-12)
    multi = next(e for e in found.effects if e["level"] == "multi")
    assert multi["reference"] == "en" and multi["df"] == 4
    assert multi["error_languages"] == pytest.approx(by_language[1], abs=1e-12)
    assert multi["high_languages"] - multi["effect"] == pytest.approx(t_quantile(0.95, 4) * by_language[1], abs=1e-9)
    assert multi["p_posts"] < 1e-6 and 0.1 < multi["effect"] < 0.35
    assert all(e["error_languages"] is None for e in found.effects if e["term"] == "language")
    assert found.coefficients[0]["name"] == "(intercept)" and any("'language'" in note for note in found.notes)


def test_a_post_is_one_cluster():
    # The same answers three times over: rows as clusters would shrink the errors by the root of three.
    rows = made_rows(400, 1, languages=LANGUAGES)
    once = made_answers(rows, 3)
    single = regress([Cell("a", "paper", once)], ("label", "language"))
    triple = regress([Cell(name, "paper", once) for name in "abc"], ("label", "language"))
    assert (triple.posts, triple.n) == (400, 1200)
    for one, three in zip(single.effects, triple.effects, strict=True):
        # The factor (n - 1) / (n - p) alone differs.
        assert three["error_posts"] == pytest.approx(one["error_posts"], rel=0.02)


def test_share_and_language_effects_exclude_each_other():
    with pytest.raises(UserError, match=r"share .* is a function of 'language'"):
        regress(cells(), ("model", "label", "language", "share"), shares=SHARES)


def test_unlisted_shares_leave_rows_out():
    found = regress(cells(), ("model", "label", "share"), shares=SHARES)
    assert found.n == 3 * 320 and found.languages == 4
    assert any("not zero: hi" in note for note in found.notes)
    share = found.effects[-1]
    assert share["term"] == SHARE and share["level"] is None and share["reference"] is None and share["df"] == 3
    with pytest.raises(UserError, match="no rows are left"):
        regress(cells(), ("model", "share"))


def test_what_cannot_be_compared():
    made = cells()
    assert "left out, since it has one level: template (paper)" in regress(made).notes
    assert regress(made, ("model",), languages=["de", "en"]).effects[0]["error_languages"] is None
    with pytest.raises(UserError, match="term 'langage' is unknown; did you mean 'language'"):
        regress(made, ("model", "langage"))
    with pytest.raises(UserError, match="answered different tables"):
        regress([*made, Cell("x", "paper", cells(200)[0].answers)])
    rows = made[0].answers.rows
    right = numpy.where(rows.language == "hi", rows.gold, made[0].answers.predicted)
    with pytest.raises(UserError, match="'language: hi'"):
        regress([Cell("en", "paper", Predictions(rows, right))], ("language",))
