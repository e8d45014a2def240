"""Whether a run has left the constant answer: simulated losses, real ones, and what a person is told.

Deliberate break: in `learning.Learning.left` compare the mean with 0 instead of -SHARE H; the losses of a real run that
learnt nothing turn red. Or let `add` subtract `self.entropy` always; the comparison on the same posts does.
"""

import json
import math
from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from common.files import ROOT
from finetune.learning import FEW_STEPS, Learning, advice, answers_of, entropy, few_steps, look, sample
from finetune.loop import shares_of
from tests.finetune.test_loop import make_model, make_rows, trainer

EVEN = [0.25] * 4
SHARES = [0.17, 0.17, 0.22, 0.44]


def told(losses, shares=EVEN, total=None, constants=None) -> tuple[list[str], Learning]:
    """What `add` says of these losses, without its silences, and the record."""
    found = Learning(shares, total or len(losses))
    lines = [{"step": step, "loss": loss} for step, loss in enumerate(losses, 1)]
    for line, constant in zip(lines, constants or [None] * len(lines), strict=True):
        line |= {} if constant is None else {"constant": constant}
    return [word for word in map(found.add, lines) if word], found


def simulated(seed: int, steps: int, batch: int, gain) -> tuple[list[float], list[float]]:
    """Losses and constant losses of steps of `batch` labels drawn from `SHARES`; gain(step): how far below it lies."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.multinomial(torch.tensor(SHARES), steps * batch, True, generator=draw).view(steps, batch)
    constants = -torch.tensor(SHARES, dtype=torch.float64).log()[labels].mean(1)
    noise = 0.2 / math.sqrt(batch) * torch.randn(steps, generator=draw, dtype=torch.float64)
    gains = torch.tensor([gain(step / steps) for step in range(steps)], dtype=torch.float64)
    return (constants - gains + noise).tolist(), constants.tolist()


@pytest.mark.parametrize(("steps", "batch"), [(75, 16), (150, 4), (300, 16)])
def test_a_run_at_the_constant_answer_is_warned_and_one_that_learns_is_not(steps, batch):
    warned = {"nothing": 0, "worse": 0, "learns": 0}
    # 2 % below, as the real run that learnt nothing; above, as before the first steps; half a nat below at a fifth.
    gains = {"nothing": lambda part: 0.025, "worse": lambda part: -0.1, "learns": lambda part: 2.5 * part}
    for name, gain in gains.items():
        for seed in range(20):
            losses, constants = simulated(seed, steps, batch, gain)
            said, found = told(losses, SHARES, constants=constants)
            warned[name] += said[:1] == ["warn"] and found.warned_at == look(steps)
    assert warned["nothing"] >= 18 and warned["worse"] == 20 and warned["learns"] == 0


@pytest.mark.parametrize("total, step", [
    (9, 20), (42, 20), (76, 20), (149, 30), (150, 75), (300, 150), (424, 150), (2000, 400)])
def test_when_a_run_is_looked_at(total, step):
    assert look(total) == step


def test_the_same_posts_are_compared():
    """Half a nat below on each step's own labels is seen, however much these differ from step to step."""
    constants = [0.82, 2.77] * 20
    losses = [constant - 0.2 for constant in constants]
    assert told(losses, SHARES, constants=constants)[0] == []
    assert told(losses, SHARES)[0] == ["warn"]


# SmolLM2-135M-Instruct on 600 English posts, one pass, dense, batches of 4, rate 1e-3: it learns late.
LATE = [1.35, 1.41, 1.13, 1.1, 1.4, 1.34, 1.5, 2.0, 1.16, 1.41, 1.33, 1.71, 1.79, 1.26, 1.17, 1.55, 1.49, 1.68,
        1.08, 1.3, 1.27, 0.46, 1.39, 0.74, 1.62, 1.27, 1.6, 1.19, 2.3, 1.54, 1.43, 1.47, 1.21, 1.08, 1.63, 1.46,
        1.6, 1.11, 1.74, 0.95, 1.65, 1.6, 0.76, 1.87, 1.26, 0.94, 1.67, 1.08, 1.57, 1.42, 1.19, 1.32, 1.66,
        1.31, 1.23, 1.36, 1.31, 1.2, 1.12, 0.84, 1.89, 1.72, 2.71, 2.67, 2.54, 1.25, 1.3, 1.85, 1.79, 1.3, 1.91,
        1.24, 1.17, 1.61, 1.59, 1.38, 1.56, 1.15, 1.65, 1.14, 1.68, 1.26, 1.27, 1.59, 1.51, 1.43, 1.47, 1.28,
        1.23, 1.39, 0.98, 1.18, 0.79, 2.14, 1.1, 2.05, 1.11, 0.7, 1.03, 0.67, 1.89, 1.09, 0.8, 0.71, 1.86, 0.79,
        1.59, 1.12, 2.02, 0.48, 2.02, 1.39, 1.53, 0.92, 1.21, 1.27, 1.09, 1.39, 1.63, 1.76, 1.25, 1.57, 1.15,
        1.27, 1.43, 1.3, 1.76, 1.12, 1.16, 1.37, 1.34, 1.32, 1.58, 1.53, 1.02, 1.34, 0.99, 1.57, 1.07, 1.42,
        0.87, 0.72, 1.3, 0.94, 1.41, 1.02, 0.24, 2.37, 0.81, 0.17]
