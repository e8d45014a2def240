"""Invented answers of invented models, and figures counted one row at a time, for the tests of comparisons."""

import numpy

from report.counts import Grouping
from stats.predictions import Predictions, Rows

GROUPING = Grouping(("pro", "anti", "neutral", "unrelated"), ("pro", "anti", "neutral"))


def made_rows(n, seed=0, languages=("de", "en", "tr"), prior=(0.4, 0.3, 0.2, 0.1), clusters=None):
    """n rows, the languages in turn; `clusters` (n,), by default one for each row."""
    gold = numpy.random.default_rng(seed).choice(4, n, p=prior)
    language = numpy.array([languages[i % len(languages)] for i in range(n)], dtype=object)
    ids = numpy.array([f"post-{i}" for i in range(n)], dtype=object)
    return Rows(ids, language, gold, numpy.arange(n) if clusters is None else numpy.asarray(clusters), GROUPING)


def made_answers(rows, seed, right=0.6, like=None, follow=0.0, probabilities=False):
    """Right with probability `right`, else any label or none; a share `follow` of the rows is copied from `like`."""
    rng = numpy.random.default_rng(seed)
    n = len(rows.gold)
    predicted = numpy.where(rng.random(n) < right, rows.gold, rng.choice(5, n))
    if like is not None:
        predicted = numpy.where(rng.random(n) < follow, like.predicted, predicted)
    return Predictions(rows, predicted, rng.dirichlet(numpy.ones(4), n) if probabilities else None)


def slow_figure(name, gold, predicted):
    """`accuracy`, `macro_f1` or `topic.recall` of two columns, straight from the definitions."""
    pairs = list(zip(map(int, gold), map(int, predicted), strict=True))  # numpy's bools would add up to one
    if name == "accuracy":
        return sum(g == p for g, p in pairs) / len(pairs)
    if name == "topic.recall":
        related = [p for g, p in pairs if g < 3]
        return sum(p < 3 for p in related) / len(related)
    values = []
    for label in range(4):
        hits, either = sum(g == p == label for g, p in pairs), sum((g == label) + (p == label) for g, p in pairs)
        if either:
            values.append(2 * hits / either)
    return sum(values) / len(values)
