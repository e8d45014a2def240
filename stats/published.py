"""Four of the authors' logistic regressions of per-post correctness, as their R script states them, on published rows.

    1  Correct ~ Model + Language + Train_Test + TranslationQuality + label
    2  Correct ~ Model * Language + label + Train_Test + TranslationQuality
    3  Correct ~ Model * Language + Model * Share_Unrelated + Train_Test + TranslationQuality
    4  Correct ~ Model * label + Language + Train_Test + TranslationQuality             translated rows only

Reference levels: English, train, not translated, neutral, and the model fine-tuned on English; where no row has one of
these, as in model 4, whose posts are all translated, the first level by the alphabet. A column that is made of
earlier ones is left out and named, as R's glm reports it by NA. These fits are here to be compared with the paper's,
not to be believed: `CAVEATS` stands beside each. Their fifth model, in which a language's pre-training share stands
beside language effects, is refused: the share is a function of the language, so nothing can tell the two apart. `REST`
says why the others of the script are not here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy

from common.errors import UserError
from stats.logit import fit

COLUMNS = {"Model": "model", "Language": "language", "Train_Test": "split", "TranslationQuality": "translation",
           "label": "label"}
REFERENCES = {"Model": "en", "Language": "en", "Train_Test": "train", "TranslationQuality": "none", "label": "neutral"}
TERMS = {
    1: ("Model", "Language", "Train_Test", "TranslationQuality", "label"),
    2: ("Model", "Language", "label", "Train_Test", "TranslationQuality", "Model:Language"),
    3: ("Model", "Language", "Share_Unrelated", "Train_Test", "TranslationQuality", "Model:Language",
        "Model:Share_Unrelated"),
    4: ("Model", "label", "Language", "Train_Test", "TranslationQuality", "Model:label"),
}
COMMON = ("Train and test rows are pooled, the same post is counted once for each model, and the errors take these "
          "rows as independent, so they are too small.")
CAVEATS = {
    1: COMMON + " The effects of language mix the language with its posts.",
    2: COMMON + " Cells have 25 test posts a language and model.",
    3: COMMON + " The share of unrelated posts has one value a language, so beside the languages it explains nothing: "
       "its columns are left out.",
    4: COMMON + " Only translated posts; their languages are those that were translated, so effects of language and "
       "translation are against the first by the alphabet, in the paper's rows Arabic and bad.",
}
REFUSED = ("model 5 (Model * LangShare beside Language) is not fitted: a pre-training share has one value per "
           "language, so with language effects in the model no data can tell the two apart")
REST = ("Nor are model 6 (model 1 with DatasetSize), since the rows hold no such size, and the script's two mixed "
        "models with random slopes (glmer), which nothing here fits")


@dataclass(frozen=True)
class Published:
    """One model: names and values of the coefficients, their errors with independent rows, columns left out, n rows."""

    number: int
    names: list[str]
    values: numpy.ndarray
    errors: numpy.ndarray
    left_out: list[str]
    n: int
    caveat: str


def published(rows: Sequence[Mapping[str, str]], number: int) -> Published:
    """Fit one of the four to rows with model, language, split, translation, label, correct ("0" or "1"); float64.

    Raises `UserError` for model 5, an unknown number, no rows to fit, and separation (stats/logit.py).
    """
    if number not in TERMS:
        raise UserError(REFUSED if number == 5 else f"model {number}: is not one of {', '.join(map(str, TERMS))}")
    if number == 4:
        rows = [row for row in rows if row["translation"] != "none"]
    if not rows:
        raise UserError(f"model {number}: there are no {'translated ' if number == 4 else ''}rows to fit it to")
    names, columns = ["(Intercept)"], [numpy.ones(len(rows))]
    blocks = {name: _factor(rows, name) for name in COLUMNS}
    language = numpy.array([row["language"] for row in rows])
    unrelated = numpy.array([row["label"] == "unrelated" for row in rows], dtype=numpy.float64)
    share = numpy.array([unrelated[language == one].mean() for one in language.tolist()]) if number == 3 else None
    blocks["Share_Unrelated"] = [("Share_Unrelated", share)]
    for term in TERMS[number]:
        first, _, second = term.partition(":")
        for name, column in blocks[first]:
            others = [(f"{name}:{other}", column * more) for other, more in blocks[second]] if second else []
            for full, product in others or [(name, column)]:
                names.append(full)
                columns.append(product)
    matrix, kept = numpy.stack(columns, 1), []
    basis = numpy.empty((len(rows), 0))
    for index, column in enumerate(matrix.T):
        rest = column - basis @ (basis.T @ column)
        rest -= basis @ (basis.T @ rest)
        size = numpy.linalg.norm(rest)
        if size > 1e-7 * max(1.0, numpy.linalg.norm(column)):
            kept.append(index)
            basis = numpy.concatenate([basis, (rest / size)[:, None]], 1)
    outcome = numpy.array([float(row["correct"]) for row in rows])
    found = fit(matrix[:, kept], outcome, [names[index] for index in kept])
    return Published(number, [names[index] for index in kept], found.beta, numpy.sqrt(numpy.diag(found.bread)),
                     [name for index, name in enumerate(names) if index not in set(kept)], len(rows), CAVEATS[number])


def _factor(rows, name: str) -> list[tuple[str, numpy.ndarray]]:
    """Its columns: one for each level but the reference, by name; the first level is the reference if it is absent."""
    values = numpy.array([row[COLUMNS[name]] for row in rows])
    levels = sorted(set(values.tolist()))
    reference = REFERENCES[name] if REFERENCES[name] in levels else levels[0]
    return [(name + level, (values == level).astype(numpy.float64)) for level in levels if level != reference]
