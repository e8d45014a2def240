"""Posts that come again are told by all of their ids, of which those at the beginning are digested only where they
differ from the prompt's.

Deliberate break: in inference/repeats.py let `_key` leave the ids at the beginning out whatever they are, or take all.
"""

import numpy as np

from data.prompt import EncodedPost
from inference import repeats
from inference.repeats import Last, Repeats

PREFIX = list(range(100))


def row(*ids: int) -> EncodedPost:
    return EncodedPost(list(ids), len(ids) - 1, False)


def test_rows_that_differ_at_their_beginning_alone_are_different_posts(monkeypatch):
    rows = [row(*PREFIX, 1, 2), row(7, *PREFIX[1:], 1, 2), row(1, 2), row(*PREFIX, 1, 2), row(7, *PREFIX[1:], 1, 2)]
    digested, digest = [], repeats.digest
    monkeypatch.setattr(repeats, "digest", lambda ids: digested.append(len(ids)) or digest(ids))
    found = Repeats(prefix=PREFIX)
    fresh, keys, places, values = found.split(rows)
    assert fresh == rows[:3] and places == [0, 1, 2, 0, 1] and values == [None] * 5 and found.count == 2
    assert digested == [2, 103, 3, 2, 103]
    found.keep(keys, np.eye(3, dtype=np.float32))
    _, _, places, values = found.split(rows)
    assert places == [-1] * 5 and [value.argmax() for value in values] == [0, 1, 2, 0, 1] and len(digested) == 10


def test_the_ones_that_came_first_are_forgotten():
    found = Repeats(most=2)
    for number in range(3):
        found.keep(found.split([row(number)])[1], np.ones((1, 2), np.float32))
    assert [len(found.split([row(number)])[0]) for number in range(3)] == [1, 0, 0]


def test_texts_are_known_for_as_long_as_their_probabilities_would_be():
    draw = np.random.default_rng(0)
    texts = [f"post {number}" for number in draw.integers(0, 60, 2_000)]
    found, last = Repeats(most=20), Last(most=20)
    for text in texts:
        fresh, keys, *_ = found.split([row(int(text[5:]))])
        found.keep(keys, np.ones((len(keys), 2), np.float32))
        assert last.add(text) == bool(fresh)
    assert 0 < found.count < 2_000 and last.add("ä") and not last.add("ä")
