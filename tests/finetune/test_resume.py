"""Killed with SIGKILL at random moments and resumed each time, a run ends in the bits of one that was never killed.

The processes are forked from one that has imported train.py, so that each leg costs its own steps and no import.

Deliberate break: leave `torch.set_rng_state` out of `loop.Trainer.load_state` (the adapters differ), or `run.cut_log`
out of train.py (steps are logged twice).
"""

import contextlib
import json
import os
import random
import shutil
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from common.errors import UserError
from finetune.recorded import prepared_of
from finetune.resume import PLACES, check_same_files
from finetune.run_folder import RunFolder
from tests.kills import forked
from tests.small import here, posts, write_base, write_jsonl

OPTIONS = ("--model", "tiny", "--data", "train.jsonl", "--rank", "2", "--batch-size", "4", "--epochs", "4",
           "--micro-tokens", "300", "--dropout", "0.1", "--validation", "0.2", "--eval-every", "5", "--save-every", "3",
           "--threads", "1", "--learning-rate", "3e-3")
STEPS = 40  # 40 posts to train on, 4 a step, 4 epochs
KILLS = 8


def leg(folder: str, *words: str) -> None:
    """One process of a run: train.py in `folder`, both outputs into a file beside it."""
    from tqdm import tqdm

    import train
    from common.errors import run_program

    tqdm.set_lock(threading.RLock())  # its own would be a semaphore of the system, which a killed process leaves behind
    os.chdir(folder)
    said = open("said.txt", "a", encoding="utf-8")  # noqa: SIM115
    with said, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        run_program(train.main, list(words))


@pytest.fixture(scope="module")
def begin():
    """begin(folder, *words) -> a running process. (The optimiser imports torch._dynamo when the first one is made.)"""
    with forked(leg, "train") as start:
        yield start


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    write_base(folder / "tiny")
    write_jsonl(folder / "train.jsonl", posts(50, 3))
    return folder


@pytest.fixture(scope="module")
def whole(place, begin):
    """The run that nobody killed."""
    process = begin(place, *OPTIONS, "--out", "whole")
    process.join()
    assert process.exitcode == 0, (place / "said.txt").read_text()
    return place / "whole"


def results(run: Path) -> dict[str, bytes]:
    return {name: (run / name).read_bytes() for name in (
        "adapter/adapter_model.safetensors", "adapter/adapter_config.json", "adapter-last/adapter_model.safetensors",
        "log.jsonl", "training_texts.json")}


def last_step(run: Path) -> int:
    lines = (run / "log.jsonl").read_text().split("\n")[:-1] if (run / "log.jsonl").exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def test_killed_at_random_moments(place, whole, begin):
    run, draw = place / "killed", random.Random(7)
    step = json.loads((whole / "run.json").read_text())["seconds"] / STEPS  # on this machine
    stopped, ended = [], 0

    def called():
        # A run that was killed before it had a run.json is begun again, as a person would do it.
        return begin(place, *(("--resume",) if (run / "run.json").exists() else OPTIONS), "--out", "killed")

    while len(stopped) < KILLS:
        process = called()
        # Wait for a step of the log (at first: for any sign of the run), then a random moment more.
        target = -1 if len(stopped) < 3 else last_step(run) + draw.randint(1, 6)
        while process.exitcode is None and (not run.exists() or last_step(run) < target):
            time.sleep(step / 10)
        time.sleep(draw.uniform(0, 4 * step))
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL), (place / "said.txt").read_text()
        if process.exitcode == 0:  # it was quicker: begun anew
            assert results(run) == results(whole)
            shutil.rmtree(run)
            ended += 1
        else:
            stopped.append(last_step(run))
        assert ended <= KILLS, stopped
    assert any(0 < at < STEPS for at in stopped), stopped
    process = called()
    process.join()
    assert process.exitcode == 0, (place / "said.txt").read_text()
    assert results(run) == results(whole)
    steps = [line["step"] for line in map(json.loads, (run / "log.jsonl").read_text().splitlines()) if "loss" in line]
    assert steps == list(range(1, STEPS + 1))
    assert not list(run.rglob("*.partial")) and not list(run.rglob("*.old"))
    ours, theirs = (json.loads((folder / "run.json").read_text()) for folder in (run, whole))
    for key in ("best", "ended", "step", "posts_seen", "halvings", "hashes", "files", "rows", "memory_expected"):
        if key == "memory_expected":
            ours[key].pop("available"), theirs[key].pop("available")
        assert ours[key] == theirs[key], key


