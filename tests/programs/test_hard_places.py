"""A machine that gives little: no room, few open files, little memory, no home, a clone that nobody may write to.

Deliberate break: in common/files.py let `atomic_write` look at `OSError` alone (PyTorch's writer hides it), in
common/errors.py leave `ENOSPC` out of `WHAT_HELPS`, or in inference/run.py copy the shipped run with its modes.
"""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

import classify
import eval as evaluation
import train
from common.files import ROOT
from inference import run as inference_run
from tests.kills import NEEDS_ROOM, at_operation, no_room
from tests.programs.hostile import QUICK, World, call, jsonl, listing, post_rows
from tools import split

UNIX = pytest.mark.skipif(os.name == "nt", reason="limits, mounts and /dev are of Unix")
TRAIN = [*QUICK, "--validation", "0.2", "--eval-every", "1", "--save-every", "1"]
# All three programs in one process, as their users start them.
CHAIN = """
import os, resource, sys
files, memory, home = sys.argv[1:4]
if files: resource.setrlimit(resource.RLIMIT_NOFILE, (int(files), int(files)))
if memory: resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
if home: os.environ["HOME"] = home
else: os.environ.pop("HOME", None)
import train, eval, classify
from common.errors import run_program
run_program(train.main, ["--max-steps", "2", "--out", "runs/mine", "--threads", "1"])
run_program(eval.main, ["--draws", "20", "--threads", "1"])
run_program(classify.main, ["--threads", "1"])
"""


def process(*words, **options) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *map(str, words)], env=environment, stdout=options.pop("stdout", -1),
                          stderr=subprocess.PIPE, text=True, **options)


@UNIX
@pytest.mark.parametrize(("files", "memory", "home"), [
    ("32", "5000000000", "/dev/null"),  # of addresses; PyTorch alone takes four, with Python 3.13
    *(pytest.param(*case, marks=pytest.mark.slow) for case in (("32", "", "/"), ("", "5000000000", "/"), ("", "", ""))),
])
def test_few_files_little_memory_no_home_and_another_working_folder(tmp_path, files, memory, home):
    done = process("-c", CHAIN, files, memory, home)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert {"adapter", "eval-test", "labels-test.jsonl", "report.html"} <= set(os.listdir("runs/mine"))


@UNIX
def test_too_few_open_files_is_one_line(tmp_path):
    done = process("-c", CHAIN, "6", "", "/")
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "Too many open files" in done.stderr and not list(Path("runs").rglob(".*"))


@UNIX
@pytest.mark.slow
def test_a_checkpoint_larger_than_the_memory_that_is_allowed(world: World, tmp_path):
    """A file of holes that says three gigabytes of embeddings, in a process that may have four with PyTorch in it."""
    base = world.copy(world.base, tmp_path)
    config, tensors = json.loads((base / "config.json").read_text()), load_file(base / "model.safetensors")
    config["vocab_size"] = 3 * 10**9 // 4 // config["hidden_size"]  # more rows are refused, whatever the memory
    (base / "config.json").write_text(json.dumps(config))
    header, end = {}, 0
    for name, tensor in tensors.items():
        shape = [config["vocab_size"], *tensor.shape[1:]] if "embed_tokens" in name else [*tensor.shape]
        size = 4
        for length in shape:
            size *= length
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with open(base / "model.safetensors", "wb") as handle:
        handle.write(len(text).to_bytes(8, "little") + text)
        handle.truncate(8 + len(text) + end)
    limited = "import resource, sys\nresource.setrlimit(resource.RLIMIT_AS, (4 * 10**9, 4 * 10**9))\nimport train\n"
    done = process("-c", limited + "from common.errors import run_program\nrun_program(train.main)",
                   "--model", base, "--data", world.posts, "--out", "run", *QUICK)  # fmt: skip
    assert done.returncode == 2 and done.stderr.startswith("error: not enough memory") and done.stderr.count("\n") == 1
    assert not Path("run").exists()


@UNIX
@pytest.mark.parametrize("program", ["train.py", "classify.py"])
def test_an_output_that_is_full(world: World, program):
    words = {"train.py": ["--model", world.base, "--data", world.posts, "--out", "run", *QUICK],
             "classify.py": ["--run", world.run, "--input", world.test, "--output", "a.csv"]}[program]
    with open("/dev/full", "w") as full:
        done = process(ROOT / program, *words, stdout=full)
    assert (done.returncode, done.stderr) == (2, "error: the output: No space left on device; make room\n")
    assert not list(Path().rglob(".*.partial"))


