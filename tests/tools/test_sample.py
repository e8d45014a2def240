"""tools.sample: what is drawn, with which chances, and that these chances are those of the draw.

Deliberate break: write `counts[number] / len(stratum_of)` as the chance, draw by `range(count)` in `drawn`, or take
`one.words.endswith("unsure")` for `one.unsure` in `allocated`.
"""

import csv
import json
import random
from collections import Counter

import pytest

from common.files import ROOT
from tests.programs.hostile import call, in_an_empty_folder, jsonl, refused  # noqa: F401
from tools.prevalence.__main__ import main as prevalence
from tools.sample import SampleOptions, Stratum, allocated, main

WORDS = ["--labels", "labels.jsonl", "--posts", "posts.jsonl"]


def files(tmp_path, count=300) -> list[dict]:
    """Labels with probabilities, and posts with texts, in two languages of unequal size."""
    draw, labels, posts = random.Random(1), [], []
    for n in range(count):
        p, language = draw.choice([0.55, 0.9, 0.95]), "en" if n % 3 else "es"
        labels.append({"id": f"p{n}", "language": language, "predicted": "a", "p_a": p, "p_b": round(1 - p, 6)})
        posts.append({"id": f"p{n}", "language": language, "text": f"post number {n}", "author": f"u{n}"})
    jsonl(tmp_path / "labels.jsonl", labels)
    jsonl(tmp_path / "posts.jsonl", posts)
    return labels


def sample(*words, name="s.csv") -> list[dict]:
    ended = call(main, *WORDS, "--out", name, *words)
    assert ended.code == 0, ended.err
    return read(name)


