"""Do labels get worse with time? Test posts by when they were written, and sets trained on earlier posts alone.

Two things, where `[data] date` names a column with dates. Every set's figures on test posts of one period after the
other: posts differ from one period to the next, so this alone shows no ageing of a model. And with a day under
`[drift] cut`, sets trained on posts from before that day and, beside them, on as many posts of all days in the same
languages: both label the same later test posts, so their difference is what it costs to have learnt from the past only.
"""

from collections.abc import Mapping

import numpy as np

from report.words import counted
from stats.predictions import Rows
from stats.recipes import Fits
from study.inputs import written_on
from study.questions.compared import compare, fits_words, in_words, main_figure, notes_of, title_of, whole
from study.questions.scopes import part, table_part
from study.questions.sentences import FIGURES, finding, scored
from study.report.section import Claim, Column, FigureSpec, Section, Table
from study.results import Results

MOST_YEARS_AS_MONTHS = 1  # posts of one year are shown by month
KINDS = {"earlier": "earlier posts alone", "mixed": "as many of all days"}
QUESTION = "Does a model that learnt from earlier posts label later ones worse?"


def drift(results: Results) -> Section | None:
    """Figures by period, and what training on earlier posts alone changes; None where posts carry no dates."""
    column = results.plan.data.date
    if column is None:
        return None
    days = np.array([written_on(post, column) for post in results.posts(results.kept)], dtype=object)
    dated = days != ""
    if not dated.any():
        return Section("drift", "Over time", QUESTION, "No test post that counts has a date, so nothing can be said.",
                       exploratory=True)
    periods = periods_table(results, days)
    name, cut, claims, tables, figures = main_figure(results), results.plan.drift.cut, [], [], []
    answer = ("The plan trains no set on earlier posts alone ([drift] cut), so nothing is said about learning from the "
              "past; the table has each set's figures by period.")
    if cut is not None:
        later = np.array([day >= cut for day in days]) & dated
        if not later.any():
            return Section("drift", "Over time", QUESTION, f"No test post is from {cut} or later, so nothing can be "
                           "said of later posts.", tables=[periods], exploratory=True)
        rows = compared_rows(results, later, dated & ~later)
        table = compared_table(rows, name, cut)
        tables.append(table)
        claims = [claim_of(results, row, cut, name, later) for row in rows[:1]]
        figures.append(FigureSpec(
            "forest", table.name, "Left of zero: the set trained on earlier posts alone is worse on later ones than "
            "one trained on as many posts of all days.", "That an interval across zero shows that nothing changes with "
            "time; or that a later year would be like these.", name="drift-compared", x="value", y="set", low="low",
            high="high", title=f"{title_of(name)} on posts from {cut} on"))
        answer = (f"On {counted(int(later.sum()), 'test post')} from {cut} on, {title_of(name)} of a model trained on "
                  "earlier posts alone, less that of one trained on as many of all days: "
                  + "; ".join(f"{row['set']} {in_words(row)}" for row in rows) + ".")
    figures.append(FigureSpec(
        "forest", periods.name, "Each set's accuracy on the test posts of one period after the other.",
        "That a model ages: the posts of each period are other posts, in other languages and with other labels.",
        name="drift-periods", title="Accuracy by period", x="accuracy", y="period", low="low", high="high",
        series="set", hatched="small"))
    left_out = int((~dated).sum())
    notes = [f"{counted(left_out, 'test post')} without a date left out."] if left_out else []
    return Section("drift", "Over time", QUESTION, answer, claims, [*tables, periods], figures, notes, exploratory=True)


def periods_table(results: Results, days: np.ndarray) -> Table:
    """Accuracy and the main figure of every set and outside model, period by period."""
    years = {day[:4] for day in days if day}
    length = 7 if len(years) <= MOST_YEARS_AS_MONTHS else 4
    name, statistics, rows = main_figure(results), results.plan.statistics, []
    for model in results.names:
        fits = list(results.recipe(model).values())
        for period in sorted({day[:length] for day in days if day}):
            chosen = np.array([day.startswith(period) for day in days])
            table = table_part(results.kept, chosen)
            own = [part(fit, table, chosen) for fit in fits]
            line = {"period": period, "set": model, "n": int(chosen.sum()), "languages": len(table.languages),
                    "small": bool(results.kept.is_small(chosen))}
            for keys, figure in ((("accuracy", "low", "high"), "accuracy"), (("main", "main_low", "main_high"), name)):
                line |= dict(zip(keys, whole(own, figure, table.languages, "rows", min(1000, statistics.draws),
                                             statistics.seed), strict=True))
            rows.append(line)
    return Table("drift_periods", "Figures by when the test posts were written", [
        Column("period", "period"), Column("set", "train set"), Column("n", "posts", "count"),
        Column("languages", "languages", "count"), Column("small", "small cell", "flag"),
        Column("accuracy", "accuracy", "rate"), Column("low", "low", "rate"), Column("high", "high", "rate"),
        Column("main", title_of(name), "rate"), Column("main_low", "low", "rate"), Column("main_high", "high", "rate")],
        rows, ["Mean over a set's fits, intervals over test posts. Posts of two periods are other posts, so "
               "differences between periods are not differences of the model."])


