"""What a study keeps between starts is taken as far as its shapes go, and else is one line that says what to remove.

Deliberate break that turns this red: in study/kept.py, let `_are_numbers` take any list.
"""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from common.errors import UserError
from study.fits import NO_FOLD, Fit
from study.kept import check_recipes, is_finished, read_answers, read_probabilities, recipe

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


def test_models_by_the_defaults_of_two_versions_are_not_put_beside_each_other(tmp_path):
    """A study that had been begun before a default changed went on, and compared two recipes without a word."""
    fits = [Fit("en", "set", "paper", seed, 1, NO_FOLD, (), {"rank": 4}, key=f"k{seed}") for seed in (1, 2)]
    now, kept = recipe("base", fits[0]), {}
    assert (now["rank"], now["quantize"], now["epochs"], now["learning_rate"]) == (4, "nf4", 3, 2e-3)
    assert recipe("base", replace(fits[0], options={"epochs": 9}))["epochs"] == 9
    runner = SimpleNamespace(model="base", folder=lambda fit: tmp_path / fit.key, facts=lambda fit: kept[fit.key])

    def keep(key: str, **changed):
        (tmp_path / key / "run").mkdir(parents=True, exist_ok=True)
        (tmp_path / key / "run" / "run.json").touch()
        kept[key] = {"options": now | changed, "environment": {"commit": "6c05b853b21a"}}

    check_recipes(runner, fits)
    keep("k1")
    check_recipes(runner, fits)  # the second one is still to be trained
    keep("k1", epochs=2)
    for _ in range(2):
        with pytest.raises(UserError, match=r"k1/run: another version .*6c05b853b\) trained it with epochs 2 \(3 now"):
            check_recipes(runner, fits)
        keep("k2")
    kept["k1"]["environment"]["commit"] = None  # an unpacked archive has none
    with pytest.raises(UserError, match=r"k1/run: another version of the project trained it with epochs 2"):
        check_recipes(runner, fits)
    keep("k2", epochs=2)
    check_recipes(runner, fits)  # all by the one recipe, which run.json and the report name
    del kept["k1"]["options"]["rank"], kept["k2"]["options"]["rank"]  # what a version did not have yet
    check_recipes(runner, fits)
