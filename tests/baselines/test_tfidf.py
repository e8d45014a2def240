"""The two plain baselines: weights by hand, the optimum against scipy, and how well they label English posts.

Deliberate break: build the vocabulary from `[*texts, *asked]` in `tfidf` and test_the_vocabulary_is_the_training_rows
turns red; leave the penalty out of the gradient and test_equals_the_optimum_that_scipy_finds turns red.
"""

import json
import tracemalloc
from math import log, sqrt

import numpy
import pytest
import torch
from scipy import optimize

from baselines import tfidf as baselines
from baselines.tfidf import Vocabulary, features, logistic, majority, predict, tfidf
from common.errors import UserError
from report.counts import Grouping
from stats.predictions import Predictions, Rows

TEXTS = ["the wall is closed", "open the border", "open hearts, open doors", "the match is lost", "a lost match again",
         "close the border now"] * 3
LABELS = [1, 0, 0, 2, 2, 1] * 3


def test_majority():
    predicted, probabilities = majority([2, 0, 0, 2, 1], 4, 3)
    assert predicted.tolist() == [0, 0, 0] and probabilities.tolist() == [[0.4, 0.2, 0.4, 0.0]] * 3
    with pytest.raises(UserError, match="no training rows"):
        majority([], 4, 3)
    with pytest.raises(UserError, match="label 4; indices from 0 to 3"):
        majority([0, 4], 4, 3)


def test_features_by_hand():
    words, letters = features("Ab, ab C!")
    assert words == {"ab": 2, "c": 1, "ab ab": 1, "ab c": 1}
    assert letters == {" a": 2, "ab": 2, "b ": 2, " ab": 2, "ab ": 2, " ab ": 2, " c": 1, "c ": 1, " c ": 1}
    # Vowel signs are marks, not letters, to Python's \w; a word is whole all the same. Full-width letters are letters.
    assert features("हिन्दी")[0] == {"हिन्दी": 1} and features("ＡＢ")[0] == {"ab": 1}
    assert features("") == ({}, {}) == features("!?")


def test_weights_by_hand():
    texts = ["aa bb", "aa cc", "aa aa bb"]
    x = Vocabulary.of(texts).matrix(texts).to_dense()
    # Words in two texts or more: "aa" (3), "aa bb" (2), "bb" (2); in alphabetical order.
    aa, rare = 1 + log(4 / 4), 1 + log(4 / 3)
    row = [(1 + log(2)) * aa, rare, rare]
    assert x[2, :3].tolist() == pytest.approx([value / sqrt(sum(v * v for v in row)) for value in row], rel=1e-6)
    assert x.square().sum(1).tolist() == pytest.approx([2] * 3, rel=1e-6)
    assert Vocabulary.of(texts).matrix(["zz", ""]).to_dense().abs().sum() == 0


def test_the_counts_of_all_texts_are_never_held_at_once():
    text, peaks = " ".join(map(str, range(1000, 1500))), []
    for count in (2, 60):
        tracemalloc.start()
        Vocabulary.of([text] * count)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 2 * peaks[0]


def test_the_vocabulary_is_the_training_rows(monkeypatch):
    seen, build = [], Vocabulary.of
    monkeypatch.setattr(baselines.Vocabulary, "of", lambda texts: seen.extend(texts) or build(texts))
    few = tfidf(TEXTS, LABELS, 3, ["open the match"])
    assert seen == TEXTS
    # What else is asked changes no answer.
    more = tfidf(TEXTS, LABELS, 3, ["open the match", "brand new words", "brand new words"])
    assert numpy.array_equal(few[1][0], more[1][0])


@pytest.mark.parametrize("sparse", [True, False])
def test_equals_the_optimum_that_scipy_finds(sparse):
    x = Vocabulary.of(TEXTS).matrix(TEXTS)
    weight, bias = logistic(x if sparse else x.to_dense(), LABELS, 3, 2.0)
    dense, gold = x.to_dense().double().numpy(), numpy.array(LABELS)
    shape = dense.shape[1]

    def loss(flat):
        w, b = flat[: shape * 3].reshape(shape, 3), flat[shape * 3 :]
        scores = dense @ w + b
        log_p = scores - numpy.logaddexp.reduce(scores, 1, keepdims=True)
        wrong = numpy.exp(log_p) - numpy.eye(3)[gold]
        value = (w**2).sum() / 2 - 2.0 * log_p[numpy.arange(len(gold)), gold].sum()
        return value, numpy.concatenate([(2.0 * dense.T @ wrong + w).ravel(), 2.0 * wrong.sum(0)])

    best = optimize.minimize(loss, numpy.zeros(shape * 3 + 3), jac=True, method="L-BFGS-B",
                             options={"gtol": 1e-9, "ftol": 1e-15, "maxiter": 5000})
    ours = numpy.concatenate([weight.ravel().numpy(), bias.numpy()]).astype(float)
    # float32, stopped at a gradient of 1e-5 per row: the loss agrees to its last digits, the answers to four.
    assert loss(ours)[0] == pytest.approx(best.fun, rel=1e-6)
    theirs = dense @ best.x[: shape * 3].reshape(shape, 3) + best.x[shape * 3 :]
    theirs = numpy.exp(theirs - numpy.logaddexp.reduce(theirs, 1, keepdims=True))
    assert predict(x, weight, bias)[1] == pytest.approx(theirs, abs=1e-4)


def test_two_fits_are_equal_bit_for_bit():
    first, second = (tfidf(TEXTS, LABELS, 4, TEXTS) for _ in range(2))
    assert numpy.array_equal(first[1], second[1])
    torch.manual_seed(99)
    assert numpy.array_equal(tfidf(TEXTS, LABELS, 4, TEXTS)[1], first[1])


def test_answers_take_it():
    predicted, probabilities = tfidf(TEXTS, LABELS, 4, [*TEXTS, ""])
    assert predicted.dtype == numpy.int64 and probabilities.dtype == numpy.float64
    assert probabilities.sum(1) == pytest.approx(numpy.ones(19), abs=1e-12)
    assert (predicted[:18] == LABELS).all() and probabilities[:, 3].max() < 0.1
    labels = ("pro", "anti", "unrelated", "none")
    rows = Rows(numpy.arange(18).astype(str), numpy.full(18, "en"), numpy.array(LABELS), numpy.arange(18),
                Grouping(labels, labels[:2]))
    assert Predictions(rows, predicted[:18], probabilities[:18]).figure("topic.accuracy") == 1
    assert tfidf(TEXTS, LABELS, 4, [])[0].shape == (0,)


def test_english_posts(shared_data):
    labels = ["pro-immigration", "anti-immigration", "neutral", "unrelated"]
    files = [(shared_data / "immigration" / f"{part}.jsonl").read_text(encoding="utf-8") for part in ("train", "test")]
    train, test = ([post for post in map(json.loads, text.splitlines()) if post["language"] == "en"] for text in files)
    learned, gold = (numpy.array([labels.index(post["label"]) for post in part]) for part in (train, test))
    predicted, _ = tfidf([post["text"] for post in train], learned, 4, [post["text"] for post in test])
    commonest, _ = majority(learned, 4, len(gold))
    accuracy, floor = (predicted == gold).mean(), (commonest == gold).mean()
    # 375 rows: a standard error of 2.5 points.
    assert accuracy > floor + 0.12, f"TF-IDF {accuracy:.3f}, majority {floor:.3f}"
