"""Question 3: what a few rows of one more language do, compared with placebos that add as much of something else.

For every number of rows, every draw and every seed there is one fit per added language. To pool over the added
languages, their answers are joined: each language's test rows are answered by the fit that was given that language. So
"the recipe with 25 rows" is one recipe, and for its difference from the base draws, seeds and posts are resampled as
for any other. The most rows and the fewest have a claim each: what the most do says nothing of a tiny exposure.

A second axis shows the exposure ratio: fine-tuning tokens of the language over pre-training tokens. Its numerator,
denominator, tokenizer and source come from each fit's run.json.
"""

from collections.abc import Sequence

from data.languages import language_name
from report.words import counted
from stats.predictions import Predictions, figures_of
from stats.recipes import ALL_ROWS, FEWEST, Fits
from study.questions.compared import compare, fits_words, in_words, is_shown, main_figure, notes_of, title_of, whole
from study.questions.labels_needed import law_table
from study.questions.sentences import FIGURES, finding, many, scored
from study.report.section import Claim, Column, FigureSpec, Section, Table
from study.results import Results

ARMS = {"exposure": "rows of the language", "english": "as many more English rows", "steps": "as many more steps"}


def exposure(results: Results) -> Section | None:
    """Learning curves of the added languages, the placebos, and the exposure ratio; None without such an arm."""
    arm = results.plan.exposure
    if not arm.languages:
        return None
    name, counts = main_figure(results), sorted(arm.rows)
    languages = [code for code in arm.languages if code in results.kept.languages]
    if not languages:
        return None
    base = results.recipe(arm.base, kind="exposure")
    curve = curve_table(results, base, languages, counts, name)
    ratios = ratio_table(results, languages, counts)
    recipes = {kind: {count: added(results, languages, count, kind) for count in counts} for kind in ARMS}
    pool = pooled_table(results, base, recipes, languages, name)
    most, ends = counts[-1], list(dict.fromkeys((counts[-1], counts[0])))
    beside = {count: differences(results, base, recipes, languages, name, count) for count in ends}
    answer = (f"An added language's {title_of(name)} with {most} rows of it less that without, averaged over "
              f"{counted(len(languages), 'language')}: {in_words(beside[most]['none'])}")
    for count, found in beside.items():
        kind, _ = against(recipes, base, count)
        if kind != "none":
            answer += f"; {'less that with' if count == most else f'with {count} rows, less that with'} the placebo " \
                      f"({kind}): {in_words(found[kind])}"
    answer += "." if len(beside[most]) > 1 else "; there is no placebo to compare with."
    claims = [claim_of(results, base, recipes, languages, name, count, found) for count, found in beside.items()]
    figures = [
        FigureSpec("curves", curve.name, "Each panel is one added language; the band is a 95 % interval over "
                   "test posts. A curve that rises above its placebo gains from the language itself.",
                   "That a bend between two points is real: neighbouring points share their rows.",
                   name="exposure-curves", title=f"{title_of(name)} by rows of the added language", x="rows",
                   y="value", low="low", high="high", series="arm", facet="language",
                   second="ratio" if any(row["ratio"] for row in curve.rows) else ""),
        FigureSpec("forest", pool.name, "Differences from the base, each added language counting the same.",
                   "Anything about languages that were not added.", name="exposure-pooled", x="value", y="what",
                   low="low", high="high", series="arm")]
    notes = [f"Rows are nested within a draw ({counted(len(arm.draws), 'draw')}), labels "
             + ("as the language has them." if arm.mix == "own" else "equally many of each."),
             *([f"The arm was trained with {counted(seeds, 'seed')}, so what it shows holds for these fits; [exposure] "
                f"seeds names more, and {FEWEST} of them are enough to speak of others."]
               if (seeds := len({seed for _, seed in base})) < FEWEST else []),
             *ratio_notes(results)]
    few = sorted({label for code in languages for label in few_labels(results, code, most)})
    notes += [f"Too few training rows for equally many of each label: {', '.join(few)}."] if few else []
    law, why = law_table(results, {code: {count: added(results, [code], count, "exposure") for count in counts}
                                   for code in languages}, name)
    return Section("exposure", "Minimal exposure", "What do a few rows of a language change, beyond what as many rows "
                   "of something else change?", answer, claims, [curve, pool, *([law] if law else []),
                                                *outside_table(results, base, languages, name), ratios], figures,
                   notes + why)


def against(recipes: dict, base: Fits, count: int) -> tuple[str, Fits]:
    """What the added rows are held against, in words, and its recipe: the first placebo there is, else the base."""
    for kind in ("english", "steps"):
        if recipes[kind][count]:
            return ARMS[kind], recipes[kind][count]
    return "none", base


