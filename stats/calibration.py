"""Probabilities that mean what they say: the scaling that mends those of a model, and how far each language is from it.

**Scaling** (Guo, Pleiss, Sun and Weinberger 2017, ICML): with the model's probabilities q_c of the C labels,

    p_c = exp(s_c log q_c + t_c) / sum_k exp(s_k log q_k + t_k)

Temperature scaling has one s_c = 1 / T for all labels and t_c = 0, so no label changes; it is fitted where there are
fewer than `VECTOR_ROWS` posts. Vector scaling has an s_c and a t_c for each label. Both maximise the log-likelihood of
held-out posts; vector scaling minus a penalty ||s - 1 / T||^2 / 2 + ||t||^2 / 2, without which (s, t) are not unique.

How far probabilities are from what they say: report/calibration.py.
"""

from collections.abc import Sequence

import numpy

from common.errors import UserError
from report.calibration import SMALLEST, calibration, calibration_error, coverage_curve
from report.clusters import MIN_GROUPS, effective
from report.intervals import EDGES
from report.metrics import Scored

__all__ = ["LEAST_ROWS", "VECTOR_ROWS", "by_language", "calibration_error", "coverage_curve", "fit_scaling", "scaled",
           "scaled_figures"]

VECTOR_ROWS = 200
LEAST_ROWS = 20  # with fewer nothing is fitted
STEPS = 100


def fit_scaling(probabilities: numpy.ndarray, gold: numpy.ndarray) -> dict | None:
    """The scaling for probabilities (n, C) and labels gold (n,) int64, as JSON holds it; None below `LEAST_ROWS` posts.

    method ("temperature" or "vector"), scale (C,), shift (C,), n, log_loss before and after on these posts; float64.
    """
    if len(gold) < LEAST_ROWS:
        return None
    logs = numpy.log(numpy.maximum(probabilities.astype(numpy.float64), SMALLEST))
    labels = logs.shape[1]
    inverse = _inverse_temperature(logs, gold)
    scale, shift, method = numpy.full(labels, inverse), numpy.zeros(labels), "temperature"
    if len(gold) >= VECTOR_ROWS:
        (scale, shift), method = _vector(logs, gold, inverse), "vector"
    after = _softmax(logs * scale + shift)
    return {"method": method, "scale": scale.tolist(), "shift": shift.tolist(), "n": len(gold),
            "log_loss": {"before": _log_loss(_softmax(logs), gold), "after": _log_loss(after, gold)}}


def scaled(probabilities: numpy.ndarray, scaling: dict) -> numpy.ndarray:
    """p (n, C) in the dtype of `probabilities` (n, C), computed in float64; a row of NaN stays one.

    Raises `UserError` for a scaling of other labels, or one that was changed by hand.
    """
    try:
        scale, shift = (numpy.array(scaling[key], dtype=numpy.float64) for key in ("scale", "shift"))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError("the run's calibration was changed by hand; train again") from error
    shape = (probabilities.shape[1],)
    if scale.shape != shape or shift.shape != shape or not numpy.isfinite([scale, shift]).all():
        raise UserError(f"the run's calibration is not of {shape[0]} labels; train again")
    logs = numpy.log(numpy.maximum(probabilities.astype(numpy.float64), SMALLEST))
    return _softmax(logs * scale + shift).astype(probabilities.dtype)


def scaled_figures(scored: Scored, scaling: dict, draws: int, seed: int) -> dict:
    """Calibration of the scaled probabilities (report/calibration.py), with the scaling's `method` and how many posts
    it was `fitted` on."""
    method, rows = (scaling.get("method"), scaling.get("n")) if isinstance(scaling, dict) else (None, None)
    if method not in ("temperature", "vector") or type(rows) is not int:
        raise UserError("the run's calibration was changed by hand; train again")
    number = {label: index for index, label in enumerate(scored.labels)}
    gold = numpy.array([number[label] for label in scored.gold], dtype=numpy.int64)
    clusters = range(len(gold)) if scored.clusters is None else scored.clusters
    return calibration(scaled(scored.probabilities, scaling), gold, scored.languages, clusters, draws, seed) | {
        "method": method, "fitted": rows}


