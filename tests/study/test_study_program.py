"""The study as a program: a tiny study from end to end, killed and resumed, and changed; and what is made again.

Deliberate break: in study/runner.py let `is_trained` say no, or `answers_path` leave the fit's key out of the hash; or
start train.py itself instead of study/child.py.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common import lock
from common.errors import UserError
from common.files import ROOT
from common.terminal import LogLines
from report.figures import STYLE
from study import __main__ as study
from study.runner import ZERO
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

MANY_STEPS = PLAN.replace("max_steps = 2", "max_steps = 40").replace("epochs = 1", "epochs = 40")


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
    with monkeypatch.context() as patch:
        patch.setattr(LogLines, "EVERY", 0.0)  # else a line every thirty seconds, and none for what takes less
        done = run(tmp_path)
    assert done.code == 0, done.err
    assert "statistics: 16 of 16 questions" in done.err and "figures: 1 of " in done.err
    out = tmp_path / "out"
    assert (out / "report" / "report.html").exists() and "may not say" in done.out
    runs, answers = stamps(out, "fits/*/run/run.json"), stamps(out, "answers/*.json")
    assert len(runs) == 2 and len(answers) == 3  # two models and the base itself
    facts = json.loads((out / next(iter(runs))).read_text())
    assert len(facts["scored"]) == 1  # how often the test rows were scored stands in the run
    before = stamps(out, "fits/*/run/adapter/*")
    with monkeypatch.context() as patch:
        patch.setattr(study, "write_study", lambda *_: None)
        assert run(tmp_path).code == 0
        assert stamps(out, "fits/*/run/adapter/*") == before and stamps(out, "answers/*.json") == answers
        changed = run(tmp_path, text=PLAN.replace("tr = 16", "tr = 15"))
    assert changed.code == 0, changed.err
    after = stamps(out, "fits/*/run/adapter/*")
    assert before.items() <= after.items() and len(after) == len(before) * 3 // 2  # one model more, none anew
    options = next(out.glob("fits/*/options.toml"))
    assert 'quantize = "nf4"\n' in options.read_text()  # whatever train.py's own default is on this machine
    here("train.py", "--config", options, "--out", tmp_path / "again", cwd=ROOT)  # the command that the report prints


def test_freezing_writes_a_text_to_register_and_trains_nothing(tmp_path):
    done = run(tmp_path, "--freeze")
    assert done.code == 0, done.err
    out = tmp_path / "out"
    text = (out / "preregistration.md").read_text(encoding="utf-8")
    date = json.loads((out / "frozen.json").read_text())["date"]
    assert f"the plan was frozen on {date}" in text and text.startswith("# Study information")
    assert f"{text.count('[To fill in: ')} places are for you to fill in" in done.out
    assert not list(out.glob("fits/*/run")) and "trains nothing" in done.out


def test_a_killed_study_goes_on(tmp_path):
    one = MANY_STEPS[: MANY_STEPS.index("[[contrast]]")].replace("multi = { en = 16, tr = 16 }\n", "")
    (tmp_path / "plan.toml").write_text(one + few_languages(tmp_path))
    words = [sys.executable, "-m", "study", "--plan", str(tmp_path / "plan.toml"), "--out",
             str(tmp_path / "out"), "--jobs", "1", "--threads", "1"]
    child = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    training = started(tmp_path / "out")
    child.kill()  # the study alone: what it was training notices, and ends
    child.wait()
    while lock.born(training) is not None:
        time.sleep(0.05)
    run = next(tmp_path.glob("out/fits/*/run/run.json"))
    assert not json.loads(run.read_text())["finished"]
    assert "the study that began this training has ended" in (run.parent.parent / "train.log").read_text()
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for place, process in (("out", child.pid), ("run", training)):
        assert f"{place}: taken over from process {process}, which has ended" in done.stdout
    said = (run.parent.parent / "train.log").read_text()
    assert json.loads(run.read_text())["finished"] and "continuing after step" in said
    assert not list((tmp_path / "out").rglob(".*"))


def started(out: Path) -> int:
    """Wait for the first steps of a study's training; returns the process that does them."""
    while True:
        for path in out.glob(f"fits/*/run/{lock.LOCK}"):
            log = path.with_name("log.jsonl")
            if log.exists() and log.stat().st_size:
                with contextlib.suppress(FileNotFoundError):  # it has just ended; the next will come
                    return json.loads(path.read_text())["pid"]
        time.sleep(0.05)


def test_a_second_study_in_one_folder_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    with lock.hold(tmp_path / "out"):
        done = run(tmp_path)
        assert os.listdir(tmp_path / "out") == [lock.LOCK]
    assert done.code == 2 and done.err.count("\n") == 1 and f"process {os.getpid()} has been writing" in done.err


def test_ctrl_c_ends_a_study_and_what_it_trains(tmp_path):
    (tmp_path / "plan.toml").write_text(MANY_STEPS)
    words = [sys.executable, "-m", "study", "--plan", str(tmp_path / "plan.toml"), "--out", str(tmp_path / "out"),
             "--jobs", "2", "--threads", "1"]
    child = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    training = started(tmp_path / "out")
    child.send_signal(signal.SIGINT)  # to the study alone
    assert child.communicate()[1].endswith(b"stopped\n") and child.returncode == 130  # after lines of progress
    assert lock.born(training) is None


def test_an_error_in_between_ends_what_is_still_training(tmp_path, monkeypatch):
    """The first model is asked while the second trains: an error there must not wait for it."""
    trainings = []

    def failing(self, fit, asked, show=None):
        if fit.kind != ZERO:
            trainings.append(started(tmp_path / "out"))
            raise UserError("no such answer")

    monkeypatch.setattr(study.Runner, "ask", failing)
    done = run(tmp_path, text=MANY_STEPS)
    assert done.code == 2 and done.err == "error: no such answer\n"
    assert len(trainings) == 1 and lock.born(trainings[0]) is None


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
