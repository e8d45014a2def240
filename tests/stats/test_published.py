"""The authors' regressions on their published rows: recorded values, and statsmodels for all four.

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