def differences(results: Results, base: Fits, recipes: dict, languages: Sequence[str], name: str, count: int) -> dict:
    """The recipe with this many rows less the base ("none"), and less its placebo."""
    others = {"none": base} | dict([against(recipes, base, count)])
    return {kind: compare(recipes["exposure"][count], other, name, languages, results.plan)
            for kind, other in others.items()}


def claim_of(results: Results, base: Fits, recipes: dict, languages: Sequence[str], name: str, count: int, found: dict
             ) -> Claim:
    """What this many rows of a language change, beside the placebo if there is one."""
    kind, other = against(recipes, base, count)
    chosen, recipe, what = found[kind], recipes["exposure"][count], FIGURES.get(name, title_of(name))
    about = fits_words(recipe, other) if chosen["lacking"] else f"allowing for {chosen['holds']}"
    rows = counted(count, "row")
    return Claim(
        finding(chosen, [f"Given {rows} of a language instead of {kind}, the model scores {scored(chosen['value'])} on "
                         f"its {what}"],
                [f"on a language's {what}, given {rows} of it instead of {kind}"],
                [f", averaged over {many(len(languages), 'language')}", f" in {many(len(languages), 'language')}", ""]),
        chosen["value"], chosen["low"], chosen["high"],
        (f"This many rows moved these languages by this much with this base, {about}." if is_shown(chosen) else
         f"No effect of this many rows is shown with this base, {about}."),
        "That the exposure corrects a bias of pre-training, or that a ratio rather than a number of rows matters: the "
        "two grow together here.",
        languages=languages, notes=notes_of(results, languages, chosen), points=chosen["points"],
        holds=chosen["holds"])


def added(results: Results, languages: Sequence[str], count: int, kind: str) -> Fits:
    """The recipe with `count` more rows: for each language its own fits' answers; for a placebo one fit for all."""
    if kind != "exposure":
        code = "en" if kind == "english" else ""
        return results.recipe("", kind=kind, added=(code, count))
    single = {code: results.recipe("", kind=kind, added=(code, count)) for code in languages}
    keys = max(single.values(), key=len)  # a language whose every row is added has one fit for all draws
    return {key: joined({code: recipe.get(key) or recipe[ALL_ROWS, key[1]] for code, recipe in single.items()})
            for key in keys}


def joined(parts: dict[str, Predictions]) -> Predictions:
    """One `Predictions`: each language's rows as its own model answered them, the other rows as the first model did."""
    first = next(iter(parts.values()))
    predicted, probabilities = first.predicted.copy(), first.probabilities.copy()
    for code, answers in parts.items():
        own = first.rows.language == code
        predicted[own], probabilities[own] = answers.predicted[own], answers.probabilities[own]
    return Predictions(first.rows, predicted, probabilities)


def curve_table(results: Results, base: Fits, languages: Sequence[str], counts: Sequence[int], name: str) -> Table:
    """Per added language, number of rows and arm: the figure in that language, and its difference from the base."""
    rows = []
    for code in languages:
        small = bool(results.kept.is_small(results.kept.language == code))
        for kind, words in ARMS.items():
            points = {0: base} | {count: added(results, [code], count, kind) for count in counts}
            if len([recipe for recipe in points.values() if recipe]) < 2:
                continue
            for count, recipe in points.items():
                line = {"language": code, "rows": count, "arm": words, "small": small, "fits": len(recipe),
                        "ratio": fitted(results, code, count).get("ratio") if kind == "exposure" else None}
                if recipe:
                    value, low, high = whole(list(recipe.values()), name, [code], "rows",
                                             min(2000, results.plan.statistics.draws), results.plan.statistics.seed)
                    spread = compare(recipe, base, name, [code], results.plan, "rows") if count else {}
                    rows.append({**line, "value": value, "low": low, "high": high,
                                 "difference": spread.get("value"), "difference_low": spread.get("low"),
                                 "difference_high": spread.get("high")})
    columns = [Column("language", "language", "language"), Column("rows", "rows added", "count"),
               Column("arm", "what was added"), Column("fits", "fits", "count"), Column("small", "small cell", "flag"),
               Column("value", title_of(name), "rate"), Column("low", "low", "rate"), Column("high", "high", "rate"),
               Column("difference", "less base", "difference"), Column("difference_low", "low", "difference"),
               Column("difference_high", "high", "difference"), Column("ratio", "exposure ratio", "number")]
    return Table("exposure_curve", f"{title_of(name)} in an added language by rows added", columns, rows,
                 ["A value's interval is over test posts; a difference's is the recipe's where there are fits enough "
                  "(three seeds, three draws), else over test posts too."])


