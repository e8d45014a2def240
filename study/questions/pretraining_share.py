"""Question 4: is accuracy associated with a language's share of pre-training?

A share has one value per language, so languages are the units: stats/shares.py tests the association by permuting
them, and stats/slope.py gives an interval for the slope of the line. The regression of single posts
(stats/correctness.py) has either language effects or the share, never both. A size is said over the observed range,
from the smallest listed share to the largest among the languages, which are named: shares that span 1.3-fold tell
nothing about a tenfold one. Nothing here is about causes: languages differ in script, relatedness, fine-tuning rows and
in who labelled the posts, and shares vary with all of these.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from data.languages import language_name
from report.clusters import WORTHS, worth_of
from report.intervals import wilson
from report.words import counted
from stats.predictions import Predictions, figures_of
from stats.shares import LARGEST, association
from stats.shrink import FEWEST, pool_rates
from stats.slope import slope
from study.questions.compared import compare, intervals, main_figure, title_of
from study.questions.learning_curves import added
from study.questions.regression import effects_table, regression_claims
from study.questions.share_claims import AFTER_BASE, exposure_claims, share_answer, share_claims
from study.report.section import Column, FigureSpec, Section, Table
from study.results import Results
from study.runner import ZERO


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
            if is_alone(results, listed) else "") + (
            " Languages in the strip have no listed share." if set(results.kept.languages) - set(listed) else ""),
        "That a slope through a dozen languages is about pre-training: what else differs between them is not in the "
        "picture, and the points' own intervals are not in the test.", name="bias-share",
        title="Accuracy of each language by its share of pre-training", x="share", y="accuracy", low="low", high="high",
        label="language", series="model", hatched="small"))
    if (moved := exposure_tables(results)) is not None:
        before_after, tests, words = moved
        tables += [before_after, *([tests] if any(row["r"] is not None for row in tests.rows) else [])]
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
             "Languages that a model was fine-tuned on are marked 'seen'; if these have other shares than the rest, an "
             "association may be theirs, so those over languages not trained on are shown too.", *notes]
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


def is_alone(results: Results, listed: Sequence[str]) -> bool:
    """Whether English has ten times the share of any other listed language, or more, and there are others."""
    shares = {code: results.material.shares.percent[code] for code in listed}
    return len(shares) > 1 and shares.pop(LARGEST, 0) >= 10 * max(shares.values())


def models_of(results: Results) -> dict[str, list[Predictions]]:
    """Every set's fits with the first template, the base without fine-tuning, and the outside predictions."""
    found = {name: list(results.recipe(name).values()) for name in results.names}
    found[ZERO] = list(results.recipe(ZERO, kind=ZERO).values())
    return {name: fits for name, fits in found.items() if fits}


def mean_of(fits: Sequence[Predictions], figure: str, code: str) -> float:
    """The mean of the fits' figures in one language."""
    return float(figures_of(fits, figure, [code], "rows").mean())


def accuracy_rows(fits: Sequence[Predictions], codes: Sequence[str]) -> list[dict]:
    """Per language: the fits' mean accuracy, raw and partially pooled; Wilson's interval counts every post once, and
    posts that belong together as what they are worth."""
    rows = fits[0].rows
    n = [int((rows.language == code).sum()) for code in codes]
    hits = np.mean([fit.correct for fit in fits], 0)
    sides = [worth_of(hits[rows.language == code], rows.clusters[rows.language == code]) for code in codes]
    pooled = pool_rates(*zip(*sides, strict=True)).value if len(codes) >= FEWEST else [None] * len(codes)
    return [{"language": code, "n": count, "small": bool(rows.is_small(rows.language == code)), "pooled": value,
             "accuracy": side[0] / side[1], **dict(zip(("low", "high"), wilson(*side), strict=True))}
            for code, count, side, value in zip(codes, n, sides, pooled, strict=True)]


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
                  f"pooled over languages; {WORTHS}; F1 with a bootstrap interval over posts."])


def accuracy_columns() -> list[Column]:
    """The columns that `accuracy_rows` fills, without the language."""
    return [Column("n", "posts", "count"), Column("small", "small cell", "flag"),
            Column("accuracy", "accuracy", "rate"), Column("low", "low", "rate"), Column("high", "high", "rate"),
            Column("pooled", "pooled", "rate")]


def associations(results: Results, values: Mapping[str, float], most: float = 1.0, **labels) -> list[dict]:
    """`stats.shares.association` without the rows that repeat another, and the line's rise over the observed shares.

    `most`: what two values can differ by, 1 for rates and 2 for differences of rates; estimate and ends are cut there.
    """
    percent, found = results.material.shares.percent, {}
    values = {code: round(value, 12) for code, value in values.items()}  # equal means tie, however they were summed
    for row in association(values, percent, seed=results.plan.statistics.seed):
        codes, line = row["languages"], dict.fromkeys(("rise", "low", "high", "least", "largest"))
        if row["measure"].startswith("pearson") and row["r"] is not None:
            logs = np.log10([percent[code] for code in codes])
            fitted = slope(logs, np.array([values[code] for code in codes]), seed=results.plan.statistics.seed)
            rise, low, high = (None if end is None else float(np.clip(end * np.ptp(logs), -most, most))
                               for end in fitted.values())
            line = {"rise": rise, "low": low, "high": high, "least": codes[logs.argmin()],
                    "largest": codes[logs.argmax()]}
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
        Column("smallest_p", "smallest p possible", "p"), Column("least", "from the share of", "language"),
        Column("largest", "to the share of", "language"), Column("rise", "rise between them", "difference"),
        Column("low", "low", "difference"), Column("high", "high", "difference"), Column("languages", "which"),
        Column("unlisted", "without a listed share")], rows,
        ["One value per language. p: share of the orders of the languages in which the two go together as closely; "
         "the rise is the fitted line's, from the smallest of the shares to the largest, and its interval every rise "
         "that this test does not reject, cut where no such value can be. Not adjusted for how many rows are looked "
         "at."])


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
             for row in associations(results, of, 1.0 + (when == AFTER_BASE), model=f"{arm.base}, {when}",
                                     figure="accuracy", over="added")]
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
