"""How sure the models are compared with how often they are right, and which labels they confuse, by language."""

import numpy as np

from report.intervals import wilson
from report.words import number
from stats.predictions import Predictions
from study.questions.compared import widest
from study.report.section import Column, FigureSpec, Section, Table
from study.results import Results

BINS = 10


def behaviour(results: Results) -> Section:
    """Reliability of each set's first fit over all test rows, and the confusion of the multilingual one by language."""
    multi = widest(results)
    bins = [row for name in results.plan.sets for row in reliability(name, results.first(name))]
    gaps = {name: expected_gap([row for row in bins if row["train"] == name]) for name in results.plan.sets}
    sure = Table("behaviour_reliability", "Stated probability of the label given, and the share that is right", [
        Column("train", "train set"), Column("confidence", "mean stated probability", "rate"),
        Column("right", "share right", "rate"), Column("low", "low", "rate"), Column("high", "high", "rate"),
        Column("n", "posts", "count")], bins,
        [f"{BINS} equal bins of the stated probability; intervals are Wilson's, which take posts as independent."])
    labels = results.kept.grouping.labels
    crossed = [row for code in results.kept.languages for row in confusion(results.first(multi), code)]
    taken = Table("behaviour_confusion", f"What {multi} takes for what, by language", [
        Column("language", "language", "language"), Column("gold", "people said"), Column("predicted", "model says"),
        Column("n", "posts", "count"), Column("share", "share of the row", "rate"),
        Column("small", "small cell", "flag")], crossed)
    best = min(gaps, key=gaps.get)
    answer = (f"On average, stated probabilities differ from the share that is right by {number(min(gaps.values()))} "
              f"({best}) to {number(max(gaps.values()))} (first fits, all languages together).")
    figures = [
        FigureSpec("reliability", sure.name, "On the diagonal a model is right as often as it says. Below it, the "
                   "model is too sure.", "That any single language is calibrated: all are pooled here.",
                   name="behaviour-reliability", x="confidence", y="right", low="low", high="high", value="n",
                   series="train")]
    if len(labels) <= 5:
        figures.append(FigureSpec(
            "confusion", taken.name, "Rows are what people said, columns what the model says; a dark diagonal is good.",
            "Anything from a panel with few posts beyond its darkest cells.", name="behaviour-confusion",
            title=f"{multi}, by test language", x="predicted", y="gold", value="share", label="n", facet="language"))
    return Section("behaviour", "Sureness and confusions", "Can the stated probabilities be trusted, and which labels "
                   "are confused?", answer, [], [sure, taken], figures)


def reliability(name: str, answers: Predictions) -> list[dict]:
    """The bins of one model that are not empty."""
    answered = answers.predicted < answers.probabilities.shape[1]
    top, right = answers.probabilities.max(1)[answered], answers.correct[answered]
    index = np.minimum((top * BINS).astype(int), BINS - 1)
    rows = []
    for bin in sorted(set(index.tolist())):
        inside = index == bin
        low, high = wilson(int(right[inside].sum()), int(inside.sum()))
        rows.append({"train": name, "confidence": float(top[inside].mean()), "right": float(right[inside].mean()),
                     "low": low, "high": high, "n": int(inside.sum())})
    return rows


def expected_gap(rows: list[dict]) -> float:
    """The mean distance between stated probability and share right, bins weighted by their posts."""
    return sum(abs(row["right"] - row["confidence"]) * row["n"] for row in rows) / sum(row["n"] for row in rows)


def confusion(answers: Predictions, code: str) -> list[dict]:
    """Counts of one language, with a column for answers outside the labels if there are any."""
    labels = answers.rows.grouping.labels
    chosen = answers.rows.language == code
    gold, predicted, small = answers.rows.gold[chosen], answers.predicted[chosen], answers.rows.is_small(chosen)
    columns = [*labels, *(["(none)"] if (predicted == len(labels)).any() else [])]
    rows = []
    for i, label in enumerate(labels):
        total = int((gold == i).sum())
        for k, column in enumerate(columns):
            n = int(((gold == i) & (predicted == k)).sum())
            rows.append({"language": code, "gold": label, "predicted": column, "n": n,
                         "share": n / total if total else None, "small": bool(small)})
    return rows
