"""Two baselines without a language model: the most frequent label, and logistic regression on words and letters.

Both learn from training rows alone and return what `stats.predictions.Predictions` takes: predicted indices into the
labels, (n,) int64, and probabilities (n, C) float64.

TF-IDF, written out (Salton and Buckley 1988, Information Processing and Management 24, 513-523). A text is put into
NFKC and lower-cased. A word is a run of letters, marks and digits (without the marks, Devanagari would fall apart at
every vowel sign). Features are words, pairs of neighbouring words, and the strings of 2 to 5 characters inside each
word with a space on either side, which are shared by inflected forms and, to some extent, by related languages. For
feature j that occurs f times in a text, and in d_j of the n training texts,

    x_j = (1 + ln f) (1 + ln((1 + n) / (1 + d_j))),    words and characters each scaled to length 1

Features that occur in only one training text are left out. Then follows multinomial logistic regression with an L2
penalty on the weights but not the biases, minimised by L-BFGS from zero:

    C sum_i -log softmax(W x_i + b)[y_i] + |W|^2 / 2

The settings are fixed. C was chosen once among 1, 3, 10, 30 and 100, by the log loss in five-fold cross-validation
on the paper's English training rows; no test row was used. Everything is in float32 on the CPU, in one order, so two
fits are equal bit for bit.
"""

import unicodedata
import warnings
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log

import numpy
import torch

from common.errors import UserError

STRENGTH = 3.0  # C
LETTERS = range(2, 6)
MOST_STEPS = 500


def majority(labels: Sequence[int], classes: int, count: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The most frequent of the training `labels` (indices; the first if several are) for `count` rows; probabilities
    are the shares in training."""
    _check(labels, classes)
    counts = numpy.bincount(numpy.asarray(labels), minlength=classes)
    return numpy.full(count, counts.argmax()), numpy.tile(counts / counts.sum(), (count, 1))


def tfidf(texts: Sequence[str], labels: Sequence[int], classes: int, asked: Sequence[str], *,
          strength: float = STRENGTH) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Labels for the texts `asked`, by a regression trained on `texts` and `labels` (indices below `classes`)."""
    _check(labels, classes)
    vocabulary = Vocabulary.of(texts)
    weight, bias = logistic(vocabulary.matrix(texts), labels, classes, strength)
    return predict(vocabulary.matrix(asked), weight, bias)


def features(text: str) -> tuple[Counter, Counter]:
    """Counts of each word (and pair of words) and of each string of characters: `features("a b")[0]` counts a, b and
    "a b"."""
    text = unicodedata.normalize("NFKC", text).lower()
    words = "".join(char if unicodedata.category(char)[0] in "LMN" else " " for char in text).split()
    pairs = [f"{first} {second}" for first, second in pairwise(words)]
    letters = Counter(padded[start : start + size] for padded in (f" {word} " for word in words)
                      for size in LETTERS for start in range(len(padded) - size + 1))
    return Counter(words + pairs), letters


@dataclass(frozen=True)
class Vocabulary:
    """For words and for characters: feature -> (column, 1 + ln((1 + n) / (1 + d)))."""

    kinds: tuple[dict[str, tuple[int, float]], dict[str, tuple[int, float]]]

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Vocabulary":
        """Features in at least two of the texts, in alphabetical order (all features, if that leaves none)."""
        found, start, every = [], 0, (Counter(), Counter())
        for text in texts:  # one text's counts at a time: those of all take far more room than the texts
            for documents, counts in zip(every, features(text), strict=True):
                documents.update(counts.keys())
        for documents in every:
            names = sorted(f for f, d in documents.items() if d > 1) or sorted(documents)
            found.append({f: (start + k, 1 + log((1 + len(texts)) / (1 + documents[f]))) for k, f in enumerate(names)})
            start += len(names)
        return cls(tuple(found))

    def matrix(self, texts: Sequence[str]) -> torch.Tensor:
        """(n, V) float32 sparse rows; a text without known features is a row of zeros."""
        starts, columns, values = array("q", [0]), array("q"), array("f")
        for text in texts:
            for kind, counts in zip(self.kinds, features(text), strict=True):
                known = sorted((*kind[f], count) for f, count in counts.items() if f in kind)
                x = [(1 + log(count)) * rarity for _, rarity, count in known]
                length = sum(value * value for value in x) ** 0.5
                columns.extend(column for column, _, _ in known)
                values.extend(value / length for value in x)
            starts.append(len(columns))
        size = (len(texts), max(1, sum(map(len, self.kinds))))
        starts, columns, values = (torch.from_numpy(numpy.array(part)) for part in (starts, columns, values))
        with warnings.catch_warnings():  # torch warns that CSR tensors are beta; other sparse products are far slower
            warnings.filterwarnings("ignore", message="Sparse CSR")
            return torch.sparse_csr_tensor(starts, columns, values, size, check_invariants=True)


def logistic(x: torch.Tensor, labels: Sequence[int], classes: int, strength: float = STRENGTH
             ) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (V, C) and biases (C,) float32 at the minimum of the module's formula; x (n, V) sparse or dense."""
    gold = torch.as_tensor(numpy.asarray(labels), dtype=torch.int64)
    weight, bias = torch.zeros(x.shape[1], classes), torch.zeros(classes)
    across = x.t().to_sparse_csr() if x.layout == torch.sparse_csr else x.t()
    right = torch.nn.functional.one_hot(gold, classes).to(torch.float32)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=MOST_STEPS, history_size=20, line_search_fn="strong_wolfe",
                                  tolerance_grad=1e-5, tolerance_change=1e-9)

    def closure():
        log_p = torch.log_softmax(x @ weight + bias, dim=1)
        wrong = log_p.exp() - right  # (n, C): the gradient of the loss in the scores
        # Dividing by C n does not move the minimum and makes one tolerance suit any number of rows.
        weight.grad = (across @ wrong + weight / strength) / len(gold)
        bias.grad = wrong.sum(0) / len(gold)
        return (weight.square().sum() / (2 * strength) - log_p[torch.arange(len(gold)), gold].sum()) / len(gold)

    optimizer.step(closure)
    return weight, bias


def predict(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The likeliest indices (n,) int64 and the probabilities (n, C) float64 for the rows of x."""
    probabilities = torch.softmax((x @ weight + bias).double(), dim=1).numpy()
    return probabilities.argmax(1), probabilities


def _check(labels: Sequence[int], classes: int) -> None:
    labels = numpy.asarray(labels)
    if not len(labels):
        raise UserError("baseline: no training rows; at least one row is needed")
    if labels.min() < 0 or labels.max() >= classes:
        raise UserError(f"baseline: label {labels.max() if labels.max() >= classes else labels.min()}; indices from 0 "
                        f"to {classes - 1} were expected")