LATE_CONSTANT = [0.98, 1.62, 1.6, 1.13, 0.98, 1.22, 1.24, 1.41, 1.22, 1.31, 1.24, 1.52, 1.62, 1.22, 1.52, 1.08,
                 1.49, 1.58, 1.13, 1.22, 1.24, 0.84, 1.24, 1.09, 1.38, 1.38, 0.98, 1.13, 1.58, 1.08, 1.22, 1.49,
                 1.24, 0.98, 1.47, 1.31, 1.56, 0.98, 1.84, 1.08, 1.13, 1.47, 0.84, 1.62, 1.13, 0.84, 1.55, 1.09,
                 1.47, 1.36, 1.24, 1.36, 1.56, 1.22, 1.51, 1.08, 0.84, 0.84, 1.31, 1.08, 1.47, 1.36, 1.49, 1.52,
                 1.63, 1.13, 1.38, 1.35, 1.22, 1.49, 1.56, 1.09, 1.49, 1.22, 1.31, 1.58, 1.47, 1.33, 1.38, 1.09,
                 1.62, 1.58, 1.31, 1.63, 1.38, 1.22, 1.13, 0.98, 1.09, 1.47, 0.98, 1.22, 0.98, 1.69, 1.13, 1.6,
                 1.22, 0.84, 1.08, 0.84, 1.47, 1.22, 0.98, 0.98, 1.47, 1.08, 1.24, 1.22, 1.35, 0.84, 1.58, 1.33,
                 1.38, 0.98, 1.24, 1.49, 1.35, 1.22, 1.56, 1.45, 1.08, 1.36, 1.49, 1.58, 1.56, 1.38, 1.6, 1.33,
                 1.73, 1.36, 1.38, 1.56, 1.45, 1.31, 1.36, 1.47, 1.13, 1.73, 1.22, 1.35, 0.98, 1.13, 1.69, 1.24,
                 1.36, 0.98, 0.98, 1.82, 0.98, 0.98]  # on the same posts
LATE_SHARES = [94 / 600, 101 / 600, 146 / 600, 259 / 600]


def test_a_real_run_that_learns_late_is_warned_once_and_then_told():
    said, found = told(LATE, LATE_SHARES, constants=LATE_CONSTANT)
    assert said == ["warn", "left"] and found.warned_at == 75 and 130 <= found.left_at <= 150
    assert found.left and "beside" in found.sentence() and "nothing" not in found.sentence()
    assert found.to_dict()["left_at"] == found.left_at


# The same base and posts with the defaults of before (NF4, batches of 16, rate 2e-4): the first 20 of 76 steps.
STUCK = [1.37, 1.41, 1.52, 1.44, 1.48, 1.23, 1.44, 1.63, 1.37, 1.52, 1.38, 1.11, 1.39, 1.41, 1.15, 1.37, 1.31, 1.4,
         1.43, 1.35]


def test_a_real_run_that_learns_nothing_is_warned():
    said, found = told(STUCK, LATE_SHARES, total=76)
    assert said == ["warn"] and found.warned_at == 20 and "learnt next to nothing" in found.sentence()


