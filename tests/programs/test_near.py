"""eval.py beside the posts that a run was trained on: a test post that is much like one of them is said, and what the
accuracy is without it.

Deliberate break: in eval.py count the posts that were left out as well, or let `brief` take the metrics of all.
"""

import json

import pytest

from finetune import prepare
from finetune.recorded import posts_if_there
from finetune.run_folder import RunFolder
from report.words import findings
from tests.small import here, posts, write_base, write_jsonl

NEAR, KNOWN = 5, 2


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run, and a test file of which five posts are training posts with a word more, and two have a training text."""
    folder = tmp_path_factory.mktemp("near")
    write_base(folder / "tiny")
    train, test = posts(32, 1, ("en",)), posts(40, 2, ("en",))
    for number, post in enumerate([*train, *test]):
        post["text"] = " ".join(f"{word}{number}" for word in post["text"].split())  # none is like another
    for number in range(NEAR):
        test[number]["text"] = train[number]["text"] + " more"
    for number in range(NEAR, NEAR + KNOWN):
        test[number]["text"] = train[number]["text"].upper()
    write_jsonl(folder / "train.jsonl", train)
    write_jsonl(folder / "test.jsonl", test)
    here("train.py", "--model", "tiny", "--data", "train.jsonl", "--out", "run", "--rank", "2", "--max-steps", "2",
         "--threads", "1", cwd=folder)
    return folder


def evaluated(place, *words) -> tuple[dict, str]:
    said = here("eval.py", "--run", "run", "--data", "test.jsonl", "--out", "out", "--draws", "20", *words, cwd=place)
    return json.loads((place / "out" / "metrics.json").read_text(encoding="utf-8")), " ".join(said.split())


@pytest.mark.parametrize("rule, dropped", [("same", KNOWN), ("none", 0)])
def test_posts_much_like_a_training_post_are_counted_and_left_out_beside(place, rule, dropped):
    found, said = evaluated(place, "--drop-known", rule)
    near = NEAR + KNOWN - dropped  # with none dropped, the known ones are much like a training post as well
    assert found["near"]["rows"] == near and found["near"]["rest"]["n"] == found["n"] - near == 40 - NEAR - KNOWN
    lines = [json.loads(line) for line in (place / "out" / "predictions.jsonl").read_text().splitlines()]
    right = [line["label"] == line["predicted"] for line in lines[NEAR + KNOWN :]]
    assert found["near"]["rest"]["accuracy"] == pytest.approx(sum(right) / len(right))
    says = f"{near} posts are much like a training post (half of their three-word runs or more; without them, accuracy"
    assert says in said and says in " ".join((place / "out" / "report.html").read_text().split())


def test_without_the_training_posts_nothing_is_said(place):
    (place / "train.jsonl").rename(place / "away.jsonl")
    try:
        found, said = evaluated(place)
    finally:
        (place / "away.jsonl").rename(place / "train.jsonl")
    assert "near" not in found and "much like" not in said


def test_reading_them_needs_no_base_and_too_little_memory_ends_nothing(place, monkeypatch):
    monkeypatch.chdir(place)
    run = RunFolder.open("run")
    (place / "tiny").rename(place / "moved")
    try:
        found, why = posts_if_there(run)
    finally:
        (place / "moved").rename(place / "tiny")
    assert why is None and len(found) == 32

    def refused(*words, **more):
        raise MemoryError

    monkeypatch.setattr(prepare, "read_labelled", refused)
    found, why = posts_if_there(run)
    assert found is None and "not enough memory" in str(why)


def test_one_post_and_no_rest(place):
    found, _ = evaluated(place)
    found["near"] = {"rows": 1, "rest": {"n": 0}}
    assert "1 post is much like a training post (half of its three-word runs or more);" in findings(found)[-1]
