"""Question 5: what else could be behind a difference between two training sets.

    rows        pairs of sets whose total rows agree within 2 per cent: languages differ, numbers do not
    model       an outside model beside a set with the same languages and as many rows
    variance    seeds and draws of rows, crossed: how far a figure moves when nothing but luck changes
    asking      another prompt than the one trained with, 16-bit weights under an adapter trained on 4-bit ones
    wording     the template's order and the codebook's words, trained and asked alike

Each is a paired difference on the same posts, shown with the share of labels that change and the share that changes
between two seeds of one recipe: a share below the latter is no more than what training again would change.
"""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np

from common.errors import UserError
from report.words import percent
from stats.families import THESE
from stats.paired import difference
from stats.recipes import Fits, components, lacking
from study.questions.compared import compare, fits_words, in_words, main_figure, title_of, widest
from study.questions.confound_claims import MODEL, ROWS, SEED, claims_of, shown_rows, stored_as, variance_claims
from study.report.section import Column, FigureSpec, Section, Table
from study.results import Results

MOST = 0.5  # no figure between 0 and 1 has a larger standard deviation
NEAR = 0.02  # of the larger set: totals that count as equal
HELD = ("main", "sets", "about", "lacking", "points")  # of a row, not of the table
SOURCES = {"draw": "draw of rows", "seed": SEED, "fit": "draw and seed together", "test_sample": "test sample"}


def confounds(results: Results) -> Section | None:
    """The differences and variance components that the plan has fits for; None for one set, fitted once and asked once.
    """
    sizes = {name: total_rows(results, name) for name in results.plan.sets}
    others = {name: one.rows for name, one in results.plan.outside.items() if one.rows}
    pairs = [pair for own in (sizes, others) for pair in combinations(own, 2) if is_near(*map(own.get, pair))]
    rows = [row for one in comparisons(results, pairs) for row in lines(results, **one)]
    parts, notes = components_rows(results)
    fitted = max(len(results.recipe(name)) for name in sizes)
    if not rows and len(sizes) == 1 and fitted == 1:
        return None
    tables, figures = [sets_table(results, sizes | dict.fromkeys(results.plan.outside) | others, pairs)], []
    if rows:
        table = contrasts_table(rows)
        tables.append(table)
        figures.append(FigureSpec(
            "forest", table.name, "Under each heading one thing was changed and the same posts were answered again: "
            "prompt and weights only when asking, template and codebook both in training and when asking. An interval "
            "that contains zero cannot tell the change from none.",
            "That a change whose interval contains zero makes no difference; or that a difference between training "
            "sets is free of confounds that are not listed here.", name="confounds-contrasts", x="value", y="what",
            low="low", high="high", series="heading", hatched="small"))
    if parts:
        table = components_table(parts)
        tables.append(table)
        if any(row["sd"] is not None for row in parts):
            figures.append(FigureSpec(
                "bars", table.name, "How far a figure moves with each source, as a standard deviation. If the bars of "
                "seed and draw are as long as a difference between two sets, one fit of each does not show it.",
                "That a bar at zero means no variation: with two or three seeds the intervals are wide.",
                name="confounds-components", x="sd", y="what", low="low", high="high", series="source"))
    return Section("confounds", "Confounds", "What besides the training languages moves the figures: rows, luck, "
                   "prompt, weights, wording?", answer_of(results, sizes, pairs, rows, parts),
                   [*claims_of(results, rows), *variance_claims(results, parts)], tables, figures,
                   [*missing(results, pairs, rows, fitted), *notes],
                   exploratory=True)


def total_rows(results: Results, name: str) -> int:
    """Training rows of a set's first fit."""
    return next(len(fit.keys) for fit in results.fits if fit.name == name and fit.kind == "set")


def is_near(one: int, other: int) -> bool:
    """Whether two numbers of rows count as equal."""
    return abs(one - other) <= NEAR * max(one, other)


def figures_asked(results: Results) -> list[tuple[str, str]]:
    """Figures, each with what is weighted equally in it."""
    stance = [("stance.end_to_end.accuracy", "rows")] if results.kept.grouping.stance_groups else []
    return [(main_figure(results), "languages"), ("accuracy", "rows"), *stance]


