"""What a study keeps between starts is taken as far as its shapes go, and else is one line that says what to remove.

Deliberate break that turns this red: in study/kept.py, let `_are_numbers` take any list.
"""

import json

import numpy as np
import pytest

from common.errors import UserError
from study.kept import is_finished, read_answers, read_probabilities

ROWS = [["en", "a", [0.25, 0.75]], ["es", "b", [1, 0]]]
GOOD = {"rows": ROWS, "seconds": 1.5, "posts": 2, "tokens": 60, "machine": {"device": "cpu"}, "dtype": "float32"}
def rows(*row):
    return GOOD | {"rows": [list(row)]}


BAD = {
    "a list": [GOOD], "no rows": GOOD | {"rows": None}, "a row of two": rows("en", "a"),
    "a row that is text": GOOD | {"rows": ["abc"]}, "an id that is a number": rows("en", 7, [0.5, 0.5]),
    "one probability": rows("en", "a", [1.0]), "a probability of text": rows("en", "a", ["1", 0]),
    "a probability below 0": rows("en", "a", [-0.5, 0.5]), "a truth": rows("en", "a", [True, 0]),
    "a nested probability": rows("en", "a", [[0.5], 0.5]), "seconds of text": GOOD | {"seconds": "long"},
    "no posts": {key: value for key, value in GOOD.items() if key != "posts"},
    "a machine of text": GOOD | {"machine": "x"}, "a dtype that is a number": GOOD | {"dtype": 32},
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_answers_of_another_kind(case, tmp_path):
    path = tmp_path / "answers.json"
    path.write_text(json.dumps(BAD[case]))
    with pytest.raises(UserError, match=r"answers\.json: .*remove it, and they are made again"):
        read_answers(path, 2)


def test_answers_that_are_good(tmp_path):
    path = tmp_path / "answers.json"
    path.write_text(json.dumps(GOOD))
    assert read_answers(path, 2) == GOOD
    path.write_text(json.dumps({key: GOOD[key] for key in ("rows", "seconds", "posts", "tokens")}))
    assert read_answers(path, 2)["rows"] == ROWS


TABLES = [[], {}, {"rows": [[0.5, 0.5]]}, {"rows": [[0.5, 0.5], [1]]}, {"rows": [[0.5, "x"]] * 2},
          {"rows": [[0.5, None]] * 2}, {"rows": "ab"}]  # fmt: skip


@pytest.mark.parametrize("found", TABLES)
def test_probabilities(found, tmp_path):
    path = tmp_path / "base.json"
    path.write_text(json.dumps(found))
    with pytest.raises(UserError, match="holds no answers to the study's 2 rows"):
        read_probabilities(path, 2, 2)
    path.write_text(json.dumps({"rows": [[0.5, 0.5], [1, 0]]}))
    assert np.array_equal(read_probabilities(path, 2, 2), [[0.5, 0.5], [1, 0]])


def test_finished(tmp_path):
    path = tmp_path / "run.json"
    assert not is_finished(path)
    for text, finished in (("[]", False), ('{"finished": "yes"}', False), ('{"finished": true}', True)):
        path.write_text(text)
        assert is_finished(path) == finished