def _softmax(odds: numpy.ndarray) -> numpy.ndarray:
    powers = numpy.exp(odds - odds.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def _log_loss(p: numpy.ndarray, gold: numpy.ndarray) -> float:
    return float(-numpy.log(numpy.maximum(p[numpy.arange(len(gold)), gold], SMALLEST)).mean())


def _inverse_temperature(logs: numpy.ndarray, gold: numpy.ndarray) -> float:
    """1 / T, within [0.01, 100]: the log-likelihood is concave in it, and its slope is halved into."""
    own = logs[numpy.arange(len(gold)), gold]
    low, high = 0.01, 100.0
    for _ in range(60):
        middle = (low * high) ** 0.5
        slope = (own - (_softmax(middle * logs) * logs).sum(1)).sum()
        low, high = (middle, high) if slope > 0 else (low, middle)
    return (low * high) ** 0.5


def _vector(logs: numpy.ndarray, gold: numpy.ndarray, inverse: float) -> tuple[numpy.ndarray, numpy.ndarray]:
    """(scale, shift), each (C,), by Newton's method on the penalised log-likelihood, which is concave."""
    labels = logs.shape[1]
    truth = numpy.eye(labels)[gold]
    start = numpy.concatenate([numpy.full(labels, inverse), numpy.zeros(labels)])

    def objective(b):
        odds = logs * b[:labels] + b[labels:]
        top = odds.max(1)
        total = (odds * truth).sum() - (top + numpy.log(numpy.exp(odds - top[:, None]).sum(1))).sum()
        return total - ((b - start) ** 2).sum() / 2

    beta = start.copy()
    for _ in range(STEPS):
        p = _softmax(logs * beta[:labels] + beta[labels:])
        both = numpy.concatenate([logs, numpy.ones_like(logs)], 1)  # d odds_c / d (s_c, t_c)
        twice = numpy.concatenate([p, p], 1) * both
        gradient = (numpy.concatenate([truth - p] * 2, 1) * both).sum(0) - (beta - start)
        same = numpy.tile(numpy.eye(labels), (2, 2))
        hessian = same * (twice.T @ both) - twice.T @ twice + numpy.eye(2 * labels)
        step = numpy.linalg.solve(hessian, gradient)
        while objective(beta + step) < objective(beta) - 1e-9:
            step = step / 2
        beta = beta + step
        if abs(step).max() < 1e-9:
            break
    return beta[:labels], beta[labels:]


def by_language(probabilities: numpy.ndarray, gold: numpy.ndarray, languages: Sequence[str], clusters: numpy.ndarray,
                draws: int = 1000, seed: int = 0) -> list[dict]:
    """Per language, and over all ("all"): n, error, Brier score and `gap`, these two with percentile intervals of a
    bootstrap that draws clusters (n,), equal for posts that belong together; None for fewer than `MIN_GROUPS`.

    `gap`: mean probability of the label given minus the share that is right, above 0 where the model is too sure; it
    needs no bins, so it is what small languages have.
    """
    language, right = numpy.array(languages), probabilities.argmax(1) == gold
    top = probabilities.max(1)
    rows = []
    for name in ("all", *sorted(set(languages))):
        own = numpy.arange(len(gold)) if name == "all" else numpy.flatnonzero(language == name)
        stream = numpy.random.default_rng([seed, *name.encode()])
        loss = ((probabilities[own] - numpy.eye(probabilities.shape[1])[gold[own]]) ** 2).sum(1)
        apart = top[own] - right[own]
        _, cluster, sizes = numpy.unique(clusters[own], return_inverse=True, return_counts=True)
        sums = numpy.stack([numpy.bincount(cluster, loss), numpy.bincount(cluster, apart), sizes], 1)  # (G, 3)
        times = stream.multinomial(len(sizes), numpy.full(len(sizes), 1 / len(sizes)), size=draws)
        drawn = times @ sums
        ends = numpy.quantile(drawn[:, :2] / drawn[:, 2:], EDGES, axis=0).T.tolist()
        ends = [[None, None]] * 2 if round(effective(clusters[own])) < MIN_GROUPS else ends
        rows.append({"language": name, "n": len(own), "error": calibration_error(top[own], right[own]),
                     "brier": float(loss.mean()), "brier_ci": ends[0], "gap": float(apart.mean()), "gap_ci": ends[1]})
    return rows
