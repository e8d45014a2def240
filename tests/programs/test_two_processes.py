"""Two programs at one place: the second is refused in one line, what both count is counted, a dead one's place is free.

Deliberate break: leave `held.enter_context(run.held())` out of train.py, or the lock out of `RunFolder.note_scored`, or
let eval.py note its scoring before the report is written.
"""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

import classify
import eval as evaluation
import train
from common import files
from common.errors import UserError, run_program
from common.files import ROOT, sha256_file
from common.lock import LOCK, Owner
from finetune import run_folder
from finetune.run_folder import RunFolder
from inference.run import newest_run
from tests import PATIENCE
from tests.programs.hostile import QUICK, World, call, jsonl, listing, post_rows, refused

LONG = ["--batch-size", "4", "--rank", "2", "--max-steps", "3000", "--epochs", "500", "--save-every", "5"]


def program(*words, **more) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | more
    return subprocess.Popen([sys.executable, *map(str, words)], env=environment, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)


@pytest.fixture
def training(world: World, tmp_path):
    """A training that is past its first checkpoint, and goes on."""
    process = program(ROOT / "train.py", "--model", world.base, "--data", world.posts, "--out", "run", *LONG)
    log = tmp_path / "run" / "log.jsonl"
    while not (log.exists() and log.read_text().count("\n") > 5):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    yield process
    process.kill()
    process.communicate()


def test_a_run_that_is_trained_is_refused_and_a_killed_one_goes_on(world: World, tmp_path, training, monkeypatch):
    facts = (tmp_path / "run" / "run.json").read_bytes()
    assert json.loads((tmp_path / "run" / LOCK).read_text())["pid"] == training.pid
    ended = call(train.main, "--resume", "--out", "run")
    assert ended.code == 2 and ended.err.count("\n") == 1, ended.err
    assert f"run: process {training.pid} has been writing here since" in ended.err and ended.out == ""
    again = call(train.main, "--model", world.base, "--data", world.posts, "--out", "run", *QUICK)
    assert again.code == 2 and "--resume continues it" in again.err
    assert training.poll() is None and (tmp_path / "run" / "run.json").read_bytes() == facts
    training.send_signal(signal.SIGKILL)
    training.communicate()
    assert (tmp_path / "run" / LOCK).exists()
    monkeypatch.setattr(train.Trainer, "step", lambda self: (_ for _ in ()).throw(UserError("far enough")))
    ended = call(train.main, "--resume", "--out", "run")
    assert f"run: taken over from process {training.pid}, which has ended" in ended.out
    assert "continuing after step" in ended.out and ended.err == "error: far enough\n"
    assert not (tmp_path / "run" / LOCK).exists()


def test_a_run_on_another_host_is_refused_with_the_way_out(world: World, tmp_path):
    run = world.copy(world.run, tmp_path)
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(facts | {"finished": False}))
    owner = {"pid": 12, "born": "1", "host": "node17", "since": "2026-05-01 10:22:07"}
    (run / LOCK).write_text(json.dumps(owner) + "\n")
    refused(train.main, "--resume", "--out", run, says=("process 12 on node17", f"remove {run / LOCK}"))
    (run / LOCK).unlink()
    assert call(train.main, "--resume", "--out", run).code == 0


def test_two_that_begin_in_one_folder(tmp_path):
    """Both found the folder free; the second finds it taken when it begins."""
    with RunFolder.create("run", {}) as run:
        for what in (run.held, lambda: RunFolder.create("run", {})):
            with pytest.raises(UserError, match=r"run: (process \d+ has been writing|is not empty)"), what():
                pass
    assert os.listdir("run") == ["run.json"]


def test_what_a_kill_left_does_not_stand_in_the_way(world: World, tmp_path):
    """A kill between the first lock and the first run.json: the same command works."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).write_text(json.dumps({"pid": 10**9, "born": "1", "host": Owner.me().host, "since": ""}))
    (tmp_path / "run" / ".run.json.12-1@elsewhere.partial").write_text("{")
    ended = call(train.main, "--model", world.base, "--data", world.posts, "--out", "run", *QUICK)
    assert ended.code == 0, ended.err
    assert ".run.json.12-1@elsewhere.partial: removed" in ended.out
    assert not [name for name in os.listdir("run") if name.startswith(".")]


COUNTING = """
import sys
from finetune import run_folder
from finetune.run_folder import RunFolder
from tests import PATIENCE
run_folder.PATIENCE = PATIENCE
run = RunFolder.open(sys.argv[1])
print("ready", flush=True)
input()
for number in range(20):
    run.note_scored({"data": sys.argv[2], "data_sha256": "x", "n": number})
