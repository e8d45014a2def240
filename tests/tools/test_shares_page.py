"""docs/shares.md: its commands print what the page shows, on the labels and codes that lie beside it, which are true.

Deliberate break: change a figure in one of the page's outputs, or a code in docs/example/shares/coded.csv.
"""

import csv
import json
import re
import shlex
import shutil
from collections import Counter
from itertools import pairwise

import pytest

from common.files import ROOT
from tests.small import here

FOLDER = ROOT / "docs" / "example" / "shares"
TEXT = (ROOT / "docs" / "shares.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
PEOPLE = [json.loads(line) for line in (ROOT / "data/samples/train.jsonl").read_text(encoding="utf-8").splitlines()]


def rows(name) -> list[dict]:
    with open(FOLDER / name, encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def words_of(block: str) -> list[str]:
    words = shlex.split(block.replace("\\\n", " "))[1:]
    return words[1:] if words[0] == "-m" else words


def test_the_commands_print_what_the_page_shows(tmp_path):
    shutil.copy(FOLDER / "labels.csv", tmp_path)
    shown = {words_of(block)[0]: (words_of(block), after) for block, after in pairwise([*BLOCKS, ""])
             if block.startswith(".venv/bin/python ")}
    assert list(shown) == ["classify.py", "tools.sample", "tools.code", "tools.prevalence", "tools.regression"]
    for program in ("tools.sample", "tools.prevalence", "tools.regression"):
        words, after = shown[program]
        said = here(*words, cwd=tmp_path).splitlines()
        lines = [line for line in after.splitlines() if line not in ("", "...")]
        assert len(lines) >= 4
        for line in lines:
            assert line in said, (program, line)
    assert (tmp_path / "shares.png").read_bytes().startswith(b"\x89PNG")


def test_the_codes_are_people_s_and_the_sample_is_the_program_s(tmp_path):
    said = {post["id"]: post["label"] for post in PEOPLE}
    coded = rows("coded.csv")
    assert len(coded) == 200 and all(row["label"] == said[row["id"]] for row in coded)
    here("tools.sample", "--labels", FOLDER / "labels.csv", "--posts", "data/samples/train.jsonl", "--run", "base/run",
         "--out", "sample.csv", "--size", "200", "--unsure", "2", cwd=tmp_path)
    with open(tmp_path / "sample.csv", encoding="utf-8", newline="") as handle:
        drawn = [(row["id"], row["stratum"], row["inclusion_probability"]) for row in csv.DictReader(handle)]
    assert drawn == [(row["id"], row["stratum"], row["inclusion_probability"]) for row in coded]


def test_what_the_page_says_of_the_truth():
    others = [post for post in PEOPLE if post["language"] not in ("en", "es")]
    labels = {row["id"]: row["predicted"] for row in rows("labels.csv")}
    assert len(PEOPLE) == 985 == len(labels) and len(others) == 825
    right = sum(labels[post["id"]] == post["label"] for post in others) / 825
    assert f"gets {100 * right:.0f} % of the others right" in TEXT
    shares = {label: count / 825 for label, count in Counter(post["label"] for post in others).items()}
    assert all(0.24 < share < 0.26 for share in shares.values())
    assert f"in truth {100 * shares['neutral']:.1f} % are" in TEXT

    def neutral(is_hindi):
        part = [post["label"] == "neutral" for post in others if (post["language"] == "hi") == is_hindi]
        return sum(part) / len(part)

    assert f"The truth is a difference of {100 * (neutral(True) - neutral(False)):.1f} points:" in TEXT


def test_links_and_pictures_exist():
    found = re.findall(r"\]\(([^)]+)\)|src=\"([^\"]+)\"", TEXT)
    links = [(one or other).split("#")[0] for one, other in found]
    assert links and not [link for link in links if not (ROOT / "docs" / link).exists()]


@pytest.mark.slow
def test_the_labels_are_the_shipped_run_s(tmp_path):
    here("classify.py", "--run", ROOT / "base/run", "--input", "data/samples/train.jsonl", "--output", "labels.csv",
         "--keep-columns", "none", "--dtype", "float32", cwd=tmp_path)
    with open(tmp_path / "labels.csv", encoding="utf-8", newline="") as handle:
        again = list(csv.DictReader(handle))
    for one, other in zip(again, rows("labels.csv"), strict=True):
        assert (one["id"], one["predicted"]) == (other["id"], other["predicted"])
        assert float(one["probability"]) == pytest.approx(float(other["probability"]), abs=1e-4)