def pooled_table(results: Results, base: Fits, recipes: dict, languages: Sequence[str], name: str) -> Table:
    """Differences from the base over all added languages, each counting the same."""
    rows = []
    for kind, by_count in recipes.items():
        for count, recipe in by_count.items():
            if recipe:
                found = compare(recipe, base, name, languages, results.plan)
                rows.append({"what": f"{count}: {ARMS[kind]}", "arm": ARMS[kind], "rows": count,
                             "value": found["value"], "low": found["low"], "high": found["high"],
                             "draws": len({draw for draw, _ in recipe}), "seeds": len({seed for _, seed in recipe}),
                             "holds": found["holds"]})
    columns = [Column("what", "what was added"), Column("arm", "arm"), Column("rows", "rows", "count"),
               Column("value", "difference to the base", "difference"), Column("low", "low", "difference"),
               Column("high", "high", "difference"), Column("draws", "draws", "count"),
               Column("seeds", "seeds", "count"), Column("holds", "the interval allows for")]
    return Table("exposure_pooled", f"{title_of(name)} less the base, {counted(len(languages), 'language')} pooled",
                 columns, rows)


def outside_table(results: Results, base: Fits, languages: Sequence[str], name: str) -> list[Table]:
    """What the outside models reach in the added languages, beside the base; nothing without outside models."""
    rows = []
    for model, one in results.plan.outside.items():
        for code in languages:
            recipe = results.recipe(model)
            found = compare(recipe, base, name, [code], results.plan, "rows")
            rows.append({"model": model, "language": code, "seen": None if one.seen is None else code in one.seen,
                         "rows": one.rows, "value": float(figures_of(list(recipe.values()), name, [code], "rows")[0]),
                         **{f"difference{end}": found[key] for end, key in (("", "value"), ("_low", "low"),
                                                                            ("_high", "high"))}})
    columns = [Column("model", "outside model"), Column("language", "language", "language"),
               Column("seen", "trained on it", "flag"), Column("rows", "training rows in all", "count"),
               Column("value", title_of(name), "rate"), Column("difference", "less the base", "difference"),
               Column("difference_low", "low", "difference"), Column("difference_high", "high", "difference")]
    return [Table("exposure_outside", f"{title_of(name)} of outside models in the added languages", columns, rows,
                  ["Outside models have no curve: how many rows of a language they saw is not known here. Intervals "
                   "over test posts."])] if rows else []


def fitted(results: Results, code: str, count: int) -> dict:
    """The exposure to a language in the run.json of the first fit with this many of its rows; {} if there is none.
    """
    for fit in results.fits:
        if fit.kind == "exposure" and fit.added == (code, count):
            return results.runner.facts(fit).get("exposure", {}).get("languages", {}).get(code, {})
    return {}


def ratio_table(results: Results, languages: Sequence[str], counts: Sequence[int]) -> Table:
    """Numerator and denominator of every exposure ratio."""
    rows = []
    for code in languages:
        for count in counts:
            facts = fitted(results, code, count)
            if facts:
                rows.append({"language": code, "rows": count, "tokens": round(facts["post_tokens"]),
                             "ratio": facts["ratio"], "share": facts["share_percent"], "own": facts["ratio_own"],
                             "source": facts["source"] or "no share is listed"})
    columns = [Column("language", "language", "language"), Column("rows", "rows", "count"),
               Column("tokens", "post tokens, all epochs", "count"), Column("ratio", "of all pre-training", "number"),
               Column("share", "listed share, per cent", "number"), Column("own", "of the language's own", "number"),
               Column("source", "source of the share")]
    return Table("exposure_ratio", "Fine-tuning tokens over pre-training tokens", columns, rows)


def ratio_notes(results: Results) -> list[str]:
    """The denominator, the tokenizer and the table of shares, in words."""
    for fit in results.fits:
        facts = results.runner.facts(fit).get("exposure") if fit.kind == "exposure" and fit.added[1] else None
        if facts and facts["model"] is None:
            return [f"There is no ratio: {facts['note']}. Tokens counted by the {facts['tokenizer']}."]
        if facts:
            return [f"Denominator: {facts['pretraining_tokens']:.3g} tokens ({facts['model']}; {facts['source']}). "
                    f"Tokens counted by the {facts['tokenizer']}. {facts['note']}".strip()]
    return []


def few_labels(results: Results, code: str, most: int) -> list[str]:
    """With equally many rows of each label: "label in language" for labels with fewer rows than that needs."""
    labels = results.material.codebook.labels
    counts = {label: sum(post.label == label for post in results.material.by_language[code]) for label in labels}
    if results.plan.exposure.mix == "own":
        return []
    return [f"{label} in {language_name(code)} ({count})" for label, count in counts.items()
            if count < most / len(labels)]

