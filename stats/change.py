"""What a change to the model does to its labels: flips, divergence and macro-F1, each with an interval.

For posts i = 1 .. n with label probabilities p (before) and q (after):

    flips       posts whose label differs; the rate's interval is Wilson's, of what posts are worth (report/clusters.py)
    KL          mean over i of sum_c p_ic ln(p_ic / q_ic), in nats, float64; percentiles of a bootstrap
    F1 change   macro-F1 after minus before on the same posts; percentiles of a paired bootstrap (`stats.paired`)

Both bootstraps draw clusters (copies of a text, posts of one author where --group-by says so) within each language. All
intervals are at 95 % and cover the choice of posts alone. Where a label's posts are worth fewer than ten clusters, F1
has no interval (`Rows.is_small`); nor where no label differs, since posts drawn again and again from these never would:
how rare a difference can be is what the flips' interval says.
"""

import numpy as np

from report.clusters import rate_interval
from report.intervals import percentiles, resample
from stats.paired import difference
from stats.predictions import Predictions, Rows


def divergences(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """KL(p_i || q_i) of each row, (n, C) and (n, C) -> (n,) float64 in nats; a 0 counts as float32's smallest normal.
    """
    p, q = (np.maximum(part.astype(np.float64), np.finfo(np.float32).tiny) for part in (p, q))
    return (p * np.log(p / q)).sum(1)


def mean_interval(values: np.ndarray, table: Rows, draws: int, seed: int) -> list[float] | None:
    """The 95 % interval of the mean of `values` (n,): clusters of `table` are drawn within each language.

    A cluster with rows in several languages counts with the first of them. None without draws, or where a language is a
    single cluster: drawn again and again it would look as if it could not have been another.
    """
    if not draws or not len(values):
        return None
    stream, total = np.random.default_rng([seed, 0xAD]), np.zeros((draws, 2))
    _, first, cluster = np.unique(table.clusters, return_index=True, return_inverse=True)
    sums = np.stack([np.bincount(cluster, weights=values), np.bincount(cluster).astype(float)], 1)  # (G, 2)
    for language in table.languages:
        inside = sums[table.language[first] == language]
        if len(inside) == 1:
            return None
        if len(inside):
            total += resample(inside, np.ones(len(inside)), draws, stream)
    return percentiles((total[:, 0] / total[:, 1])[:, None])[:, 0].tolist()


def change(before: Predictions, after: Predictions, draws: int = 2000, seed: int = 0) -> dict:
    """The module's three figures, of two models with probabilities for the same posts: a dict for JSON."""
    table = before.rows
    other, apart = before.predicted != after.predicted, divergences(before.probabilities, after.probabilities)
    found = {"value": after.figure("macro_f1") - before.figure("macro_f1")}
    sure = draws and other.any() and not table.is_small(np.ones(len(other), dtype=bool))
    if sure:
        found = difference(after, before, "macro_f1", draws=draws, seed=seed)
    return {"flips": int(other.sum()), "flip_rate": float(other.mean()),
            "flip_rate_ci": list(rate_interval(other, table.clusters)),
            "kl": float(apart.mean()), "kl_ci": mean_interval(apart, table, draws, seed),
            "macro_f1": after.figure("macro_f1"), "f1_change": found["value"],
            "f1_change_ci": [found["low"], found["high"]] if sure else None}
