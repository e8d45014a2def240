"""Several figures over several groups of languages, from one pass over the resampled posts.

A question needs many numbers from the same answers of two models: each figure, over all languages, the seen, the
unseen, and each language alone. All come from the same resampled posts, so these are drawn once.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from stats import corrected
from stats.predictions import Predictions, Rows, figures_of, pooled, resampled
from study.plan import Statistics
from study.results import Results

Spread = tuple[float, float, float]  # value, low, high; NaN if it cannot be computed


def spread(sides: Sequence[Predictions | Sequence[Predictions]], figures: Sequence[str],
           groups: Mapping[str, Sequence[str]], statistics: Statistics, weight: str = "languages"
           ) -> dict[tuple[str, str], Spread]:
    """(group, figure) -> one model's figure, or the first's minus the second's, with its bootstrap interval over posts.

    A side is a model, or several fits of which the mean is taken. `groups`: name -> languages; a group without any has
    no entry. `weight`: as in `stats.predictions`.
    """
    groups = {group: list(languages) for group, languages in groups.items() if languages}
    codes = list(dict.fromkeys(code for languages in groups.values() for code in languages))
    asked = [(group, name) for group in groups for name in figures]
    fits = [[side] if isinstance(side, Predictions) else list(side) for side in sides]
    models, cut = [model for side in fits for model in side], len(fits[0])
    grouping, drawn = models[0].rows.grouping, {key: [] for key in asked}
    for parts in resampled(models, codes, statistics.draws, statistics.seed) if asked else ():
        for group, name in asked:
            drawn[group, name].append(less(pooled({code: parts[code] for code in groups[group]}, name, grouping,
                                                  weight), cut))
    found = {}
    for group, name in asked:
        value = float(less(figures_of(models, name, groups[group], weight), cut))
        found[group, name] = (value, *corrected.interval(value, np.concatenate(drawn[group, name]), models, cut, name,
                                                         groups[group], weight))
    return found


def less(values: np.ndarray, cut: int) -> np.ndarray:
    """(..., M) -> the mean of the first `cut`, minus the mean of the others if there are any."""
    one = values[..., :cut].mean(-1)
    return one - values[..., cut:].mean(-1) if values.shape[-1] > cut else one


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