"""


def test_scorings_at_the_same_time_are_all_counted(world: World, tmp_path):
    run = world.copy(world.run, tmp_path)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    children = [subprocess.Popen([sys.executable, "-c", COUNTING, run, str(n)], env=environment, text=True,
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE) for n in range(3)]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.stdin.write("\n")
        child.stdin.close()
    assert [child.wait(PATIENCE) for child in children] == [0] * 3
    assert RunFolder.open(run).times_scored("x") == 60
    for child in children:
        child.stdout.close()


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_without_the_tables_characters(world: World, tmp_path, encoding):
    run = world.copy(world.run, tmp_path)
    words = ("--run", run, "--data", world.test, "--out", "e", "--draws", "20")
    out, err = program(ROOT / "eval.py", *words, PYTHONIOENCODING=encoding).communicate()
    assert err == b"" and b"report: " in out and (tmp_path / "e" / "report.html").exists()
    assert [entry["n"] for entry in RunFolder.open(run).facts["scored"]] == [24]


def test_a_scoring_counts_when_its_report_stands(world: World, tmp_path, monkeypatch):
    run = world.copy(world.run, tmp_path)
    words = ("--run", run, "--data", world.test, "--out", "e", "--draws", "20")
    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "write_page", lambda *args, **kwargs: (_ for _ in ()).throw(OSError(28, "No space")))
        ended = call(evaluation.main, *words)
    assert ended.code == 2 and ended.err.count("\n") == 1 and "e: could not be written whole (No space)" in ended.err
    assert RunFolder.open(run).facts["scored"] == [] and not (tmp_path / "e").exists()

    class Full(io.StringIO):
        def write(self, text):
            if "Macro-F1" in text:
                raise OSError(28, "No space left on device")
            return super().write(text)

    err = io.StringIO()
    with contextlib.redirect_stdout(Full()), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as end:
        run_program(evaluation.main, [str(word) for word in words])
    assert end.value.code == 2 and err.getvalue() == "error: the output: No space left on device; make room\n"
    assert RunFolder.open(run).times_scored(sha256_file(world.test)) == 1 and (tmp_path / "e" / "report.html").exists()
    ended = call(evaluation.main, *words)
    assert ended.code == 0 and "was scored 2 times with this run" in " ".join(ended.out.split())
    assert "was scored 2 times with this run" in (tmp_path / "e" / "report.html").read_text(encoding="utf-8")


def test_a_run_that_cannot_be_written_is_told_before_anything_is_scored(world: World, tmp_path, monkeypatch):
    run = world.copy(world.run, tmp_path)
    monkeypatch.setattr(files.os, "access", lambda path, mode: "run" not in Path(path).parts[-1:])
    refused(evaluation.main, "--run", run, "--data", world.test, "--out", "e", says=("--run", "is not writable"))


def test_an_evaluation_that_was_moved_aside_is_put_back_by_the_next_call(world: World, tmp_path):
    run = world.copy(world.run, tmp_path)
    words = ("--run", run, "--data", world.test, "--draws", "20")
    assert call(evaluation.main, *words).code == 0
    out = run / "eval-test"
    before = listing(out)
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    aside = f".eval-test.{dead.pid}-1@{Owner.me().host}"
    out.rename(run / f"{aside}.old")
    shutil.copytree(world.base, run / f"{aside}.partial")
    ended = call(evaluation.main, "--run", run, "--data", "none.jsonl")  # another one, and it fails; and yet
    assert ended.code == 2 and f"{out}: put back as it was" in ended.out and listing(out) == before
    assert not list(run.rglob("*.partial")) and not list(run.rglob("*.old"))


def begun_at(name: str, created: str, **more) -> Path:
    """A finished run in runs/ that was begun at some time; what the project ships, otherwise."""
    facts = json.loads((ROOT / "base" / "run" / "run.json").read_text(encoding="utf-8"))
    folder = Path("runs") / name
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(facts | {"created": created} | more), encoding="utf-8")
    return folder


def test_the_newest_run_is_the_one_that_began_last(capsys):
    """10:30 in Istanbul was before 08:00 in London, and text says otherwise."""
    begun_at("istanbul", "2026-05-01T10:30:00+0300")
    london = begun_at("london", "2026-05-01T08:00:00+0000")
    assert newest_run() == london
    denver = begun_at("denver", "2026-05-01T01:00:01-0700")
    assert newest_run() == denver
    begun_at("unfinished", "2027-01-01T00:00:00+0000", finished=False)
    begun_at(".half.12-1@elsewhere.partial", "2027-01-01T00:00:00+0000")  # a copy that a kill left
    begun_at("strange", "yesterday")
    assert newest_run() == denver
    assert "skipped: runs/strange/run.json: created: 'yesterday' is no date and time" in capsys.readouterr().out
    here = datetime.now(timezone(timedelta(hours=14))).replace(tzinfo=None)  # written without a zone: this machine's
    assert newest_run() == denver
    plain = begun_at("plain", (here + timedelta(days=2)).isoformat())
    assert newest_run() == plain


def test_other_programs_use_a_run_that_another_has_locked(world: World, tmp_path, monkeypatch):
    """Labelling only reads a run; scoring waits its turn to count."""
    run = world.copy(world.run, tmp_path)
    monkeypatch.setattr(run_folder, "PATIENCE", 0)
    posts = jsonl(tmp_path / "posts.jsonl", post_rows(count=2))
    with RunFolder.open(run).held():
        assert call(classify.main, "--run", run, "--input", posts, "--output", "a.csv").code == 0
        ended = call(evaluation.main, "--run", run, "--data", world.test, "--out", "e", "--draws", "20")
    assert ended.code == 2 and f"process {os.getpid()} has been writing here since" in ended.err
