"""What a row of probabilities means: the label of the largest, of equals the first; none without text; related's sum.

Deliberate breaks: in inference/decide.py take the last of equal probabilities, leave the NaN rows out of `decide`, or
sum the related labels with numpy in float32.
"""

import numpy as np
import pytest

from data.codebook import Codebook, load_codebook
from inference.decide import NO_LABEL, Label, as_labels, decide, related

BOOK = load_codebook()
PLAIN = Codebook.from_dict({"role": "r", "question": "q", "labels": ["yes", "no"]})
MANY = Codebook.from_dict({"role": "r", "question": "q", "labels": [f"l{number}" for number in range(20)],
                           "groups": {"topic": {"related": [f"l{number}" for number in range(19)],
                                                "unrelated": ["l19"]}}})  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_largest_wins_and_of_equals_the_first(dtype):
    rows = np.array([[0.1, 0.2, 0.3, 0.4], [0.4, 0.1, 0.4, 0.1], [0.25] * 4, [0, 0.5, 0.5, 0], [0, 0, 0, 1]], dtype)
    found = decide(rows)
    assert found.tolist() == [3, 0, 0, 1, 3] and found.dtype == np.int64 and found.shape == (5,)
    assert decide(rows[:0]).tolist() == [] and decide(rows[:0]).dtype == np.int64


def test_float64_is_compared_in_float64():
    assert decide(np.array([[0.5, 0.5 + 1e-12]])).tolist() == [1]


def test_a_row_of_nan_has_no_label():
    rows = np.array([[np.nan] * 4, [0.1, 0.2, 0.6, 0.1]], np.float32)
    assert decide(rows).tolist() == [NO_LABEL, 2]
    assert np.isnan(related(rows, BOOK)).tolist() == [True, False]
    assert as_labels(rows, BOOK)[0] == Label(None, {}, None)


@pytest.mark.parametrize("book", [BOOK, MANY])
def test_related_is_added_in_float64_in_the_codebooks_order(book):
    rows = np.random.default_rng(0).dirichlet(np.ones(len(book.labels)), 500).astype(np.float32)
    found = related(rows, book)
    for row, total in zip(rows, found, strict=True):
        expected = 0.0
        for label in book.related:
            expected += float(row[book.labels.index(label)])
        assert total == expected
    assert found.dtype == np.float64 and found.shape == (500,)


def test_no_topic_no_related():
    rows = np.array([[0.75, 0.25]], np.float32)
    assert related(rows, PLAIN) is None
    assert as_labels(rows, PLAIN) == [Label("yes", {"yes": 0.75, "no": 0.25}, None)]


def test_labels_keep_every_digit_and_the_order():
    rows = np.random.default_rng(1).dirichlet(np.ones(4), 50).astype(np.float32)
    found = as_labels(rows, BOOK, ["en"] * 50)
    for row, label, index in zip(rows, found, decide(rows), strict=True):
        assert tuple(label.probabilities) == BOOK.labels and label.language == "en"
        assert list(label.probabilities.values()) == [float(p) for p in row]
        assert label.label == BOOK.labels[index] and label.probability == float(row.max())
        assert {type(value) for value in label.probabilities.values()} == {float} and type(label.related) is float


def test_what_a_notebook_shows():
    label, = as_labels(np.array([[0.125, 0.5, 0.25, 0.125]]), BOOK, ["tr"])
    assert repr(label) == ("Label(label='anti-immigration', probabilities={'pro-immigration': 0.125, "
                           "'anti-immigration': 0.500, 'neutral': 0.250, 'unrelated': 0.125}, related=0.875, "
                           "language='tr')")  # fmt: skip
    assert str(label) == "anti-immigration (0.500; related 0.875)"
    empty = Label(None, {}, None)
    assert repr(empty) == "Label(label=None, probabilities={}, related=None)" and str(empty) == "no text, no label"
    assert empty.probability is None and str(Label("yes", {"yes": 0.75, "no": 0.25}, None)) == "yes (0.750)"
