"""Baselines beside the fine-tuned sets, on the same rows: what a reviewer asks for before anything else.

    majority, TF-IDF       learn from exactly each set's rows              zero-shot   the base, without fine-tuning
    encoders, SetFit       the same, if the plan names their folders       outside     files of predictions
    sentence encoder       a regression on its vectors, where its package is installed or the plan names a folder

A baseline that cannot be made (a file without some rows, a folder without an encoder) is left out, and the section says
why: one missing file does not prevent the report.
"""

from collections.abc import Callable

from baselines.sentences import PACKAGE, is_installed
from common.errors import UserError
from data.posts import Post
from report.words import counted, number
from stats.families import RECIPES, SEEDS, THESE
from stats.predictions import Predictions, figures_of
from stats.recipes import FEWEST, Fits, contrast
from study.fits import Fit
from study.questions.compared import in_words, notes_of, title_of, widest
from study.questions.learned import answers_of, encoder, first_fits, majority, regression, tfidf, trained_on
from study.questions.scopes import main_figures, scopes, spread
from study.questions.sentences import FIGURES, finding, many, scored
from study.report.section import Claim, Column, FigureSpec, Section, Table
from study.results import Results
from study.runner import ZERO

TUNED, LEARNED, WITHOUT = "fine-tuned", "learnt from the set's rows", "without the set's rows"
SENTENCES = "sentence encoder"  # with a regression: what to pick instead, on the same two cores
QUESTION = "Does fine-tuning do better than simple and established methods on the same rows?"


def baselines(results: Results, train_of: Callable[[Fit], list[Post]] | None = None) -> Section:
    """All methods in one table, and each set's difference from them; `train_of` gives a fit's training posts."""
    learned, others, notes = gather(results, train_of or trained_on(results.material))
    tuned = {name: list(results.recipe(name).values()) for name in results.plan.sets}
    whole = figures_table(results, tuned, learned, others)
    differences, lines = differences_table(results, tuned, learned, others)
    claims, answer = claim_of(results, lines)
    notes.append("Fine-tuned: the mean over all fits of a set. Baselines that learn are given exactly the training "
                 "rows of its first fit (first seed, first draw), and no test row. Intervals are over test posts; "
                 "those of differences over seeds too where a set has three or more.")
    title = title_of(main_figures(results)[0])
    figures = [FigureSpec(
        "bars", whole.name, "All test languages, each counting the same; the line is the 95 % interval.",
        "That two bars whose intervals overlap are alike: differences on the same posts are in the next figure.",
        name="baselines-all", title=f"{title} by method", x="main", y="name", low="main_low", high="main_high",
        series="kind")]
    if differences.rows:
        figures.append(FigureSpec(
            "forest", differences.name, "Right of the line: the fine-tuned set is better than the baseline on the same "
            "posts.", "How another baseline, or rows of another draw, would come out.", name="baselines-differences",
            title=f"{title}: fine-tuned less baseline", x="difference", y="what", low="low", high="high",
            series="languages", hatched="small"))
    parts = parts_table(results, tuned, learned, others)
    return Section("baselines", "Baselines", QUESTION, answer, claims, [whole, differences, parts], figures, notes,
                   exploratory=True)


def gather(results: Results, train_of) -> tuple[dict[tuple[str, str], Predictions], dict[str, Predictions], list[str]]:
    """(method, set) -> answers; method without a set -> answers; and what was left out, with the reason."""
    plan, learned, others, notes = results.plan.baselines, {}, {}, []
    methods = [("majority", lambda: majority(results))] * plan.majority + [("TF-IDF", lambda: tfidf(results))] * \
        plan.tfidf
    for kind, folders in (("encoder", plan.encoders), ("setfit", plan.setfit)):
        methods += [(f"{folder} ({'SetFit' if kind == 'setfit' else 'fine-tuned'})",
                     lambda kind=kind, folder=folder: encoder(results, kind, folder)) for folder in folders]
    for source in plan.regression:
        if source == "package" and not is_installed():
            notes.append(f"No sentence encoder stands beside the sets: {PACKAGE} is not installed.")
            continue
        methods.append((SENTENCES if source == "package" else f"{source} (regression)",
                        lambda source=source: regression(results, source)))
    for name, make in methods:
        try:
            method = make()
            found = {(name, each): answers_of(results, first_fits(results, each), train_of, method)
                     for each in results.plan.sets}
        except UserError as error:
            notes.append(f"{name} is left out: {error}")
            continue
        learned |= found
    for fit in results.fits:
        if fit.kind == ZERO:
            others["zero-shot"] = results.answers(fit)
    for name in results.plan.outside:
        try:
            others[name] = results.outside(name)
        except UserError as error:
            notes.append(f"{name} is left out: {error}")
    return learned, others, notes


