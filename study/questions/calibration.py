"""How sure the models are compared with how often they are right, and which labels they confuse, by language.

Calibration error, Brier score and the gap between stated probability and share right are those of stats/calibration.py,
of each set's first fit; a language with few posts has the gap alone, which needs no bins.
"""

import numpy as np

from data.languages import language_name
from report.clusters import WORTHS, rate_interval
from report.words import counted, number
from stats.calibration import by_language, coverage_curve
from stats.predictions import Predictions
from study.questions.compared import widest
from study.report.section import Column, FigureSpec, Section, Table
from study.results import Results

BINS = 10


def behaviour(results: Results) -> Section:
    """Reliability of each set's first fit over all test rows, and the confusion of the multilingual one by language."""
    multi = widest(results)
    bins = [row for name in results.plan.sets for row in reliability(name, results.first(name))]
    own = languages_table("behaviour_languages", f"Calibration of {multi} by test language", results, [multi],
                          alone=True)
    others = languages_table("behaviour_others", "Calibration of the other sets by test language", results,
                             [name for name in results.plan.sets if name != multi])
    gaps = {row.get("train", multi): row["error"] for row in own.rows + others.rows
            if row["language"] == "all" and row["error"] is not None}
    sure = Table("behaviour_reliability", "Stated probability of the label given, and the share that is right", [
        Column("train", "train set"), Column("confidence", "mean stated probability", "rate"),
        Column("right", "share right", "rate"), Column("low", "low", "rate"), Column("high", "high", "rate"),
        Column("n", "posts", "count")], bins,
        [f"{BINS} equal bins of the stated probability; intervals are Wilson's; {WORTHS}."])
    labels = results.kept.grouping.labels
    crossed = [row for code in results.kept.languages for row in confusion(results.first(multi), code)]
    taken = Table("behaviour_confusion", f"What {multi} takes for what, by language", [
        Column("language", "language", "language"), Column("gold", "people said"), Column("predicted", "model says"),
        Column("n", "posts", "count"), Column("share", "share of the row", "rate"),
        Column("small", "small cell", "flag")], crossed)
    answer = answer_of(gaps, own.rows, multi)
    figures = [
        FigureSpec("reliability", sure.name, "On the diagonal a model is right as often as it says. Below it, the "
                   "model is too sure.", "That any single language is calibrated: all are pooled here.",
                   name="behaviour-reliability", x="confidence", y="right", low="low", high="high", value="n",
                   series="train"),
        FigureSpec("forest", own.name, "Right of zero, the model is too sure: its stated probability is higher than "
                   "the share that is right.", "That a language whose interval contains zero is calibrated: with few "
                   "posts a wide interval holds much else.", name="behaviour-languages",
                   title="Stated probability less the share right", x="gap", y="what", low="gap_low", high="gap_high",
                   hatched="small")]
    if len(labels) <= 5:
        figures.append(FigureSpec(
            "confusion", taken.name, "Rows are what people said, columns what the model says; a dark diagonal is good.",
            "Anything from a panel with few posts beyond its darkest cells.", name="behaviour-confusion",
            title=f"{multi}, by test language", x="predicted", y="gold", value="share", label="n", facet="language"))
    return Section("behaviour", "Sureness and confusions", "Can the stated probabilities be trusted, and which labels "
                   "are confused?", answer, [], [sure, own, *([others] if others.rows else []),
                                                coverage_table(results, multi), taken], figures)


def reliability(name: str, answers: Predictions) -> list[dict]:
    """The bins of one model that are not empty."""
    answered = answers.predicted < answers.probabilities.shape[1]
    top, right = answers.probabilities.max(1)[answered], answers.correct[answered]
    clusters = answers.rows.clusters[answered]
    index = np.minimum((top * BINS).astype(int), BINS - 1)
    rows = []
    for bin in sorted(set(index.tolist())):
        inside = index == bin
        low, high = rate_interval(right[inside], clusters[inside])
        rows.append({"train": name, "confidence": float(top[inside].mean()), "right": float(right[inside].mean()),
                     "low": low, "high": high, "n": int(inside.sum())})
    return rows