@pytest.fixture
def unfinished(place, whole, tmp_path):
    """A copy of everything, with a checkpoint after step 20 that is not the last."""
    shutil.copytree(place, tmp_path / "all")
    run = tmp_path / "all" / "whole"
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(facts | {"finished": False}))
    return run


def test_killed_while_the_run_was_being_closed(unfinished, whole):
    """After the last checkpoint: no step is done again, and what was half written goes away."""
    shutil.rmtree(unfinished / "adapter-last")
    (unfinished / "report.html").unlink()
    half = unfinished / ".adapter-last.12-1@elsewhere.partial"
    half.mkdir()
    (half / ".adapter_config.json.12-1@elsewhere.partial").write_text("{")
    (unfinished / "checkpoint" / ".state.pt.12-1@elsewhere.partial").write_bytes(b"half")
    with open(unfinished / "log.jsonl", "a") as log:
        log.write('{"step": 41, "lo')
    here("train.py", "--resume", "--out", "whole", cwd=unfinished.parent)
    assert results(unfinished) == results(whole) and (unfinished / "report.html").exists()
    assert not list(unfinished.rglob("*.partial"))


@pytest.mark.parametrize("words, message", [
    (("--rank", "8"), "--rank 8: the run in whole began with 2"),
    (("--dropout", "0"), "--dropout 0.0: the run in whole began with 0.1"),
    (("--no-rslora", "--class-weights"), "--class-weights True: the run in whole began with False"),
])
def test_a_changed_option_is_refused(unfinished, words, message):
    assert message in here("train.py", "--resume", "--out", "whole", *words, cwd=unfinished.parent, code=2)


def test_changed_files_are_refused(unfinished):
    folder, resume = unfinished.parent, ("train.py", "--resume", "--out", "whole")
    before = results(unfinished)
    for name, says in (("train.jsonl", "whole: data (train.jsonl) changed since this run began"),
                       *((name, f"{name}: is not the file that whole was fine-tuned on")
                         for name in ("tiny/config.json", "tiny/model.safetensors"))):
        path = folder / name
        old = path.read_bytes()
        if name.endswith(".safetensors"):
            path.write_bytes(old[:-1] + bytes([old[-1] ^ 1]))  # the last byte of the last weight
        else:
            path.write_bytes(old + b"\n")
        assert says in here(*resume, cwd=folder, code=2)
        path.write_bytes(old)
    (folder / "tiny" / "tokenizer.model").write_bytes((folder / "tiny" / "tokenizer.model").read_bytes() + b"\x1a\x00")
    assert "whole: prompt changed since this run began" in here(*resume, cwd=folder, code=2)
    state = unfinished / "checkpoint" / "state.pt"
    (folder / "tiny" / "tokenizer.model").write_bytes((folder / "tiny" / "tokenizer.model").read_bytes()[:-2])
    state.write_bytes(state.read_bytes()[:-100])
    assert "state.pt: is not a whole checkpoint" in here(*resume, cwd=folder, code=2)
    assert results(unfinished) == before


def test_a_run_whose_base_and_posts_have_moved_goes_on(unfinished, whole):
    """To the same bits, and run.json has their new place; a killed one could not be gone on with on another machine."""
    folder = unfinished.parent
    (folder / "tiny").rename(folder / "base-3")
    (folder / "train.jsonl").rename(folder / "posts.jsonl")
    unfinished.rename(folder / "moved")
    words = ("train.py", "--resume", "--out", "moved", "--model", "base-3", "--data", "posts.jsonl")
    here(*words, cwd=folder)
    tensors = "adapter/adapter_model.safetensors"
    assert results(folder / "moved")[tensors] == results(whole)[tensors]
    ours, theirs = (json.loads((run / "run.json").read_text()) for run in (folder / "moved", whole))
    assert (ours["options"]["model"], ours["options"]["data"]) == ("base-3", ["posts.jsonl"])
    assert ours["hashes"] == theirs["hashes"] | {"data": {"posts.jsonl": theirs["hashes"]["data"]["train.jsonl"]}}