def lines_of(results: Results, tuned, learned, others) -> list[tuple[str, str, str | None, Predictions]]:
    """(name, kind, set, answers) of every method: without a set first, then set by set."""
    lines = [(name, WITHOUT, None, answers) for name, answers in others.items()]
    for each in results.plan.sets:
        lines += [(f"{method}, {each}", LEARNED, each, answers)
                  for (method, name), answers in learned.items() if name == each]
        lines.append((f"{each}, fine-tuned", TUNED, each, tuned[each]))
    return lines


def figures_table(results: Results, tuned, learned, others) -> Table:
    """One row per method and set over all test languages."""
    rows = []
    for name, kind, each, answers in lines_of(results, tuned, learned, others):
        rows.append({"name": name, "kind": kind, "train": each, "n": len(results.kept.ids),
                     **figures_of_method(results, answers, {"all": results.kept.languages})["all"]})
    return Table("baselines_all", "Methods over all test languages, each counting the same",
                 [Column("name", "method"), Column("kind", "kind"), Column("train", "train set"),
                  Column("n", "posts", "count"), *figure_columns(results)], rows)


def parts_table(results: Results, tuned, learned, others) -> Table:
    """The same, separately for languages that a set was trained on and for the others; methods without a set too."""
    rows, kept = [], results.kept
    for each in results.plan.sets:
        groups = scopes(kept.languages, results.seen(each), "part")
        groups.pop("all", None)
        methods = [("fine-tuned", TUNED, tuned[each]), *((name, LEARNED, one) for (name, own), one in learned.items()
                                                         if own == each)]
        methods += [(name, WITHOUT, one) for name, one in others.items()]
        for name, kind, answers in methods:
            for group, found in figures_of_method(results, answers, groups).items():
                inside = kept.where(groups[group])
                rows.append({"train": each, "languages": group, "name": name, "kind": kind, "count": len(groups[group]),
                             "n": int(inside.sum()), "small": kept.is_small(inside), **found})
    columns = [Column("train", "train set"), Column("languages", "test languages"), Column("name", "method"),
               Column("kind", "kind"), Column("count", "how many", "count"), Column("n", "posts", "count"),
               Column("small", "small cell", "flag"), *figure_columns(results)]
    return Table("baselines_parts", "Methods over the languages that a set was trained on, and over the others",
                 columns, rows, ["Seen and unseen refer to the named set; each language counts the same."])


def keys(results: Results) -> dict[str, str]:
    """Figure -> column key; the study's main figure is "main"."""
    first = main_figures(results)[0]
    return {first: "main", **{name: name for name in ("accuracy", "macro_f1") if name != first}}


def figures_of_method(results: Results, answers: Predictions, groups) -> dict[str, dict]:
    """group -> each figure with its interval, by column key."""
    found: dict[str, dict] = {group: {} for group in groups}
    for (group, figure), (value, low, high) in spread([answers], list(keys(results)), groups,
                                                      results.plan.statistics).items():
        key = keys(results)[figure]
        found[group] |= {key: value, f"{key}_low": low, f"{key}_high": high}
    return found


def figure_columns(results: Results) -> list[Column]:
    return [Column(key + end, title_of(figure) if not end else end[1:], "rate")
            for figure, key in keys(results).items() for end in ("", "_low", "_high")]