def comparisons(results: Results, pairs: list[tuple[str, str]]) -> Iterator[dict]:
    """Everything that is compared: heading, name, and two recipes, first minus second."""
    plan, own = results.plan, results.plan.repeat.templates[0]
    for a, b in pairs:
        first, second = sorted((a, b), key=lambda name: -len(results.seen(name)))
        yield {"heading": ROWS, "name": f"{first} − {second}", "sets": (first, second),
               "first": results.recipe(first), "second": results.recipe(second)}
    for name, one in plan.outside.items():
        for own in plan.sets if one.rows and one.seen else ():
            if sorted(one.seen) == results.seen(own) and is_near(one.rows, total_rows(results, own)):
                yield {"heading": MODEL, "name": f"{name} − {own}", "sets": (name, own),
                       "first": results.recipe(name), "second": results.recipe(own)}
    key = (plan.repeat.draws[0], plan.repeat.seeds[0])
    single = {name: {key: results.first(name)} for name in plan.sets}
    asked = [(name, one) for name in plan.sets for one in results.asked(name) if one.template or one.quantize]
    stored = {name: next(fit for fit in results.fits if fit.name == name).options.get("quantize", "nf4")
              for name in plan.sets}
    for name, one in sorted(asked, key=lambda pair: pair[1].name):
        heading = f"Prompt {one.template} (trained: {own})" if one.template else \
            f"Weights {stored_as(one.quantize)} (trained: {stored_as(stored[name])})"
        yield {"heading": heading, "name": name, "sets": (name,), "first": {key: results.first(name, one)},
               "second": single[name], "spare": results.recipe(name)}
    for template in plan.repeat.templates[1:]:
        for name in plan.sets:
            yield {"heading": f"Template {template} − {own}", "name": name, "sets": (name,),
                   "first": results.recipe(name, template), "second": results.recipe(name)}
    for file in plan.variants.codebooks:
        for name in plan.sets:
            fits = [fit for fit in results.fits if (fit.name, fit.kind, fit.codebook) == (name, "codebook", file)
                    and fit.fold[0] <= 1]
            if fits:
                yield {"heading": f"Codebook {Path(file).name} − the study's", "name": name,
                       "sets": (name,), "first": {key: results.answers(fits)}, "second": single[name],
                       "spare": results.recipe(name)}


def lines(results: Results, heading: str, name: str, sets: tuple[str, ...], first: Fits, second: Fits,
          spare: Fits | None = None) -> Iterator[dict]:
    """One row per figure. `spare`: if `second` is one fit, the recipe whose seeds show what training again changes.
    """
    plan, several = results.plan, max(len(first), len(second)) > 1
    changed, again = changes(first, second), reseeded(spare or second)
    for figure, weight in figures_asked(results):
        if several:
            found = compare(first, second, figure, results.kept.languages, plan, weight)
            about = fits_words(first, second) if found["lacking"] else f"over {found['holds']}"
        else:
            (one,), (other,) = first.values(), second.values()
            found = difference(one, other, figure, None, weight, plan.statistics.draws, plan.statistics.seed)
            found |= {"lacking": lacking(first, second), "holds": THESE, "points": [found["value"]]}
            about = "in this one fit of each"
        named = len(sets) == 2 and any(
            {one.first, one.second} == set(sets) and one.figure == figure for one in plan.contrasts)
        yield {"heading": heading, "name": name, "figure": title_of(figure), "what": f"{name}: {title_of(figure)}",
               "weight": weight, "value": found["value"], "low": found["low"], "high": found["high"],
               "changed": changed, "changed_by_seed": again, "fits": len(first), "about": about,
               **{key: found[key] for key in ("holds", "lacking", "points")}, "named": named,
               "n": len(results.kept.ids), "small": results.kept.is_small(np.ones(len(results.kept.ids), bool)),
               "main": figure == main_figure(results), "sets": sets}


def changes(first: Fits, second: Fits) -> float | None:
    """The share of labels that differ between the two, over the fits with equal draw and seed."""
    shared = [key for key in first if key in second]
    return float(np.mean([first[key].predicted != second[key].predicted for key in shared])) if shared else None


def reseeded(recipe: Fits) -> float | None:
    """The share of labels that differ between two seeds of one draw; None if each draw has one seed."""
    pairs = [(recipe[a], recipe[b]) for a, b in combinations(recipe, 2) if a[0] == b[0]]
    return float(np.mean([a.predicted != b.predicted for a, b in pairs])) if pairs else None


def components_rows(results: Results) -> tuple[list[dict], list[str]]:
    """Per set, figure and source: the standard deviation with its interval; and what cannot be estimated, once."""
    rows, notes = [], {}
    for name in results.plan.sets:
        for figure, weight in figures_asked(results)[:2]:
            try:
                found = components(results.recipe(name), figure, None, weight, results.plan.statistics.seed)
            except UserError as error:
                notes[f"{name}: {error}."] = None
                continue
            for source, words in SOURCES.items():
                part = found[source] or dict.fromkeys(("variance", "low", "high"))
                sd, low, high = (None if v is None else min(MOST, v ** 0.5) for v in part.values())
                rows.append({"set": name, "figure": title_of(figure), "source": words, "sd": sd, "low": low,
                             "high": high, "variance": part["variance"], "mean": found["mean"],
                             "what": f"{name}, {title_of(figure)}: {words}", "draws": found["draws"],
                             "seeds": found["seeds"], "note": found["notes"].get(source, ""),
                             "main": figure == main_figure(results)})
            notes |= {f"Variance: {note}.": None for note in found["notes"].values()}
    return rows, list(notes)


