"""Questions 1 and 2: does the topic carry over to languages never trained on, and does the stance, without the topic?

Stance end to end is the product of two things: finding that a post is on the topic (recall), and telling its stance
once it is found. So a difference between two models splits exactly in two:

    e = r g,    e1 - e2 = (r1 - r2) (g1 + g2) / 2 + (g1 - g2) (r1 + r2) / 2

with r the recall of the topic and g the three-way accuracy among the related posts that were found. The first term is
the topic's part, the second the stance's own. Each has a bootstrap interval over the same drawn posts.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from data.languages import language_name
from report.intervals import LEVEL, percentiles
from report.words import number
from stats.predictions import Predictions, figure_of, figures_of, pooled, resampled
from stats.recipes import Fits, contrast
from stats.shrink import partially_pooled
from study.report.section import Claim, Column, FigureSpec, Section, Table
from study.results import Results

END, GIVEN, RECALL = "stance.end_to_end.accuracy", "stance.given_detection.accuracy", "topic.recall"
PARTS = ("from the topic", "from the stance")


def main_figure(results: Results) -> str:
    """The topic's macro-F1, or that of all labels if a codebook has no topic."""
    return "macro_f1" if results.kept.grouping.topic_of is None else "topic.macro_f1"


def intervals(fits: Sequence[Predictions], figures: Sequence[str], languages: Sequence[str], draws: int, seed: int
              ) -> dict[tuple[str, str], tuple[float, float, float]]:
    """(figure, language) -> the fits' mean figure and its bootstrap interval over posts; NaN if there is none."""
    grouping, drawn = fits[0].rows.grouping, {}
    for parts in resampled(fits, languages, draws, seed):
        for code, name in ((code, name) for code in languages for name in figures):
            drawn.setdefault((name, code), []).append(figure_of(name, parts[code], grouping).mean(1))
    edges, found = [(1 - LEVEL) / 2, (1 + LEVEL) / 2], {}
    for (name, code), chunks in drawn.items():
        value = float(np.mean([fit.figure(name, [code]) for fit in fits]))
        low, high = percentiles(np.concatenate(chunks)[:, None], edges)[:, 0]
        found[name, code] = (value, float(low), float(high))
    return found


def whole(fits: Sequence[Predictions], name: str, languages: Sequence[str], weight: str, draws: int, seed: int
          ) -> tuple[float, float, float]:
    """The fits' mean figure over some languages together, with its bootstrap interval over posts."""
    if not languages:
        return (np.nan, np.nan, np.nan)
    grouping = fits[0].rows.grouping
    drawn = np.concatenate([pooled(parts, name, grouping, weight).mean(1)
                            for parts in resampled(fits, languages, draws, seed)])
    low, high = percentiles(drawn[:, None], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])[:, 0]
    return float(figures_of(fits, name, languages, weight).mean()), float(low), float(high)


def widest(results: Results) -> str:
    """The set with the most languages, or the largest of several such: the multilingual one."""
    sizes = {fit.name: len(fit.keys) for fit in results.fits if fit.kind == "set"}
    return max(results.plan.sets, key=lambda name: (len(results.seen(name)), sizes[name]))


