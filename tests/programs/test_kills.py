"""Killed with SIGKILL at random moments, in file operations and between them, and called again until they are done:
training, labelling and a study end in the rows and bits of one that was never killed, and leave nothing else.

The processes are forked from one that has imported the programs, so that a kill costs no import. Which operation, or
which moment, is drawn from a seed.

Deliberate break: in common/leftovers.py let `put_folder` remove the old folder ahead of the renaming, in
data/growing.py leave out `_take_back`, or in study/runner.py count a scoring ahead of its answers.
"""

import contextlib
import functools
import json
import os
import random
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.kills import at_operation, die, forked
from tests.programs.hostile import World, jsonl, post_rows
from tests.small import WORDS

TRAIN = ("--rank", "2", "--batch-size", "4", "--epochs", "2", "--micro-tokens", "300", "--dropout", "0.1", "--threads",
         "1", "--validation", "0.2", "--eval-every", "3", "--save-every", "2", "--learning-rate", "3e-3")
PLAN = """
title = "Killed"
[train]
epochs = 2
max_steps = 4
save_every = 1
[repeat]
seeds = [1]
draws = [1]
[sets]
en = { en = 16 }
[statistics]
draws = 100
[baselines]
tfidf = false
"""


def leg(folder: str, program: str, words: tuple, number: int = 0, window: int = 8) -> None:
    """One process: a program in `folder` that kills itself at its `number`-th file operation there (0: never)."""
    import importlib

    from tqdm import tqdm

    from common.errors import run_program
    from inference import labeller

    labeller.WINDOW = window
    tqdm.set_lock(threading.RLock())  # its own would be a semaphore of the system, which a killed process leaves behind
    os.chdir(folder)
    began = time.monotonic()
    said = open("said.txt", "a", encoding="utf-8")  # noqa: SIM115
    main = importlib.import_module(program).main
    with (said, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said),
          at_operation(number, die, under=folder) as count):
        run_program(main, list(words))
    Path("took.json").write_text(json.dumps([count[0], time.monotonic() - began]))


@pytest.fixture(scope="module")
def begin():
    """begin(folder, program, words, number) -> a running process."""
    with forked(leg, "train", "classify", "study.__main__") as start:
        yield start


class Work:
    """A program that is called again and again in `folder` until it is done, and what it has then made."""

    program: str

    def __init__(self, folder: Path):
        self.folder = folder

    def words(self) -> tuple:
        raise NotImplementedError

    def made(self) -> dict:
        raise NotImplementedError

    def is_done(self) -> bool:
        raise NotImplementedError

    def is_beyond(self) -> bool:
        """Whether a kill came so late that nothing is left to call."""
        return False

    def clear(self) -> None:
        shutil.rmtree(self.folder / "out", ignore_errors=True)


class Training(Work):
    program = "train"

    def words(self):
        begun = (self.folder / "out" / "run.json").exists()
        return ("--resume", "--out", "out") if begun else (
            "--model", "base", "--data", "posts.jsonl", "--out", "out", *TRAIN)

    def is_done(self):
        path = self.folder / "out" / "run.json"
        return path.exists() and json.loads(path.read_text())["finished"]

    def is_beyond(self):
        """Killed between the run's last line and the end of its lock, which the next program to write there removes."""
        return self.is_done() and [path.name for path in (self.folder / "out").rglob(".*")] == [".lock"]

    def made(self):
        facts = json.loads((self.folder / "out" / "run.json").read_text())
        same = ("best", "ended", "step", "posts_seen", "scored", "halvings", "hashes", "rows", "finished")
        return {"files": files(self.folder / "out"), "facts": {key: facts[key] for key in same}}


class Labelling(Work):
    program = "classify"

    def words(self):
        return ("--run", "run", "--input", "test.jsonl", "--output", "out/labels.csv.gz", "--resume", "--threads", "1")

    def is_done(self):
        return (self.folder / "out" / "labels.csv.gz").exists()

    def is_beyond(self):
        """--resume of labels that are whole, with no journal beside them, is refused by name."""
        return os.listdir(self.folder / "out") == ["labels.csv.gz"]

    def made(self):
        return {"files": files(self.folder / "out")}

    def clear(self):
        super().clear()
        (self.folder / "out").mkdir()


class Study(Work):
    program = "study.__main__"

    def words(self):
        return ("--plan", "plan.toml", "--out", "out", "--jobs", "1", "--threads", "1")

    def is_done(self):
        return (self.folder / "out" / "report" / "report.html").exists()

    def made(self):
        out = self.folder / "out"
        answers, scored = {}, {}
        for path in out.glob("answers/*"):
            found = json.loads(path.read_text())
            answers[path.name] = {key: found[key] for key in ("fit", "asked", "labels", "rows", "tokens", "cut")}
        for path in out.glob("fits/*/run/run.json"):
            scored[path.parent.parent.name] = json.loads(path.read_text())["scored"]
        return {"files": files(out), "answers": answers, "scored": scored}


