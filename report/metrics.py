"""`metrics.json`: every figure about a set of predictions, with its interval or with a reason why there is none.

A *cell* is a set of rows with its figures: all rows, each language, the languages seen and unseen in training, and each
value of each `by` column. Every cell has the same keys:

    n, accuracy, balanced_accuracy, macro_f1, weighted_f1      each figure with `<figure>_ci`: [low, high]
    majority        the best constant answer and its score: accuracy means little without it
    labels          per label: support, predicted, precision, recall, f1
    topic           related against unrelated, by the predicted label: accuracy, recall, specificity,
                    balanced_accuracy, macro_f1; by_sum: the same figures, by the summed probabilities of the two sides
    stance          rows whose gold label is related, three ways: end_to_end (a missed topic is wrong), given_detection
                    (rows also predicted related), conditional (arg max over the related labels' probabilities)
    confusion       counts, with a last column for predictions outside the label set, which are wrong
    calibration     if there are probabilities: log loss, Brier score, calibration error, how much too sure the model
                    is, and accuracy by coverage (report/calibration.py)
    left_out        declared labels that occur in neither gold nor prediction, so that macro-F1 leaves them out

What cannot be estimated is null, and `notes` in the same dict gives the reason under the same key (report/cells.py).
Rates have Wilson intervals, of as many rows as these are worth where some belong together (report/clusters.py: then the
cell has `n_effective`); F1 and means of rates have bootstrap percentiles (report/intervals.py).

The intervals cover the sampling of this test set. They do not cover the training seed.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy

from common.errors import UserError
from report.calibration import calibration
from report.cells import Figures, mean_over_languages, stance_figures, topic_figures
from report.clusters import MIN_GROUPS, Worths, effective
from report.counts import MEANS, VIEWS, Grouping, figures, flat_indices, views
from report.intervals import LEVEL, bootstrap, patterns

SCHEMA = 1
MAX_VALUES = 200  # of a `by` column: a column with more values holds ids, not groups
OUTSIDE = "(outside the label set)"


@dataclass
class Scored:
    """Gold and predicted labels, row by row, with everything needed to group them.

    `predicted` may hold anything (None, a label that is not in the codebook); such rows are wrong. `probabilities`:
    (n, C) in the order of `labels`, or None. `clusters`: ids, equal for rows that belong together (copies of a text,
    posts by one author). `stance` names groups of related labels; by default each related label is a group. Raises
    `UserError` for columns of the wrong length, unknown gold labels and invalid probabilities.
    """

    ids: Sequence[str]
    gold: Sequence[str]
    predicted: Sequence[str | None]
    languages: Sequence[str]
    labels: tuple[str, ...]
    probabilities: numpy.ndarray | None = None
    related: tuple[str, ...] = ()
    clusters: Sequence | None = None
    extra: Mapping[str, Sequence[str]] = field(default_factory=dict)
    stance: Mapping[str, Sequence[str]] | None = None
    grouped_by: str | None = None  # the column whose values make clusters, beside equal texts
    texts_first: bool = False  # whether a text that several values share is a cluster of its own

    def __post_init__(self):
        self.labels, self.related = tuple(self.labels), tuple(self.related)
        rows = len(self.ids)
        columns = {"gold": self.gold, "predicted": self.predicted, "languages": self.languages, **self.extra}
        columns |= {"clusters": self.clusters} if self.clusters is not None else {}
        for name, column in columns.items():
            if len(column) != rows:
                raise UserError(f"{name}: {len(column)} values for {rows} rows; each row needs one")
        if len(set(self.labels)) != len(self.labels) or not set(self.related) <= set(self.labels):
            raise UserError("labels: each must be there once, and the related ones must be among them")
        known = set(self.labels)
        for id, label in zip(self.ids, self.gold, strict=True):
            if label not in known:
                raise UserError(f"row {id}: label '{label}' is not one of {', '.join(self.labels)}")
        if self.probabilities is not None:
            self.probabilities = numpy.asarray(self.probabilities, dtype=numpy.float64)
            if self.probabilities.shape != (rows, len(self.labels)):
                raise UserError(f"probabilities: {self.probabilities.shape} values; ({rows}, {len(self.labels)}) fit")
            bad = ~(numpy.isfinite(self.probabilities) & (self.probabilities >= 0)).all(1)
            bad |= numpy.abs(self.probabilities.sum(1) - 1) > 0.01
            if bad.any():
                raise UserError(f"row {self.ids[int(bad.argmax())]}: probabilities must be >= 0 and sum to 1")

    @property
    def grouping(self) -> Grouping:
        return Grouping(self.labels, self.related, self.stance)


def score(
    scored: Scored,
    seen_languages: Sequence[str] | None = None,
    by: Sequence[str] = (),
    draws: int = 2000,
    seed: int = 0,
    dropped: Mapping | None = None,
) -> dict:
    """The dict of `metrics.json`. `seen_languages`: those of training, None if unknown (then seen and unseen are null).

    `dropped` (see `dropped_section`) is stored as it is. The same rows and seed give the same numbers in any order.
    """
    table = _Table(scored, draws, seed)
    names = sorted(set(scored.languages))
    of_language = {name: numpy.flatnonzero(table.language == name) for name in names}
    groups = {"all": names, **{f"language {name}": [name] for name in names}}
    if seen_languages is not None:
        groups["seen"] = [name for name in names if name in seen_languages]
        groups["unseen"] = [name for name in names if name not in seen_languages]
    cells = table.cells(of_language, groups, "")
    languages = {name: cells[f"language {name}"] for name in names}
    result = {"schema": SCHEMA, **cells["all"], "by_language": languages}
    for key in ("seen", "unseen"):
        result[key] = cells.get(key)
        if result[key] is None:
            result["notes"][key] = "the languages of training are not known"
        else:
            result[key]["languages"] = groups[key]
            result[key]["mean_over_languages"] = mean_over_languages(languages, groups[key])
    result["mean_over_languages"] = mean_over_languages(languages, names)
    result["by"] = {column: table.by(column) for column in by}
    result["dropped"] = dict(dropped or {"rows": 0, "reasons": {}})
    together = Counter(scored.clusters if scored.clusters is not None else range(len(scored.ids)))
    result["intervals"] = {
        "level": LEVEL, "rates": "Wilson", "means": "bootstrap percentiles, stratified by language, clusters resampled",
        "draws": draws, "seed": seed, "clusters": len(together), "largest_cluster": max(together.values(), default=0),
        "effective_clusters": effective(table.clusters),
        **({"grouped_by": scored.grouped_by} if scored.grouped_by else {}),
        **({"texts_first": True} if scored.texts_first else {}),
    }
    return result


def dropped_section(reasons: Mapping[str, int], all_rows: Mapping | None = None) -> dict:
    """The value of `metrics["dropped"]`: rows left out, by reason, and figures with all rows from a second `score`."""
    section = {"rows": sum(reasons.values()), "reasons": dict(reasons)}
    if all_rows is not None:
        section["all_rows"] = brief(all_rows)
    return section


def brief(metrics: Mapping) -> dict:
    """Of a `score` the figures that stand beside those of other rows: of all, and of each language."""
    keys = ["n", *(key for name in MEANS for key in (name, f"{name}_ci")), "topic", "stance", "notes"]
    return {key: metrics[key] for key in keys} | {
        "by_language": {name: {key: cell[key] for key in keys} for name, cell in metrics["by_language"].items()}}


class _Table:
    """The rows as arrays of indices, and the functions that turn a set of rows into a cell."""

    def __init__(self, scored: Scored, draws: int, seed: int):
        self.scored, self.draws, self.seed = scored, draws, seed
        self.grouping = scored.grouping
        index = {label: i for i, label in enumerate(scored.labels)}
        self.gold = numpy.array([index[label] for label in scored.gold], dtype=numpy.int64)
        self.predicted = numpy.array([index.get(label, len(index)) for label in scored.predicted], dtype=numpy.int64)
        self.language = numpy.array(scored.languages, dtype=object)
        clusters = range(len(scored.ids)) if scored.clusters is None else scored.clusters
        number: dict = {}
        self.clusters = numpy.array([number.setdefault(c, len(number)) for c in clusters], dtype=numpy.int64)
        conditional, side = None, None
        if scored.probabilities is not None and self.grouping.topic_of is not None:
            related = scored.probabilities[:, self.grouping.topic_of == 0].sum(1)
            side = (related < scored.probabilities[:, self.grouping.topic_of == 1].sum(1)).astype(numpy.int64)
        if scored.probabilities is not None and self.grouping.stance_groups:
            groups = range(len(self.grouping.stance_groups))
            sums = [scored.probabilities[:, self.grouping.stance_of == k].sum(1) for k in groups]
            conditional = numpy.argmax(numpy.stack(sums, 1), 1)
        self.indices = flat_indices(self.gold, self.predicted, conditional, side, self.grouping)

    def by(self, column: str) -> dict:
        """One cell per value of an extra column; its bootstrap is stratified by language, as for all cells."""
        if column not in self.scored.extra:
            have = ", ".join(self.scored.extra) or "none"
            raise UserError(f"--by {column}: the data have no such column; there are: {have}")
        values = numpy.array([str(value) for value in self.scored.extra[column]], dtype=object)
        names = sorted(set(values))
        check_values(column, names)
        result = {}
        for name in names:
            chosen = values == name
            strata = {x: numpy.flatnonzero(chosen & (self.language == x)) for x in sorted(set(self.language[chosen]))}
            result[name] = self.cells(strata, {"": list(strata)}, f"{column}={name} ")[""]
        return result

    def cells(self, strata: dict[str, numpy.ndarray], groups: dict[str, list[str]], stream: str) -> dict[str, dict]:
        """Cells over unions of strata (name -> row indices); `stream` gives each column random numbers of its own."""
        joined = {cell: self._joined(strata, names) for cell, names in groups.items()}
        members = {cell: [stream + name for name in parts] for cell, parts in joined.items()}
        whole = {stream + name: numpy.concatenate([strata[s] for s in held])
                 for parts in joined.values() for name, held in parts.items()}
        counted = {name: patterns(self.indices[rows], self.clusters[rows], self.grouping.width)
                   for name, rows in whole.items()}
        intervals = bootstrap(counted, members, self._statistic, draws=self.draws, seed=self.seed)
        rows = {cell: numpy.concatenate([strata[s] for s in names]) if names else numpy.array([], dtype=numpy.int64)
                for cell, names in groups.items()}
        enough = {cell: round(effective(self.clusters[rows[cell]])) >= MIN_GROUPS for cell in groups}
        return {cell: self._cell(rows[cell], intervals.get(cell) if enough[cell] else None) for cell in groups}

    def _joined(self, strata: dict[str, numpy.ndarray], names: list[str]) -> dict[str, list[str]]:
        """The strata `names`, those with rows of one cluster joined: a name for each -> the strata that it consists of.

        Clusters are drawn whole, so a cluster whose rows lie in several languages is drawn in all of them at once.
        """
        parts: list[tuple[set, list[str]]] = []
        for name in names:
            own, held = set(self.clusters[strata[name]].tolist()), [name]
            for other in [part for part in parts if part[0] & own]:
                parts.remove(other)
                own, held = own | other[0], [*other[1], *held]
            parts.append((own, held))
        return {"+".join(held): held for _, held in parts}

    def _statistic(self, flat: numpy.ndarray) -> numpy.ndarray:
        """(m, F) -> (m, S): for each view the four means, then F1 per class."""
        parts = []
        for table in views(flat, self.grouping).values():
            found = figures(table)
            parts += [numpy.stack([found[name] for name in MEANS], -1), found["f1"]]
        return numpy.concatenate(parts, -1)

    def _cell(self, rows: numpy.ndarray, intervals: numpy.ndarray | None) -> dict:
        flat = numpy.zeros(self.grouping.width)
        used = self.indices[rows]
        for column in used.T:
            numpy.add.at(flat, column[column >= 0], 1)
        tables = views(flat, self.grouping)
        found, at, worths = {}, 0, self._worths(rows)
        for name, table in tables.items():
            width = len(MEANS) + len(table)
            part = None if intervals is None else intervals[:, at : at + width]
            classes = (*self.scored.labels,) if name == "all" else ("related", "unrelated") if "topic" in name \
                else tuple(self.grouping.stance_groups)
            found[name] = Figures(table, classes, part, worths[name])
            at += width
        whole = found["all"]
        cell = whole.means(MEANS)
        cell |= {"majority": whole.majority(), "left_out": whole.absent, "labels": whole.per_class()}
        probabilities = self.scored.probabilities is not None
        cell["topic"] = topic_figures(found, probabilities, cell["notes"])
        cell["stance"] = stance_figures(found, probabilities, cell["notes"])
        cell["confusion"] = {"labels": list(self.scored.labels), "columns": [*self.scored.labels, OUTSIDE],
                             "counts": whole.table.astype(int).tolist()}
        cell["calibration"] = self._calibration(rows, cell["notes"])
        return cell

    def _worths(self, rows: numpy.ndarray) -> dict[str, Worths | None]:
        """For each view, what its rows are worth where some belong together; None where each is by itself."""
        if len(numpy.unique(self.clusters[rows])) == len(rows):
            return dict.fromkeys(VIEWS)
        kinds, kind = numpy.unique(self.indices[rows], axis=0, return_inverse=True)
        kind = kind.reshape(-1)  # NumPy 2.0 gave it a second dimension
        flat = numpy.zeros((len(kinds), self.grouping.width))
        for column in kinds.T:
            flat[numpy.flatnonzero(column >= 0), column[column >= 0]] = 1
        found = {}
        for name, table in views(flat, self.grouping).items():
            counts = table.sum((-2, -1))[kind] > 0  # the rows that this view is about
            gold, predicted = (table.sum(axis).argmax(-1)[kind][counts] for axis in (-1, -2))
            found[name] = Worths.of(gold, predicted, self.clusters[rows][counts], table.shape[-2])
        return found

    def _calibration(self, rows: numpy.ndarray, notes: dict) -> dict | None:
        if self.scored.probabilities is None or not len(rows):
            notes["calibration"] = "there are no probabilities" if len(rows) else "no rows"
            return None
        return calibration(self.scored.probabilities[rows], self.gold[rows], self.language[rows], self.clusters[rows],
                           self.draws, self.seed)


def check_by(by: Sequence[str], extras: Sequence[Mapping]) -> None:
    """Raise `UserError` for a `by` column that no row has, by the rows' further columns, or that holds ids."""
    for name in by:
        if not any(name in extra for extra in extras):
            there = ", ".join(sorted({key for extra in extras for key in extra})) or "none"
            raise UserError(f"--by {name}: the posts have no such column; their other columns: {there}")
        check_values(name, {extra.get(name, "") for extra in extras})


def check_values(column: str, values: Iterable[str]) -> None:
    """Raise `UserError` for a `by` column that holds ids rather than groups."""
    if (count := len(set(map(str, values)))) > MAX_VALUES:
        raise UserError(f"--by {column}: {count} different values; at most {MAX_VALUES} are possible")
