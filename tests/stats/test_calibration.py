"""Calibration: scaling against scipy's optimum and a known temperature, the debiased error against simulated truth.

Deliberate break: leave out `- share * (1 - share) / (len(part) - 1)`, or divide by T where it is multiplied.
"""

import numpy
import pytest

from common.errors import UserError
from stats.calibration import (
    VECTOR_ROWS,
    brier,
    by_language,
    calibration_error,
    coverage_curve,
    fit_scaling,
    scaled,
)


def sharpened(rows, power, seed=0, labels=4):
    """Probabilities p from a Dirichlet, labels drawn by them, and p sharpened by a power, as an overconfident model."""
    stream = numpy.random.default_rng(seed)
    p = stream.dirichlet(numpy.full(labels, 0.7), rows)
    gold = (p.cumsum(1) > stream.random((rows, 1))).argmax(1)
    q = p**power
    return p, gold, q / q.sum(1, keepdims=True)


def test_temperature_is_found_again_and_changes_no_label():
    _, gold, q = sharpened(150, 3.0)
    found = fit_scaling(q, gold)
    assert found["method"] == "temperature" and found["shift"] == [0] * 4 and len(set(found["scale"])) == 1
    assert found["scale"][0] == pytest.approx(1 / 3, rel=0.35)
    assert found["log_loss"]["after"] < found["log_loss"]["before"]
    assert (scaled(q, found).argmax(1) == q.argmax(1)).all()
    assert scaled(q.astype(numpy.float32), found).dtype == numpy.float32
    assert numpy.isnan(scaled(numpy.full((1, 4), numpy.nan), found)).all()


def test_both_are_the_optimum_that_scipy_finds():
    optimize = pytest.importorskip("scipy.optimize")
    _, gold, q = sharpened(150, 2.0)
    logs = numpy.log(numpy.maximum(q, 1e-12))

    def loss(scale, shift):
        odds = logs * scale + shift
        return (numpy.logaddexp.reduce(odds, 1) - odds[numpy.arange(len(gold)), gold]).sum()

    one = optimize.minimize_scalar(lambda s: loss(s, 0), bounds=(0.01, 100), method="bounded", options={"xatol": 1e-9})
    assert fit_scaling(q, gold)["scale"][0] == pytest.approx(one.x, rel=1e-5)
    _, gold, q = sharpened(VECTOR_ROWS, 2.0)
    logs = numpy.log(numpy.maximum(q, 1e-12))
    start = optimize.minimize_scalar(lambda s: loss(s, 0), bounds=(0.01, 100), method="bounded",
                                     options={"xatol": 1e-10}).x
    penalty = lambda b: ((b[:4] - start) ** 2).sum() / 2 + (b[4:] ** 2).sum() / 2  # noqa: E731
    several = optimize.minimize(lambda b: loss(b[:4], b[4:]) + penalty(b), numpy.array([start] * 4 + [0.0] * 4),
                                tol=1e-10)
    found = fit_scaling(q, gold)
    assert found["method"] == "vector"
    assert found["scale"] + found["shift"] == pytest.approx(several.x.tolist(), abs=1e-4)


def test_vector_scaling_mends_a_label_that_is_given_too_often():
    p, gold, _ = sharpened(3000, 1)
    q = p * [3, 1, 1, 1]
    q /= q.sum(1, keepdims=True)
    mended = scaled(q, fit_scaling(q[:600], gold[:600]))[600:]
    shares = numpy.bincount(gold[600:], minlength=4) / 2400
    assert abs(mended.mean(0) - shares).max() < 0.06 < abs(q[600:].mean(0) - shares).max()
    assert brier(mended, gold[600:]) < brier(q[600:], gold[600:])


def test_the_error_of_a_calibrated_model_is_nearly_zero_and_of_another_its_own():
    biased, squares = [], []
    for seed in range(200):
        p, gold, _ = sharpened(300, 1, seed)
        top, right = p.max(1), p.argmax(1) == gold
        parts = numpy.array_split(numpy.argsort(top), 10)
        biased.append(sum(len(b) * (top[b].mean() - right[b].mean()) ** 2 for b in parts) / 300)
        squares.append(calibration_error(top, right) ** 2)
    assert numpy.mean(squares) < 0.5 * numpy.mean(biased) and numpy.median(squares) < 0.001
    p, gold, q = sharpened(20_000, 3.0)
    top = q.max(1)
    mine = numpy.take_along_axis(p, q.argmax(1)[:, None], 1)[:, 0]
    parts = numpy.array_split(numpy.argsort(top), 10)
    truth = (sum(len(b) * (top[b].mean() - mine[b].mean()) ** 2 for b in parts) / 20_000) ** 0.5
    assert calibration_error(top, q.argmax(1) == gold) == pytest.approx(truth, abs=0.01)
    assert calibration_error(top[:15], right[:15]) is None


def test_the_curve_and_the_languages():
    _, gold, q = sharpened(400, 2.0)
    right = q.argmax(1) == gold
    curve = coverage_curve(q.max(1), right)
    assert curve[0]["coverage"] == 1 and curve[0]["accuracy"] == right.mean()
    assert curve[-1]["accuracy"] > curve[0]["accuracy"] and curve[-1]["n"] == (q.max(1) >= 0.99).sum()
    assert curve[0]["low"] < curve[0]["accuracy"] < curve[0]["high"]
    rows = by_language(q, gold, ["en", "tr"] * 200)
    assert [row["language"] for row in rows] == ["all", "en", "tr"] and rows[1]["n"] == 200
    for row in rows:
        assert row["brier_ci"][0] < row["brier"] < row["brier_ci"][1]
        assert row["gap_ci"][0] < row["gap"] < row["gap_ci"][1]
    assert rows[0]["gap"] == pytest.approx((q.max(1) - right).mean()) and rows[0]["gap_ci"][0] > 0


def test_few_posts_and_foreign_scalings():
    _, gold, q = sharpened(19, 2.0)
    assert fit_scaling(q, gold) is None
    for bad in ({}, {"scale": [1, 1], "shift": [0, 0]}, {"scale": "abcd", "shift": [0] * 4},
                {"scale": [float("nan")] * 4, "shift": [0] * 4}):
        with pytest.raises(UserError, match="calibration"):
            scaled(q, bad)
