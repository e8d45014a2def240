"""The study as a program: a tiny study from end to end, killed and resumed, and changed; and what is made again.

Deliberate break: in study/runner.py let `is_trained` say no, or `answers_path` leave the fit's key out of the hash.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.files import ROOT
from report.figures import STYLE
from study import __main__ as study
from tests.programs.hostile import call, in_an_empty_folder  # noqa: F401
from tests.small import here
from tests.study.fake_study import few_languages

PLAN = """
title = "Tiny"
[train]
epochs = 1
max_steps = 2
[repeat]
seeds = [1]
draws = [1]
[sets]
en = { en = 16 }
multi = { en = 16, tr = 16 }
[statistics]
draws = 100
[baselines]
tfidf = false
[[contrast]]
first = "multi"
second = "en"
"""


@pytest.fixture(autouse=True)
def coarse_pictures(monkeypatch):
    """Fewer dots: half of a report's time."""
    monkeypatch.setitem(STYLE, "savefig.dpi", 40)


def run(folder: Path, *words, text: str = PLAN) -> tuple:
    plan = folder / "plan.toml"
    plan.write_text(text + few_languages(folder), encoding="utf-8")
    return call(study.main, "--plan", str(plan), "--out", str(folder / "out"), "--jobs", "1", "--threads", "1", *words)


def stamps(folder: Path, pattern: str) -> dict[str, float]:
    return {str(path.relative_to(folder)): path.stat().st_mtime for path in folder.glob(pattern)}


def test_a_study_from_end_to_end_and_again(tmp_path, monkeypatch):
    done = run(tmp_path)
    assert done.code == 0, done.err
    out = tmp_path / "out"
    assert (out / "report" / "report.html").exists() and "may not say" in done.out
    runs, answers = stamps(out, "fits/*/run/run.json"), stamps(out, "answers/*.json")
    assert len(runs) == 2 and len(answers) == 3  # two models and the base itself
    facts = json.loads((out / next(iter(runs))).read_text())
    assert len(facts["scored"]) == 1  # how often the test rows were scored stands in the run
    before = stamps(out, "fits/*/run/adapter/*")
    with monkeypatch.context() as patch:
        patch.setattr(study, "write_study", lambda *_: None)  # the page is written anew below
        assert run(tmp_path).code == 0
    assert stamps(out, "fits/*/run/adapter/*") == before and stamps(out, "answers/*.json") == answers
    changed = run(tmp_path, text=PLAN.replace("tr = 16", "tr = 15"))
    assert changed.code == 0, changed.err
    after = stamps(out, "fits/*/run/adapter/*")
    assert before.items() <= after.items() and len(after) == len(before) * 3 // 2  # one model more, none anew
    options = next(out.glob("fits/*/options.toml"))
    here("train.py", "--config", options, "--out", tmp_path / "again", cwd=ROOT)  # the command that the report prints


def test_a_killed_study_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)  # as the child; files are remembered by the names that they were found by
    text = PLAN.replace("max_steps = 2", "max_steps = 16\nbatch_size = 4").replace("epochs = 1", "epochs = 40")
    (tmp_path / "plan.toml").write_text(text + few_languages(tmp_path), encoding="utf-8")
    words = [sys.executable, "-m", "study", "--plan", str(tmp_path / "plan.toml"), "--out",
             str(tmp_path / "out"), "--jobs", "1", "--threads", "1"]
    child = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                             start_new_session=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not any(path.stat().st_size for path in tmp_path.glob(
            "out/fits/*/run/log.jsonl")):
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    runs = list(tmp_path.glob("out/fits/*/run/run.json"))
    assert len(runs) == 1 and not json.loads(runs[0].read_text())["finished"]
    done = run(tmp_path, text=text)
    assert done.code == 0, done.err
    facts = json.loads(runs[0].read_text())
    assert facts["finished"] and "continuing after step" in (runs[0].parent.parent / "train.log").read_text()


@pytest.mark.parametrize("change, words", [
    (("tr = 16", "tr = 1600"), ["[sets]: multi: tr", "1,600"]),
    (("[repeat]", "[repaet]"), ["unknown key 'repaet'"]),
    (("epochs = 1", "epochs = 0"), ["[train]: epochs"]),
])
def test_a_wrong_plan_ends_in_one_line(tmp_path, change, words):
    done = run(tmp_path, text=PLAN.replace(*change))
    assert done.code == 2 and len(done.err.strip().splitlines()) == 1 and all(word in done.err for word in words)
    assert not (tmp_path / "out").exists()


def test_what_train_says_is_shown_when_it_fails(tmp_path):
    done = run(tmp_path, text=PLAN.replace("en = { en = 16 }", "en = { en = 1 }"))  # three labels have no row
    assert done.code == 2 and "train.py ended with status 2" in done.err and "no post among" in done.err


def test_another_folder_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    done = run(tmp_path)
    assert done.code == 2 and "holds something that is no study" in done.err
