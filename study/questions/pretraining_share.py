"""Question 4: is accuracy associated with a language's share of pre-training?

A share has one value per language, so languages are the units: stats/shares.py tests the association by permuting
them, and stats/slope.py gives an interval for the slope of the line. The regression of single posts
(stats/correctness.py) has either language effects or the share, never both. Nothing here is about causes: languages
differ in script, relatedness, fine-tuning rows and in who labelled the posts, and shares vary with all of these.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from data.languages import language_name
from report.intervals import LEVEL, wilson
from report.words import counted
from stats.predictions import Predictions, figures_of
from stats.shares import association
from stats.shrink import FEWEST, pool_rates
from stats.slope import slope
from study.questions.compared import compare, intervals, main_figure, title_of
from study.questions.learning_curves import added
from study.questions.regression import effects_table, regression_claims
from study.questions.sentences import CHANCE, amount, many, p_words
from study.report.section import Claim, Column, FigureSpec, Section, Table
from study.report.tables import shown
from study.results import Results
from study.runner import ZERO

AFTER_BASE = "after less before"


def bias(results: Results) -> Section:
    """Accuracy against share by language, before and after the added exposure, and two regressions of correctness."""
    listed = listed_of(results)
    main, models = main_figure(results), models_of(results)
    chosen = results.plan.exposure.base or next(iter(results.plan.sets))
    languages, related = languages_table(results, models, main), []
    for model, fits in models.items():
        seen = results.seen(model)
        groups = {"all": results.kept.languages, "not trained on": results.unseen(model) if seen else []}
        for figure in ("accuracy", main):
            for over, codes in groups.items():
                if codes and (over == "all" or codes != groups["all"]):
                    values = {code: mean_of(fits, figure, code) for code in codes}
                    related += associations(results, values, model=model, figure=title_of(figure), over=over)
    effects, notes = effects_table(results, listed)
    tables, figures = [languages, association_table("bias_association", "Figures of a language against its share",
                                                    related)], []
    claims, answer = [*share_claims(chosen, related)], share_answer(chosen, related, listed)
    figures.append(FigureSpec(
        "scatter", languages.name, "Each point is one language." + (
            " Read the panels with English covered as well: it lies far to the right of all others."
            if "en" in listed and len(listed) > 1 else "") + (
            " Languages in the strip have no listed share." if set(results.kept.languages) - set(listed) else ""),
        "That a slope through a dozen languages is about pre-training: what else differs between them is not in the "
        "picture, and the points' own intervals are not in the test.", name="bias-share",
        title="Accuracy of each language by its share of pre-training", x="share", y="accuracy", low="low", high="high",
        label="language", series="model", hatched="small"))
    if (moved := exposure_tables(results)) is not None:
        before_after, tests, words = moved
        tables += [before_after, tests]
        claims += exposure_claims(results, before_after, tests)
        figures.append(FigureSpec(
            "scatter", before_after.name, "The added languages before and after; a smaller slope in the lower panel "
            "means that languages with a small share rose more.",
            "That a bias was corrected: what is low has more room to rise, and chance alone makes low figures rise.",
            name="bias-exposure", title="Accuracy of the added languages, before and after their rows", x="share",
            y="accuracy", low="low", high="high", label="language", series="when", hatched="small"))
        notes += words
    if effects.rows:
        tables.append(effects)
        figures.append(FigureSpec(
            "forest", effects.name, "Differences in the fitted probability of a right label, with the other terms held "
            "as they are. Intervals come from leaving out languages one at a time; those of a language's own effect, "
            "which vanishes without that language, take posts as clusters.",
            "That changing a term would change the labels, or that languages beyond these behave alike where the "
            "interval treats only posts as drawn.", name="bias-effects", x="effect", y="what", low="low", high="high",
            series="heading"))
        claims += regression_claims(effects, listed)
    shares, unlisted = results.material.shares, [code for code in results.kept.languages if code not in listed]
    notes = [f"Shares: {shares.model}, {shares.source} ({shares.date}). {shares.note}".strip(),
             *([f"Without a listed share, which is not a share of zero: {names(unlisted)}. They are left out in one "
                "analysis and ranked below all others in another."] if unlisted else []),
             "Languages that a model was fine-tuned on are marked 'seen'; those with many rows also have large shares, "
             "so the associations over languages not trained on are shown too.", *notes]
    if not listed:
        notes.append("No test language has a listed share, so no association can be computed.")
    return Section("bias", "Pre-training share", "Is accuracy associated with a language's share of pre-training, "
                   "before and after a few rows of the language were added?", answer, claims, tables, figures, notes,
                   exploratory=True)


def names(codes: Sequence[str]) -> str:
    """`names(["ar", "hi"]) -> "Arabic, Hindi"`."""
    return ", ".join(map(language_name, codes))


def listed_of(results: Results) -> list[str]:
    """Test languages with a share above zero."""
    return [code for code in results.kept.languages if results.material.shares.percent.get(code, 0) > 0]


def models_of(results: Results) -> dict[str, list[Predictions]]:
    """Every set's fits with the first template, the base without fine-tuning, and the outside predictions."""
    found = {name: list(results.recipe(name).values()) for name in results.names}
    found[ZERO] = list(results.recipe(ZERO, kind=ZERO).values())
    return {name: fits for name, fits in found.items() if fits}


