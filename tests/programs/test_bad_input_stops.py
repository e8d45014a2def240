"""Programs that are stopped from outside: Ctrl-C, a reader that leaves, a disk that is full, a process of one's own.

Deliberate break that turns this red: in common/files.py, let `atomic_write` open `path` itself; an output that cannot
be written whole stays there in part. Or leave `_is_unread` out of common/errors.py.
"""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time

import pytest

import classify
import eval as evaluation
import train
from common.errors import run_program
from common.files import ROOT
from tests import PATIENCE
from tests.programs.hostile import (
    QUICK,
    World,
    call,
    listing,
    refused,
)
from tools import split


def start(*words, **options) -> subprocess.Popen:
    """A program as a user starts it, in the working folder of the test."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *(str(word) for word in words)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


@contextlib.contextmanager
def full_disk(size: int):
    """No file may grow beyond `size` bytes: what a full disk does to a writer, without one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_process_of_its_own_ends_as_one_in_the_tests(world: World, tmp_path):
    process = start(ROOT / "train.py", "--model", world.base, "--data", "none.csv", "--out", "run")
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2 and out == b"" and err == b"error: none.csv: there is no such file\n"
    assert listing(tmp_path) == {}


def test_ctrl_c_ends_without_a_traceback_and_the_run_goes_on(world: World, tmp_path):
    options = ["--batch-size", "4", "--rank", "2", "--max-steps", "3000", "--epochs", "500", "--save-every", "5"]
    process = start(ROOT / "train.py", "--model", world.base, "--data", world.posts, "--out", "run", *options)
    log = tmp_path / "run" / "log.jsonl"
    while not (log.exists() and log.read_text().count("\n") > 5):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 130 and b"Traceback" not in err, err.decode()[-3000:]
    assert err.endswith(b"--resume --out run\nstopped\n")
    assert not list((tmp_path / "run").rglob("*.partial"))
    assert not json.loads((tmp_path / "run" / "run.json").read_text())["finished"]
    refused(classify.main, "--run", "run", "--input", world.test, "--output", "a.csv", says=("run", "--resume"))
    refused(evaluation.main, "--run", "run", "--data", world.test, says=("stopped early", "--resume --out run"))
    refused(train.main, "--model", world.base, "--data", world.posts, "--out", "run", says=("--resume continues it",))


def test_ctrl_c_while_labelling_leaves_no_output(world: World, tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(classify.Labeller, "give", interrupted)
    ended = call(classify.main, "--run", world.run, "--input", world.test, "--output", "labels.csv")
    assert ended.code == 130 and ended.err == "stopped\n" and listing(tmp_path) == {}


def test_a_reader_that_leaves(world: World):
    process = start("-m", "tools.generate", "--model", world.base, "--prompt", "a", "--max-new-tokens", "400")
    process.stdout.read(1)
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(PATIENCE) == 141 and b"Traceback" not in err and b"Exception" not in err


def test_full_disk_while_labelling(world: World, tmp_path):
    with full_disk(500):
        refused(classify.main, "--run", world.run, "--input", world.test, "--output", "a.csv",
                says=("a.csv", "File too large", "nothing was left behind"))  # fmt: skip
    assert listing(tmp_path) == {}


def test_full_disk_while_scoring(world: World, tmp_path):
    run = world.copy(world.run, tmp_path)
    facts = (run / "run.json").read_bytes()
    with full_disk(len(facts) + 1000):
        ended = call(evaluation.main, "--run", run, "--data", world.test, "--out", "e")
    assert (run / "run.json").read_bytes() == facts  # what nobody could read was not scored
    assert ended.code == 2 and ended.err.count("\n") == 1 and "nothing was left behind" in ended.err
    assert not (tmp_path / "e").exists() and not list(tmp_path.rglob("*partial"))


@pytest.mark.parametrize("room", [2_000, 12_000, 20_000, 26_000])
def test_full_disk_while_training(world: World, tmp_path, room):
    """Whichever file fails first (run.json, the checkpoint, an adapter, the report): one line, and nothing torn."""
    with full_disk(room):
        ended = call(train.main, "--model", world.base, "--data", world.posts, "--out", "run", *QUICK)
    assert ended.code == 2 and ended.err.count("\n") == 1 and "Traceback" not in ended.err, ended.err
    assert "File too large" in ended.err and not list(tmp_path.rglob("*partial"))
    if (tmp_path / "run" / "run.json").exists():
        resumed = call(train.main, "--resume", "--out", "run")
        assert resumed.code == 0, resumed.err


def test_full_disk_while_splitting(world: World, tmp_path):
    with full_disk(300):
        refused(split.main, "--data", world.posts, "--out", "parts", says=("parts", "File too large"))
    assert listing(tmp_path) == {}


def test_memory_that_runs_out_is_one_line(capsys):
    def main(argv):
        raise MemoryError

    def defect(argv):
        raise RuntimeError("shapes differ")

    with pytest.raises(SystemExit) as ended:
        run_program(main, [])
    assert ended.value.code == 2 and capsys.readouterr().err.startswith("error: not enough memory")
    with pytest.raises(RuntimeError):
        run_program(defect, [])
