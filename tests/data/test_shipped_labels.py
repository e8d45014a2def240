"""Forgetting --codebook: labels that are plainly a shipped codebook's are told as such.

Deliberate break: let `data/shipped_labels.py: hint_of_codebook` ask for some of the labels (`&`) instead of all; the
cases without a hint turn red.
"""

import pytest

from common.errors import UserError
from data.annotators import read_labelled
from data.codebook import SHIPPED, Codebook, load_codebook
from data.readers import read_posts
from data.shipped_labels import hint_of_codebook
from tests.small import here, write_base, write_jsonl

SIB = load_codebook("sib200").labels
PAPER = load_codebook().labels
HINT = ("; these are the labels of data/codebooks/{0}.toml: add --codebook {0} (a run keeps the one that it was "
        "trained with)")
OWN = "; labels of your own stand in a codebook: labels = [...] in FILE.toml, and --codebook FILE.toml"


@pytest.mark.parametrize("book", sorted(path.stem for path in SHIPPED.glob("*.toml")))
def test_each_shipped_codebook_is_known_by_its_labels(book):
    """Where two have the same labels, the paper's is named: it is the one without examples."""
    labels = load_codebook(book).labels
    named = "paper" if set(labels) == set(PAPER) else book
    assert hint_of_codebook(labels, ["yes", "no"]) == HINT.format(named)
    assert hint_of_codebook(labels[:2], ["yes", "no"]) == HINT.format(named)
    assert hint_of_codebook(labels, labels[::-1]) == hint_of_codebook(labels[:2], labels[:2]) == ""


@pytest.mark.parametrize("labels", [[], ["sports"], ["sports", "neutral"], ["1", "2"], ["1.0", "5"],
                                    ["Neutral", "pro"], ["others", "neutral"], [str(n) for n in range(10, 80)]])
def test_other_labels_have_no_hint(labels):
    assert hint_of_codebook(labels, PAPER) == ""


@pytest.mark.parametrize("labels", [["sports", "weather"], [*SIB, "weather"], ["Sports", "Travel"], ["0", "9"],
                                    ["positive", "negative", "neutral"]])
def test_labels_that_are_somebodys_own(labels):
    assert hint_of_codebook(labels, PAPER) == OWN


def test_a_file_of_another_codebook(tmp_path):
    rows = [{"text": f"a sentence {place}", "label": SIB[place % 7], "id": str(place)} for place in range(21)]
    path = write_jsonl(tmp_path / "posts.jsonl", rows)
    with pytest.raises(UserError) as error:
        read_posts(path, codebook=load_codebook())
    assert str(error.value).endswith("(21 such rows in all)" + HINT.format("sib200"))
    assert len(read_posts(path, codebook=load_codebook("sib200"))[0]) == 21
    with pytest.raises(UserError) as error:  # labels that the codebook has count as well
        read_posts(path, codebook=Codebook.from_dict({"labels": ["sports", "weather"]}))
    assert str(error.value).endswith(HINT.format("sib200"))
    write_jsonl(path, [*rows, {"text": "one more", "label": "weather", "id": "x"}])
    with pytest.raises(UserError) as error:
        read_posts(path, codebook=load_codebook())
    assert str(error.value).endswith("(22 such rows in all)" + OWN)
    write_jsonl(path, [{"text": "a", "label": "neutral"}, {"text": "b"}, {"text": "c", "label": "unrelated"}])
    with pytest.raises(UserError, match=r"has no label; label it, leave the row out, or set --bad-labels drop$"):
        read_posts(path, codebook=load_codebook())


def test_annotators_columns_of_another_codebook(tmp_path):
    rows = [f"{place},a sentence {place},{SIB[place % 7]},{SIB[place % 5]}" for place in range(21)]
    path = tmp_path / "posts.csv"
    path.write_text("\n".join(["id,text,label_ann,label_bob", *rows]) + "\n")
    with pytest.raises(UserError) as error:
        read_labelled(path, codebook=load_codebook())
    assert "row 2: label_ann" in str(error.value) and str(error.value).endswith(HINT.format("sib200"))
    assert len(read_labelled(path, codebook=load_codebook("sib200"))[0])


def test_train_says_what_to_add(tmp_path):
    base = write_base(tmp_path / "base")
    data = write_jsonl(tmp_path / "posts.jsonl", [{"text": f"post {n}", "label": SIB[n % 7]} for n in range(21)])
    line = here("train.py", "--model", base, "--data", data, "--out", tmp_path / "run", cwd=tmp_path, code=2)
    assert line.endswith(HINT.format("sib200") + "\n") and not (tmp_path / "run").exists()
    here("train.py", "--model", base, "--data", data, "--out", tmp_path / "run", "--codebook", "sib200",
         "--max-steps", 1, "--batch-size", 4, "--rank", 2, "--dtype", "float32", "--threads", 1, cwd=tmp_path)
