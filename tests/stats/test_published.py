"""The authors' regressions on their published rows: recorded values of statsmodels and R's glm, and statsmodels again.

Deliberate break: take `translation == "none"` in model 4, or drop the second block of an interaction.
"""

import csv

import numpy
import pytest

from common.errors import UserError
from stats.published import CAVEATS, published

KNOWN = {  # statsmodels 0.15
    "(Intercept)": 0.5641, "Modelen-es": 0.3171, "Modelmulti": 0.2701, "Modeles": -0.2174, "Languagear": -0.7768,
    "Languagepl": -0.9564, "Languagetr": -0.5390, "Train_Testtest": -0.2156, "TranslationQualitybad": 0.1368,
    "TranslationQualitygood": -0.3273, "TranslationQualityunknown": -0.6450, "labelanti-immigration": 0.2381,
    "labelpro-immigration": 0.2265, "labelunrelated": 1.3785,
}  # fmt: skip
# R 4.2.2, glm(formula, binomial): deviance, number of coefficients, some of them with errors, those that are NA. The
# translated rows at hand are all of one model, and R refuses a factor with one level, so there model 4 is without it.
GLM = {
    1: (17370.57312, 22, {"(Intercept)": (0.56413837, 0.0597215), "Modelmulti": (0.27011005, 0.0571731),
                          "Languagepl": (-0.95643037, 0.105114), "labelunrelated": (1.3785059, 0.0522871),
                          "TranslationQualitygood": (-0.32731808, 0.0717293)}, []),
    2: (17189.24939, 55, {"(Intercept)": (0.8689814, 0.0763888), "Languagepl": (-1.2549919, 0.187108),
                          "Modelmulti:Languagepl": (0.737079, 0.300745)}, []),
    3: (18235.25493, 52, {"(Intercept)": (1.4490593, 0.0657158), "Languagepl": (-1.0679554, 0.179408),
                          "Modelmulti:Languagepl": (0.67976692, 0.289336)},
        ["Share_Unrelated", "Modelen-es:Share_Unrelated", "Modeles:Share_Unrelated", "Modelmulti:Share_Unrelated"]),
    4: (2498.825665, 16, {"(Intercept)": (0.74041307, 0.289483), "Languagepl": (-1.0225269, 0.331471),
                          "labelunrelated": (0.61293718, 0.139527), "TranslationQualitygood": (-0.38145391, 0.171244)},
        ["TranslationQualityunknown"]),
}  # fmt: skip
FORMULAS = {
    1: "model + language + split + translation + label", 2: "model * language + label + split + translation",
    3: "model * language + split + translation", 4: "model * label + language + split + translation",
}  # fmt: skip


@pytest.fixture(scope="module")
def rows(shared_data):
    with open(shared_data / "immigration/published_rows.csv", encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def test_model_one_has_the_known_values(rows):
    found = published(rows, 1)
    values = dict(zip(found.names, found.values, strict=True))
    assert found.n == len(rows) == 16000 and not found.left_out
    for name, value in KNOWN.items():
        assert values[name] == pytest.approx(value, abs=6e-5), name


@pytest.mark.parametrize("number", GLM)
def test_all_four_equal_rs_glm(rows, number):
    theirs, count, some, left_out = GLM[number]
    found = published(rows, number)
    own = {name: pair for name, *pair in zip(found.names, found.values, found.errors, strict=True)}
    assert len(own) == count and found.left_out == left_out
    for name, pair in some.items():
        assert own[name] == pytest.approx(pair, abs=2e-6), name
    chosen = rows if number != 4 else [row for row in rows if row["translation"] != "none"]
    assert deviance(found, chosen) == pytest.approx(theirs, rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("number", FORMULAS)
def test_all_four_equal_statsmodels(rows, number):
    pandas, formulas = pytest.importorskip("pandas"), pytest.importorskip("statsmodels.formula.api")
    from statsmodels.genmod.families import Binomial

    found = published(rows, number)
    frame = pandas.DataFrame(rows)
    frame["correct"] = frame["correct"].astype(float)
    frame = frame[frame.translation != "none"] if number == 4 else frame
    theirs = formulas.glm(f"correct ~ {FORMULAS[number]}", frame, family=Binomial()).fit()
    matrix = numpy.linalg.matrix_rank(theirs.model.exog)
    assert found.n == len(frame) and len(found.names) == matrix and found.caveat == CAVEATS[number]
    odds = -2 * theirs.llf
    assert deviance(found, rows if number != 4 else [r for r in rows if r["translation"] != "none"]) == pytest.approx(
        odds, rel=1e-7)
    if number == 3:
        assert found.left_out[0] == "Share_Unrelated"
        assert found.left_out[1:] == [f"Model{one}:Share_Unrelated" for one in ("en-es", "es", "multi")]


def deviance(found, rows) -> float:
    """-2 log-likelihood from the coefficients' names alone."""
    columns = {"Model": "model", "Language": "language", "Train_Test": "split", "TranslationQuality": "translation",
               "label": "label"}

    table = {name: numpy.array([row[column] for row in rows]) for name, column in columns.items()}

    def holds(part):
        name = next(name for name in columns if part.startswith(name))
        return table[name] == part.removeprefix(name)

    odds = numpy.zeros(len(rows))
    for name, value in zip(found.names, found.values, strict=True):
        odds += value * (name == "(Intercept)" or numpy.all([holds(part) for part in name.split(":")], axis=0))
    right = numpy.array([row["correct"] == "1" for row in rows])
    return float(2 * numpy.logaddexp(0, numpy.where(right, -odds, odds)).sum())


def test_model_four_without_translated_rows_is_refused_and_its_references_are_said(rows):
    own = [row for row in rows if row["translation"] == "none"]
    with pytest.raises(UserError, match="model 4: there are no translated rows"):
        published(own, 4)
    with pytest.raises(UserError, match="model 1: there are no rows"):
        published([], 1)
    found = published(rows, 4)
    there = {row["language"] for row in rows if row["translation"] != "none"}
    assert {f"Language{one}" for one in there} - {*found.names} == {"Languagear"} and "Arabic" in found.caveat
    assert "TranslationQualitygood" in found.names and "TranslationQualitybad" not in found.names


def test_model_five_is_refused_and_says_why(rows):
    with pytest.raises(UserError, match="one value per language"):
        published(rows, 5)
    with pytest.raises(UserError, match="is not one of 1, 2, 3, 4"):
        published(rows, 6)