class StudyOfTrained(Study):
    """The study once its models are trained: it asks and reports. No kill waits for a training to be started."""

    def clear(self):
        super().clear()
        shutil.copytree(self.folder / "trained", self.folder / "out")


# What tells a time or a duration differs between any two runs.
OTHER = ("run.json", "report.html", "state.pt", "train.log", "study.json", "answers")


def files(folder: Path) -> dict:
    """Every file's bytes but a lock's; of those that tell a time only that they are there."""
    def same(path: Path) -> bool:
        return path.is_file() and set(path.parts).isdisjoint(OTHER) and not path.name.startswith("speed")

    return {str(path.relative_to(folder)): same(path) and path.read_bytes() for path in folder.rglob("*")
            if path.suffix != ".lock" and path.name != ".lock"}


def kill(work: Work, begin, draw: random.Random, kills: int, whole: dict, operations: int, seconds: float,
         until=None) -> list[str]:
    """Kill `work` so many times, half of them in file operations; wherever it is done, hold it against `whole`.

    until(work, begin) calls it to its end at last; by default the next call is the last.
    """
    kinds = []
    while len(kills_of(kinds)) < kills:
        in_file = len(kills_of(kinds)) % 2 == 0
        process = begin(work.folder, work.program, work.words(), draw.randint(1, operations) if in_file else 0)
        if not in_file:
            process.join(draw.uniform(0, seconds))
            if process.exitcode is None:
                os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL), (work.folder / "said.txt").read_text()[-3000:]
        kinds.append("done" if process.exitcode == 0 else "operation" if in_file else "moment")
        if (process.exitcode == 0 and work.is_done()) or work.is_beyond():
            hold_against(work.made(), whole)
            work.clear()
        assert len(kinds) < 10 * kills, kinds
    (until or finish)(work, begin)
    hold_against(work.made(), whole)
    return kinds


def hold_against(made: dict, whole: dict) -> None:
    """Names ahead of bytes: what differs is told by its name."""
    assert made.keys() == whole.keys()
    for kind in whole:
        names = {name for name in {*made[kind], *whole[kind]} if made[kind].get(name, "") != whole[kind].get(name, "")}
        assert not names, (kind, sorted(names))


def kills_of(kinds: list[str]) -> list[str]:
    return [kind for kind in kinds if kind != "done"]


def finish(work: Work, begin) -> None:
    """The next call goes on, and it is the last."""
    if work.is_beyond():
        return
    process = begin(work.folder, work.program, work.words())
    process.join()
    assert process.exitcode == 0, (work.folder / "said.txt").read_text()[-3000:]
    assert work.is_done() and not list((work.folder / "out").rglob(".*")), list((work.folder / "out").rglob(".*"))


@pytest.fixture(scope="module")
def place(shared_world: World, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kills")
    shutil.copytree(shared_world.base, folder / "base")
    shutil.copytree(shared_world.run, folder / "run")
    jsonl(folder / "posts.jsonl", post_rows(count=20))
    draw = random.Random(5)
    rows = [row | {"text": row["text"] + " " + " ".join(draw.choices(WORDS["en"].split(), k=draw.randint(0, 9)))}
            for row in post_rows(start=50, count=40)]
    jsonl(folder / "test.jsonl", rows)
    (folder / "plan.toml").write_text(PLAN, encoding="utf-8")
    return folder


@functools.cache
def measured(kind: type[Work], place: Path, begin) -> tuple[dict, int, float]:
    """What a run that nobody kills makes, its file operations, and its seconds."""
    work = kind(place)
    work.clear()
    process = begin(work.folder, work.program, work.words())
    process.join()
    assert process.exitcode == 0 and work.is_done(), (work.folder / "said.txt").read_text()[-3000:]
    whole, took = work.made(), json.loads((work.folder / "took.json").read_text())
    if kind is Study:
        shutil.copytree(work.folder / "out" / "fits", work.folder / "trained" / "fits")
        for path in work.folder.glob("trained/fits/*/run/run.json"):
            path.write_text(json.dumps(json.loads(path.read_text()) | {"scored": []}))
    work.clear()
    return whole, *took


@pytest.mark.parametrize(("kind", "kills"), [
    (Training, 4), (Labelling, 4),
    *(pytest.param(kind, kills, marks=pytest.mark.slow) for kind, kills in (
        (Training, 36), (Labelling, 36), (StudyOfTrained, 20), (Study, 10))),
])
def test_killed_again_and_again(place, begin, kind, kills, record_property):
    whole, operations, seconds = measured(Study if kind is StudyOfTrained else kind, place, begin)
    assert operations > 10
    work = kind(place)
    work.clear()
    kinds = kill(work, begin, random.Random(kills), kills, whole, operations, seconds)
    assert kinds.count("operation") >= kills // 2 and kinds.count("operation") + kinds.count("moment") == kills
    record_property("kinds", kinds)
