"""The encoder beside a run's figures: differences as `stats` has them, and words that follow the interval.

Deliberate break: in `baselines/beside.py` score all posts instead of those kept, or in `report/beside.py` say "wins"
whenever the encoder's figure is higher; the tests of the cells and of the words turn red.
"""

from types import SimpleNamespace

import numpy
import pytest

from baselines.beside import MOST, Answers, beside, rows_of
from common.files import ROOT
from data.codebook import load_codebook
from data.posts import Post
from report.beside import ahead, beside_section, beside_table, said
from stats.paired import difference
from stats.predictions import Predictions

BOOK = load_codebook(None)


def made(count: int = 80) -> tuple[SimpleNamespace, Answers]:
    """Posts in two languages; the model is right on three of four, the encoder on one of two."""
    stream = numpy.random.default_rng(0)
    gold = stream.integers(0, 4, count)
    posts = [Post(str(k), f"text {k}", BOOK.labels[g], ("en", "tr")[k % 2], "f", k, {}) for k, g in enumerate(gold)]
    tuned = numpy.where(stream.random(count) < 0.75, gold, (gold + 1) % 4)
    other = numpy.where(stream.random(count) < 0.5, gold, (gold + 2) % 4)
    told = SimpleNamespace(posts=posts, groups=list(range(count)), predicted=[BOOK.labels[k] for k in tuned],
                           codebook=BOOK, seen=("en",))
    return told, Answers("an encoder", 60, 3.0, other, numpy.eye(4)[other])


def test_cells_are_those_of_the_kept_posts():
    told, answers = made()
    found = beside(answers, told, told.posts[:10], 200, 0)
    kept = range(10, 80)
    rows = rows_of([told.posts[k] for k in kept], list(kept), BOOK)
    tuned = Predictions(rows, numpy.array([BOOK.labels.index(told.predicted[k]) for k in kept]))
    other = Predictions(rows, answers.predicted[10:], answers.probabilities[10:])
    for part, languages in (("all", ["en", "tr"]), ("seen", ["en"]), ("unseen", ["tr"])):
        cell = found["cells"][part]
        assert cell["n"] == (70 if part == "all" else 35)
        for figure in ("accuracy", "macro_f1", "topic.macro_f1"):
            expected = difference(tuned, other, figure, languages, draws=200, seed=0)
            assert cell[figure]["tuned"] == tuned.figure(figure, languages)
            assert cell[figure]["baseline"] == other.figure(figure, languages)
            assert cell[figure]["value"] == expected["value"] and cell[figure]["low"] == expected["low"]
    assert "an encoder" in found["sentence"] and "60 posts" in found["sentence"]


def test_posts_that_count_as_a_few_groups_have_no_interval():
    told, answers = made()
    told.groups = [min(k // 8, 7) for k in range(80)]  # 8 groups, the last of 24 posts
    cells = beside(answers, told, [], 200, 0)["cells"]
    assert all(cells[part]["macro_f1"]["low"] is None for part in ("all", "seen", "unseen"))
    assert cells["all"]["accuracy"]["tuned"] > cells["all"]["accuracy"]["baseline"]


def cell(low: float | None, high: float | None) -> dict:
    value = None if low is None else (low + high) / 2
    return {"n": 9, **{figure: {"tuned": 0.5, "baseline": 0.4, "value": value, "low": low, "high": high}
                       for figure in ("accuracy", "macro_f1", "topic.macro_f1")}}


@pytest.mark.parametrize(("low", "high", "words", "sign"), [
    (0.01, 0.2, "the model is ahead", 1), (-0.2, -0.01, "the encoder wins", -1),
    (-0.01, 0.2, "close to each other, so no difference can be shown", 0),
    (None, None, "without an interval, which is better cannot be said", None)])
def test_words_follow_the_interval_alone(low, high, words, sign):
    found = {"name": "an encoder", "rows": 1, "strength": 3.0, "cells": {"all": cell(low, high)}}
    assert words in said(found) and "the same 1 post:" in said(found)
    assert ahead(found["cells"]["all"]["macro_f1"]) == sign
    assert ("win" in said(found)) == (sign == -1) and ("ahead" in said(found)) == (sign == 1)
    found["sentence"] = said(found)
    assert "topic macro-F1" in beside_table(found) and "Beside a sentence encoder" in beside_section(found)


def test_nothing_is_shown_without_a_baseline():
    assert beside_section(None) is None


def test_the_readme_says_how_many_characters_are_counted_unasked():
    assert f"For posts of more than {MOST:,} characters in all" in (ROOT / "README.md").read_text(encoding="utf-8")