def test_shipped_recipes_are_not_warned():
    """The run shipped with the base (the demonstration), and the small base's recipe on thirteen languages."""
    lines = [json.loads(line) for line in (ROOT / "base/run/log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert told([line["loss"] for line in lines if "loss" in line])[0] == []
    small = [1.58, 1.31, 1.56, 1.49, 1.68, 1.41, 1.37, 1.36, 1.42, 1.42, 1.32, 1.23, 1.47, 1.43, 1.14, 1.16,
             1.12, 1.21, 1.19, 1.45, 1.25, 0.9, 1.16, 1.04, 1.06, 0.89, 1.38, 0.94, 0.85, 0.56]
    said, found = told(small, total=90)
    assert said == [] and found.left


def test_few_steps_are_not_judged():
    said, found = told([1.4] * 9)
    assert said == [] and found.left is None and "too few steps" in found.sentence()
    assert told([1.4] * 19)[0] == [] and told([1.4] * 20)[0] == ["warn"]
    assert told([])[1].sentence() == "No step was made."


def test_the_text_loss_is_not_compared():
    found = Learning(EVEN, 20, compared=False)
    assert not any(found.add({"step": step, "loss": 3.0}) for step in range(1, 21))
    assert found.left is None and "no constant answer" in found.sentence() and found.beside() == "loss 3.000"


def test_a_trainer_logs_what_the_constant_answer_gets_on_its_posts():
    rows, prefix = make_rows(6)
    for loss in ("label", "vocabulary"):
        some = trainer(make_model(torch.float32), rows, prefix, 500, loss=loss)
        labels, weights = some.labels.tolist(), some.weights.tolist()
        p = shares_of(labels, weights, range(len(rows)), len(some.label_ids))
        assert sum(p) == pytest.approx(1) and some.shares == pytest.approx(p)
        line, at = some.step(), some.indices(0)
        by_hand = sum(-weights[i] * math.log(p[labels[i]]) for i in at) / sum(weights[i] for i in at)
        assert line["constant"] == pytest.approx(by_hand)
        whole = sum(w * -math.log(p[label]) for w, label in zip(weights, labels, strict=True)) / sum(weights)
        assert Learning.of(some).entropy == pytest.approx(whole) == pytest.approx(entropy(p))
    assert "constant" not in trainer(make_model(torch.float32), rows, prefix, 500, loss="text").step()


def options(**more):
    known = {"quantize": "nf4", "batch_size": 16, "learning_rate": 2e-4, "max_steps": 0, "epochs": 3,
             "targets": ["all-linear"]}
    return SimpleNamespace(**known | more)


def test_advice_fits_the_run():
    tries = advice(options(), small=True)
    assert [words.split()[0] for words in tries] == ["--quantize", "--batch-size", "--learning-rate", "--epochs", "a"]
    assert "--learning-rate 0.001" in tries[2] and "4 times" in tries[1]
    assert not any("--quantize" in words for words in advice(options(quantize="none"), True) + advice(options(), False))
    assert "--learning-rate 0.0002" in advice(options(learning_rate=1e-8), small=True)
    tries = advice(options(batch_size=4, learning_rate=1e-2, max_steps=9, targets=["q_proj"]), False)
    assert tries[:3] == ["no --max-steps", "--learning-rate 0.002, if the loss rose", "--targets all-linear"]
    assert few_steps(FEW_STEPS) == "" and f"only {FEW_STEPS - 1} updates" in few_steps(FEW_STEPS - 1)
    assert few_steps(1).startswith("only 1 update;")
    one = Learning([0.5, 0.5], 1)
    one.add({"step": 1, "loss": 0.7})
    assert "(the only step)" in one.sentence()


def test_a_lower_loss_that_may_be_luck_is_not_called_nothing():
    said = []
    for losses in ([1.1, 0.1], [0.69, 0.7]):
        run = Learning([0.5, 0.5], 20)
        for step in range(20):
            run.add({"step": step + 1, "loss": losses[step % 2]})
        assert run.left is False
        said.append(run.sentence())
    assert "but not by more than luck" in said[0] and "next to nothing" not in said[0]
    assert "learnt next to nothing" in said[1]


@pytest.mark.parametrize(("given", "words"), [
    ("a" * 40, "gives all 40 validation posts the same label, “a”, the most frequent one (people gave it to 20)"),
    ("b" * 40, "gives all 40 validation posts the same label, “b”, which is not even the most frequent one"),
    ("a" * 39 + "b", "gives 39 of 40 validation posts the same label, “a”"),
    ("a" * 30 + "b" * 10, "answers more than its most frequent label: of 40 validation posts, 30 get “a”"),
])
def test_what_the_model_answers(given, words):
    found = answers_of(Counter(given), Counter(a=20, b=10, c=10), ("a", "b", "c"), "validation posts")
    assert words in found["sentence"] and found["given"]["c"] == 0 and found["posts"] == 40
    assert found["most_frequent"] == max("ab", key=given.count)


def test_a_sample_is_evenly_spaced():
    assert sample(5) == [0, 1, 2, 3, 4] and sample(0) == []
    assert len(sample(1000)) == 64 and sample(1000)[:3] == [0, 15, 31] and sample(1000)[-1] == 984