def sets_table(results: Results, sizes: dict[str, int], pairs: list[tuple[str, str]]) -> Table:
    """Training rows of every set and outside model, and which others have as many."""
    rows = [{"set": name, "languages": len(results.seen(name)) or None, "rows": size, "fits": len(results.recipe(name)),
             "equal": ", ".join(other for pair in pairs if name in pair for other in pair if other != name) or None}
            for name, size in sizes.items()]
    return Table("confounds_sets", "Training rows of the sets", [
        Column("set", "train set"), Column("languages", "languages", "count"), Column("rows", "rows", "count"),
        Column("fits", "fits", "count"), Column("equal", "sets with as many rows")], rows,
        ["As many: within 2 per cent of the larger. Rows of the first draw; a dash: not known."])


def contrasts_table(rows: list[dict]) -> Table:
    """The comparisons as a table."""
    return Table("confounds_contrasts", "One thing changed, the same posts answered", [
        Column("heading", "what was changed"), Column("name", "set"), Column("figure", "figure"),
        Column("what", "contrast"), Column("weight", "what counts the same"),
        Column("value", "difference", "difference"), Column("low", "low", "difference"),
        Column("high", "high", "difference"), Column("changed", "labels that differ", "rate"),
        Column("changed_by_seed", "between two seeds", "rate"), Column("fits", "fits", "count"),
        Column("holds", "the interval allows for"), Column("named", "in the plan's family", "flag"),
        Column("n", "posts", "count"),
        Column("small", "small cell", "flag")],
        [{key: value for key, value in row.items() if key not in HELD} for row in rows],
        ["'Between two seeds': labels that differ when the same recipe is trained with another seed, mean over the "
         "draws."])


def components_table(rows: list[dict]) -> Table:
    """The variance components as a table."""
    return Table("confounds_components", "How far a figure moves, by source", [
        Column("set", "train set"), Column("figure", "figure"), Column("source", "source"), Column("what", "what"),
        Column("sd", "standard deviation", "number"), Column("low", "low", "number"), Column("high", "high", "number"),
        Column("variance", "variance", "number"), Column("mean", "mean of the figure", "rate"),
        Column("draws", "draws", "count"), Column("seeds", "seeds", "count"), Column("note", "not estimable, since")],
        [{key: value for key, value in row.items() if key != "main"} for row in rows],
        ["Of one more fit, scored on one more test sample. A component whose estimate is negative is set to zero, and "
         "a standard deviation is cut at 0.5, the largest that a figure between 0 and 1 can have."])


def answer_of(results: Results, sizes: dict[str, int], pairs: list, rows: list[dict], parts: list[dict]) -> str:
    """What was found, one sentence each: equal rows, what was changed (for the widest set), luck."""
    chosen, said = shown_rows(results, rows), []
    if not pairs and len(sizes) > 1:
        counts = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
        said.append(f"No two sets have equally many rows ({counts}), so the number of rows differs wherever the "
                    "languages do.")
    for row in chosen:
        again = "" if row["changed_by_seed"] is None else \
            f" (another seed alone: {percent(row['changed_by_seed'])})"
        differ = "" if row["changed"] is None else f"; {percent(row['changed'])} of the labels differ{again}"
        said.append(f"{row['heading']}, {row['name']}: {row['figure']} {in_words(row)}{differ}.")
    luck = [row for row in parts if row["main"] and row["set"] == widest(results) and row["sd"] is not None]
    if luck:
        each = ", ".join(f"{row['sd']:.3f} ({row['source']}" + ("" if row["low"] is None else
                         f"; {row['low']:.3f} to {row['high']:.3f}") + ")" for row in luck)
        said.append(f"Standard deviations of {luck[0]['figure']}, {luck[0]['set']}: {each}.")
    return " ".join(said) or "The plan's fits differ in nothing that could be compared."


def missing(results: Results, pairs: list, rows: list[dict], fitted: int) -> list[str]:
    """What the plan does not have, so that its absence is not read as a finding."""
    plan, headings = results.plan, {row["heading"] for row in rows}
    absent = {
        "two sets of equal total rows": bool(pairs),
        "answers to another prompt than the one trained with": any(h.startswith("Prompt") for h in headings),
        "answers on other weights": any(h.startswith("Weights") for h in headings),
        "a second template": len(plan.repeat.templates) > 1,
        "a codebook in other words": bool(plan.variants.codebooks),
        "several fits of a set": fitted > 1,
    }
    lacking = [words for words, there in absent.items() if not there]
    return [f"The plan does not have: {'; '.join(lacking)}."] if lacking else []
