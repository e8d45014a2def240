"""From counts to figures: one set of formulas for a single table of counts and for thousands of resampled ones.

All figures about labels in `metrics.json` are functions of one table, the confusion counts: row = human label,
column = predicted label, and a last column for predictions outside the label set. Topic and stance are sums over
groups of its rows and columns, so they need no second pass over the posts. Two exceptions have small tables of their
own: the conditional stance, an arg max over the related labels' probabilities, and the topic by sum, in which a post is
related if the related labels' probabilities together are at least those of the others. ("unrelated" can have the
highest single probability although the related labels have more in total.)

    views     one flat vector of counts -> a table per question (labels, topic, stance three ways)
    figures   a table (..., K, M) -> accuracy, balanced accuracy, macro-F1, weighted F1, and per class P, R, F1

All functions accept leading dimensions, so the bootstrap (report/intervals.py) uses the same formulas as the point
figures, on (draws, K, M). Arithmetic is float64; counts stay exact below 2**53. A quotient whose denominator is 0 is
NaN here and becomes `null` with a reason in report/metrics.py.

Conventions, since several are in use:
- F1 = 2 tp / (gold + predicted). It is 0 for a class that occurs but is never right, NaN for one that does not occur.
- Macro-F1 is the plain mean over the classes that occur in gold or prediction. (scikit-learn's `f1_score` averages over
  predictions outside the label set too, as further classes with F1 0; here those only count as wrong.)
- Weighted F1 weighs by gold counts, as scikit-learn's `average="weighted"` does; the paper reports this one.
- Balanced accuracy is the mean recall over the classes with gold rows, as in scikit-learn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy

VIEWS = ("all", "topic", "topic_by_sum", "end_to_end", "given_detection", "conditional")
MEANS = ("accuracy", "balanced_accuracy", "macro_f1", "weighted_f1")  # the scalar figures of a table, in this order


@dataclass(frozen=True)
class Grouping:
    """Which labels belong to which side of the topic and to which stance.

    `related` are the labels on the topic; `stance` names groups of them, by default one group per related label.
    Without related labels (or without unrelated ones) there is no topic; with fewer than two groups there is no stance.
    """

    labels: tuple[str, ...]
    related: tuple[str, ...] = ()
    stance: Mapping[str, Sequence[str]] | None = None

    @property
    def topic_of(self) -> numpy.ndarray | None:
        """(C,) 0 for related labels, 1 for the others; None if there are not both."""
        if not self.related or set(self.related) >= set(self.labels):
            return None
        return numpy.array([0 if label in self.related else 1 for label in self.labels])

    @property
    def stance_groups(self) -> dict[str, tuple[str, ...]]:
        """Name of a stance -> its labels; empty if there is no stance."""
        if self.topic_of is None:
            return {}
        groups = self.stance or {label: (label,) for label in self.labels if label in self.related}
        groups = {name: tuple(label for label in members if label in self.related) for name, members in groups.items()}
        groups = {name: members for name, members in groups.items() if members}
        return groups if len(groups) > 1 else {}

    @property
    def stance_of(self) -> numpy.ndarray:
        """(C,) index of each label's stance group, -1 for labels without one."""
        index = {label: k for k, members in enumerate(self.stance_groups.values()) for label in members}
        return numpy.array([index.get(label, -1) for label in self.labels])

    @property
    def width(self) -> int:
        """F, the length of a flat vector of counts: C * (C + 1) for the labels, K * K for the conditional stance, and
        2 * 2 for the topic by sum if there is a topic."""
        by_label = len(self.labels) * (len(self.labels) + 1)
        return by_label + len(self.stance_groups) ** 2 + (0 if self.topic_of is None else 4)


