"""One table of counts as JSON values: each figure with its interval, or null with a reason in `notes` (same key).

Rates have Wilson intervals. F1 and means of rates have bootstrap percentiles, unless a class is too small: a class with
fewer than MIN_ROWS gold rows has no interval for its F1, nor have the means that include it (macro-F1, balanced
accuracy). For a class of one or two rows, bootstrap intervals cover the truth clearly less often than their level,
since resampling can only repeat these rows (tests/report/test_intervals.py measures it). Ten leaves a margin. Weighted
F1 keeps its interval, since a small class has little weight in it. Nor has anything a bootstrap interval where the rows
are fewer than MIN_GROUPS groups of posts that belong together.
"""

from collections.abc import Mapping, Sequence

import numpy

from common.terminal import counted
from report.clusters import MIN_GROUPS, Worths
from report.counts import MEANS, VIEWS, figures
from report.intervals import wilson

TOO_FEW = f"fewer than {MIN_GROUPS} groups of posts to resample"
MIN_ROWS = 10  # gold rows; a class with fewer has no interval for its F1


class Figures:
    """The figures of one table of counts (K, M) as JSON values: floats, intervals, or null with a note."""

    def __init__(self, table: numpy.ndarray, classes: tuple[str, ...], intervals: numpy.ndarray | None,
                 worths: Worths | None = None):
        self.table, self.classes, self.intervals = table, classes, intervals
        self.values = figures(table)
        self.gold, self.hits = table.sum(1), numpy.diagonal(table)
        self.predicted = table[:, : len(classes)].sum(0)
        self.n = int(table.sum())
        self.worths = Worths.apart(self.gold) if worths is None else worths
        occurs = self.gold + self.predicted > 0
        self.absent = [name for name, there in zip(classes, occurs, strict=True) if not there]
        few = [f"'{name}' has {int(rows)} rows" for name, rows, there in zip(classes, self.gold, occurs, strict=True)
               if there and rows < MIN_ROWS]
        few += [f"'{name}' has rows worth {counted(round(groups), 'equal group')}"
                for name, groups, rows, there in zip(classes, self.worths.groups, self.gold, occurs, strict=True)
                if there and rows >= MIN_ROWS and round(groups) < MIN_GROUPS]
        # A class that is predicted but has no gold rows counts in macro-F1 (as 0) but not in balanced accuracy.
        self.few = {"macro_f1": few, "weighted_f1": [],
                    "balanced_accuracy": [words for words in few if not words.endswith(" has 0 rows")]}

    def resampled(self, column: int) -> list[float] | None:
        """The bootstrap interval in one column of the statistic; None if no resampled set has the figure."""
        if self.intervals is None or numpy.isnan(self.intervals[:, column]).any():
            return None
        return [float(edge) for edge in self.intervals[:, column]]

    def means(self, names: Sequence[str]) -> dict:
        """`n`, the scalar figures in `names`, their intervals, and notes for what is null."""
        result, notes = {"n": self.n}, {}
        for name in names:
            value = float(self.values[name])
            result[name] = None if numpy.isnan(value) else value
            if name == "accuracy":
                worth = self.worths.all
                interval = wilson(worth * self.hits.sum(), worth * self.n)
                result["accuracy_ci"] = list(map(float, interval)) if interval else None
                result |= {"n_effective": worth * self.n} if worth < 1 else {}
            else:
                result[f"{name}_ci"] = None if self.few[name] else self.resampled(MEANS.index(name))
            if not self.n:
                notes[name] = notes[f"{name}_ci"] = "no rows"
            elif result[f"{name}_ci"] is None:
                notes[f"{name}_ci"] = (f"{', '.join(self.few[name])}, fewer than {MIN_ROWS}"
                                       if self.few[name] else TOO_FEW)
        return result | {"notes": notes}

    def majority(self) -> dict:
        """What a constant answer, the most frequent gold class, would score."""
        if not self.n:
            return {"label": None, "accuracy": None, "macro_f1": None, "notes": dict.fromkeys(
                ("label", "accuracy", "macro_f1"), "no rows")}
        best = int(self.gold.argmax())
        rate = float(self.gold[best] / self.n)
        return {"label": self.classes[best], "accuracy": rate,
                "macro_f1": 2 * rate / (1 + rate) / int((self.gold > 0).sum())}

    def per_class(self) -> dict[str, dict]:
        result = {}
        for k, name in enumerate(self.classes):
            gold, predicted, hits = int(self.gold[k]), int(self.predicted[k]), int(self.hits[k])
            row = {"support": gold, "predicted": predicted} | self.rate("precision", hits, predicted, "never predicted",
                                                                        self.worths.predicted[k])
            recall = self.rate("recall", hits, gold, "no gold rows", self.worths.gold[k])
            row["notes"] |= recall.pop("notes")
            row |= recall
            row["f1"] = float(self.values["f1"][k]) if gold + predicted else None
            enough = round(self.worths.groups[k]) >= MIN_GROUPS
            row["f1_ci"] = self.resampled(len(MEANS) + k) if gold >= MIN_ROWS and enough else None
            if row["f1"] is None:
                row["notes"]["f1"] = "in neither gold nor prediction"
            if row["f1_ci"] is None:
                row["notes"]["f1_ci"] = (f"{gold} rows, fewer than {MIN_ROWS}" if gold < MIN_ROWS
                                         else TOO_FEW)
            result[name] = row
        return result

    def rate(self, name: str, hits: float, total: float, reason: str, worth: float = 1.0) -> dict:
        """A plain rate with its Wilson interval, or null with the reason; worth: of its rows as independent ones."""
        interval = wilson(worth * hits, worth * total)
        if interval is None:
            return {name: None, f"{name}_ci": None, "notes": {name: reason, f"{name}_ci": reason}}
        return {name: float(hits / total), f"{name}_ci": list(map(float, interval)), "notes": {}}


