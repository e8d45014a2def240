"""Labels of one's own on their way through the tools: spelt in two ways, coded with another codebook, joined by ids.

Deliberate breaks: in data/cells.py leave `composed` out; in tools/sample.py leave --run out of what comes next, or
`SeenKeys` out of `trained_ids`; in tools/prevalence/sample.py leave out what the machine never gave.
"""

import csv
import json
import unicodedata
from pathlib import Path

import pytest

import train
from common.errors import UserError
from data.annotators import majority
from data.codebook import Codebook, load_codebook
from data.outside import read_outside
from data.posts import Columns
from data.readers import read_posts
from tests.programs.hostile import QUICK, World, call, jsonl, refused
from tools import sample, split
from tools.code.__main__ import CodeOptions, codebook_of
from tools.prevalence.__main__ import main as prevalence

TWO = [unicodedata.normalize(form, "preço") for form in ("NFC", "NFD")]


def table(name: str, rows: list[dict]) -> str:
    with open(name, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return name


def test_labels_that_look_the_same_are_the_same(tmp_path):
    assert TWO[0] != TWO[1]
    rows = [{"id": str(n), "text": f"post {n}", "label": (*TWO, "outro")[n % 3], "language": "pt"} for n in range(30)]
    posts, notes = read_posts([jsonl(tmp_path / "a.jsonl", rows)])
    assert {post.label for post in posts} == {TWO[0], "outro"} and not notes.counts["stripped_label"]
    (tmp_path / "book.toml").write_text(f'''labels = ["{TWO[1]}", "outro"]
examples = [{{label = "{TWO[0]}", text = "caro"}}]
[groups.topic]
related = ["{TWO[1]}"]
unrelated = ["outro"]
''', encoding="utf-8")
    book = load_codebook(tmp_path / "book.toml")
    assert book.labels == (TWO[0], "outro") and book.examples == ((TWO[0], "caro"),)
    of_a_run = Codebook.from_dict({"labels": [TWO[1], "outro"]})  # trained before labels were read so
    posts, _ = read_posts([tmp_path / "a.jsonl"], codebook=of_a_run)
    assert of_a_run.labels == (TWO[1], "outro") and {post.label for post in posts} == {TWO[1], "outro"}
    with pytest.raises(UserError, match="are the same"):
        Codebook.from_dict({"labels": TWO})
    read_posts([tmp_path / "a.jsonl"], codebook=book)
    said = [row | {"predicted": TWO[1]} for row in rows]
    _, predicted, _ = read_outside(jsonl(tmp_path / "b.jsonl", said), [], [], Columns(), book, "error")
    assert set(predicted) == {TWO[0]}
    assert call(split.main, "--data", tmp_path / "a.jsonl", "--out", tmp_path / "parts").code == 0
    assert (tmp_path / "parts" / "codebook.toml").read_text(encoding="utf-8").count("pre") == 1
    assert majority([TWO[0], "outro", TWO[0]]) == TWO[0]


def test_what_comes_next_after_a_sample_opens_the_runs_labels(world: World, capsys):
    labels = [{"id": f"a{n}", "text": f"new {n}", "predicted": "neutral"} for n in range(40)]
    words = ("--labels", jsonl(Path("labels.jsonl"), labels), "--size", "20", "--run", world.run)
    ended = call(sample.main, *words, "--out", "my sample.csv")
    assert f"-m tools.code --sample 'my sample.csv' --run {world.run}\n" in ended.out, ended.err
    capsys.readouterr()
    codebook_of(CodeOptions(sample="s.csv"))
    assert "labels of the codebook “immigration: topic and stance”: pro-immigration, " in capsys.readouterr().out
    codebook_of(CodeOptions(sample="s.csv", run=str(world.run)))
    assert capsys.readouterr().out == ""
    table("labels.csv", labels + labels[:1])
    refused(sample.main, "--labels", "labels.csv", "--size", "20", "--run", world.run, "--out", "b.csv",
            says="labels.csv: row 42: id 'a0' came before; ids must differ")


def test_ids_whose_zeros_a_spreadsheet_took_away():
    table("labels.csv", [{"id": str(n), "predicted": "a"} for n in range(5000, 5040)])
    table("posts.csv", [{"id": f"0{n}", "text": f"post {n}"} for n in range(5000, 5040)])
    words = ("--labels", "labels.csv", "--posts", "posts.csv", "--size", "20", "--out", "s.csv")
    refused(sample.main, *words, says=("has no text in posts.csv; there is '05", "may have taken zeros away"))
    table("posts.csv", [{"id": f"x{n}", "text": f"post {n}"} for n in range(5000, 5040)])
    refused(sample.main, *words, says="has no text in posts.csv, which must have all labelled posts")


def test_probabilities_of_labels_in_either_spelling_are_used():
    rows = [{"id": str(n), "predicted": TWO[1] if n % 2 else "outro", f"p_{TWO[1]}": (0.1, 0.8)[n % 2],
             "p_outro": (0.9, 0.2)[n % 2]} for n in range(60)]
    table("labels.csv", rows)
    table("coded.csv", [{"id": str(n), "label": TWO[0] if n % 2 else "outro"} for n in range(30)])
    found = []
    for _ in range(2):
        ended = call(prevalence, "--labels", "labels.csv", "--coded", "coded.csv", "--json", "out.json")
        assert ended.code == 0, ended.err
        found.append(json.loads(Path("out.json").read_text(encoding="utf-8"))["shares"])
        rows = [{unicodedata.normalize("NFC", key): unicodedata.normalize("NFC", value) if isinstance(value, str) else
                 value for key, value in row.items()} for row in rows]
        table("labels.csv", rows)
    assert found[0] == found[1] and {row["label"] for row in found[0]} == {TWO[0], "outro"}


@pytest.mark.parametrize("other", [False, True])
def test_codes_of_another_question_are_said(other):
    table("labels.csv", [{"id": str(n), "predicted": "ab"[n % 2]} for n in range(60)])
    table("coded.csv", [{"id": str(n), "label": "c" if other and n < 9 else "ab"[n % 2]} for n in range(30)])
    ended = call(prevalence, "--labels", "labels.csv", "--coded", "coded.csv")
    assert ended.code == 0, ended.err
    assert ("people gave labels that the machine gave to no post: 'c' (9); if these are" in ended.out) == other


def test_a_folder_of_both_halves_names_the_one_to_train_on(world: World):
    assert call(split.main, "--data", world.posts, "--out", "parts").code == 0
    refused(train.main, "--model", world.base, "--data", "parts",
            says="is a folder; name the file in it: parts/train.jsonl to train on, parts/test.jsonl to score")


def test_authors_chained_by_texts_leave_a_whole_validation_side(world: World):
    rows = [row | {"author": f"p{number // 4}"} for number, row in
            enumerate(map(json.loads, world.posts.read_text(encoding="utf-8").splitlines()))]
    copies = [row | {"id": f"again-{row['id']}", "author": f"p{number + 1}"} for number, row in enumerate(rows[::4])]
    data = jsonl(Path("posts.jsonl"), rows + copies[:-2])
    ended = call(train.main, "--model", world.base, "--data", data, *QUICK, "--validation", "0.25", "--group-by",
                 "author", "--out", "r")  # fmt: skip
    assert "posts would be one group" in ended.out and "warning: validation" not in ended.out, ended.err
    facts = json.loads(Path("r/run.json").read_text(encoding="utf-8"))["rows"]["split"]
    kept, out = ({id for id, _ in facts[side]} for side in ("validation", "left_out"))
    assert kept and out and abs(len(kept | out) - len(rows + copies) / 4) < 4
    training = [row for row in rows + copies[:-2] if row["id"] not in kept | out]
    known, authors = {row["text"] for row in training}, {row["author"] for row in training}
    for row in rows + copies:
        assert row["id"] not in kept | out or (row["text"] in known) == (row["id"] in out)
        assert row["id"] not in kept | out or row["author"] not in authors


def test_a_run_keeps_together_in_validation_what_the_split_kept_together(world: World):
    rows = [row | {"author": f"p{number // 4}"} for number, row in
            enumerate(map(json.loads, world.posts.read_text(encoding="utf-8").splitlines()))]
    assert call(split.main, "--data", jsonl(Path("posts.jsonl"), rows), "--out", "parts", "--group-by", "author",
                ).code == 0
    words = ("--model", world.base, "--data", "parts/train.jsonl", *QUICK)
    ended = call(train.main, *words, "--validation", "0.2", "--out", "my run")
    assert "posts of one “author” stay on one side of training and validation" in ended.out, ended.err
    assert "eval.py --run 'my run' --data FILE" in ended.out
    facts = json.loads(Path("my run/run.json").read_text(encoding="utf-8"))
    kept = {id for id, _ in facts["rows"]["split"]["validation"]}
    sides = {}
    for row in map(json.loads, Path("parts/train.jsonl").read_text(encoding="utf-8").splitlines()):
        sides.setdefault(row["author"], set()).add(row["id"] in kept)
    assert kept and all(len(side) == 1 for side in sides.values())
    assert facts["options"]["group_by"] == "author"
    ended = call(train.main, *words, "--validation", "0", "--out", "without")
    assert ended.code == 0 and "stay on one side" not in ended.out, ended.err
    whole = json.loads(Path("parts/split.json").read_text(encoding="utf-8"))
    whole["options"]["group_by"] = "language and what not"  # no column of these posts
    Path("parts/split.json").write_text(json.dumps(whole), encoding="utf-8")
    ended = call(train.main, *words, "--validation", "0.2", "--out", "other")
    assert ended.code == 0 and "posts of one “language and what not” are in training and in validation" in ended.out
