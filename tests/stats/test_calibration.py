"""Scaling against scipy's optimum and a known temperature; what it makes of the calibration of test posts.

Deliberate break: divide by T where it is multiplied, or give `scaled_figures` the probabilities as they are.
"""

import numpy
import pytest

from common.errors import UserError
from report.metrics import Scored
from stats.calibration import (
    VECTOR_ROWS,
    by_language,
    fit_scaling,
    scaled,
    scaled_figures,
)


def brier(p, gold):
    return ((p - numpy.eye(p.shape[1])[gold]) ** 2).sum(1).mean()


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


def test_the_languages():
    _, gold, q = sharpened(400, 2.0)
    right = q.argmax(1) == gold
    rows = by_language(q, gold, ["en", "tr"] * 200, numpy.arange(400))
    assert [row["language"] for row in rows] == ["all", "en", "tr"] and rows[1]["n"] == 200
    for row in rows:
        assert row["brier_ci"][0] < row["brier"] < row["brier_ci"][1]
        assert row["gap_ci"][0] < row["gap"] < row["gap_ci"][1]
    assert rows[0]["gap"] == pytest.approx((q.max(1) - right).mean()) and rows[0]["gap_ci"][0] > 0
    for row in by_language(q, gold, ["en", "tr"] * 200, numpy.arange(400) % 9):  # nine authors tell no interval
        assert row["gap_ci"] == row["brier_ci"] == [None, None] and row["gap"] is not None
    fourfold = [numpy.repeat(part, 4, axis=0) for part in (q, gold, ["en", "tr"] * 200)]
    apart, together = (by_language(*fourfold[:2], fourfold[2].tolist(), clusters)
                       for clusters in (numpy.arange(1600), numpy.arange(1600) // 4))
    for before, alone, copied in zip(rows, apart, together, strict=True):  # four copies of a post tell nothing new
        widths = [row["gap_ci"][1] - row["gap_ci"][0] for row in (before, alone, copied)]
        assert widths[1] == pytest.approx(widths[0] / 2, rel=0.1) and widths[2] == pytest.approx(widths[0], rel=0.1)


def test_figures_of_scaled_probabilities():
    _, gold, q = sharpened(600, 3.0)
    labels, found = ("a", "b", "c", "d"), fit_scaling(q[:150], gold[:150])
    names = [labels[g] for g in gold[150:]]
    scored = Scored([str(n) for n in range(450)], names, names, ["en"] * 450, labels, q[150:])
    after = scaled_figures(scored, found, 200, 0)
    assert after["method"] == "temperature" and after["fitted"] == 150
    assert after["brier"] == pytest.approx(brier(scaled(q[150:], found), gold[150:]))
    assert after["brier"] < brier(q[150:], gold[150:]) and abs(after["gap"]) < (q[150:].max(1) - (
        q[150:].argmax(1) == gold[150:])).mean() / 2
    for bad in (found | {"method": "other"}, found | {"n": "many"}, ["temperature"]):
        with pytest.raises(UserError, match="changed by hand"):
            scaled_figures(scored, bad, 0, 0)


def test_few_posts_and_foreign_scalings():
    _, gold, q = sharpened(19, 2.0)
    assert fit_scaling(q, gold) is None
    for bad in ({}, {"scale": [1, 1], "shift": [0, 0]}, {"scale": "abcd", "shift": [0] * 4},
                {"scale": [float("nan")] * 4, "shift": [0] * 4}):
        with pytest.raises(UserError, match="calibration"):
            scaled(q, bad)
