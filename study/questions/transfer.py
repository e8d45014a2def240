"""Question 1: does the topic carry over to languages that a model was never trained on?

Every set's figures are means over its fits; outside models, whose labels are read from files, stand beside them.
"""

from collections.abc import Mapping

from data.languages import language_name
from report.words import counted, number
from stats.predictions import figures_of
from stats.recipes import Fits
from stats.shrink import partially_pooled
from study.questions.compared import (
    compare,
    fits_words,
    intervals,
    main_figure,
    notes_of,
    of_cells,
    title_of,
    whole,
    widest,
)
from study.questions.sentences import compared
from study.report.section import Claim, Column, FigureSpec, Section, Table
from study.results import Results


def topic(results: Results) -> Section:
    """Question 1: the topic by train set and test language, seen and unseen marked, beside the multilingual set."""
    name, plan = main_figure(results), results.plan
    recipes = {each: results.recipe(each) for each in results.names}
    matrix, shrunk = transfer_table(results, recipes, name), pooled_table(results, name)
    sets, multi = sets_table(results, recipes, name), widest(results)
    single = [each for each in plan.sets if len(results.seen(each)) == 1 and each != multi]
    claims, answer = [], "The plan has no monolingual set to compare with a multilingual one."
    if single:
        answer = topic_answer(results, recipes, multi, single[0], name)
        named = [each for each in single if is_named(results, multi, each, name)]
        claims = [topic_claim(results, recipes, multi, each, name) for each in single if each not in named]
    matrix.notes = ["Mean over the set's fits; intervals by bootstrap over test posts, with these "
                    f"together: {results.material.together}."]
    figures = [FigureSpec("matrix", matrix.name, "Each row is one train set. Outlined cells are languages it was "
                          "trained on; a set whose other cells are as high carries over.", of_cells(matrix),
                          name="topic-transfer", title=f"{title_of(name)} by train set and test language", x="language",
                          y="train", value="value", outlined="seen", hatched="small"),
               FigureSpec("forest", "topic_differences", f"Differences from {multi}. Each interval says in the table "
                          "what it allows for: other fits and posts, or other posts alone.",
                          "Anything from two intervals that overlap: each is about its own difference.",
                          name="topic-sets", x="difference", y="what", low="low", high="high", series="languages")]
    counts = ", ".join(f"{each} {len(recipe)}" for each, recipe in recipes.items())
    notes = [f"Fits of each: {counts}. A draw that takes all rows there are counts once for each seed."]
    if single and named:
        notes.append(f"{multi} less {', '.join(named)} is a comparison of the plan: its claim, with the family's "
                     "interval, stands in the section on these.")
    keys = ("what", "train", "languages", "difference", "low", "high", "holds")
    apart = Table("topic_differences", f"{title_of(name)}, less {multi} on the same languages",
                  [sets.column(key) for key in keys],
                  [{key: row[key] for key in keys} for row in sets.rows if row["train"] != multi])
    if not apart.rows:
        figures.pop()
    return Section("topic", "Topic transfer", "Does the topic carry over to languages that a model was never trained "
                   "on?", answer, claims, [matrix, sets, *([apart] if apart.rows else []), shrunk], figures, notes)


def is_named(results: Results, multi: str, single: str, name: str) -> bool:
    """Whether the plan's family has this very comparison, so that it is not claimed twice with two intervals."""
    unseen = results.unseen(single) or results.kept.languages
    return any((one.first, one.second, one.figure, one.weight) == (multi, single, name, "languages")
               and set(results.languages_of(one)) == set(unseen) for one in results.plan.contrasts)


def topic_answer(results: Results, recipes: Mapping[str, Fits], multi: str, single: str, name: str) -> str:
    """What the monolingual set and the multilingual one reach in the languages that the former never saw."""
    unseen = results.unseen(single) or results.kept.languages
    both = [float(figures_of(list(recipes[each].values()), name, unseen, "languages").mean())
            for each in (multi, single)]
    there = len(set(unseen) & set(results.seen(multi)))
    return (f"Trained on {language_name(results.seen(single)[0])} alone, the model reaches {title_of(name)} "
            f"{number(both[1])} in the {counted(len(unseen), 'language')} that it never saw; trained on {multi}, which "
            f"has {there} of {'these' if len(unseen) > 1 else 'them'}, {number(both[0])} (means over all fits; "
            "whether they differ is said in a claim of its own).")