def topic(results: Results) -> Section:
    """Question 1: the topic by train set and test language, seen and unseen marked, beside the multilingual set."""
    name, plan = main_figure(results), results.plan
    recipes = {each: results.recipe(each) for each in plan.sets}
    matrix, shrunk = transfer_table(results, recipes, name), pooled_table(results, name)
    sets, multi = sets_table(results, recipes, name), widest(results)
    single = [each for each in plan.sets if len(results.seen(each)) == 1 and each != multi]
    claims, answer = [], "The plan has no monolingual set to compare with a multilingual one."
    if single:
        unseen = results.unseen(single[0]) or results.kept.languages
        found = compare(recipes[multi], recipes[single[0]], name, unseen, plan)
        both = [float(figures_of(list(recipes[each].values()), name, unseen, "languages").mean())
                for each in (multi, single[0])]
        seen_there = len(set(unseen) & set(results.seen(multi)))
        answer = (f"Trained on {language_name(results.seen(single[0])[0])} alone, the model reaches {title_of(name)} "
                  f"{number(both[1])} in the {len(unseen)} languages that it never saw; trained on {multi}, which has "
                  f"{seen_there} of these, {number(both[0])}.")
        claims.append(Claim(
            f"{multi} against {single[0]}, {title_of(name)} in the {len(unseen)} languages unseen by {single[0]}, each "
            "language counting the same.", found["value"], found["low"], found["high"],
            "With these rows and this recipe, the difference lies within the interval, for other draws of rows, seeds "
            f"and test posts of the same kind{named(found['notes'])}.",
            "That more languages, rather than more rows, make the difference, unless a set of equal size is beside it; "
            "or that a single language behaves like the mean."))
    matrix.notes = ["Mean over the set's fits; intervals by bootstrap over test posts, copies of a text together."]
    figures = [FigureSpec("matrix", matrix.name, "Each row is one train set. Outlined cells are languages it was "
                          "trained on; a set whose other cells are as high carries over.", of_cells(matrix),
                          name="topic-transfer", title=f"{title_of(name)} by train set and test language", x="language",
                          y="train", value="value", outlined="seen", hatched="small"),
               FigureSpec("forest", "topic_differences", f"Differences from {multi}; an interval beyond the zero line "
                          "is one that other draws, seeds and posts would rarely undo.",
                          "Anything from two intervals that overlap: each is about its own difference.",
                          name="topic-sets", x="difference", y="what", low="low", high="high", series="languages")]
    notes = [f"Fits of each set: {len(next(iter(recipes.values())))} (training draws times seeds). "
             "The first fit of each set is partially pooled over languages in the last table."]
    apart = Table("topic_differences", f"{title_of(name)}, less {multi} on the same languages",
                  [sets.column(key) for key in ("what", "train", "languages", "difference", "low", "high")],
                  [{key: row[key] for key in ("what", "train", "languages", "difference", "low", "high")}
                   for row in sets.rows if row["train"] != multi])
    if not apart.rows:
        figures.pop()
    return Section("topic", "Topic transfer", "Does the topic carry over to languages that a model was never trained "
                   "on?", answer, claims, [matrix, sets, *([apart] if apart.rows else []), shrunk], figures, notes)


def of_cells(table: Table) -> str:
    """What a matrix does not show: that small cells differ, if it has any; else that any two do."""
    if any(row["small"] for row in table.rows):
        return "That two hatched cells differ: they hold fewer than 30 posts, or fewer than 10 of a label."
    return "That two cells differ: their intervals are in the table only."


def is_shown(found: Mapping) -> bool:
    """Whether an interval leaves out zero."""
    return found["low"] > 0 or found["high"] < 0


def title_of(figure: str) -> str:
    """`title_of("topic.macro_f1") -> "topic macro-F1"`."""
    words = {"macro_f1": "macro-F1", "weighted_f1": "weighted F1"}
    return " ".join(words.get(part, part.replace("_", " ")) for part in figure.split("."))


def named(notes: Mapping[str, str]) -> str:
    """Notes of a contrast as an aside."""
    return f" ({'; '.join(notes.values())})" if notes else ""


def compare(first: Fits, second: Fits, figure: str, languages: Sequence[str], plan, weight: str = "languages"
            ) -> dict:
    """`stats.recipes.contrast` with the plan's draws; at most 2,000: of them it needs only the variance."""
    return contrast(first, second, figure, languages, weight, min(2000, plan.statistics.draws), plan.statistics.seed)


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
                line |= {"difference": found["value"], "low": found["low"], "high": found["high"]}
            rows.append(line)
    columns = [Column("what", "contrast"), Column("train", "train set"), Column("languages", "test languages"),
               Column("count", "how many", "count"), Column("value", f"{title_of(name)}, languages equal", "rate"),
               Column("value_low", "low", "rate"), Column("value_high", "high", "rate"),
               Column("by_rows", "by rows", "rate"), Column("difference", f"less {multi}", "difference"),
               Column("low", "low", "difference"), Column("high", "high", "difference")]
    return Table("topic_sets", f"Train sets over languages, and less {multi} on the same languages", columns, rows,
                 ["A value's interval is over test posts; a difference's over draws of rows, seeds and test posts."])


def pooled_table(results: Results, name: str) -> Table:
    """Per-language figures, partially pooled beside raw."""
    rows, statistics = [], results.plan.statistics
    for each in results.plan.sets:
        lines, _ = partially_pooled(results.first(each), name, None, LEVEL, statistics.draws, statistics.seed)
        rows += [{"train": each, **line} for line in lines]
    rate = lambda key, words: Column(key, words, "rate")  # noqa: E731
    columns = [Column("train", "train set"), Column("language", "test language", "language"), Column("n", "n", "count"),
               Column("small", "small cell", "flag"), rate("raw", "raw"), rate("raw_low", "low"),
               rate("raw_high", "high"), rate("pooled", "pooled"), rate("low", "low"), rate("high", "high"),
               rate("kept", "raw part")]
    return Table("topic_pooled", f"{title_of(name)} of each language, raw and partially pooled", columns, rows,
                 ["Pooled figures are drawn towards the languages' mean, the more so the fewer their rows; secondary."])


