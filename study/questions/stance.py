"""Question 2: does the stance carry over too, once finding the topic is taken out?

A difference end to end is split post by post (stats/stance_split.py): posts that both models found, on which the one
tells the stance better or not; posts that only the first found; posts that only the second found. The claim is about
the posts that both found, which are the same for both.
"""

import numpy as np

from report.words import counted, number, signed
from stats.families import THESE, holds_for
from stats.recipes import around, lacking, pairs_of
from stats.stance_split import split, splits
from study.questions.compared import in_words, notes_of, whole, widest
from study.questions.sentences import called, finding, many, scored, taught
from study.report.section import Claim, Column, FigureSpec, Section, Table
from study.results import Results

END, GIVEN, RECALL = "stance.end_to_end.accuracy", "stance.given_detection.accuracy", "topic.recall"
PARTS = {"end_to_end": "end to end", "both": "told better, on posts that both found", "newly_found": "newly found",
         "newly_lost": "newly lost"}


def stance(results: Results) -> Section | None:
    """Stance end to end by model, and its differences split; None for a codebook without stances."""
    if not results.kept.grouping.stance_groups:
        return None
    multi, parts, shared = widest(results), [], []
    for each in results.names:
        if each != multi:
            lines, line = parted(results, multi, each)
            parts, shared = parts + lines, [*shared, line]
    claims = [claim_of(results, line) for line in shared if line["second"] in results.plan.sets and line["posts"]]
    answer = "The plan has no second set to compare."
    if shared:
        second, (told, found, lost) = shared[0]["second"], (row["value"] for row in parts[1:4])
        over = f"in languages unseen by {second}" if results.unseen(second) else "over all languages"
        answer = (f"Stance end to end, {multi} less {second} {over}: {in_words(parts[0])}. In these fits it is the sum "
                  f"of {signed(told, 3)} from telling the stance on posts that both found, {signed(found, 3)} from "
                  f"posts that {multi} alone found, and {signed(lost, 3)} from posts that {second} alone found.")
    tables = [sets_table(results)]
    figures = []
    if parts:
        tables += [shared_table(shared), parts_table(parts)]
        figures.append(FigureSpec(
            "forest", "stance_parts", "In each group of four, the first is the whole difference and the other three "
            "add up to it exactly. Only the second is about telling the stance.", "That a gain end to end is a gain in "
            "telling the stance: most of it may be posts newly found.", name="stance-parts", x="value", y="what",
            low="low", high="high", series="contrast"))
    return Section("stance", "Stance transfer", "Does the stance carry over too, once finding the topic is taken out?",
                   answer, claims, tables, figures)


def parted(results: Results, first: str, second: str) -> tuple[list[dict], dict]:
    """Rows of the split of two models' difference, where the second was not trained; and the line of shared posts."""
    languages, plan = results.unseen(second) or results.kept.languages, results.plan
    recipes = results.recipe(first), results.recipe(second)
    pairs, lack = pairs_of(*recipes), lacking(*recipes)
    rates = splits(pairs, languages, plan.statistics.draws, plan.statistics.seed)
    lack = lack or ("pairs of equal draws and seeds" if set(recipes[0]) != set(recipes[1]) else "")
    df = max(1, int(np.isin(results.kept.language, languages).sum()) - len(languages))
    for rate in rates.values():
        if not lack and np.isfinite(rate["value"]):
            rate["low"], rate["high"] = around(dict(zip(recipes[0], rate["points"], strict=True)),
                                               (rate["variance"], df))
    holds = THESE if lack else holds_for(*recipes)
    contrast = f"{first} − {second}"
    rows = [{"what": f"{contrast}, {words}", "part": words, "contrast": contrast, "first": first, "second": second,
             **{end: rates[key][end] for end in ("value", "low", "high")}, "fits": len(pairs), "holds": holds}
            for key, words in PARTS.items()]
    found = [split(*pair, languages) for pair in pairs]
    on_both = rates["on_both"]
    line = {"contrast": contrast, "first": first, "second": second, "languages": languages, "related":
            found[0]["rows"], "posts": round(np.mean([one["both_rows"] for one in found])),
            "first_right": mean_share(found, "both_first"), "second_right": mean_share(found, "both_second"),
            **{key: on_both[key] for key in ("value", "low", "high", "points")}, "fits": len(pairs), "holds": holds,
            "lacking": lack, "p": found[0]["p"] if len(found) == 1 else None,
            "test": "McNemar, exact" if len(found) == 1 else None}
    return rows, line


def mean_share(found: list[dict], key: str) -> float | None:
    """The mean over pairs of the share of shared posts that are right; None if a pair shares none."""
    shares = [one[key] / one["both_rows"] for one in found if one["both_rows"]]
    return float(np.mean(shares)) if len(shares) == len(found) else None


