"""Several figures over several groups of languages, from one pass over the resampled posts.

A question needs many numbers from the same answers of two models: each figure, over all languages, the seen, the
unseen, and each language alone. All come from the same resampled posts, so these are drawn once.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from report.intervals import LEVEL, percentiles
from stats.predictions import Predictions, Rows, figures_of, pooled, resampled
from study.plan import Statistics
from study.results import Results

Spread = tuple[float, float, float]  # value, low, high; NaN if it cannot be computed


def spread(models: Sequence[Predictions], figures: Sequence[str], groups: Mapping[str, Sequence[str]],
           statistics: Statistics, weight: str = "languages") -> dict[tuple[str, str], Spread]:
    """(group, figure) -> one model's figure, or the first's minus the second's, with its bootstrap interval.

    `groups`: name -> languages; a group without any has no entry. `weight`: as in `stats.predictions`.
    """
    groups = {group: list(languages) for group, languages in groups.items() if languages}
    codes = list(dict.fromkeys(code for languages in groups.values() for code in languages))
    asked = [(group, name) for group in groups for name in figures]
    grouping, drawn = models[0].rows.grouping, {key: [] for key in asked}
    for parts in resampled(models, codes, statistics.draws, statistics.seed) if asked else ():
        for group, name in asked:
            drawn[group, name].append(less(pooled({code: parts[code] for code in groups[group]}, name, grouping,
                                                  weight)))
    edges, found = [(1 - LEVEL) / 2, (1 + LEVEL) / 2], {}
    for group, name in asked:
        value = float(less(figures_of(models, name, groups[group], weight)))
        low, high = percentiles(np.concatenate(drawn[group, name])[:, None], edges)[:, 0]
        found[group, name] = (value, float(low), float(high))
    return found


def less(values: np.ndarray) -> np.ndarray:
    """(..., 1) -> its values, (..., 2) -> first minus second."""
    return values[..., 0] - values[..., 1] if values.shape[-1] > 1 else values[..., 0]


def part(answers: Predictions, rows: Rows, chosen: np.ndarray) -> Predictions:
    """The answers to some of the rows; `rows` is what `table_part` made of the same choice."""
    p = answers.probabilities
    return Predictions(rows, answers.predicted[chosen], None if p is None else p[chosen])


def table_part(rows: Rows, chosen: np.ndarray) -> Rows:
    """Some of a table's rows, as a table of their own."""
    return Rows(rows.ids[chosen], rows.language[chosen], rows.gold[chosen], rows.clusters[chosen], rows.grouping)


def main_figures(results: Results) -> list[str]:
    """The figure that a study leads with, then accuracy, and the topic's recall if the codebook has a topic."""
    if results.kept.grouping.topic_of is None:
        return ["macro_f1", "accuracy"]
    return ["topic.macro_f1", "accuracy", "topic.recall"]


def scopes(languages: Sequence[str], seen: Sequence[str], keep: str = "all") -> dict[str, list[str]]:
    """"all", "unseen" and "seen": those with a language; of two that are equal, `keep` decides ("all" or "part")."""
    groups = {"all": list(languages), "unseen": [code for code in languages if code not in seen],
              "seen": [code for code in languages if code in seen]}
    if keep == "all":
        return {name: codes for name, codes in groups.items() if name == "all" or 0 < len(codes) < len(languages)}
    parts = {name: codes for name, codes in groups.items() if codes}
    return {name: codes for name, codes in parts.items() if name != "all" or len(parts) > 2}