def flat_indices(gold, predicted, conditional, side, grouping: Grouping) -> numpy.ndarray:
    """The indices at which each row counts in a flat vector: (n, 3) int64, -1 for a table that does not count the row.

    `gold` (n,) in [0, C); `predicted` (n,) in [0, C], where C means outside the label set; `conditional` (n,) the
    stance group with the highest probability and `side` (n,) the side of the topic with the higher sum (0 related, 1
    unrelated), both None without probabilities.
    """
    labels, groups = len(grouping.labels), len(grouping.stance_groups)
    indices = numpy.full((len(gold), 3), -1, dtype=numpy.int64)
    indices[:, 0] = gold * (labels + 1) + predicted
    if conditional is not None and groups:
        stance = grouping.stance_of[gold]
        indices[:, 1] = numpy.where(stance >= 0, labels * (labels + 1) + stance * groups + conditional, -1)
    if side is not None:
        indices[:, 2] = grouping.width - 4 + 2 * grouping.topic_of[gold] + side
    return indices


def views(flat: numpy.ndarray, grouping: Grouping) -> dict[str, numpy.ndarray]:
    """A flat vector of counts (..., F) as one table (..., K, M) per question that the codebook has.

    Columns beyond the K classes are wrong answers: predictions outside the label set and, for the stance end to end,
    related posts that were labelled as unrelated.
    """
    labels = len(grouping.labels)
    table = flat[..., : labels * (labels + 1)].reshape(*flat.shape[:-1], labels, labels + 1)
    result = {"all": table}
    if grouping.topic_of is None:
        return result
    result["topic"] = _grouped(table, grouping.topic_of, [*grouping.topic_of, 2], 2, 3)
    result["topic_by_sum"] = flat[..., -4:].reshape(*flat.shape[:-1], 2, 2)
    groups = len(grouping.stance_groups)
    if groups:
        columns = [index if index >= 0 else groups for index in grouping.stance_of] + [groups]
        result["end_to_end"] = _grouped(table, grouping.stance_of, columns, groups, groups + 1)
        result["given_detection"] = result["end_to_end"][..., :groups]
        conditional = flat[..., labels * (labels + 1) : -4]
        result["conditional"] = conditional.reshape(*flat.shape[:-1], groups, groups)
    return result


def _grouped(table, row_group, column_group, rows: int, columns: int) -> numpy.ndarray:
    """Sum rows and columns of (..., C, C + 1) that share a group; a group of -1 is left out."""
    to_rows = numpy.equal.outer(numpy.arange(rows), numpy.asarray(row_group)).astype(numpy.float64)
    to_columns = numpy.equal.outer(numpy.asarray(column_group), numpy.arange(columns)).astype(numpy.float64)
    return to_rows @ table @ to_columns


def figures(table: numpy.ndarray) -> dict[str, numpy.ndarray]:
    """Counts (..., K, M >= K) -> the four scalars of MEANS (...,) and precision, recall, f1 (..., K), in float64."""
    table = numpy.asarray(table, dtype=numpy.float64)
    classes = table.shape[-2]
    hits = numpy.diagonal(table[..., :classes], axis1=-2, axis2=-1)
    gold, predicted = table.sum(-1), table[..., :classes].sum(-2)
    total = gold.sum(-1)
    recall, f1 = _ratio(hits, gold), _ratio(2 * hits, gold + predicted)
    return {
        "accuracy": _ratio(hits.sum(-1), total),
        "balanced_accuracy": _mean_where(recall, gold > 0),
        "macro_f1": _mean_where(f1, gold + predicted > 0),
        "weighted_f1": _ratio((numpy.nan_to_num(f1) * gold).sum(-1), total),
        "precision": _ratio(hits, predicted),
        "recall": recall,
        "f1": f1,
    }


def _ratio(above: numpy.ndarray, below: numpy.ndarray) -> numpy.ndarray:
    """`above / below`, NaN where `below` is 0."""
    with numpy.errstate(invalid="ignore", divide="ignore"):
        return numpy.where(below > 0, above / numpy.where(below > 0, below, 1), numpy.nan)


def _mean_where(values: numpy.ndarray, counted: numpy.ndarray) -> numpy.ndarray:
    """Mean over the last dimension of the values for which `counted` is true, NaN if there are none."""
    return _ratio(numpy.where(counted, values, 0).sum(-1), counted.sum(-1))
