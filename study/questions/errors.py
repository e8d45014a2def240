"""Which errors are made: one side taken for the other, by model and language, and posts that several models get wrong.

A reversal is a post of one stance that is given another one; a post whose topic is missed is no reversal. Every set's
counts are means over its fits. Posts are named only when asked for (`--error-ids`), by language and id, never by text.
"""

from itertools import permutations

import numpy as np

from report.clusters import WORTHS, rate_interval
from report.words import counted, percent
from stats.stance_split import related_of
from study.questions.compared import widest
from study.report.section import Column, FigureSpec, Section, Table
from study.results import Results

MOST_IDS = 500


def errors(results: Results, ids: bool = False) -> Section | None:
    """Reversals by model and language, and agreement in them; None for a codebook without stances."""
    groups = list(results.kept.grouping.stance_groups)
    if not groups:
        return None
    models = {name: list(results.recipe(name).values()) for name in results.names}
    by_language, shared = reversals(results, models, groups), shared_errors(results, models)
    whole = [row for row in by_language.rows if row["language"] == "all"]
    wide = widest(results)
    worst = max((row for row in whole if row["model"] == wide and row["share"] is not None),
                key=lambda row: row["share"], default=None)
    answer = "No post has a stance, so no side can be taken for another." if worst is None else (
        f"What {wide} most often gets wrong about a stance is {worst['gold']} taken for {worst['given']}: "
        f"{percent(worst['share'])} of {counted(worst['n'], 'post')} that people call {worst['gold']}.")
    figure = FigureSpec("bars", "errors_stances", "Of the posts of one stance, the share that is given another, over "
                        "all languages; the line is the 95 % interval.", "That a model without reversals tells stances "
                        "well: it may find few of them.", name="errors-stances", title="Sides taken for one another",
                        x="share", y="what", low="low", high="high", series="model")
    totals = Table("errors_stances", "Sides taken for one another, over all languages", by_language.columns, whole,
                   by_language.notes)
    tables = [totals, by_language, shared]
    if ids:
        tables.append(named_posts(results, models))
    return Section("errors", "Errors", "Which side is taken for which, where, and by how many models?", answer, [],
                   tables, [figure] if whole else [], exploratory=True)


def reversals(results: Results, models: dict, groups: list[str]) -> Table:
    """Per model, language and ordered pair of stances: how many of the one are given the other."""
    kept, rows = results.kept, []
    of = np.append(kept.grouping.stance_of, -1)
    for name, fits in models.items():
        for code in ("all", *kept.languages):
            inside = related_of(kept, None if code == "all" else [code])
            for gold, given in permutations(range(len(groups)), 2):
                own = inside & (of[kept.gold] == gold)
                n = int(own.sum())
                missed = float(np.mean([(of[fit.predicted[own]] < 0).sum() for fit in fits]))
                times = np.mean([of[fit.predicted[own]] == given for fit in fits], 0)
                low, high = rate_interval(times, kept.clusters[own]) or (None, None)
                rows.append({"what": f"{name}: {groups[gold]} taken for {groups[given]}", "model": name,
                    "language": code, "gold": groups[gold], "given": groups[given], "n": n, "count": float(times.sum()),
                    "share": float(times.mean()) if n else None, "low": low, "high": high,
                    "missed": missed / n if n else None, "small": n < 10})
    return Table("errors_languages", "Sides taken for one another, by model and language", [
        Column("what", "model and error"), Column("model", "model"), Column("language", "test language"),
        Column("gold", "people said"), Column("given", "model says"), Column("n", "posts of that stance", "count"),
        Column("count", "of them taken for the other", "number"), Column("share", "share", "rate"),
        Column("low", "low", "rate"), Column("high", "high", "rate"), Column("missed", "topic missed", "rate"),
        Column("small", "fewer than 10 posts", "flag")], rows,
        ["Means over a set's fits; Wilson's interval, every post counted once; " + WORTHS +
         ". Topic missed: called unrelated, which is no reversal."])


def shared_errors(results: Results, models: dict) -> Table:
    """Posts that two models both reverse, beside what chance alone would give."""
    kept, rows, names = results.kept, [], list(models)
    inside = related_of(kept, None)
    of = np.append(kept.grouping.stance_of, -1)
    wrong = {name: np.array([(of[fit.predicted[inside]] >= 0) & (of[fit.predicted[inside]] != of[kept.gold[inside]])
                             for fit in fits]).mean(0) for name, fits in models.items()}
    for k, first in enumerate(names):
        for second in names[k + 1 :]:
            one, other = wrong[first], wrong[second]
            rows.append({"what": f"{first}, {second}", "n": int(inside.sum()), "first": float(one.sum()),
                         "second": float(other.sum()), "both": float((one * other).sum()),
                         "chance": float(one.mean() * other.sum())})
    return Table("errors_shared", "Related posts that two models both give a wrong stance", [
        Column("what", "models"), Column("n", "related posts", "count"), Column("first", "by the first", "number"),
        Column("second", "by the second", "number"), Column("both", "by both", "number"),
        Column("chance", "if they erred independently", "number")], rows,
        ["Expected counts over a set's fits. Far more than by chance: the same posts are hard, or labelled otherwise "
         "than they read."])


def named_posts(results: Results, models: dict) -> Table:
    """Posts whose stance is reversed most often, by language and id, with the human label."""
    kept = results.kept
    of, inside = np.append(kept.grouping.stance_of, -1), np.flatnonzero(related_of(kept, None))
    times = np.array([np.mean([(of[fit.predicted[inside]] >= 0) & (of[fit.predicted[inside]] != of[kept.gold[inside]])
                               for fit in fits], 0) for fits in models.values()]).sum(0)
    order = [k for k in np.argsort(-times, kind="stable") if times[k] > 0][:MOST_IDS]
    rows = [{"id": str(kept.ids[inside[k]]), "language": str(kept.language[inside[k]]),
             "gold": kept.grouping.labels[kept.gold[inside[k]]], "models": float(times[k])} for k in order]
    return Table("errors_posts", f"Posts with a wrong stance, the most often wrong first (at most {MOST_IDS})", [
        Column("id", "id"), Column("language", "language", "language"), Column("gold", "people said"),
        Column("models", "models", "number")], rows, ["Models: summed over models, each the share of its fits."])
