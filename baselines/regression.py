"""A sentence encoder with a logistic regression on its vectors: what a fine-tuned model has to beat.

    minimise  C sum_i -log softmax(W x_i + b)[y_i] + |W|^2 / 2,    x_i the encoder's vector of post i, of length 1

by L-BFGS from zero, as in `baselines.tfidf`. C is one of `STRENGTHS`: the one with the smallest log loss in five-fold
cross-validation on the training rows, folds drawn within labels; the smaller one of two that are equal. No other row
takes part. Vectors and regression are float32, losses float64, and everything has one order: two fits are equal bit
for bit.
"""

from collections.abc import Sequence

import numpy
import torch

from baselines.tfidf import logistic, predict
from common.errors import UserError

STRENGTHS = (1.0, 3.0, 10.0, 30.0)  # C
FOLDS = 5


def choose_strength(vectors: torch.Tensor, labels: Sequence[int], classes: int, seed: int = 0) -> float:
    """The C of least held-out log loss on the training rows, (n, S) and n indices; the middle one below 2 x 5 rows."""
    labels = numpy.asarray(labels)
    if len(labels) < 2 * FOLDS:
        return STRENGTHS[len(STRENGTHS) // 2]
    fold = folds(labels, seed)
    losses = []
    for strength in STRENGTHS:
        total = 0.0
        for k in range(FOLDS):
            inside, held = numpy.flatnonzero(fold != k), numpy.flatnonzero(fold == k)
            _, p = predict(vectors[held], *logistic(vectors[inside], labels[inside], classes, strength))
            total -= float(numpy.log(numpy.maximum(p[numpy.arange(len(held)), labels[held]], 1e-12)).sum())
        losses.append(total)
    return STRENGTHS[int(numpy.argmin(losses))]


def folds(labels: numpy.ndarray, seed: int = 0) -> numpy.ndarray:
    """(n,) int64 below `FOLDS`: each label's rows in random order, dealt out in turn, on from where the last ended."""
    order = numpy.random.default_rng(seed).permutation(len(labels))
    order = order[numpy.argsort(labels[order], kind="stable")]
    fold = numpy.empty(len(labels), dtype=numpy.int64)
    fold[order] = numpy.arange(len(labels)) % FOLDS
    return fold


def regress(vectors: numpy.ndarray, labels: Sequence[int], classes: int, asked: numpy.ndarray, seed: int = 0
            ) -> tuple[numpy.ndarray, numpy.ndarray, float]:
    """Learn from `vectors` (n, S) and label `asked` (m, S): indices (m,), probabilities (m, C) float64, and C.

    Raises `UserError` if there is no training row.
    """
    if not len(labels):
        raise UserError("baseline: no training rows; at least one row is needed")
    x = torch.from_numpy(numpy.ascontiguousarray(vectors))
    strength = choose_strength(x, labels, classes, seed)
    predicted, probabilities = predict(torch.from_numpy(numpy.ascontiguousarray(asked)),
                                       *logistic(x, labels, classes, strength))
    return predicted, probabilities, strength
