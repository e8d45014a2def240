"""Do the probabilities mean what they say? The error of a set of posts, its intervals, and what --abstain would do.

**Calibration error** in bins of equal mass, debiased (Kumar, Liang and Ma 2019, NeurIPS): posts sorted by the
probability of their label are cut into B bins; with conf_b the mean probability and acc_b the share that is right,

    error^2 = sum_b n_b / n ((conf_b - acc_b)^2 - acc_b (1 - acc_b) / (n_b - 1)),    error = sqrt(max(0, error^2))

Without the second term a model that is calibrated to the last digit would seem not to be, the more so the smaller the
bins. **Brier score**: the mean over posts of sum_c (p_c - y_c)^2. **Gap**: mean probability of the label given minus
the share that is right, above 0 where the model is too sure; it needs no bins, so it is what small sets have.
**Coverage**: the share of posts whose label has a probability of at least a threshold, and the accuracy among them.

Intervals are bootstrap percentiles over clusters, language by language (report/intervals.py), with the bins of the set
itself. A resampled set is noisy twice, as a set and as a resample, so the draws of error^2 lose the second term twice.
"""

from collections.abc import Sequence

import numpy

from report.clusters import rate_interval, worth
from report.intervals import bootstrap

BINS = 10
LEAST_IN_BIN = 10
LEAST_ROWS = 10  # for an interval of the Brier score and the gap
THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
SMALLEST = 1e-12
WORK = 5_000_000  # rows times draws; with more rows there are fewer draws, 200 or more


def parts_of(confidence: numpy.ndarray) -> list[numpy.ndarray]:
    """The rows of each bin, sorted by confidence (n,); one bin where there are too few for two."""
    bins = max(1, min(BINS, len(confidence) // LEAST_IN_BIN))
    return numpy.array_split(numpy.argsort(confidence, kind="stable"), bins)


def squared_error(counts: numpy.ndarray, sure: numpy.ndarray, right: numpy.ndarray, noise: float = 1.0
                  ) -> numpy.ndarray:
    """error^2 (...,) of bins (..., B): their rows, sums of confidence and of rows that are right; `noise`: how many
    times the second term is taken away."""
    there = counts > 1
    n = numpy.where(there, counts, 2.0)
    share = right / n
    each = (sure / n - share) ** 2 - noise * share * (1 - share) / (n - 1)
    return (numpy.where(there, counts * each, 0.0)).sum(-1) / counts.sum(-1)


def calibration_error(confidence: numpy.ndarray, right: numpy.ndarray) -> float | None:
    """The debiased error (formula: see the module) of probabilities (n,) and right (n,) bool; None for few posts."""
    parts = parts_of(confidence)
    if len(parts) < 2:
        return None
    sums = [numpy.array([values[part].sum() for part in parts], dtype=numpy.float64) for values in (confidence, right)]
    found = squared_error(numpy.array([float(len(part)) for part in parts]), *sums)
    return float(max(0.0, found) ** 0.5)


def coverage_curve(confidence: numpy.ndarray, right: numpy.ndarray,
                   clusters: Sequence[int] | None = None) -> list[dict]:
    """For each threshold: coverage, n, accuracy and its Wilson interval among the posts at or above it, of as many as
    those that belong together (equal `clusters`) are worth."""
    clusters = numpy.arange(len(right)) if clusters is None else numpy.asarray(clusters)
    rows = []
    for threshold in THRESHOLDS:
        inside = confidence >= threshold
        n = int(inside.sum())
        low, high = rate_interval(right[inside], clusters[inside]) or (None, None)
        rows.append({"threshold": threshold, "coverage": n / len(right) if len(right) else None, "n": n,
                     "accuracy": float(right[inside].mean()) if n else None, "low": low, "high": high})
    return rows


def calibration(probabilities: numpy.ndarray, gold: numpy.ndarray, languages: Sequence[str], clusters: Sequence[int],
                draws: int, seed: int = 0) -> dict:
    """What metrics.json holds of probabilities (n, C) and labels gold (n,) int64, n > 0, in float64.

    n, confidence (mean probability of the label given), accuracy, log_loss; brier, ece (the calibration error), gap,
    each with `<figure>_ci`; bins; coverage; notes for what is None. clusters (n,) int64: equal for rows that belong
    together.
    """
    n, right, top = len(gold), probabilities.argmax(1) == gold, probabilities.max(1)
    truth = numpy.eye(probabilities.shape[1])[gold]
    loss, apart, parts = ((probabilities - truth) ** 2).sum(1), top - right, parts_of(top)
    error = calibration_error(top, right)
    log_loss = float(-numpy.log(numpy.maximum(probabilities[truth > 0], SMALLEST)).mean())
    found = {"n": n, "confidence": float(top.mean()), "accuracy": float(right.mean()), "log_loss": log_loss,
             "brier": float(loss.mean()), "brier_ci": None, "ece": error, "ece_ci": None, "gap": float(apart.mean()),
             "gap_ci": None, "bins": [], "coverage": coverage_curve(top, right, clusters), "notes": {}}
    if error is None:
        found["notes"]["ece"] = f"fewer than {2 * LEAST_IN_BIN} rows: no two bins"
    else:
        found["bins"] = [{"low": float(top[part].min()), "high": float(top[part].max()), "n": len(part),
                          "confidence": float(top[part].mean()), "right": int(right[part].sum()),
                          "worth": worth(right[part], numpy.asarray(clusters)[part])}
                         for part in parts]
    if n < LEAST_ROWS or not draws:
        found["notes"] |= {f"{name}_ci": f"fewer than {LEAST_ROWS} rows" if draws else "no draws were asked for"
                           for name in ("brier", "ece", "gap")}
        return found
    bins, number = len(parts), numpy.empty(n, dtype=numpy.int64)
    for index, part in enumerate(parts):
        number[part] = index
    inside = numpy.eye(bins)[number]
    columns = numpy.concatenate([inside, inside * top[:, None], inside * right[:, None],
                                 numpy.stack([loss, apart, numpy.ones(n)], 1)], 1)
    language, strata = numpy.array(languages, dtype=object), {}
    for name in sorted(set(languages)):
        own = numpy.flatnonzero(language == name)
        group = numpy.unique(numpy.asarray(clusters)[own], return_inverse=True)[1]
        sums = numpy.zeros((int(group.max()) + 1, columns.shape[1]))
        numpy.add.at(sums, group, columns[own])
        sums = sums[numpy.lexsort(sums.T)]  # the draws depend on the posts, not on their order
        strata[name] = (sums, numpy.ones(len(sums), dtype=numpy.int64))

    def figures(counts: numpy.ndarray) -> numpy.ndarray:
        rows = counts[:, -1]
        square = squared_error(counts[:, :bins], counts[:, bins:2 * bins], counts[:, 2 * bins:3 * bins], noise=2.0)
        return numpy.stack([counts[:, -3] / rows, square, counts[:, -2] / rows], 1)

    low, high = bootstrap(strata, {"": list(strata)}, figures, draws=min(draws, max(200, WORK // n)), seed=seed)[""]
    for index, name in enumerate(("brier", "ece", "gap")):
        if found[name] is not None:
            ends = [float(low[index]), float(high[index])]
            ends = [max(0.0, end) ** 0.5 for end in ends] if name == "ece" else ends
            found[f"{name}_ci"] = [min(ends[0], found[name]), max(ends[1], found[name])]
    return found