def compared_rows(results: Results, later: np.ndarray, earlier: np.ndarray) -> list[dict]:
    """Per set: trained on earlier posts less as many of all days, on the later test posts; both on the earlier too."""
    rows, tables = [], {when: table_part(results.kept, chosen) for when, chosen in (("later", later), (
        "earlier", earlier)) if chosen.any()}
    for name in results.plan.drift.sets or results.plan.sets:
        recipes = {kind: results.recipe(name, kind=kind) for kind in KINDS}
        on_later = {kind: those(recipe, tables["later"], later) for kind, recipe in recipes.items()}
        languages = next(iter(on_later["earlier"].values())).rows.languages
        figure = main_figure(results)
        found = compare(*on_later.values(), figure, languages, results.plan, "rows")
        line = {"set": name, "rows": next(len(fit.keys) for fit in results.fits if (fit.name, fit.kind) == (
                    name, "earlier")), "n": int(later.sum()), "fits": len(recipes["earlier"]),
                **{key: found[key] for key in ("value", "low", "high", "holds", "lacking", "points")},
                "recipes": on_later}
        for when, chosen in (("later", later), ("earlier", earlier)):
            for kind in KINDS:
                own = those(recipes[kind], tables[when], chosen) if when in tables else {}
                line[f"{kind}_{when}"] = float(np.mean([fit.figure(figure) for fit in own.values()])) if own else None
        rows.append(line)
    return rows


def those(recipe: Fits, table: Rows, chosen: np.ndarray) -> Mapping:
    """The recipe's answers to some of the kept posts, whose table is `table`."""
    return {key: part(fit, table, chosen) for key, fit in recipe.items()}


def compared_table(rows: list[dict], name: str, cut: str) -> Table:
    """The comparison of each set as a table."""
    columns = [Column("set", "train set"), Column("rows", "training rows", "count"),
               Column("n", "later posts", "count"), Column("fits", "fits", "count"),
               Column("value", "difference", "difference"),
               Column("low", "low", "difference"), Column("high", "high", "difference"),
               *(Column(f"{kind}_{when}", f"{words}, {when} posts", "rate") for when in ("later", "earlier")
                 for kind, words in KINDS.items()), Column("holds", "the interval allows for")]
    keys = {column.key for column in columns}
    return Table("drift_compared", f"{title_of(name)}, trained on posts from before {cut} or on as many of all days",
                 columns, [{key: value for key, value in row.items() if key in keys} for row in rows],
                 ["Difference: earlier alone less all days, on the same later test posts. As many rows of each "
                  "language on both sides; a language without earlier posts is in neither."])


def claim_of(results: Results, row: dict, cut: str, name: str, later: np.ndarray) -> Claim:
    """What learning from the past only changes for one set."""
    languages = sorted(set(results.kept.language[later].tolist()))
    about = fits_words(*row["recipes"].values()) if row["lacking"] else f"for {row['holds']}"
    what = FIGURES.get(name, title_of(name))
    turn = f"trained only on posts from before {cut} instead of as many of all days"
    return Claim(
        finding(row, [f"T{turn[1:]}, {row['set']} scores {scored(row['value'])} on {what}"],
                [f"on {what} for {row['set']}, {turn},"], [" in later posts", ""]),
        row["value"], row["low"], row["high"],
        f"On {counted(int(later.sum()), 'later test post')}, the difference that training on earlier posts alone makes "
        f"is compatible with anything inside the interval, {about}.",
        "That the model will be as good or as bad next year; or that the difference is one of time alone: earlier "
        "posts may be about other events.",
        languages=languages, notes=notes_of(results, languages, row), points=row["points"], holds=row["holds"])
