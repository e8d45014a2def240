"""The demonstration as a person runs it: programs with no arguments, on the shipped base and the sample posts.

Deliberate break: let `finetune/defaults.py: fill_in` forget the demonstration's languages, or change
base/model.safetensors; the tests turn red.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from common.files import ROOT
from tests.small import here


def run(folder: Path, program: str, *words: str) -> str:
    """A program's output, from a folder that is not the project's."""
    child = subprocess.run([sys.executable, ROOT / program, *words], cwd=folder, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    return child.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    (folder / "train.txt").write_text(run(folder, "train.py"), encoding="utf-8")
    (folder / "eval.txt").write_text(run(folder, "eval.py", "--draws", "200"), encoding="utf-8")
    return folder


def test_a_run_that_learns_is_not_warned(place):
    said, facts = ((place / name).read_text(encoding="utf-8") for name in ("train.txt", "runs/en-es-1/run.json"))
    told = json.loads(facts)
    assert "warning" not in said and "price of 4 bits" not in said and told["options"]["quantize"] == "nf4"
    assert told["learning"]["left"] is True and told["learning"]["sentence"] in said
    assert told["answers"]["sentence"].startswith("The model answers more than its most frequent label")


def test_two_languages_carry_over_to_eleven(place):
    metrics = json.loads((place / "runs/en-es-1/eval-test/metrics.json").read_text())
    assert metrics["seen"]["languages"] == ["en", "es"] and len(metrics["unseen"]["languages"]) == 11
    low, _ = metrics["unseen"]["accuracy_ci"]
    assert low > metrics["unseen"]["majority"]["accuracy"]
    assert (place / "runs/en-es-1/report.html").exists() and (place / "runs/en-es-1/eval-test/report.html").exists()


def test_the_readme_shows_what_comes_out(place):
    """Float32 sums differ between processors, and some posts are close calls: one post in ten may."""
    metrics = json.loads((place / "runs/en-es-1/eval-test/metrics.json").read_text())
    shown = re.search(r"Of 515 posts in 13 languages, ([\d.]+) %", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert abs(metrics["accuracy"] - float(shown[1]) / 100) < 0.1


def test_the_readme_quotes_the_words_that_come_out(place):
    """The first sentences, numbers and signs apart: those differ between processors."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    quoted = text[text.index("Of 515 posts") : text.index("How sure: 11 of the 13")]
    said = (place / "eval.txt").read_text(encoding="utf-8")
    words = lambda text: re.findall(r"[^\W\d]+", text)  # noqa: E731
    quoted, said = words(quoted), words(said[said.index("Of 515 posts") : said.index("How sure")])
    assert len(set(quoted) - set(said)) <= 3, set(quoted) - set(said)  # a label or a verdict may come out otherwise


def test_the_shipped_run_answers_where_there_is_no_run_yet(tmp_path):
    assert "is a copy of the run that comes with the project" in run(tmp_path, "classify.py")
    lines = (tmp_path / "runs/shipped/labels-test.jsonl").read_text(encoding="utf-8").splitlines()
    gold = [json.loads(line) for line in (ROOT / "data/samples/test.jsonl").read_text(encoding="utf-8").splitlines()]
    found = [json.loads(line) for line in lines]
    assert [row["id"] for row in found] == [row["id"] for row in gold]
    right = sum(a["predicted"] == b["label"] for a, b in zip(found, gold, strict=True)) / len(gold)
    assert right > 0.45  # a quarter is chance
    before = (ROOT / "base/run/run.json").read_bytes()
    here("eval.py", "--run", ROOT / "base/run", "--draws", 10, cwd=tmp_path)  # named, it is copied as well
    assert (ROOT / "base/run/run.json").read_bytes() == before
    assert {path.name for path in (ROOT / "base/run").iterdir()} == {
        "adapter", "log.jsonl", "run.json", "training_texts.json"}