def mean_of(fits: Sequence[Predictions], figure: str, code: str) -> float:
    """The mean of the fits' figures in one language."""
    return float(figures_of(fits, figure, [code], "rows").mean())


def accuracy_rows(fits: Sequence[Predictions], codes: Sequence[str]) -> list[dict]:
    """Per language: the fits' mean accuracy, raw and partially pooled; Wilson's interval counts every post once."""
    rows = fits[0].rows
    n = [int((rows.language == code).sum()) for code in codes]
    right = [mean_of(fits, "accuracy", code) * count for code, count in zip(codes, n, strict=True)]
    pooled = pool_rates(right, n).value if len(codes) >= FEWEST else [None] * len(codes)
    return [{"language": code, "n": count, "small": bool(rows.is_small(rows.language == code)), "pooled": value,
             "accuracy": hits / count, **dict(zip(("low", "high"), wilson(hits, count), strict=True))}
            for code, count, hits, value in zip(codes, n, right, pooled, strict=True)]


def languages_table(results: Results, models: Mapping[str, list[Predictions]], main: str) -> Table:
    """One row per model and test language, with the language's share."""
    percent, rows, plan = results.material.shares.percent, [], results.plan.statistics
    for model, fits in models.items():
        found = intervals(fits, [main], results.kept.languages, plan.draws, plan.seed)
        known = model in results.plan.sets or model == ZERO or bool(results.seen(model))
        for line in accuracy_rows(fits, results.kept.languages):
            code = line["language"]
            f1, f1_low, f1_high = found[main, code]
            rows.append({"model": model, **line, "share": percent.get(code), "f1": f1, "f1_low": f1_low,
                         "f1_high": f1_high, "seen": code in results.seen(model) if known else None})
    return Table("bias_languages", "Accuracy by language, with its share of pre-training",
                 [Column("model", "model"), Column("language", "language", "language"),
                  Column("share", "share of pre-training, per cent", "number"), Column("seen", "seen", "flag"),
                  *accuracy_columns(), Column("f1", title_of(main), "rate"), Column("f1_low", "low", "rate"),
                  Column("f1_high", "high", "rate")], rows,
                 ["Mean over the model's fits; accuracy with Wilson's interval, every post counted once, and partially "
                  "pooled over languages; F1 with a bootstrap interval over posts."])


def accuracy_columns() -> list[Column]:
    """The columns that `accuracy_rows` fills, without the language."""
    return [Column("n", "posts", "count"), Column("small", "small cell", "flag"),
            Column("accuracy", "accuracy", "rate"), Column("low", "low", "rate"), Column("high", "high", "rate"),
            Column("pooled", "pooled", "rate")]