def read(name) -> list[dict]:
    with open(name, encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def test_a_folder_of_labels_is_the_file_of_all_its_rows(tmp_path):
    labels = files(tmp_path)
    whole = sample("--unsure", "2", "--by", "language")
    (tmp_path / "labels.jsonl").unlink()
    (tmp_path / "labels.jsonl").mkdir()
    for name, rows in (("a.jsonl", labels[:100]), ("b.jsonl", labels[100:])):
        jsonl(tmp_path / "labels.jsonl" / name, rows)
    (tmp_path / "labels.jsonl" / "manifest.json").write_text("{}")
    assert sample("--unsure", "2", "--by", "language", name="t.csv") == whole
    refused(main, "--labels", "labels.jsonl", "--out", "labels.jsonl/s.csv",
            says="--out labels.jsonl/s.csv: lies in the folder of --labels")  # where the next sample would read it


def test_chances_are_rows_over_posts_of_the_stratum(tmp_path):
    labels = {row["id"]: row for row in files(tmp_path)}
    rows = sample("--size", "60", "--by", "language", "--unsure", "3", "--keep", "author")
    assert list(rows[0]) == ["id", "language", "text", "author", "stratum", "inclusion_probability"]
    assert len(rows) == 60 == len({row["id"] for row in rows})
    cell = lambda id: (labels[id]["language"], labels[id]["p_a"] < 0.7)  # noqa: E731
    posts, drawn = Counter(map(cell, labels)), Counter(cell(row["id"]) for row in rows)
    for row in rows:
        key = cell(row["id"])
        assert float(row["inclusion_probability"]) == drawn[key] / posts[key]
        assert row["text"] == f"post number {row['id'][1:]}" and row["author"] == "u" + row["id"][1:]
    for language in ("en", "es"):
        ratio = (drawn[language, True] / posts[language, True]) / (drawn[language, False] / posts[language, False])
        assert ratio == pytest.approx(3, rel=0.2)
    assert sum(1 / float(row["inclusion_probability"]) for row in rows) == pytest.approx(300)
    assert sample("--size", "60", "--by", "language", "--unsure", "3", "--keep", "author", name="t.csv") == rows
    even = Counter(row["language"] for row in sample("--size", "60", "--by", "language", "--equal", name="u.csv"))
    assert even == {"en": 30, "es": 30}


def test_posts_are_drawn_as_often_as_they_should_be(tmp_path):
    files(tmp_path, 12)
    times = Counter()
    for seed in range(60):
        times.update(row["id"] for row in sample("--size", "6", "--seed", seed, name=f"{seed}.jsonl.csv"))
    assert len(times) == 12 and all(14 <= count <= 46 for count in times.values())


def test_small_strata_give_what_they_have():
    a, b, c = (Stratum(name, False) for name in "abc")
    assert allocated(SampleOptions(size=20, equal=True), [a, b, c], [3, 50, 1]) == [3, 16, 1]
    assert allocated(SampleOptions(size=100), [a, b], [900, 2]) == [98, 2]
    assert allocated(SampleOptions(size=5000), [a, b], [900, 2]) == [900, 2]


@pytest.mark.parametrize("equal", [False, True])
def test_k_is_the_ratio_of_chances(tmp_path, equal):
    """A column that says "unsure" is a value like any other."""
    stream = random.Random(2)
    jsonl(tmp_path / "labels.jsonl", [
        {"id": f"p{n}", "text": f"post {n}", "mood": "unsure" if n % 5 else "glad", "p_a": p, "p_b": 1 - p}
        for n in range(2000) for p in [stream.choice([0.55, 0.9, 0.95])]])
    labels = {row["id"]: row for row in map(json.loads, (tmp_path / "labels.jsonl").read_text().splitlines())}
    ended = call(main, "--labels", "labels.jsonl", "--out", "s.csv", "--size", "400", "--by", "mood", "--unsure", "3",
                 *(["--equal"] if equal else []))
    assert ended.code == 0, ended.err
    chance = {(labels[row["id"]]["mood"], labels[row["id"]]["p_a"] < 0.7): float(row["inclusion_probability"])
              for row in read("s.csv")}
    for mood in ("unsure", "glad"):
        assert chance[mood, True] / chance[mood, False] == pytest.approx(3, rel=0.03)
    if equal:
        drawn = Counter(labels[row["id"]]["mood"] for row in read("s.csv"))
        assert drawn == {"unsure": 200, "glad": 200}
    else:
        assert chance["unsure", True] == pytest.approx(chance["glad", True], rel=0.05)
    said = next(line for line in ended.out.splitlines() if "asked: 3" in line)
    assert "  unsure posts have " in said and "unsure, unsure" in ended.out


def test_a_column_of_the_inputs_own_makes_no_post_sure(tmp_path):
    """Deliberate break: in `most_probable` take the largest of all columns p_."""
    labels = files(tmp_path)
    plain = sample("--size", "60", "--unsure", "3")
    jsonl(tmp_path / "labels.jsonl", [row | {"p_value": 0.99 if n % 2 else 0.001, "p_name": "x"}
                                      for n, row in enumerate(labels)])
    assert sample("--size", "60", "--unsure", "3", name="t.csv") == plain


def test_a_ratio_that_cannot_be_is_told(tmp_path):
    files(tmp_path)
    ended = call(main, *WORDS, "--out", "s.csv", "--size", "200", "--unsure", "50")
    assert "unsure posts have 1.97 times" in ended.out and "(asked: 50)" in ended.out
    ended = call(main, *WORDS, "--out", "t.csv", "--unsure", "2", "--unsure-below", "0.1")
    assert "so --unsure 2 changes nothing" in ended.out


def test_abstained_posts_are_drawn_and_rows_without_a_post_are_not(tmp_path):
    labels = files(tmp_path, 60)
    labels = [row | {"predicted": "" if n < 20 else "a", "error": "has no text" if n >= 50 else ""}
              for n, row in enumerate(labels)]
    jsonl(tmp_path / "labels.jsonl", labels)
    ended = call(main, *WORDS, "--out", "s.csv", "--size", "50")
    assert ended.code == 0 and "10 rows that could not be read, or had no text, left out" in ended.out
    assert {row["id"] for row in read("s.csv")} == {f"p{n}" for n in range(50)}


def test_the_sample_goes_through_to_prevalence(tmp_path):
    files(tmp_path)
    rows = sample("--size", "80", "--by", "language", "--unsure", "2")
    jsonl(tmp_path / "coded.jsonl", [{k: row[k] for k in ("id", "language", "stratum", "inclusion_probability")}
                                     | {"label": "ab"[n % 2]} for n, row in enumerate(rows)])
    said = call(prevalence, "--labels", "labels.jsonl", "--coded", "coded.jsonl").out
    assert "in 4 strata" in said and "warning" not in said


def test_groups_may_come_from_the_posts_file_as_in_prevalence(tmp_path):
    labels = files(tmp_path)
    posts = [{"id": row["id"], "language": row["language"], "text": "a", "party": "xy"[int(row["id"][1:]) % 2],
              "date": f"0{1 + int(row['id'][1:]) % 3}.0{1 + int(row['id'][1:]) % 3}.2024"} for row in labels]
    jsonl(tmp_path / "posts.jsonl", posts)
    rows = sample("--size", "60", "--by", "party,month", "--equal")
    assert len({row["stratum"] for row in rows}) == 6
    own = {post["id"]: (post["party"], post["date"]) for post in posts}
    assert set(Counter(own[row["id"]] for row in rows).values()) == {10}
    refused(main, *WORDS, "--out", "t.csv", "--by", "month,area", says=["--by area", "nor has --posts"])


def test_training_posts_are_left_out(tmp_path):
    shipped, data = ROOT / "base/run", ROOT / "data/samples/train.jsonl"
    ended = call(main, "--labels", data, "--out", "s.csv", "--size", "20", "--run", shipped)
    assert ended.code == 0 and "160 posts of the run's training or validation left out" in ended.out
    rows = read("s.csv")
    assert not {row["language"] for row in rows} & {"en", "es"}


def test_what_cannot_be_drawn(tmp_path):
    files(tmp_path, 30)
    refused(main, "--out", "s.csv", says="--labels: is missing")
    refused(main, *WORDS, "--out", "s.csv", "--by", "id2", says=["--by id2", "no such column"])
    refused(main, *WORDS, "--out", "s.txt", says="s.txt: has no known format")
    refused(main, *WORDS, "--out", "s.csv", "--by", "p_a,language", "--size", "3", says="strata need at least")
    refused(main, "--labels", "labels.jsonl", "--out", "s.csv", says=["has no text", "--posts"])
    refused(main, "--labels", "posts.jsonl", "--out", "s.csv", "--unsure", "2", says=["--unsure", "no probabilities"])
    refused(main, *WORDS, "--out", "s.csv", "--keep", "autor", says=["--keep autor", "did you mean 'author'"])
    (tmp_path / "twice.csv").write_text("id,text,author,author\n1,a,b,c\n")
    refused(main, "--labels", "twice.csv", "--out", "s.csv", "--keep", "author", says="has 2 columns named 'author'")
    (tmp_path / "s.csv").write_text("codes")
    refused(main, *WORDS, "--out", "s.csv", says="exists; choose another name")
