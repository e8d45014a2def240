"""The paper's published predictions as the statistics take them, where the files are at hand."""

import json

import numpy
import pytest

from stats.predictions import Predictions, Rows
from tests.conftest import SHARED
from tests.stats.answered import GROUPING

LABELS = ("pro-immigration", "anti-immigration", "neutral", "unrelated")


def published(*names):
    """One `Predictions` per name, on one table; the test is skipped where the files are not."""
    folder = SHARED / "immigration" / "published_predictions"
    if not folder.is_dir():
        pytest.skip("needs the published predictions")
    found, rows = [], None
    for name in names:
        lines = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        if rows is None:
            language = numpy.array([line["language"] for line in lines], dtype=object)
            gold = numpy.array([LABELS.index(line["label"]) for line in lines])
            rows = Rows(numpy.array([line["id"] for line in lines], dtype=object), language, gold,
                        numpy.arange(len(lines)), GROUPING)
        answers = [LABELS.index(word) if (word := line["predicted"]) in LABELS else len(LABELS) for line in lines]
        found.append(Predictions(rows, numpy.array(answers)))
    return found