@pytest.fixture
def mount(tmp_path):
    """mount(*words) -> a folder where something is mounted; skipped where this is not allowed."""
    mounted = []

    def at(*words) -> Path:
        folder = tmp_path / f"mounted{len(mounted)}"
        folder.mkdir()
        if os.name == "nt" or os.geteuid() or not shutil.which("mount"):
            pytest.skip("needs root to mount a file system")
        done = subprocess.run(["mount", *map(str, words), str(folder)], capture_output=True)
        if done.returncode:
            pytest.skip("this machine lets nobody mount a file system")
        mounted.append(folder)
        return folder

    yield at
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("room", [0, 8, 24, 64])
def test_a_disk_that_is_really_full(world: World, mount, room):
    """In kilobytes; then room is made, and the same command works."""
    disk = mount("-t", "tmpfs", "-o", "size=2m", "none")
    (disk / "filling").write_bytes(b"\0" * (2048 - room) * 1024)
    words = ("--model", world.base, "--data", world.posts, "--out", disk / "run", *TRAIN)
    ended = call(train.main, *words)
    assert ended.code == 2 and ended.err.count("\n") == 1 and "No space left on device" in ended.err, ended.err
    assert not list(disk.rglob(".*"))
    words = ("--resume", "--out", disk / "run") if (disk / "run").exists() else words
    (disk / "filling").unlink()
    ended = call(train.main, *words)
    assert ended.code == 0, ended.err
    (disk / "filling").write_bytes(b"\0" * (2048 * 1024 - 4096 - sum(
        -(path.stat().st_size // -4096) * 4096 for path in disk.rglob("*") if path.is_file())))
    before = listing(disk / "run")
    ended = call(evaluation.main, "--run", disk / "run", "--data", world.test, "--draws", "20")
    assert ended.code == 2 and "eval-test" in ended.err and ended.err.count("\n") == 1, ended.err
    assert listing(disk / "run") == before


def test_a_clone_that_nobody_may_write_to(mount, monkeypatch):
    clone = mount("--bind", ROOT)
    subprocess.run(["mount", "-o", "remount,ro,bind", str(clone)], check=True)
    done = process(clone / "eval.py", "--draws", "20")
    assert done.returncode == 0 and done.stderr == "" and Path("runs/shipped/eval-test/report.html").exists()
    for words, place in ((["train.py"], "--out runs/run"), (["classify.py"], "runs"),
                         (["-m", "study"], "--out studies/small")):
        done = process(*words, cwd=clone)
        assert done.returncode == 2 and done.stderr.count("\n") == 1  # whose copy of the shipped run may be there
        assert done.stderr.startswith("error: ") and place in done.stderr


def test_a_copy_of_the_shipped_run_may_be_written_to(tmp_path, monkeypatch):
    shipped = shutil.copytree(inference_run.SHIPPED_RUN, tmp_path / "shipped")
    for path in [*shipped.rglob("*"), shipped]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    monkeypatch.setattr(inference_run, "SHIPPED_RUN", shipped)
    run = inference_run.finished_run(None)
    assert all(path.stat().st_mode & 0o200 for path in [run.path, *run.path.rglob("*")])


def works(world: World) -> dict[str, tuple]:
    """Each program with its words, and what it leaves."""
    return {
        "train": (train.main, "--model", world.base, "--data", world.posts, "--out", "out", *TRAIN),
        "eval": (evaluation.main, "--run", "run", "--data", world.test, "--out", "out", "--draws", "5"),
        "classify": (classify.main, "--run", "run", "--input", world.test, "--output", "out"),
        "split": (split.main, "--data", world.posts, "--out", "out"),
    }


@pytest.mark.parametrize("program", ["train", "eval", "classify", "split"])
@pytest.mark.parametrize("tries", [4, pytest.param(40, marks=pytest.mark.slow)])
def test_no_room_at_any_moment(world: World, tmp_path, program, tries):
    """The disk fills ahead of, or within, the n-th operation: one line, no rest, and the same command works later."""
    run = world.copy(world.run, tmp_path)
    out = "out.csv" if program == "classify" else "out"
    main, *words = (out if word == "out" else word for word in works(world)[program])
    with at_operation(0, no_room, NEEDS_ROOM, str(tmp_path)) as count:
        assert call(main, *words).code == 0
    before = listing(world.run)
    for number in sorted(random.Random(tries).sample(range(1, count[0] + 1), min(tries, count[0]))):
        for place in (Path(out), run):
            shutil.rmtree(place) if place.is_dir() else place.unlink()
        world.copy(world.run, tmp_path)
        with at_operation(number, no_room, NEEDS_ROOM, str(tmp_path)) as done:
            ended = call(main, *words)
        assert done[0] >= number
        assert ended.code == 2 and ended.err.startswith("error: ") and ended.err.count("\n") == 1, (number, ended.err)
        assert "No space left on device" in ended.err, (number, ended.err)
        assert not [path for path in tmp_path.rglob(".*")], (number, list(tmp_path.rglob(".*")))
        again = words
        if program == "train" and Path(out).exists():
            again = ("--resume", "--out", out)
        elif program == "eval" and Path(out).exists():  # only its counting failed
            assert listing(run) == before
        ended = call(main, *again)
        assert ended.code == 0, (number, ended.err)


@UNIX
def test_posts_that_do_not_fit_on_the_disk(world: World, mount):
    disk = mount("-t", "tmpfs", "-o", "size=16k", "none")
    posts = jsonl(Path("many.jsonl"), post_rows(count=300))
    ended = call(classify.main, "--run", world.run, "--input", posts, "--output", disk / "a.csv")
    assert ended.code == 2 and "No space left on device" in ended.err and not list(disk.iterdir())
