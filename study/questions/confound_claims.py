"""What may be said of the confounds: a claim for each thing that was changed, and one of the spread over seeds."""

import numpy as np

from report.words import counted
from stats.recipes import FEWEST
from study.questions.compared import notes_of, widest
from study.questions.sentences import amount, finding, scored, weights_words
from study.report.section import Claim
from study.results import Results

ROWS = "Equal total rows"
MODEL = "Another model, the same languages and as many rows"
SEED = "seed"


def shown_rows(results: Results, rows: list[dict]) -> list[dict]:
    """Of each heading the main figure: the first pair of sets, or the set with the most languages if it is there."""
    found: dict[str, dict] = {}
    for row in (row for row in rows if row["main"]):
        if row["heading"] not in found or row["sets"] == (widest(results),):
            found[row["heading"]] = row
    return list(found.values())


def claims_of(results: Results, rows: list[dict]) -> list[Claim]:
    """One claim per heading."""
    claims, languages = [], results.kept.languages
    for row in shown_rows(results, rows):
        more = "Languages still differ in more than their number." if row["heading"] == ROWS else \
            "The two differ in base, recipe and posts." if row["heading"] == MODEL else \
            "A change in figures is not a change in how many labels move; the share of labels is in the table."
        claims.append(Claim(
            sentence_of(row), row["value"], row["low"], row["high"],
            f"{row['heading']}: the difference in {row['figure']} is compatible with anything inside the interval, "
            f"{row['about']}. {more}",
            "That an interval which contains zero shows that there is no difference, or that other sets, prompts or "
            "models behave alike.",
            languages=languages, notes=notes_of(results, languages, row), points=row["points"], holds=row["holds"]))
    return claims


def stored_as(quantize: str) -> str:
    """A quantisation in a heading: `stored_as("nf4") -> "nf4"`, `stored_as("none") -> "not quantised"`."""
    return "not quantised" if quantize == "none" else quantize


def sentence_of(row: dict) -> str:
    """The headline of one change."""
    if row["value"] is None or np.isnan(row["value"]):
        return f"{row['name']}: {row['figure']} cannot be compared; 0 posts allow it."
    what = f"on {row['figure']}"
    posts = [f" over {counted(row['n'], 'post')}", ""]
    if row["heading"] in (ROWS, MODEL):
        held = "equally many rows" if row["heading"] == ROWS else "the same languages and as many rows"
        first, second = row["sets"]
        return finding(row, [f"With {held}, {first} scores {scored(row['value'], second)} {what}"],
                       [f"{what}, {first} less {second} with {held},"], posts)
    kind, _, which = row["heading"].partition(" (trained")[0].partition(" − ")[0].partition(" ")
    changed = f"used on {weights_words('none' if which == stored_as('none') else which)}" if kind == "Weights" else {
        "Prompt": "asked with the prompt ", "Template": "trained and asked with the template ",
        "Codebook": "trained and asked with the codebook "}[kind] + which
    return finding(row, [f"{row['name']}, {changed}, scores {scored(row['value'])} {what}"],
                   [f"{what} for {row['name']}, {changed},"], posts)


VISIBLE = 0.005  # a standard deviation below it is written as none


def variance_claims(results: Results, parts: list[dict]) -> list[Claim]:
    """The widest set's spread over seeds, if there are several."""
    return [Claim(f"Trained again with another seed, {row['set']} scores about {amount(row['sd'])} higher or lower on "
                  f"{row['figure']} (standard deviation of {counted(row['seeds'], 'seed')})."
                  if row["sd"] >= VISIBLE else
                  f"Between {counted(row['seeds'], 'seed')} of {row['set']} no spread on {row['figure']} is shown; a "
                  f"standard deviation of {amount(row['high'])} would fit as well.",
                  row["sd"], row["low"], row["high"],
                  "The standard deviation over seeds, apart from the draw of rows and the test sample, is compatible "
                  "with anything inside the interval.",
                  "That two sets differ where their difference is no larger than this; or, with so few seeds, that a "
                  "value near zero means that seeds do not matter.", kind="rate", languages=results.kept.languages,
                  holds="other seeds")
            for row in parts if row["main"] and row["set"] == widest(results) and row["sd"] is not None
            and row["source"] == SEED and row["seeds"] >= FEWEST]