def answered_of(answers: Predictions) -> tuple[np.ndarray, np.ndarray, list[str], np.ndarray]:
    """(m, C) probabilities, (m,) gold, m languages and (m,) clusters of the posts that had a text to label."""
    there, rows = answers.predicted < answers.probabilities.shape[1], answers.rows
    return answers.probabilities[there], rows.gold[there], rows.language[there].tolist(), rows.clusters[there]


def languages_table(table: str, title: str, results: Results, names: list[str], alone: bool = False) -> Table:
    """Calibration of some sets by language, with intervals over posts; `alone`: of one, whose name no row repeats."""
    rows, statistics, kept = [], results.plan.statistics, results.kept
    for name in names:
        for line in by_language(*answered_of(results.first(name)), min(2000, statistics.draws), statistics.seed):
            code = line["language"]
            small = code != "all" and bool(kept.is_small(kept.language == code))
            place = "all languages" if code == "all" else language_name(code)
            rows.append({"what": place if alone else f"{name}, {place}", **({} if alone else {"train": name}),
                         "language": code, "n": line["n"], "small": small,
                         **{key: line[key] for key in ("error", "brier", "gap")},
                         **{f"{key}_{end}": line[f"{key}_ci"][k] for key in ("brier", "gap")
                            for k, end in enumerate(("low", "high"))}})
    ends = [Column(f"{key}{end}", end[1:] or words, kind)
            for key, words, kind in (("gap", "stated less right", "difference"), ("brier", "Brier score", "number"))
            for end in ("", "_low", "_high")]
    return Table(table, title, [
        Column("what", "test language" if alone else "set and language"),
        *([] if alone else [Column("train", "train set")]), Column("language", "code"),
        Column("n", "posts", "count"), Column("small", "small cell", "flag"),
        Column("error", "calibration error", "rate"), *ends], rows,
        ["First fits; intervals by bootstrap over groups of posts that belong together. Stated less right: the mean "
         "stated probability of the label given, less the share that is right. Calibration error: in bins of equal "
         "mass, debiased, which takes 20 posts; a dash with fewer. Brier score: 0 is best, 2 the worst there is."])


def coverage_table(results: Results, name: str) -> Table:
    """How many posts one set labels when it may leave the unsure ones, and how many of these are right."""
    probabilities, gold, _, clusters = answered_of(results.first(name))
    rows = coverage_curve(probabilities.max(1), probabilities.argmax(1) == gold, clusters=clusters)
    return Table("behaviour_coverage", f"{name}, if posts below a probability are left without a label", [
        Column("threshold", "probability of at least", "rate"), Column("coverage", "posts labelled", "rate"),
        Column("n", "posts", "count"), Column("accuracy", "accuracy among them", "rate"), Column("low", "low", "rate"),
        Column("high", "high", "rate")], rows,
        [f"As classify.py --abstain does; Wilson's intervals; {WORTHS}. First fit."])


def answer_of(gaps: dict[str, float], own: list[dict], multi: str) -> str:
    """How far off the sets are over all languages, and in how many languages the widest one is shown to be."""
    if not gaps:
        return "Nothing can be said: a calibration error takes 20 posts."
    best = min(gaps, key=gaps.get)
    least = f"by {number(gaps[best])}" if gaps[best] > 0 else "by no more than chance makes of so few posts"
    most = f" to {number(max(gaps.values()))}" if max(gaps.values()) > 0 and len(gaps) > 1 else ""
    said = (f"Stated probabilities differ from the share that is right {least} ({best}){most} over all languages "
            "together (first fits, debiased), which is no proof of equality where it is little.")
    alone = [row for row in own if row["language"] != "all" and row["gap_low"] is not None]
    if not alone:
        return f"{said} No language alone has enough posts for an interval."
    too_sure, unsure = (sum(sign * row["gap"] > 0 and row["gap_low"] * row["gap_high"] > 0 for row in alone)
                        for sign in (1, -1))
    return (f"{said} By the interval of each language alone, {multi} is too sure in {too_sure} and not sure enough in "
            f"{unsure} of {counted(len(alone), 'language')}"
            + (" with an interval." if len(alone) + 1 < len(own) else "."))


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