def topic_claim(results: Results, recipes: Mapping[str, Fits], multi: str, single: str, name: str) -> Claim:
    """The multilingual set against a monolingual one, where the latter was not trained."""
    unseen = results.unseen(single) or results.kept.languages
    found = compare(recipes[multi], recipes[single], name, unseen, results.plan)
    about = fits_words(recipes[multi], recipes[single]) if found["lacking"] else \
        f"for {found['holds']}"
    return Claim(
        compared(results, multi, single, name, unseen, found), found["value"], found["low"], found["high"],
        f"Each language counting the same, the {title_of(name)} of {multi} less that of {single} is compatible with "
        f"anything inside the interval, {about}.",
        "That more languages, rather than more rows, make the difference, unless a set of equal size is beside it; "
        "or that a single language behaves like the mean.",
        languages=unseen, notes=notes_of(results, unseen, found), points=found["points"], holds=found["holds"])


def transfer_table(results: Results, recipes: Mapping[str, Fits], name: str) -> Table:
    """One row per train set and test language."""
    plan, topic_there = results.plan, results.kept.grouping.topic_of is not None
    more = ["topic.recall", "topic.specificity"] if topic_there else ["accuracy"]
    rows = []
    for each, recipe in recipes.items():
        found = intervals(list(recipe.values()), [name, *more], results.kept.languages, plan.statistics.draws,
                          plan.statistics.seed)
        for code in results.kept.languages:
            chosen = results.kept.language == code
            value, low, high = found[name, code]
            rows.append({"train": each, "language": code, "n": int(chosen.sum()), "seen": code in results.seen(each),
                         "small": bool(results.kept.is_small(chosen)), "value": value, "low": low, "high": high,
                         **{kind.rpartition(".")[2]: found[kind, code][0] for kind in more}})
    columns = [Column("train", "train set"), Column("language", "test language", "language"),
               Column("n", "posts", "count"), Column("seen", "seen", "flag"), Column("small", "small cell", "flag"),
               Column("value", title_of(name), "rate"), Column("low", "low", "rate"), Column("high", "high", "rate"),
               *(Column(kind.rpartition(".")[2], title_of(kind), "rate") for kind in more)]
    return Table("topic_transfer", f"{title_of(name)} by train set and test language", columns, rows)


def sets_table(results: Results, recipes: Mapping[str, Fits], name: str) -> Table:
    """Each set over all, seen and unseen languages, and its difference from the multilingual set on the same rows."""
    multi, plan, rows = widest(results), results.plan, []
    for each, recipe in recipes.items():
        groups = {"all": results.kept.languages, "unseen": results.unseen(each),
                  "seen": [code for code in results.kept.languages if code in results.seen(each)]}
        for group, languages in groups.items():
            if not languages:
                continue
            value, *ends = whole(list(recipe.values()), name, languages, "languages", plan.statistics.draws,
                                 plan.statistics.seed)
            by_rows = float(figures_of(list(recipe.values()), name, languages, "rows").mean())
            line = {"train": each, "languages": group, "count": len(languages), "value": value, "value_low": ends[0],
                    "value_high": ends[1], "by_rows": by_rows, "what": f"{each} − {multi}, {group}"}
            if each != multi:
                found = compare(recipe, recipes[multi], name, languages, plan)
                line |= {"difference": found["value"], "low": found["low"], "high": found["high"],
                         "holds": found["holds"]}
            rows.append(line)
    columns = [Column("what", "contrast"), Column("train", "train set"), Column("languages", "test languages"),
               Column("count", "how many", "count"), Column("value", f"{title_of(name)}, languages equal", "rate"),
               Column("value_low", "low", "rate"), Column("value_high", "high", "rate"),
               Column("by_rows", "by rows", "rate"), Column("difference", f"less {multi}", "difference"),
               Column("low", "low", "difference"), Column("high", "high", "difference"),
               Column("holds", "the interval allows for")]
    return Table("topic_sets", f"Train sets over languages, and less {multi} on the same languages", columns, rows,
                 ["A value is the mean over the set's fits, its interval over test posts."])


def pooled_table(results: Results, name: str) -> Table:
    """Per-language figures, partially pooled beside raw."""
    rows, statistics = [], results.plan.statistics
    for each in results.names:
        lines, _ = partially_pooled(results.first(each), name, None, statistics.draws, statistics.seed)
        rows += [{"train": each, **line} for line in lines]
    rate = lambda key, words: Column(key, words, "rate")  # noqa: E731
    columns = [Column("train", "train set"), Column("language", "test language", "language"), Column("n", "n", "count"),
               Column("small", "small cell", "flag"), rate("raw", "raw"), rate("raw_low", "low"),
               rate("raw_high", "high"), rate("pooled", "pooled"), rate("low", "low"), rate("high", "high"),
               rate("kept", "raw part")]
    return Table("topic_pooled", f"{title_of(name)} of each language, raw and partially pooled", columns, rows,
                 ["Pooled figures are drawn towards the languages' mean, the more so the fewer their rows; secondary. "
                  "They are of each set's first fit."])


