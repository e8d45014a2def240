"""Files as people have them: spreadsheets of many kinds, own columns and labels, several annotators, unruly posts.

Deliberate break that turns this red: take the `sep=` line out of data/csv_rows.py, or let classify.py ask
`text.strip()` instead of `is_empty`, and a post of invisible characters gets a label.
"""

import csv
import json

import pytest

import classify
import eval as evaluation
import train
from tests.programs.hostile import (
    QUICK,
    TOPICS,
    World,
    call,
    jsonl,
    post_rows,
    refused,
)

OWN = ["--text-column", "Tweet Text", "--label-column", "Sentiment", "--language-column", "lang"]
TWELVE = ("housing", "work", "crime", "health", "schools", "language", "religion", "borders", "asylum", "politics",
          "sport", "other")  # fmt: skip


def export(header: str, end: str = "\r\n", before: str = "") -> bytes:
    """48 posts in two languages as a spreadsheet writes them: semicolons, quotes where needed."""
    lines = [f'"{text}; no ""{n}""";{label};{name}' for n in range(6) for name in ("English", "Turkish")
             for label, text in TOPICS.items()]  # fmt: skip
    return (before + end.join([header, *lines]) + end).encode("utf-8-sig")


def test_a_spreadsheet_with_columns_of_its_own(world: World, tmp_path):
    (tmp_path / "export.csv").write_bytes(export("Tweet Text;Sentiment;lang"))
    args = ("--model", world.base, "--data", "export.csv", "--out", "run", *QUICK)
    refused(train.main, *args, "--delimiter", "tab", says=("semicolons", "--delimiter semicolon"))
    refused(train.main, *args, says=("'Tweet Text', 'Sentiment', 'lang'", "--text-column"))
    refused(train.main, *args, "--text-column", "tweet text", says="did you mean 'Tweet Text'?")
    ended = call(train.main, *args, *OWN)
    assert ended.code == 0 and "export.csv: semicolons, not commas" in ended.out, ended.err
    assert "English -> en (24), Turkish -> tr (24)" in ended.out and "0 of 48 posts cut" in ended.out
    ended = call(classify.main, "--run", "run", "--input", "export.csv", "--output", "labels.csv",
                 "--text-column", "Tweet Text", "--language-column", "lang")  # fmt: skip
    assert ended.code == 0, ended.err
    with open("labels.csv", encoding="utf-8", newline="") as handle:
        labels = list(csv.DictReader(handle))
    assert [row["id"] for row in labels] == [f"export-{n}" for n in range(2, 50)]
    assert {row["language"] for row in labels} == {"en", "tr"} and {row["predicted"] for row in labels} <= set(TOPICS)


def test_a_language_column_that_was_not_named_is_told(world: World, tmp_path):
    (tmp_path / "export.csv").write_bytes(export("text;label;lang"))
    ended = call(train.main, "--model", world.base, "--data", "export.csv", "--out", "run", *QUICK)
    assert ended.code == 0, ended.err
    assert "export.csv has no column 'language' (--language-column; did you mean 'lang'?) (48)" in ended.out


@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_the_line_that_excel_writes_about_its_delimiter(world: World, tmp_path, end):
    (tmp_path / "export.csv").write_bytes(export("text;label;language", end, before=f"sep=;{end}"))
    ended = call(train.main, "--model", world.base, "--data", "export.csv", "--out", "run", *QUICK)
    assert ended.code == 0, ended.err
    assert "48  posts kept" in ended.out