def differences_table(results: Results, tuned, learned, others) -> tuple[Table, list[dict]]:
    """Each set less each baseline on the same posts: the main figure over all, unseen and seen languages.

    The rows are given once more with the `points` of all fits.
    """
    rows, kept, figure = [], results.kept, main_figures(results)[0]
    for each in results.plan.sets:
        groups = scopes(kept.languages, results.seen(each))
        beside = {name: one for (name, own), one in learned.items() if own == each and name != "majority"}
        for name, one in (beside | others).items():
            for (group, _), (value, low, high) in spread([tuned[each], one], [figure], groups,
                                                         results.plan.statistics).items():
                inside, holds = kept.where(groups[group]), held(results.recipe(each))
                if holds != THESE:
                    found = contrast(results.recipe(each), {("one", "one"): one}, figure, groups[group], "languages",
                                     min(2000, results.plan.statistics.draws), results.plan.statistics.seed)
                    low, high = found["low"], found["high"]
                rows.append({"holds": holds, "what": f"{each} − {name}",
                             "languages": group, "train": each, "baseline": name,
                             "count": len(groups[group]), "n": int(inside.sum()), "small": kept.is_small(inside),
                             "tuned": float(figures_of(tuned[each], figure, groups[group], "languages").mean()),
                             "points": [fit.figure(figure, groups[group], "languages")
                                        - one.figure(figure, groups[group], "languages") for fit in tuned[each]],
                             "value": one.figure(figure, groups[group], "languages"),
                             "difference": value, "low": low, "high": high})
    columns = [Column("what", "contrast"), Column("languages", "test languages"), Column("train", "train set"),
               Column("baseline", "baseline"), Column("count", "how many", "count"), Column("n", "posts", "count"),
               Column("small", "small cell", "flag"), Column("tuned", "fine-tuned", "rate"),
               Column("value", "baseline's", "rate"), Column("difference", "difference", "difference"),
               Column("low", "low", "difference"), Column("high", "high", "difference"),
               Column("holds", "the interval allows for")]
    return Table("baselines_differences", f"{title_of(figure)}: each set less each baseline, on the same posts",
                 columns, [{key: value for key, value in row.items() if key != "points"} for row in rows],
                 ["Each language counts the same. Seen and unseen refer to the set; the mean over its fits less the "
                  "baseline as one fixed fit."]), rows


def held(recipe: Fits) -> str:
    """What the interval of a set less a fixed baseline allows for: other seeds only where there are three or more."""
    draws, seeds = ({key[k] for key in recipe} for k in (0, 1))
    if len(seeds) < FEWEST:
        return THESE
    return RECIPES if len(draws) >= FEWEST else SEEDS


def claim_of(results: Results, lines: list[dict]) -> tuple[list[Claim], str]:
    """The widest set against its TF-IDF (or the first baseline there is), and the sets' range in words."""
    wide, title = widest(results), title_of(main_figures(results)[0])
    own = [row for row in lines if row["train"] == wide and row["languages"] == "all"]
    if not own:
        return [], "The plan names no baseline to compare a set with; the table shows the sets alone."
    row = next((row for row in own if row["baseline"] == "TF-IDF"), own[0])
    tuned_points = row["points"]
    answer = (f"Over all {counted(row['count'], 'test language')}, the set {wide} reaches {title} "
              f"{number(row['tuned'])} and {row['baseline']} {number(row['value'])} on the same posts: "
              f"{in_words({'value': row['difference'], 'low': row['low'], 'high': row['high']})}.")
    every = [r for r in lines if r["baseline"] == row["baseline"] and r["languages"] == "all"]
    above = sum(r["low"] is not None and r["low"] > 0 for r in every)
    answer += (f" For {above} of {counted(len(every), 'set')}, the whole interval of the difference from "
               f"{row['baseline']} lies above zero.")
    answer += beside_encoder([r for r in lines if r["baseline"] == SENTENCES], title)
    found = {"value": row["difference"], "low": row["low"], "high": row["high"]}
    what, languages = FIGURES.get(main_figures(results)[0], title), results.kept.languages
    sentence = finding(found | {"holds": row["holds"]},
                       [f"{wide}, fine-tuned, scores {scored(found['value'], row['baseline'])} on {what}"],
                       [f"on {what}, {wide} fine-tuned less {row['baseline']},"],
                       [f" over all {many(row['count'], 'test language')}", ""])
    return [Claim(
        sentence, *found.values(),
        f"On test posts like these, the mean of {counted(len(tuned_points), 'fit')} less the baseline is compatible "
        "with anything inside the interval.",
        "That a baseline with tuned settings could do no better (its settings are fixed); that each language shows it.",
        languages=languages, notes=notes_of(results, languages, {}), points=tuned_points, holds=row["holds"])], answer


def beside_encoder(rows: list[dict], title: str) -> str:
    """Which sets the sentence encoder is ahead of, and which are ahead of it, over all test languages; in words."""
    whole = [row for row in rows if row["languages"] == "all"]
    if not whole:
        return ""
    parts = []
    for row in whole:
        verdict = "whether they differ was not computed"
        if row["low"] is not None:
            verdict = ("fine-tuning is ahead" if row["low"] > 0 else "the encoder wins" if row["high"] < 0 else
                       "no difference can be shown")
        parts.append(f"{row['train']} {number(row['tuned'])} against {number(row['value'])} ({verdict})")
    return f" Beside a {SENTENCES} with a regression on the same rows, {title}: {'; '.join(parts)}."
