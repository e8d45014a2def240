"""The newcomer's path: a spreadsheet's csv, columns and labels of one's own, then a file to label. The README's four
lines take it, with two options more on the first of them and none on the others.

Deliberate break: let `TrainOptions.take_from_split` return at once; the second line fails. Or let
`ColumnOptions.or_samples` raise what it caught, or tools/merge_report.py forget the run's columns.
"""

import csv
import re
from pathlib import Path

import pytest

import classify
import eval as evaluation
import train
from audit import __main__ as audit
from common.files import ROOT
from tests.programs.hostile import QUICK, World, call
from tools import merge_report, split

LABELS = {"Zustimmung": "open door boat", "Ablehnung": "close border street", "weder noch": "river town house"}


def sheet(path, count: int, labelled: bool) -> None:
    """A csv as Excel saves it here: byte order mark, semicolons, CRLF, names of columns that nobody expects."""
    with open(path, "w", encoding="utf-8-sig", newline="") as handle:
        writer = csv.writer(handle, delimiter=";")
        writer.writerow(["Nr.", "Beitrag (Text)", "author", *(["Einschätzung"] if labelled else [])])
        for number in range(count):
            label = list(LABELS)[number % 3]
            text = f"{LABELS[label]}; {number} “wirklich”"
            writer.writerow([number, text, f"p{number % 97}", *([label] if labelled else [])])


@pytest.mark.parametrize("count", [2_000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_the_four_lines_of_the_readme(world: World, tmp_path, count):
    lines = re.findall(r"^\.venv/bin/python (?:-m )?(\S+) +(--.*)$", (ROOT / "README.md").read_text(encoding="utf-8"),
                       re.MULTILINE)
    given = {name: words.split() for name, words in lines if "runs/mine" in words or "posts.csv" in words}
    assert {"tools.split", "train.py", "eval.py", "classify.py"} <= set(given)
    sheet(tmp_path / "posts.csv", 420, True)
    sheet(tmp_path / "unlabelled.csv", count, False)
    more = ["--text-column", "Beitrag (Text)", "--label-column", "Einschätzung"]
    ended = call(split.main, *given["tools.split"], *more)
    assert ended.code == 0 and "codebook.toml with the 3 labels found" in ended.out, ended.err
    words = given["train.py"]
    words[words.index("--model") + 1] = str(world.base)
    ended = call(train.main, *words, *QUICK)
    assert ended.code == 0 and "columns as in mine/split.json: text 'Beitrag (Text)'" in ended.out, ended.err
    assert "two sides of a split" not in ended.out
    both = ["mine/train.jsonl", "mine/test.jsonl"]
    ended = call(train.main, "--data", *both, "--model", world.base, "--out", "both", *QUICK)
    assert "warning: train.jsonl and test.jsonl of mine are the two sides of a split" in ended.out, ended.err
    ended = call(evaluation.main, *given["eval.py"], "--draws", "10")
    assert ended.code == 0, ended.err
    for program in (evaluation, audit, merge_report):  # without --data they read the sample posts
        ended = call(program.main, "--run", "runs/mine", "--out", "refused")
        assert ended.code == 2 and "--data: was left out, and the sample posts are not of the kind" in ended.err
        assert "has no column 'Beitrag (Text)'" in ended.err and not Path("refused").exists()
    ended = call(classify.main, *given["classify.py"])
    assert ended.code == 0 and f"{count:,} of {count:,} posts labelled" in ended.out, ended.err
    with open("labels.csv", encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == count and {row["predicted"] for row in rows} <= set(LABELS)
    assert rows[5]["Nr."] == "5" and rows[5]["author"] == "p5" and "Beitrag (Text)" not in rows[5]
