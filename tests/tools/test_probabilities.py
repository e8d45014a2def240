"""Which columns of a file of labels are the labels' probabilities, and which are the input's own.

Deliberate breaks stand at each test.
"""

import random

import pytest

from common.errors import UserError
from data.codebook import load_codebook
from data.posts import Post
from tests.programs.hostile import in_an_empty_folder, jsonl  # noqa: F401
from tests.tools.test_prevalence_tool import made, run
from tools.prevalence.probabilities import Probabilities


def with_probabilities(labels, low=0.1, **own) -> list[dict]:
    """Columns p_a, p_b, p_c as classify.py writes them, a sum behind them, then columns of the input's own."""
    rows = []
    for n, row in enumerate(labels):
        p = {f"p_{c}": round(1 - 2 * low if c == row["predicted"] else low, 6) for c in "abc"}
        rows.append(row | p | {"p_related": p["p_a"] + p["p_b"]} | {key: make(n) for key, make in own.items()})
    return rows


OWN = {"p_value": lambda n: 0.003 if n % 7 else 0.4, "p_author": lambda n: f"u{n}", "p_other": lambda n: -1}


@pytest.mark.parametrize("predicted", ["abc", "ab"])
def test_a_column_of_the_inputs_own_is_no_label(tmp_path, predicted):
    """c may be a label that the machine never gave. Deliberate break: in `Probabilities._tries` take all columns, or
    the given labels' alone."""
    labels, codes = made()
    labels = [row | {"predicted": row["predicted"] if row["predicted"] in predicted else "a"} for row in labels]
    jsonl(tmp_path / "coded.jsonl", random.Random(2).sample([c for c in codes if c["label"] in predicted], 100))
    jsonl(tmp_path / "labels.jsonl", with_probabilities(labels))
    plain = run()[1]
    assert {row["label"] for row in plain} == set("abc")
    for first in (0, 1):  # in row 1 the input's own p_value is far from nothing, in row 2 it is nearly nothing
        rows = with_probabilities(labels[first:] + labels[:first], **OWN)
        jsonl(tmp_path / "labels.jsonl", rows)
        assert {row["label"]: row["n"] for row in run()[1]} == dict.fromkeys("abc", 400)
        assert first or run()[1] == plain
    if predicted == "abc":  # then their order does not matter
        jsonl(tmp_path / "labels.jsonl", [dict(sorted(row.items())) for row in with_probabilities(labels, **OWN)])
        assert run()[1] == plain
    jsonl(tmp_path / "labels.jsonl", [row | {"p_value": 0.2} for row in labels])  # no label's at all
    assert {row["label"] for row in run()[1]} == set(predicted)


def test_a_label_that_only_people_give_leaves_the_others_their_probabilities(tmp_path):
    """Deliberate break: in `_sorted` ask for all labels."""
    labels, codes = made()
    coded = random.Random(2).sample(codes, 100)
    coded[::20] = [row | {"label": "unclear"} for row in coded[::20]]
    jsonl(tmp_path / "coded.jsonl", coded)
    sure = with_probabilities(labels)
    for n, row in enumerate(sure):  # the machine is sure of the first half alone
        row |= {f"p_{c}": 0.998 if c == row["predicted"] else 0.001 for c in "abc"} if n < 200 else {}
        row["p_related"] = row["p_a"] + row["p_b"]
    found = []
    for rows in (sure, [row | {"p_unclear": 0.0} for row in sure], labels):
        jsonl(tmp_path / "labels.jsonl", rows)
        said, shares = run()
        assert ("DSL has the labels alone" in said) == (rows is labels)
        found.append({row["label"]: row["dsl"] for row in shares})
    assert found[0] == found[1] != found[2] and set(found[0]) == {*"abc", "unclear"}
    jsonl(tmp_path / "labels.jsonl", [row | ({"predicted": "d"} if n == 0 else {}) for n, row in enumerate(sure)])
    assert "DSL has the labels alone" in run()[0]  # the machine's own label has no column


def test_a_label_called_related(tmp_path):
    """Deliberate break: in `Probabilities._tries` leave the column out in any case."""
    named = {"a": "related", "b": "unrelated"}
    labels, codes = made()
    labels = [row | {"predicted": row["predicted"].replace("c", "a")} for row in labels]
    codes = [row | {"label": row["label"].replace("c", "a")} for row in codes][:120]
    jsonl(tmp_path / "labels.jsonl", [row | {"p_a": p, "p_b": 1 - p} for row in labels
                                      for p in [0.9 if row["predicted"] == "a" else 0.2]])
    jsonl(tmp_path / "coded.jsonl", codes)
    plain = run()[1]
    jsonl(tmp_path / "labels.jsonl", [
        row | {"predicted": named[row["predicted"]], "p_related": p, "p_unrelated": 1 - p} for row in labels
        for p in [0.9 if row["predicted"] == "a" else 0.2]])
    jsonl(tmp_path / "coded.jsonl", [row | {"label": named[row["label"]]} for row in codes])
    assert run()[1] == [row | {"label": named[row["label"]]} for row in plain]


def test_the_runs_codebook_says_which_columns_are_labels():
    """Deliberate break: in `Probabilities` forget the codebook."""
    names = load_codebook().labels
    book = Probabilities(load_codebook())
    bare = Probabilities()
    cells = {f"p_{name}": 1.0 if n == 0 else 0.0 for n, name in enumerate(names)} | {"p_value": 0.0}
    for one in (book, bare):
        one.add(Post("1", "", None, "en", "labels.csv", 1, cells))
    assert book.of({names[1]})[0] == list(names) and bare.of({names[1]})[0] == [*names, "value"]
    book.add(Post("2", "", None, "en", "labels.csv", 2, {"p_neutral": "1"}))
    with pytest.raises(UserError, match=r"^labels\.csv: row 2: lacks a probability for one of pro-imm"):
        book.of({names[1]})


def test_columns_that_are_no_probabilities_are_told_with_their_row():
    """Deliberate break: in `Probabilities.add` forget where the first odd row was."""
    for cells, says in (({"p_a": "0.7", "p_b": "0.7"}, r"l\.csv: row 2: probabilities of a, b must be 0 or more"),
                        ({"p_a": "-1", "p_b": "2"}, r"l\.csv: row 2: lacks a probability for one of a, b, a number")):
        found = Probabilities()
        found.add(Post("1", "", None, "en", "l.csv", 1, {"p_a": "0.7", "p_b": "0.3"}))
        found.add(Post("2", "", None, "en", "l.csv", 2, cells))
        with pytest.raises(UserError, match=says):
            found.of({"a", "b"})
        assert found.of({"a", "z"}) is None  # z was given, and has no column
