"""The authors' regressions of single posts on their published rows, for comparison: opt-in, each with its caveat.

`[data] published` names a table with a row per model and post: model, language, split (train or test), translation
(none, or how good it is), label, predicted, correct (0 or 1). stats/published.py fits the authors' models 1 to 4 to it
as their R script states them. Nothing here is claimed: the rows are not independent, and train rows are among them.
"""

from collections import Counter

from common.errors import UserError
from common.files import find_path
from data.languages import language_name
from report.intervals import wilson
from report.words import counted
from stats.published import REFUSED, REST, TERMS, Published, published
from study.inputs import read_published
from study.report.section import Column, FigureSpec, Section, Table
from study.results import Results

TRAINED = "Accuracy on train rows is on posts that the model was fine-tuned on: it shows memory, not skill."


def as_published(results: Results) -> Section | None:
    """The four fits, and the sizes and labels of the rows; None where the plan names no published rows."""
    if results.plan.data.published is None:
        return None
    path = find_path(results.plan.data.published)
    rows = read_published(path)
    fits, notes = [], []
    for number in TERMS:
        try:
            fits.append(published(rows, number))
        except UserError as error:
            notes.append(f"Model {number} could not be fitted: {error}.")
    tables, figures = [models_table(fits), sizes_table(rows), labels_table(rows)], []
    for name, title, own in (("published_first", "model 1", [fit for fit in fits if fit.number == 1]),
                             ("published_others", "models 2 to 4", [fit for fit in fits if fit.number > 1])):
        if own:
            tables.append(coefficients_table(name, title, own))
    if fits and fits[0].number == 1:
        figures.append(FigureSpec(
            "forest", "published_first", "Model 1: log odds of a right label against each term's reference, as the "
            "authors' script has them. The intervals take every row as independent, so they are too short.",
            "Anything from an interval here: one post stands in several rows, and posts that were trained on stand "
            "among the others.", name="published-coefficients", x="value", y="name", low="low", high="high"))
    answer = (f"{counted(len(rows), 'published row')} of {counted(len({row['model'] for row in rows}), 'model')}: "
              f"{counted(len(fits), 'regression')} of the authors' script fitted again as stated, to be compared with "
              "what was published and not to be believed: each has its caveat beside it.")
    return Section("published", "As published", "What do the authors' own regressions give, fitted again?", answer, [],
                   tables, figures, [*notes, f"{REFUSED[0].upper()}{REFUSED[1:]}. {REST}.", TRAINED], exploratory=True)


def models_table(fits: list[Published]) -> Table:
    """The formulas, their rows, what was left out, and the caveat of each."""
    lines = [{"model": str(fit.number), "formula": f"Correct ~ {' + '.join(TERMS[fit.number])}", "n": fit.n,
              "left_out": ", ".join(fit.left_out) or None, "caveat": fit.caveat} for fit in fits]
    return Table("published_models", "The authors' regressions and what is wrong with each", [
        Column("model", "model"), Column("formula", "formula"), Column("n", "rows", "count"),
        Column("left_out", "left out"), Column("caveat", "caveat")], lines,
        ["Binomial, logit. A column that is made of earlier ones is left out, as R reports it by NA."])


def coefficients_table(table: str, title: str, fits: list[Published]) -> Table:
    """Every coefficient in log odds, its error with independent rows and the interval that follows from it."""
    lines = [{"model": str(fit.number), "name": name, "value": float(value), "error": float(error),
              "low": float(value - 1.96 * error), "high": float(value + 1.96 * error)}
             for fit in fits for name, value, error in zip(fit.names, fit.values, fit.errors, strict=True)]
    return Table(table, f"Coefficients of the authors' {title} (log odds)", [
        Column("model", "model"), Column("name", "coefficient"), Column("value", "estimate", "number"),
        Column("error", "error, rows as independent", "number"), Column("low", "low", "number"),
        Column("high", "high", "number")], lines,
        ["Named as in R: the term, then its level. References: English, train, not translated, neutral, the model of "
         "English; in model 4 the first level by the alphabet of what is there."])


def sizes_table(rows: list[dict]) -> Table:
    """Rows and accuracy by model, part and translation."""
    groups = Counter((row["model"], row["split"], row["translation"]) for row in rows)
    right = Counter((row["model"], row["split"], row["translation"]) for row in rows if row["correct"] == "1")
    lines = []
    for key, n in sorted(groups.items()):
        low, high = wilson(right[key], n)
        lines.append({**dict(zip(("model", "split", "translation"), key, strict=True)), "n": n,
                      "accuracy": right[key] / n, "low": low, "high": high})
    return Table("published_sizes", "Published rows and their accuracy", [
        Column("model", "model"), Column("split", "part"), Column("translation", "translation"),
        Column("n", "rows", "count"), Column("accuracy", "accuracy", "rate"), Column("low", "low", "rate"),
        Column("high", "high", "rate")], lines, [f"Wilson's intervals. {TRAINED}"])


def labels_table(rows: list[dict]) -> Table:
    """The labels that people gave, by language and part, each post once for the model with the most rows of it."""
    counts: dict[tuple, Counter] = {}
    for row in rows:
        if row["translation"] == "none":
            counts.setdefault((row["language"], row["split"], row["model"]), Counter())[row["label"]] += 1
    most: dict[tuple, Counter] = {}
    for (language, split, _), labels in counts.items():
        if labels.total() > most.get((language, split), Counter()).total():
            most[language, split] = labels
    names = sorted({label for labels in most.values() for label in labels})
    lines = [{"language": language_name(language), "split": split, "label": label, "n": labels[label],
              "share": labels[label] / labels.total()} for (language, split), labels in sorted(most.items())
             for label in names]
    return Table("published_labels", "Labels that people gave, by language and part", [
        Column("language", "language"), Column("split", "part"), Column("label", "label"),
        Column("n", "posts", "count"), Column("share", "share", "rate")], lines,
        ["Untranslated rows of one model, the one with the most of them."])