def stance(results: Results) -> Section | None:
    """Question 2: the stance, separated from the topic; None for a codebook without stances."""
    if not results.kept.grouping.stance_groups:
        return None
    plan, multi = results.plan, widest(results)
    kinds = {"end": END, "recall": RECALL, "given": GIVEN, "conditional": "stance.conditional.accuracy"}
    rows, parts = [], []
    for each in plan.sets:
        recipe = results.recipe(each)
        fits = list(recipe.values())
        for group, languages in (("all", results.kept.languages), ("unseen", results.unseen(each))):
            if languages:
                found = {key: whole(fits, name, languages, "rows", plan.statistics.draws, plan.statistics.seed)
                         for key, name in kinds.items()}
                rows.append({"train": each, "languages": group, "count": len(languages),
                             **{key: value[0] for key, value in found.items()},
                             **{f"{key}_{end}": value[k] for key, value in found.items()
                                for k, end in ((1, "low"), (2, "high"))}})
        if each != multi:
            languages = results.unseen(each) or results.kept.languages
            parts += parted(results, multi, each, languages)
    claims, answer = [], "The plan has no second set to compare."
    if parts:
        gain, by_topic, by_stance = parts[:3]
        answer = (f"In languages unseen by {gain['second']}, {gain['first']} gains {number(gain['value'])} over it in "
                  f"stance accuracy end to end: {number(by_topic['value'])} from finding the topic and "
                  f"{number(by_stance['value'])} from telling the stance once it is found.")
        claims.append(Claim(
            f"{gain['first']} against {gain['second']}: the part of the stance gain that is not the topic's (three-way "
            f"accuracy, languages unseen by {gain['second']}).", by_stance["value"], by_stance["low"],
            by_stance["high"],
            ("With the topic's part taken out, this much is left for telling the stance itself" if is_shown(by_stance)
             else "With the topic's part taken out, no difference in telling the stance itself is shown")
            + ", in these test posts (first fits; for how seeds differ, see Confounds).",
            "That the whole gain end to end is a gain in stance."))
    ends = [Column(f"{key}{end}", f"{words}{' ' + end[1:] if end else ''}", "rate")
            for key, words in (("end", "end to end"), ("recall", "recall of the topic"), ("given", "given detection"),
                               ("conditional", "conditional")) for end in ("", "_low", "_high")]
    table = Table("stance_sets", "Stance by train set: end to end, and its two parts",
                  [Column("train", "train set"), Column("languages", "test languages"),
                   Column("count", "how many", "count"), *ends], rows,
                  ["End to end: a missed topic is wrong. Given detection: among related posts that were found. "
                   "Conditional: arg max over the related labels, for all related posts."])
    split = Table("stance_parts", "Differences in stance end to end, split",
                  [Column("what", "contrast"), Column("part", "part"), Column("first", "first"),
                   Column("second", "second"), Column("value", "difference", "difference"),
                   Column("low", "low", "difference"), Column("high", "high", "difference")], parts,
                  ["The two parts add up exactly to the whole; intervals over test posts, first fits."])
    figures = [FigureSpec("forest", split.name, "In each group of three, the second is the topic's part and the last "
                          "the stance's own.", "How other seeds would come out.", name="stance-parts", x="value",
                          y="what", low="low", high="high", series="part")] if parts else []
    return Section("stance", "Stance transfer", "Does the stance carry over too, once finding the topic is taken out?",
                   answer, claims, [table, split] if parts else [table], figures)


def parted(results: Results, first: str, second: str, languages: Sequence[str]) -> list[dict]:
    """The difference end to end of two sets' first fits, its topic part and its stance part, with intervals."""
    models, plan = [results.first(first), results.first(second)], results.plan

    def split(r: np.ndarray, g: np.ndarray) -> np.ndarray:  # (..., 2), (..., 2) -> (..., 3)
        r, g = np.nan_to_num(r), np.nan_to_num(g)
        topic_part = (r[..., 0] - r[..., 1]) * g.mean(-1)
        stance_part = (g[..., 0] - g[..., 1]) * r.mean(-1)
        return np.stack([topic_part + stance_part, topic_part, stance_part], -1)

    value = split(*(figures_of(models, name, languages, "rows") for name in (RECALL, GIVEN)))
    drawn = np.concatenate([split(*(pooled(parts, name, results.kept.grouping, "rows") for name in (RECALL, GIVEN)))
                            for parts in resampled(models, languages, plan.statistics.draws, plan.statistics.seed)])
    low, high = percentiles(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return [{"what": f"{first} − {second}, {part}", "part": part, "first": first, "second": second,
             "value": float(v), "low": float(a), "high": float(b)}
            for part, v, a, b in zip(("end to end", *PARTS), value, low, high, strict=True)]