def associations(results: Results, values: Mapping[str, float], **labels) -> list[dict]:
    """`stats.shares.association` without the rows that repeat another, and the slope per tenfold share."""
    percent, found = results.material.shares.percent, {}
    values = {code: round(value, 12) for code, value in values.items()}  # equal means tie, however they were summed
    for row in association(values, percent, seed=results.plan.statistics.seed):
        codes, line = row["languages"], {"slope": None, "low": None, "high": None}
        if row["measure"].startswith("pearson") and row["r"] is not None:
            line = slope(np.log10([percent[code] for code in codes]), np.array([values[code] for code in codes]),
                         seed=results.plan.statistics.seed)
        found.setdefault((row["measure"], tuple(codes)), {
            **labels, **row, **line, "languages": " ".join(codes), "unlisted": " ".join(row["unlisted"])})
    return list(found.values())


def association_table(name: str, title: str, rows: list[dict]) -> Table:
    """Rows of `associations` as a table."""
    return Table(name, title, [
        *(Column(key, words) for key, words in (("model", "model"), ("figure", "figure"), ("over", "languages over"),
                                                ("analysis", "analysis"), ("measure", "measure"))),
        Column("english", "English among them", "flag"), Column("n", "languages", "count"), Column("r", "r", "number"),
        Column("p", "p", "p"), Column("exact", "all orders", "flag"), Column("orders", "orders", "count"),
        Column("smallest_p", "smallest p possible", "p"), Column("slope", "per tenfold share", "difference"),
        Column("low", "low", "difference"), Column("high", "high", "difference"), Column("languages", "which"),
        Column("unlisted", "without a listed share")], rows,
        ["One value per language. p: share of the orders of the languages in which the two go together as closely; "
         "the slope's interval is every slope that this test does not reject. Not adjusted for how many rows are "
         "looked at."])


def share_rows(chosen: str, related: Sequence[dict], over: str = "all") -> list[dict]:
    """A model's accuracy on log10 share: the row with all listed languages, then the one without English."""
    return [row for row in related if (row["model"], row["figure"], row["over"]) == (chosen, "accuracy", over)
            and row["measure"].startswith("pearson")]


def one_association(row: dict) -> str:
    """"r = +0.52, p = 0.031 over all 362,880 orders of 9 languages"."""
    orders = f"{'all' if row['exact'] else 'randomly drawn'} {row['orders']:,} orders"
    return f"r = {shown(row['r'], 'difference')}, {p_words(row['p'])} over {orders} of {row['n']} languages"


def share_answer(chosen: str, related: Sequence[dict], listed: Sequence[str]) -> str:
    """The section's answer, from the chosen model's rows."""
    rows = [row for row in share_rows(chosen, related) if row["r"] is not None]
    if not rows:
        return (f"Nothing can be said: {counted(len(listed), 'test language')} with a listed share, but three are "
                "needed that differ in share and in accuracy.")
    words = f"For {chosen}, {whether_associated(rows[0], 'accuracy')} ({one_association(rows[0])})"
    if len(rows) > 1:
        words += f"; without English, {whether_associated(rows[1], 'accuracy')} ({one_association(rows[1])})"
    return f"{words}. This can be no more than an association among these languages."


def whether_associated(row: dict, figure: str) -> str:
    """What was found, without numbers: whether the test finds the two to go together."""
    if is_associated(row):
        return f"{figure} and the share of pre-training are associated among these {row['n']} languages"
    return f"no association of {figure} with the share of pre-training is shown among these {row['n']} languages"


def is_associated(row: dict) -> bool:
    return row["p"] <= 1 - LEVEL + 1e-9


def share_claims(chosen: str, related: Sequence[dict]) -> list[Claim]:
    """With and without English: the slope per tenfold share, and its permutation p."""
    rows = [row for row in share_rows(chosen, related) if row["r"] is not None]
    claims = []
    for row in rows:
        without = "" if row["english"] or len(rows) == 1 else " without English"
        beside = f"; without English, {one_association(rows[1])}" if row["english"] and len(rows) > 1 else ""
        claims.append(Claim(
            per_tenfold(row, f"Over {many(row['n'], 'language')}{without}, {chosen}'s accuracy"),
            row["slope"], row["low"], row["high"],
            f"{what_may_be_said(row, 'accuracy')} In numbers: {one_association(row)}{beside}.",
            "That share causes accuracy, that anything follows for individual posts or for languages without a listed "
            "share, or that a bias is corrected.",
            languages=row["languages"].split(), holds="other orders of these languages, by permutation"))
    return claims