def topic_figures(found: dict[str, Figures], probabilities: bool, notes: dict) -> dict | None:
    """Related against unrelated, by the predicted label and, under `by_sum`, by the summed probabilities."""
    if "topic" not in found:
        notes["topic"] = "the codebook does not split its labels into related and unrelated"
        return None
    topic = two_sided(found["topic"])
    topic["by_sum"] = two_sided(found["topic_by_sum"]) if probabilities else None
    if not probabilities:
        topic["notes"]["by_sum"] = "there are no probabilities"
    return topic


def two_sided(found: Figures) -> dict:
    """One table of related against unrelated; balanced accuracy is null unless both sides have rows."""
    topic = found.means(("accuracy", "balanced_accuracy", "macro_f1"))
    for k, (name, side) in enumerate((("recall", "related"), ("specificity", "unrelated"))):
        rate = found.rate(name, found.hits[k], found.gold[k], f"no {side} rows" if found.n else "no rows",
                          found.worths.gold[k])
        topic["notes"] |= rate.pop("notes")
        topic |= rate
        if topic[name] is None and found.n:
            topic |= {"balanced_accuracy": None, "balanced_accuracy_ci": None}
            topic["notes"] |= dict.fromkeys(("balanced_accuracy", "balanced_accuracy_ci"), f"no {side} rows")
    majority = found.majority()
    return topic | {"n_related": int(found.gold[0]), "majority": majority}


def stance_figures(found: dict[str, Figures], probabilities: bool, notes: dict) -> dict | None:
    """The three figures for rows whose gold label is related."""
    if "end_to_end" not in found:
        notes["stance"] = "the codebook has no groups of related labels to tell apart"
        return None
    stance: dict = {"notes": {}}
    for view in VIEWS[3:]:
        if view == "conditional" and not probabilities:
            stance[view] = None
            stance["notes"][view] = "there are no probabilities"
        else:
            stance[view] = found[view].means(("accuracy", "macro_f1")) | {"majority": found[view].majority()}
    return stance


def mean_over_languages(languages: Mapping[str, dict], names: Sequence[str]) -> dict:
    """Plain means over languages: each counts once, whatever its number of rows; one without the figure is left out."""

    def mean(values: list) -> float | None:
        present = [value for value in values if value is not None]
        return sum(present) / len(present) if present else None

    result = {"languages": len(names), "accuracy": mean([languages[x]["accuracy"] for x in names]),
              "macro_f1": mean([languages[x]["macro_f1"] for x in names]),
              "topic_macro_f1": mean([(languages[x]["topic"] or {}).get("macro_f1") for x in names])}
    missing = {key: "no language has it" for key, value in result.items() if value is None}
    return result | ({"notes": missing} if missing else {})
