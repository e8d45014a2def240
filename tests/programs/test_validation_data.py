"""Validation posts of a file of their own: which of them count, that seeds share them, and that a run keeps them.

Deliberate break: in `finetune.prepare.beside` take `found` for `spoken`; posts in unseen languages choose the adapter.
"""

import json

import pytest

from finetune.recorded import posts_if_there
from finetune.run_folder import RunFolder
from tests.small import here, posts, write_base, write_jsonl

COMMON = ("--model", "tiny", "--data", "train.jsonl", "--rank", "4", "--batch-size", "8", "--micro-tokens", "500",
          "--learning-rate", "3e-3", "--threads", "1", "--epochs", "2", "--languages", "en,es")
DEV = ("--validation-data", "dev.jsonl", "--eval-every", "3")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """48 posts to train on, 32 of them in two languages; 36 others, 24 in these, two of which training has."""
    folder = tmp_path_factory.mktemp("validation")
    write_base(folder / "tiny")
    train, dev = posts(48, 1), posts(36, 2)
    dev[0]["text"], dev[1]["text"] = train[0]["text"].upper() + " ", train[1]["text"]
    write_jsonl(folder / "train.jsonl", train)
    write_jsonl(folder / "dev.jsonl", dev)
    return folder


@pytest.fixture(scope="module")
def first(place):
    return place / "first", here("train.py", *COMMON, *DEV, "--out", "first", cwd=place)


def facts(folder) -> dict:
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


def adapter(folder, name="adapter") -> bytes:
    return (folder / name / "adapter_model.safetensors").read_bytes()


def test_posts_of_another_language_or_of_training_choose_nothing(first, place, monkeypatch):
    folder, said = first
    told, kept = facts(folder), [row["id"] for row in posts(36, 2) if row["language"] != "pl"][2:]
    assert [id for id, _ in told["rows"]["split"]["validation"]] == kept
    assert ("  22 of 36 posts of dev.jsonl for validation; left out: 12 in languages without training posts, 2 with "
            "the text of one") in said
    assert "adapter of the best validation macro-F1, 0." in said
    assert list(told["hashes"]["data"]) == ["train.jsonl", "dev.jsonl"]
    assert told["options"]["validation"] == 0 and told["best"]["step"] in (3, 6, 8)
    monkeypatch.chdir(place)
    learned, why_not = posts_if_there(RunFolder.open(folder))
    assert why_not is None and [post.id for post in learned[-22:]] == kept
    hashes = json.loads((folder / "training_texts.json").read_text())["exact"]
    assert len(hashes) == 32 + 22  # eval.py leaves posts out that chose the adapter


def test_what_is_found_in_the_file_is_told_and_what_is_taken_is_of_training(first, place):
    assert "  32 of 48 posts taken: --languages en,es" in first[1]
    rows = [json.loads(line) for line in (place / "dev.jsonl").open()]
    write_jsonl(place / "odd.jsonl", [row | {"label": "odd"} if n % 4 == 3 else row for n, row in enumerate(rows)])
    said = here("train.py", *COMMON, "--validation-data", "odd.jsonl", "--bad-labels", "drop", "--out", "odd",
                cwd=place)
    assert "36  rows read from odd.jsonl" in said and "27  posts kept" in said and "odd (9)" in said
    assert "of 27 posts of odd.jsonl for validation" in said


def test_all_training_posts_are_learnt_and_seeds_share_the_validation_posts(first, place):
    here("train.py", *COMMON, "--validation", "0", "--out", "without", cwd=place)
    assert adapter(place / "without") == adapter(first[0], "adapter-last")
    here("train.py", *COMMON, *DEV, "--seed", "9", "--out", "other", cwd=place)
    assert facts(place / "other")["rows"]["split"] == facts(first[0])["rows"]["split"]


def test_a_run_keeps_its_validation_posts(first, place, tmp_path):
    """Made again from its run.json, and begun, then resumed where its file has moved."""
    here("train.py", "--config", "first/run.json", "--out", "again", cwd=place)
    assert adapter(place / "again") == adapter(first[0])
    part = place / "part"
    here("train.py", *COMMON, *DEV, "--out", part, cwd=place)
    told = facts(part) | {"finished": False}
    (part / "run.json").write_text(json.dumps(told))
    other = write_jsonl(tmp_path / "dev.jsonl", [json.loads(line) for line in (place / "dev.jsonl").open()])
    said = here("train.py", "--resume", "--out", part, "--validation-data", other, cwd=place)
    assert "continuing after step 8 of 8" in said and adapter(part) == adapter(first[0])
    (part / "run.json").write_text(json.dumps(told))
    write_jsonl(other, posts(36, 3))
    assert "changed since this run began" in here("train.py", "--resume", "--out", part, "--validation-data", other,
                                                  cwd=place, code=2)


def test_the_command_line_chooses_validation_posts_otherwise_than_a_run_json(first, place):
    """Its other answers to the same question give way; what does nothing beside it is refused."""
    rows = [row | {"author": f"a{n // 4}"} for n, row in enumerate(posts(48, 1))]
    write_jsonl(place / "authors.jsonl", rows)
    share = ("--data", "authors.jsonl", "--validation", "0.2", "--group-by", "author", "--out", "share")
    here("train.py", *COMMON, *share, cwd=place)
    config = ("--config", "share/run.json", "--max-steps", "1", "--out")
    for name, more in (("file", DEV[:2]), ("none", ("--validation", "0")), ("more", ("--validation", "0.4"))):
        here("train.py", *config, name, *more, cwd=place)
        told = facts(place / name)["options"]
        assert [told[key] for key in ("validation", "validation_data", "group_by")] == {
            "file": [0, ["dev.jsonl"], None], "none": [0, [], None], "more": [0.4, [], "author"]}[name]
    here("train.py", "--config", "first/run.json", "--validation", "0.4", "--out", "back", cwd=place)
    assert facts(place / "back")["options"]["validation_data"] == []
    said = here("train.py", *config, "paper", "--preset", "paper", cwd=place, code=2)
    assert "--preset paper: share/run.json has a value for all that it sets" in said


@pytest.mark.parametrize("more, says", [
    (("--validation", "0.1"), "--validation: takes validation posts from the training posts, and --validation-data"),
    (("--group-by", "author"), "--group-by: takes validation posts"),
    (("--validation-data", "train.jsonl"), "--validation-data train.jsonl: leaves no post to choose by, of 48: 16 in"),
    (("--validation-data", "none.jsonl"), "none.jsonl: there is no such file"),
])
def test_refusals(place, more, says):
    words = more if more[0] == "--validation-data" else (*DEV, *more)
    assert says in here("train.py", *COMMON, *words, "--out", "refused", cwd=place, code=2)
    assert not (place / "refused").exists()
