"""Calibration: the debiased error against simulated truth, intervals that hold it, the curve, small sets, the page.

Deliberate break: leave out the term with `noise` in `squared_error`, or take it away once (`noise=1.0`) in `figures`.
"""

import numpy
import pytest

from report.calibration import BINS, calibration, calibration_error, coverage_curve, parts_of
from report.metrics import Scored, score
from report.page import page
from report.probabilities import points, probabilities_section, said

LABELS = ("a", "b", "c", "d")


def sharpened(rows, power, seed=0):
    """Probabilities p from a Dirichlet, labels drawn by them, and p sharpened by a power, as an overconfident model."""
    stream = numpy.random.default_rng(seed)
    p = stream.dirichlet(numpy.full(4, 0.7), rows)
    gold = (p.cumsum(1) > stream.random((rows, 1))).argmax(1)
    q = p**power
    return p, gold, q / q.sum(1, keepdims=True)


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


def test_the_curve():
    _, gold, q = sharpened(400, 2.0)
    right = q.argmax(1) == gold
    curve = coverage_curve(q.max(1), right)
    assert curve[0]["coverage"] == 1 and curve[0]["accuracy"] == right.mean()
    assert curve[-1]["accuracy"] > curve[0]["accuracy"] and curve[-1]["n"] == (q.max(1) >= 0.99).sum()
    assert curve[0]["low"] < curve[0]["accuracy"] < curve[0]["high"]


def test_figures_by_hand():
    _, gold, q = sharpened(300, 2.0)
    found = calibration(q, gold, ["en"] * 300, range(300), 200)
    top, right = q.max(1), q.argmax(1) == gold
    order = numpy.argsort(top, kind="stable")
    assert [b["n"] for b in found["bins"]] == [30] * BINS and sum(b["right"] for b in found["bins"]) == right.sum()
    assert [b["high"] for b in found["bins"]] == top[order].reshape(10, 30)[:, -1].tolist()
    assert all(0 < b["worth"] <= 1 for b in found["bins"])
    bins = [(top[part].mean(), right[part].mean()) for part in order.reshape(10, 30)]
    square = sum(0.1 * ((sure - share) ** 2 - share * (1 - share) / 29) for sure, share in bins)
    assert found["ece"] == pytest.approx(square**0.5) == pytest.approx(calibration_error(top, right))
    assert found["brier"] == pytest.approx(((q - numpy.eye(4)[gold]) ** 2).sum(1).mean())
    assert found["gap"] == pytest.approx(found["confidence"] - found["accuracy"]) and found["gap_ci"][0] > 0
    for name in ("brier", "ece", "gap"):
        assert found[f"{name}_ci"][0] < found[name] < found[f"{name}_ci"][1]
    shuffled = numpy.random.default_rng(1).permutation(300)
    again = calibration(q[shuffled], gold[shuffled], ["en"] * 300, range(300), 200)
    assert again["ece_ci"] == pytest.approx(found["ece_ci"]) and again["brier_ci"] == pytest.approx(found["brier_ci"])


def test_intervals_hold_the_error_of_the_process():
    """Of an overconfident model and of a calibrated one, whose error is 0."""
    for power, low, high in ((2.0, 0.88, 1.0), (1.0, 0.88, 1.0)):
        p, _, q = sharpened(20_000, power, 99)
        top, mine = q.max(1), numpy.take_along_axis(p, q.argmax(1)[:, None], 1)[:, 0]
        truth = sum(len(b) * (top[b].mean() - mine[b].mean()) ** 2 for b in parts_of(top)) / 20_000
        truth, held = truth**0.5 if power > 1 else 0.0, 0
        for seed in range(100):
            _, gold, q = sharpened(250, power, seed)
            found = calibration(q, gold, ["en"] * 250, range(250), 300)["ece_ci"]
            held += found[0] <= truth <= found[1]
        assert low <= held / 100 <= high, (power, held)


def test_posts_that_belong_together_are_drawn_together():
    _, gold, q = sharpened(60, 2.0)
    q, gold = numpy.repeat(q, 5, 0), numpy.repeat(gold, 5)
    alone, together = (calibration(q, gold, ["en"] * 300, clusters, 400)["gap_ci"]
                       for clusters in (numpy.arange(300), numpy.arange(300) // 5))
    assert together[1] - together[0] > 1.8 * (alone[1] - alone[0])


def test_small_sets_say_what_they_lack():
    _, gold, q = sharpened(19, 2.0)
    found = calibration(q, gold, ["en"] * 19, range(19), 200)
    assert found["ece"] is None and found["bins"] == [] and "fewer than 20 rows" in found["notes"]["ece"]
    assert found["brier_ci"] is not None and found["ece_ci"] is None
    few = calibration(q[:9], gold[:9], ["en"] * 9, range(9), 200)
    assert few["gap_ci"] is None and few["notes"]["gap_ci"] == "fewer than 10 rows"
    assert calibration(q, gold, ["en"] * 19, range(19), 0)["notes"]["brier_ci"] == "no draws were asked for"


def metrics_of(rows=400, power=2.0, seed=0):
    _, gold, q = sharpened(rows, power, seed)
    names, said_ = [LABELS[g] for g in gold], [LABELS[g] for g in q.argmax(1)]
    scored = Scored([str(n) for n in range(rows)], names, said_, ["en", "tr"] * (rows // 2), LABELS, q)
    return score(scored, seen_languages=("en",), draws=200)


def test_the_page_has_every_language_the_curve_and_the_scaled():
    metrics = metrics_of()
    plain = page(metrics)
    for words in ("Are the probabilities honest?", "Turkish", "too sure by, points", "points too sure",
                  "What classify.py --abstain would do"):
        assert words in plain, words
    assert "All, scaled" not in plain
    scaled = metrics_of(power=1.0)["calibration"] | {"method": "vector", "fitted": 1234}
    text = probabilities_section(metrics | {"scaled": scaled}, None, None)
    assert "All, scaled" in text and "by vector scaling, fitted on the run&#x27;s 1,234 validation posts" in text


def test_the_interval_of_a_gap_is_around_the_figure_that_is_said():
    """Deliberate break: in report/probabilities.py leave `sign` out."""
    found = metrics_of()["calibration"] | {"gap": -0.047, "gap_ci": [-0.086, -0.0004]}
    assert "4.7 points too unsure (+0.0 to +8.6)." in said(found)
    assert "4.7 points too sure (+0.8 to +8.6)." in said(found | {"gap": 0.047, "gap_ci": [0.008, 0.086]})
    assert points(-0.0004) == "+0.0" and points(-0.004, 0) == "+0" and points(-0.04) == "−4.0"


def test_a_gap_that_may_be_chance_is_told_so():
    metrics = metrics_of(power=1.0, seed=3)
    assert "so no difference can be shown" in said(metrics["calibration"])
    small = metrics_of(rows=12)["calibration"]
    assert "Calibration error" not in said(small) and "Brier score" in said(small)