def per_tenfold(row: dict, start: str) -> str:
    """A headline of a slope: its size, its direction, and whether possibly by chance it."""
    if row["slope"] is None:
        return f"{start} goes with pre-training share by r = {shown(row['r'], 'difference')}."
    tail = "" if is_associated(row) else CHANCE
    turn = "rises" if row["slope"] >= 0 else "falls"
    return f"{start} {turn} by {amount(row['slope'])} per tenfold pre-training share{tail}."


def what_may_be_said(row: dict, figure: str) -> str:
    """An association if the test finds one; else that none is shown."""
    if is_associated(row):
        return (f"Among these {row['n']} languages, {figure} and share are associated: they go together as closely as "
                f"here in {row['p']:.2g} of the orders.")
    return (f"Among these {row['n']} languages, no association of {figure} with share is shown ({p_words(row['p'])}; "
            f"no p below {row['smallest_p']:.2g} was possible).")


def exposure_tables(results: Results) -> tuple[Table, Table, list[str]] | None:
    """The added languages before and after their rows, and the associations; None if the plan adds none."""
    arm, percent = results.plan.exposure, results.material.shares.percent
    codes = [code for code in arm.languages if code in results.kept.languages]
    if not codes:
        return None
    most = max(arm.rows)
    recipes = {"before": results.recipe(arm.base, kind="exposure"), "after": added(results, codes, most, "exposure")}
    rows, values = [], {}
    for when, recipe in recipes.items():
        for line in accuracy_rows(list(recipe.values()), codes):
            code = line["language"]
            values.setdefault(when, {})[code] = line["accuracy"]
            line |= {"when": when, "share": percent.get(code), "rows": most if when == "after" else 0}
            if when == "after":
                found = compare(recipe, recipes["before"], "accuracy", [code], results.plan, "rows")
                line |= {"change": found["value"], "change_low": found["low"], "change_high": found["high"]}
            rows.append(line)
    values[AFTER_BASE] = {code: values["after"][code] - values["before"][code] for code in codes}
    tests = [row for when, of in values.items()
             for row in associations(results, of, model=f"{arm.base}, {when}", figure="accuracy", over="added")]
    table = Table("bias_exposure", f"Added languages before and after {most} rows of each", [
        Column("language", "language", "language"), Column("when", "when"), Column("rows", "rows added", "count"),
        Column("share", "share of pre-training, per cent", "number"), *accuracy_columns(),
        Column("change", "after less before", "difference"), Column("change_low", "low", "difference"),
        Column("change_high", "high", "difference")], rows,
        ["The change's interval is the recipe's where there are fits enough, else over test posts alone."])
    few = sum(percent.get(code, 0) > 0 for code in codes)
    notes = [] if few >= FEWEST else [f"{counted(few, 'added language')} with a listed share, but three are needed "
                                      "to relate the change to it."]
    return table, association_table("bias_exposure_association", "The added languages' accuracy against share",
                                    tests), notes


def exposure_claims(results: Results, table: Table, tests: Table) -> list[Claim]:
    """The change against share, if there are enough languages."""
    name = f"{results.plan.exposure.base}, {AFTER_BASE}"
    row = next((row for row in share_rows(name, tests.rows, "added") if row["r"] is not None), None)
    if row is None:
        return []
    most = max(line["rows"] for line in table.rows)
    start = f"Over {many(row['n'], 'language')}, the gain in accuracy from {most} rows of their own"
    return [Claim(per_tenfold(row, start),
                  row["slope"], row["low"], row["high"],
                  f"{what_may_be_said(row, 'the change in accuracy')} In numbers: {one_association(row)}.",
                  "That the rows corrected a bias of pre-training: languages that are low before have more room, and "
                  "rise by chance alone; or that the share causes the change.",
                  languages=row["languages"].split(), holds="other orders of these languages, by permutation")]