def claim_of(results: Results, line: dict) -> Claim:
    """The stance told on posts that both models found."""
    first, second, languages = line["first"], line["second"], line["languages"]
    where = f" in {many(len(languages), 'language')}" + (" new to the second" * (set(languages) <= set(
        results.unseen(second))))
    posts = f"{'about ' * (line['fits'] > 1)}{line['posts']:,} posts that both models found,"
    if taught(results, first) != taught(results, second):
        turn = f"training on {taught(results, first)} instead of {taught(results, second)}"
        shown, less = f"{turn} scores {scored(line['value'])}", turn.replace("training", "trained", 1)
    else:
        pair = [called(results, name) for name in (first, second)]
        shown, less = f"{pair[0]} scores {scored(line['value'], pair[1])}", f"{pair[0]} less {pair[1]}"
    sentence = finding(line, [f"On {posts} {shown} on stance"],
                       [f"on stance of {posts.replace(' that', way)} {less}" for way in (" that", "")], [where, ""])
    test = "" if line["p"] is None else f" (McNemar's exact p = {line['p']:.3f})"
    pairs = f", in {counted(line['fits'], 'pair')} of fits" if line["fits"] > 1 else ", in this one pair of fits"
    return Claim(
        sentence, line["value"], line["low"], line["high"],
        f"Of related posts that both models found, {first} gives {number(line['first_right'])} of them the right "
        f"stance and {second} {number(line['second_right'])}{test}{pairs}.",
        "That what differs end to end is all stance; or that the same holds for posts that only one model "
        "found, which are harder.",
        languages=languages, notes=notes_of(results, languages, line), points=line["points"], holds=line["holds"])


def sets_table(results: Results) -> Table:
    """Each model end to end, and its two parts, over all languages and those that it never saw."""
    kinds = {"end": END, "recall": RECALL, "given": GIVEN, "conditional": "stance.conditional.accuracy"}
    rows, plan = [], results.plan
    for each in results.names:
        fits = list(results.recipe(each).values())
        asked = {key: name for key, name in kinds.items() if key != "conditional" or fits[0].probabilities is not None}
        for group, languages in (("all", results.kept.languages), ("unseen", results.unseen(each))):
            if languages:
                found = {key: whole(fits, name, languages, "rows", plan.statistics.draws, plan.statistics.seed)
                         for key, name in asked.items()}
                rows.append({"train": each, "languages": group, "count": len(languages), "fits": len(fits),
                             **{key: value[0] for key, value in found.items()},
                             **{f"{key}_{end}": value[k] for key, value in found.items()
                                for k, end in ((1, "low"), (2, "high"))}})
    ends = [Column(f"{key}{end}", f"{words}{' ' + end[1:] if end else ''}", "rate")
            for key, words in (("end", "end to end"), ("recall", "recall of the topic"), ("given", "given detection"),
                               ("conditional", "conditional")) for end in ("", "_low", "_high")]
    return Table("stance_sets", "Stance by model: end to end, and its two parts",
                 [Column("train", "train set"), Column("languages", "test languages"),
                  Column("count", "how many", "count"), Column("fits", "fits", "count"), *ends], rows,
                 ["End to end: a missed topic is wrong. Given detection: among related posts that this model found, "
                  "which are other posts for each model. Conditional: arg max over the related labels, for all related "
                  "posts; not for outside models, which have no probabilities."])


def shared_table(shared: list[dict]) -> Table:
    """Posts that both models found: how many get the right stance from each."""
    keys = ("contrast", "related", "posts", "first_right", "second_right", "value", "low", "high", "p", "test", "fits",
            "holds")
    return Table("stance_shared", "Stance on the posts that both models found", [
        Column("contrast", "contrast"), Column("related", "related posts", "count"),
        Column("posts", "found by both", "count"), Column("first_right", "first right", "rate"),
        Column("second_right", "second right", "rate"), Column("value", "difference", "difference"),
        Column("low", "low", "difference"), Column("high", "high", "difference"), Column("p", "p", "p"),
        Column("test", "test"), Column("fits", "pairs of fits", "count"), Column("holds", "the interval allows for")],
        [{key: row[key] for key in keys} for row in shared],
        ["Languages that the second model was not trained on, or all of them if there is none. The same posts for both "
         "models; means over pairs."])


def parts_table(parts: list[dict]) -> Table:
    """The identity: the three terms add up to the difference end to end."""
    return Table("stance_parts", "Differences in stance end to end, split post by post",
                 [Column("what", "contrast and part"), Column("contrast", "contrast"), Column("part", "part"),
                  Column("first", "first"), Column("second", "second"), Column("value", "difference", "difference"),
                  Column("low", "low", "difference"), Column("high", "high", "difference"),
                  Column("fits", "pairs of fits", "count"), Column("holds", "the interval allows for")], parts,
                 ["Shares of all related posts. The last three parts add up exactly to the first, pair by pair: right "
                  "more often among posts that both found, plus right among the newly found, less right among the "
                  "newly lost."])
