"""The study's regressions of correctness, for question 4: with language effects, and with the share in their place.

Each test row appears once per fit; a post is one cluster. A model's level is its set, whatever its draw and seed, so
the effects are those of sets. Outside predictions have no template here and get regressions of their own.
"""

from collections.abc import Sequence

from common.errors import UserError
from data.languages import language_name
from report.words import counted
from stats.correctness import SHARE, TERMS, Cell, regress
from stats.shares import LARGEST
from study.questions.compared import is_shown
from study.questions.sentences import scored, shortest, unshown
from study.report.section import Claim, Column, Table
from study.results import Results

SHARE_TERMS = ("model", "label", "template", "share")
WITH_SHARE, WITHOUT_ENGLISH = "with share", "with share, without English"
SETS = "the sets"
ERRORS = {"languages": "languages left out one at a time", "posts": "posts as clusters"}


def cells_of(results: Results) -> dict[str, list[Cell]]:
    """What is regressed together: "the sets" (every fit, all templates), and "outside predictions"."""
    plan, outside = results.plan, "as published"
    sets = [Cell(name, template, answers) for name in plan.sets for template in plan.repeat.templates
            for answers in results.recipe(name, template).values()]
    found = {SETS: sets, "outside predictions": [Cell(name, outside, results.outside(name))
                                                       for name in plan.outside]}
    return {name: cells for name, cells in found.items() if cells}


def effects_table(results: Results, listed: Sequence[str]) -> tuple[Table, list[str]]:
    """Average marginal effects of every regression that can be made, and notes, one for each that cannot.

    `listed`: the test languages that have a share.
    """
    regressions = {"with language effects": (TERMS[:4], None), WITH_SHARE: (SHARE_TERMS, None),
                   WITHOUT_ENGLISH: (SHARE_TERMS, [code for code in listed if code != LARGEST])}
    rows, notes = [], []
    for group, cells in cells_of(results).items():
        references = {"model": cells[0].model, "template": cells[0].template, "language": LARGEST,
                      "label": results.kept.grouping.labels[0]}
        for name, (terms, languages) in regressions.items():
            there = len(listed if languages is None else languages)
            if "share" in terms and there < 2:
                notes.append(f"Regression of {group}, {name}: {counted(there, 'language')} with a listed share, but "
                             "two are needed.")
                continue
            try:
                found = regress(cells, terms, shares=results.material.shares.percent, languages=languages,
                                references=_there(references, results, languages))
            except UserError as error:
                notes.append(f"Regression of {group}, {name}, could not be made: "
                             f"{str(error).removeprefix('regression: ')}.")
                continue
            ends = _ends(results, listed if languages is None else languages) if "share" in terms else ("", "")
            rows += [_row(effect, group, name, found, ends) for effect in found.effects]
            notes += [f"Regression of {group}, {name}: {note}." for note in found.notes]
    return _table(rows), notes


def _there(references: dict[str, str], results: Results, languages: Sequence[str] | None) -> dict[str, str]:
    """The references that some row has; the others are left to the regression, which takes the commonest level."""
    rows = results.kept
    chosen = rows.where(languages or rows.languages)
    labels = {rows.grouping.labels[index] for index in rows.gold[chosen].tolist()}
    there = {"label": labels, "language": set(rows.language[chosen].tolist())}
    return {term: level for term, level in references.items() if level in there.get(term, (level,))}


def _ends(results: Results, codes: Sequence[str]) -> tuple[str, str]:
    """The languages with the smallest and the largest share among some."""
    percent = results.material.shares.percent
    return min(codes, key=percent.get), max(codes, key=percent.get)


def _row(effect: dict, group: str, name: str, found, ends: tuple[str, str]) -> dict:
    """`ends`: the languages with the smallest and the largest share."""
    term, level = effect["term"], effect["level"]
    if term == SHARE:
        term, (level, effect["reference"]) = "share", ends[::-1]
        what = f"{language_name(level)}'s share − {language_name(ends[0])}'s"
    else:
        said = language_name if term == "language" else str
        what = f"{said(level)} − {said(effect['reference'])}"
    errors = "posts" if effect["error_languages"] is None else "languages"
    return {**effect, "term": term, "level": level, "regression": name, "of": group, "what": what, "n": found.n,
            "posts": found.posts, "languages": found.languages, "low": effect[f"low_{errors}"],
            "high": effect[f"high_{errors}"], "heading": f"{'' if group == SETS else 'outside: '}{term}, {name}"}


def _table(rows: list[dict]) -> Table:
    errors = [Column(f"{key}_{kind}", f"{words}, {ERRORS[kind]}", of) for kind in ("posts", "languages")
              for key, words, of in (("error", "error", "number"), ("low", "low", "difference"),
                                     ("high", "high", "difference"), ("p", "p", "p"))]
    return Table("bias_effects", "Logistic regression of a right label: average marginal effects", [
        Column("of", "answers of"), Column("regression", "regression"), Column("term", "term"),
        Column("level", "level"), Column("reference", "reference"), Column("what", "contrast"),
        Column("effect", "average marginal effect", "difference"), Column("low", "low", "difference"),
        Column("high", "high", "difference"), *errors, Column("df", "degrees of freedom", "count"),
        Column("n", "rows", "count"), Column("posts", "posts or clusters", "count"),
        Column("languages", "languages", "count"), Column("heading", "shown under")], rows,
        ["Test rows only. An effect is a difference in the fitted probability, averaged over the rows; the word is "
         "only a name, not a statement about what changing a term would do. The share's is from the smallest listed "
         "share to the largest. It is never in a regression with language effects, of which it is a function. 'low' "
         "and 'high' repeat the interval with errors over languages, or over posts if there is no other."])


def regression_claims(table: Table, listed: Sequence[str]) -> list[Claim]:
    """The share's effect in the sets' regression, with English and without; none without an error over languages, of
    which each has one share: posts are no sample of shares."""
    return [Claim(
        _sentence(row),
        row["effect"], row["low"], row["high"],
        f"Among {counted(row['languages'], 'language')}, with model, label and template held, the mean change in the "
        f"probability of a right label from the smallest share to the largest, in answers of {row['of']}, is "
        "compatible with anything inside the interval.",
        "That share causes it, or that it holds for individual posts: a post's share is its language's, and all else "
        "that differs between languages is in it.",
        languages=list(listed if row["regression"] == WITH_SHARE else [code for code in listed if code != LARGEST]),
        holds="other languages, by leaving each out once")
        for row in table.rows if row["term"] == "share" and row["error_languages"] is not None]


def _sentence(row: dict) -> str:
    """What the share's effect is, the longer words first."""
    over = f"{row['of']}{' without English' * (row['regression'] == WITHOUT_ENGLISH)}"
    between = [f"{language_name(row['level'])}'s {words}share instead of {language_name(row['reference'])}'s"
               for words in ("pre-training ", "")]
    if not is_shown(row):
        start = unshown(row["effect"], row["low"], row["high"])
        return shortest([f"{start} in the probability of being right, {one}, by regression of {over}"
                         for one in between]) + "."
    right = f"goes with a probability of a right label {scored(row['effect'])}"
    return shortest([f"In a regression of {over}, {between[0]} {right}",
                     f"By regression of {over}, {between[1]} {right}"]) + "."
