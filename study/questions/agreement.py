"""How far the people who labelled the test posts agree, and each model's accuracy beside what one of them reaches.

A label is not the truth. One annotator is scored against the others alone, a model against the post's one label,
which is easier: the two stand side by side and are not compared. People are judged on all test posts that two
annotators or more labelled, models on those of them that count: with a label, and with a text that is not in training.
"""

import numpy as np

from report.clusters import WORTHS, rate_interval
from report.words import counted, number
from study.report.section import Column, FigureSpec, Section, Table
from study.results import Results


def agreement(results: Results) -> Section | None:
    """Alpha by language, and accuracies with their ceiling; None where no test post has two annotators."""
    votes = {key for key, found in results.material.votes.items() if len(found) > 1}
    posts = results.posts(results.kept)
    twice = np.array([(post.language, post.id) in votes for post in posts], dtype=bool)
    if not votes:
        return None
    statistics, groups = results.plan.statistics, {"all": twice}
    groups |= {code: twice & (results.kept.language == code) for code in results.kept.languages}
    people, lines = [], []
    for group, chosen in groups.items():
        # People are judged on all posts, those on which they are tied too, which no model is scored on.
        found = results.material.agreement(None if group == "all" else [group], min(2000, statistics.draws),
                                           statistics.seed)
        if not found["posts"]:
            continue
        people.append({"languages": group, **found})
        for name in results.names if chosen.any() else ():
            fits = list(results.recipe(name).values())
            hits = np.mean([fit.correct[chosen] for fit in fits], 0)
            right, (low, high) = float(hits.mean()), rate_interval(hits, results.kept.clusters[chosen])
            lines.append({"model": name, "languages": group, "n": int(chosen.sum()), "accuracy": right, "low": low,
                          "high": high, "ceiling": found["ceiling"], "less": right - found["ceiling"],
                          "small": bool(results.kept.is_small(chosen)), "what": f"{name}, {group}"})
    columns = [Column("languages", "test languages"), Column("posts", "by two or more", "count"),
               Column("alpha", "Krippendorff's alpha", "number"), Column("low", "low", "number"),
               Column("high", "high", "number"), Column("ceiling", "one against the others", "rate"),
               Column("ceiling_low", "low", "rate"), Column("ceiling_high", "high", "rate")]
    tables = [Table("agreement", "Annotators' agreement on the test posts", columns, people,
                    ["Intervals by bootstrap over posts, those that belong together as one. One against the others: "
                     "how often an annotator's label is the "
                     "commonest of the other annotators'. Posts on which they are tied count here; no model is scored "
                     "on them."]),
              Table("agreement_accuracy", "Accuracy beside its ceiling, on posts with two annotators or more", [
                  Column("what", "model and languages"), Column("model", "model"), Column("languages", "languages"),
                  Column("n", "posts", "count"), Column("small", "small cell", "flag"),
                  Column("accuracy", "accuracy", "rate"), Column("low", "low", "rate"), Column("high", "high", "rate"),
                  Column("ceiling", "ceiling", "rate"), Column("less", "less the ceiling", "difference")], lines,
                    [f"Mean over a set's fits, with Wilson's interval, every post counted once; {WORTHS}. Ceiling: one "
                     "annotator against the others."])]
    whole = people[0]
    answer = (f"On {counted(whole['posts'], 'test post')} with two annotators or more, Krippendorff's alpha is "
              f"{number(whole['alpha'])}" + ("" if whole["alpha"] is None else
                                             f" ({number(whole['low'])} to {number(whole['high'])})")
              + f", and one annotator agrees with the others on {number(whole['ceiling'])} of the labels.")
    answer += (" A model's accuracy is not comparable with that: it is scored against the post's one label, that of "
               "most annotators or of the label column, which is easier to agree with than the others alone.")
    figure = FigureSpec("forest", "agreement_accuracy", "Zero is what one annotator reaches against the others; left "
                        "of it, a model agrees with the label less often.", "That a model at zero "
                        "agrees with people as well as they do with one another: its label is the post's, "
                        "an annotator's that of the others, which is harder.", name="agreement-ceiling",
                        title="Accuracy less the annotators' ceiling", x="less", y="what", low="less", high="less",
                        series="languages", hatched="small")
    return Section("agreement", "Annotators' agreement", "How far do people agree, and how near to that is a model?",
                   answer, [], tables, [figure])