def test_where_it_goes_on_may_differ(unfinished, monkeypatch):
    """Fewer tokens at once and another way to save may be given anew; all else stays, threads too."""
    state = torch.load(unfinished / "checkpoint" / "state.pt", weights_only=True)
    assert state["trainer"]["step"] == STEPS and state["trainer"]["micro_tokens"] == 300
    seen = []
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    words = ("--micro-tokens", "200", "--save-every", "7")
    here("train.py", "--resume", "--out", "whole", *words, cwd=unfinished.parent)
    assert 1 in seen


def test_validation_posts_are_those_that_the_run_began_with(unfinished, monkeypatch):
    """Whatever this version would choose: for a run that goes on, and for an audit of it."""
    path = unfinished / "run.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    monkeypatch.chdir(unfinished.parent)
    run = RunFolder.open("whole")
    before = prepared_of(run)[1]
    others = sorted([*before.validation[1:], before.train[3]], key=lambda post: post.row)
    told["rows"]["split"]["validation"] = [[post.id, post.language] for post in others]
    path.write_text(json.dumps(told), encoding="utf-8")
    after = prepared_of(RunFolder.open("whole"))[1]
    assert after.validation == others != before.validation
    assert len(after.rows) == len(before.rows) and before.train[3] not in after.train
    said = here("train.py", "--resume", "--out", "whole", cwd=unfinished.parent)
    assert "continuing after step" in said


def test_other_validation_posts_are_refused(unfinished):
    """As a version that splits otherwise would choose them."""
    path = unfinished / "run.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    told["rows"]["split"]["validation"][0][0] = "another post"
    path.write_text(json.dumps(told), encoding="utf-8")
    said = here("train.py", "--resume", "--out", "whole", cwd=unfinished.parent, code=2)
    assert "whole: began with other validation posts, and they cannot be told from run.json" in said
    told.pop("rows")
    path.write_text(json.dumps(told), encoding="utf-8")
    said = here("train.py", "--resume", "--out", "whole", cwd=unfinished.parent, code=2)
    assert "whole: began with other validation posts, and they cannot be told from run.json" in said


def test_what_may_change_the_last_bits_is_said(capsys, monkeypatch):
    """Deliberate break: in `finetune.resume.check_same_files` leave "processes" out, or "commit"."""
    for name in ("check_same_split", "check_base"):
        monkeypatch.setattr(f"finetune.resume.{name}", lambda *given, **more: None)
    here = {"device_name": "x", "dtype": "float32", "threads": 1, "packages": {}, "commit": "a"}
    for before, now, says in (
            (here, {"processes": 1}, ""),
            (here, {"processes": 2}, "processes changed since this run began: the result will be as good, but not the"),
            (here | {"processes": 2}, {"processes": 2}, ""),
            (here, {"processes": 1, "commit": "b"},
             "the project's commit changed since this run began: the result will be as good, but perhaps not")):
        facts = {"hashes": {"weights": {}, "data": {}}, "options": dict.fromkeys(PLACES)}
        run = SimpleNamespace(path=Path("run"), facts=facts | {"environment": before})
        check_same_files(run, facts | {"environment": here | now}, Path("base"))
        said = capsys.readouterr().out.strip()
        assert said.startswith(says) and bool(said) == bool(says)


@pytest.mark.parametrize(("data", "says"), [({"b": "2", "a": "1"}, "which files, or their order"),
                                            ({"a": "1"}, "which files, or their order"), ({"a": "1", "c": "3"}, "c")])
def test_other_data_are_refused_with_what_differs(monkeypatch, data, says):
    monkeypatch.setattr("finetune.resume.check_base", lambda *given, **more: None)
    run = SimpleNamespace(path=Path("run"), facts={"hashes": {"weights": {}, "data": {"a": "1", "b": "2"}}})
    with pytest.raises(UserError, match=rf"^run: data \({says}\) changed since this run began"):
        check_same_files(run, {"hashes": {"weights": {}, "data": data}}, Path("base"))