@pytest.mark.parametrize("layout", ["long", "wide"])
def test_three_annotators(world: World, tmp_path, layout):
    posts = []
    for n, row in enumerate(post_rows(count=16)):
        third = list(TOPICS)[n // 4 % 4]
        people = {"ana": row["label"], "ben": row["label"], "cem": third}
        if layout == "long":
            posts += [row | {"annotator": name, "label": label} for name, label in people.items()]
        else:
            posts.append({key: row[key] for key in ("id", "text", "language")} | {
                f"label_{name}": label for name, label in people.items()})  # fmt: skip
    data = jsonl(tmp_path / "three.jsonl", posts)
    ended = call(train.main, "--model", world.base, "--data", data, "--out", "run", *QUICK)
    assert ended.code == 0, ended.err
    assert "3 annotators: ana, ben, cem" in ended.out and "32  posts kept" in ended.out
    assert json.loads((tmp_path / "run" / "run.json").read_text())["annotators"]["overall"]["posts"] == 32


def test_a_codebook_of_twelve_labels_with_definitions_and_examples(world: World, tmp_path):
    tables = "".join(f'[[labels]]\nname = "{name}"\ndefinition = "on {name}"\n' for name in TWELVE)
    (tmp_path / "mine.toml").write_text('role = "r"\nquestion = "Which? Return a letter."\n' + tables
                                        + '[[examples]]\nlabel = "crime"\ntext = "a stolen bike"\n')  # fmt: skip
    data = jsonl(tmp_path / "twelve.jsonl", post_rows(count=24, labels=TWELVE))
    test = jsonl(tmp_path / "test.jsonl", post_rows(start=48, count=24, labels=TWELVE))
    ended = call(train.main, "--model", world.base, "--data", data, "--codebook", "mine.toml", "--out", "run", *QUICK)
    assert ended.code == 0, ended.err
    ended = call(evaluation.main, "--run", "run", "--data", test, "--out", "e", "--draws", "20")
    assert ended.code == 0, ended.err
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert metrics["n"] == 48 and not metrics["topic"]
    text = json.loads((tmp_path / "run" / "run.json").read_text())["prompt"]["text"]
    assert "L = 'other': on other" in text and "\"a stolen bike\": C = 'crime'" in text


def test_unruly_posts_are_counted_cut_and_labelled(world: World, tmp_path):
    texts = ["nul \0 here", "\u202e right to left \u200f", "word " * 2000, "çok uzun " * 1200, "\u200b\u2060",
             "one\ntwo\r\nthree", "half \ud83d pair", "=cmd|' /C calc'!A0", '</script><b>"&', " "]  # fmt: skip
    lines = [json.dumps({"id": f"{n}", "text": text, "label": list(TOPICS)[n % 4], "language": "tr-TR"})
             for n, text in enumerate(texts)]  # fmt: skip
    data = jsonl(tmp_path / "odd.jsonl", lines)
    ended = call(train.main, "--model", world.base, "--data", data, "--out", "run", *QUICK)
    assert ended.code == 0, ended.err
    for found in ("10  rows read", " 8  posts kept", "2  rows without text", "2  texts with NUL or half characters",
                  "2 of 8 posts cut", "tr-TR -> tr (8)"):  # fmt: skip
        assert found in ended.out, (found, ended.out)
    ended = call(classify.main, "--run", "run", "--input", data, "--output", "labels.jsonl", "--with-texts")
    assert ended.code == 0 and "8 of 10 posts labelled" in ended.out and "2 were too long and cut" in ended.out
    labels = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in labels if row["predicted"] is None] == ["4", "9"]
    ended = call(evaluation.main, "--run", "run", "--data", data, "--out", "e", "--drop-known", "none", "--with-texts",
                 "--draws", "20")  # fmt: skip
    assert ended.code == 0, ended.err
    assert "</script><b>" not in (tmp_path / "e" / "report.html").read_text(encoding="utf-8")


def test_a_cell_that_swallows_the_file(world: World, tmp_path, monkeypatch):
    (tmp_path / "posts.csv").write_text("text,label,language\nfirst,neutral,en\n" + "x" * 2**21 + ",neutral,en\n")
    refused(classify.main, "--run", world.run, "--input", "posts.csv", "--output", "a.csv",
            "--longest-row", "1", says=("row 3", "more than 1 MB", "--longest-row"))  # fmt: skip
