"""Labelling as a stream: what is checked first, what is written when, what a kill leaves and how it goes on.

Deliberate breaks: in data/growing.py let `add` write the journal before the rows, and leave out `_rows.truncate`; the
resumed file is no longer the file that was never stopped. In classify.py read the posts with `read_posts`: memory grows
with them.
"""

import gzip
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import classify
from bulk import opened
from common.errors import UserError
from common.files import ROOT
from data.growing import GrowingFile, partial_files
from data.writers import write_rows
from inference import labeller as predict
from tests.programs.hostile import (
    World,
    call,
    jsonl,
    listing,
    post_rows,
    refused,
)

FORMATS = ["labels.jsonl", "labels.csv", "labels.tsv", "labels.csv.gz"]


def words(world: World, posts: Path, output: str, *more) -> list[str]:
    return ["--run", str(world.run), "--input", str(posts), "--output", output, "--threads", "1", *more]


def many(path: Path, count: int) -> Path:
    """Posts of a few lengths, some without text."""
    rows = post_rows(count=count, languages=("en",))
    for number, row in enumerate(rows):
        row["text"] = " " if number % 11 == 5 else row["text"] + " word" * (number % 7)
    return jsonl(path, rows)


def stop_after(windows: int, error):
    """`Labeller.label` that raises `error` behind some windows."""
    whole = predict.Labeller.label

    def label(self, posts):
        for number, window in enumerate(whole(self, posts)):
            if number == windows:
                raise error
            yield window

    return label


@pytest.mark.parametrize("output", FORMATS)
def test_windows_make_one_file_and_a_resumed_one_has_the_same_bytes(world: World, tmp_path, monkeypatch, output):
    monkeypatch.setattr(predict, "WINDOW", 16)
    posts = many(tmp_path / "many.jsonl", 100)
    assert call(classify.main, *words(world, posts, f"whole-{output}")).code == 0
    with monkeypatch.context() as patch:
        patch.setattr(classify.Labeller, "label", stop_after(3, KeyboardInterrupt()))
        ended = call(classify.main, *words(world, posts, output, "--resume"))
    assert ended.code == 130 and ended.err == "48 rows are kept; the same command continues\nstopped\n"
    assert not Path(output).exists() and all(path.exists() for path in partial_files(output))
    with open(partial_files(output)[0], "ab") as handle:  # what a kill may leave of the next window
        handle.write(b"torn")
    with open(partial_files(output)[1], "ab") as handle:
        handle.write(b'{"counts": {"rows": 64')
    ended = call(classify.main, *words(world, posts, output, "--resume"))
    assert ended.code == 0, ended.err
    assert "48 rows were labelled before" in ended.out and "91 of 100 posts labelled" in ended.out
    assert Path(output).read_bytes() == Path(f"whole-{output}").read_bytes()
    assert not any(path.exists() for path in partial_files(output))
    opened = gzip.open if output.endswith(".gz") else open
    with opened(output, "rt", encoding="utf-8") as handle:
        lines = handle.read().splitlines()
    assert len(lines) == 100 + (".csv" in output or ".tsv" in output)
    monkeypatch.setattr(predict, "WINDOW", 1024)
    if output == "labels.jsonl":  # the window is no part of the result (on a CPU, bit for bit)
        assert call(classify.main, *words(world, posts, "wide.jsonl")).code == 0
        assert Path("wide.jsonl").read_bytes() == Path(output).read_bytes()


KILLED = """
import os, signal
import classify
from common.errors import run_program
from data.growing import GrowingFile
from inference import labeller as predict
predict.WINDOW, windows, add = 64, [], GrowingFile.add

def add_two(file, rows, **counts):
    add(file, rows, **counts)
    windows.append(rows)
    if len(windows) == 2:
        os.kill(os.getpid(), signal.SIGKILL)

GrowingFile.add = add_two
run_program(classify.main)
"""


def test_a_killed_labelling_goes_on(world: World, tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "WINDOW", 64)
    posts = many(tmp_path / "many.jsonl", 300)
    command = [sys.executable, "-c", KILLED, *words(world, posts, "labels.csv")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, env=environment, capture_output=True)
    rows, journal = partial_files("labels.csv")
    assert ended.returncode == -signal.SIGKILL and journal.read_bytes().count(b"\n") == 3, ended.stderr  # and made from
    assert not Path("labels.csv").exists() and rows.stat().st_size > 0
    refused(classify.main, *words(world, posts, "labels.csv"), says=("was stopped", "--resume", "--overwrite"))
    ended = call(classify.main, *words(world, posts, "labels.csv", "--resume"))
    assert ended.code == 0 and "were labelled before" in ended.out, ended.err
    assert call(classify.main, *words(world, posts, "whole.csv")).code == 0
    assert Path("labels.csv").read_bytes() == Path("whole.csv").read_bytes()


@pytest.fixture
def stopped(world: World, tmp_path, monkeypatch) -> Path:
    """Posts whose labelling was stopped behind its second window, and kept."""
    monkeypatch.setattr(predict, "WINDOW", 16)
    posts = many(tmp_path / "many.jsonl", 60)
    with monkeypatch.context() as patch:
        patch.setattr(classify.Labeller, "label", stop_after(2, UserError("no power")))
        assert call(classify.main, *words(world, posts, "a.csv", "--resume")).code == 2
    return posts


@pytest.mark.parametrize(("more", "says"), [
    (["--dtype", "float64"], "another dtype"), (["--with-texts"], "another --with-texts"),
    (["--label-column", "other"], "another --label-column"),
])  # fmt: skip
def test_other_options_do_not_go_on(world: World, stopped, more, says):
    refused(classify.main, *words(world, stopped, "a.csv", "--resume", *more), says=(says, "--overwrite"))


def test_another_input_run_or_partial_file_does_not_go_on(world: World, stopped, tmp_path):
    rows, journal = partial_files("a.csv")
    text, whole = stopped.read_text(), rows.read_bytes()
    stopped.write_text(text.replace("welcome", "Welcome", 1))
    refused(classify.main, *words(world, stopped, "a.csv", "--resume"), says="another input")
    stopped.write_text(text)
    run = world.copy(world.run, tmp_path)
    config = json.loads((run / "adapter" / "adapter_config.json").read_text())
    (run / "adapter" / "adapter_config.json").write_text(json.dumps(config, indent=7))
    refused(classify.main, *words(world, stopped, "a.csv", "--resume", "--run", run), says="another run")
    for damaged in (whole[:-1], whole.replace(b"en-", b"EN-", 1)):
        rows.write_bytes(damaged)
        refused(classify.main, *words(world, stopped, "a.csv", "--resume"), says="is not as it was left")
    rows.write_bytes(whole)
    kept = journal.read_bytes()
    journal.write_bytes(kept.replace(b'"bytes"', b'"b"'))
    refused(classify.main, *words(world, stopped, "a.csv", "--resume"), says="is damaged")
    journal.write_bytes(kept)
    refused(classify.main, *words(world, stopped, "a.csv"), says="--resume continues it")
    assert call(classify.main, *words(world, stopped, "a.csv", "--overwrite")).code == 0  # anew
    assert not journal.exists() and len(Path("a.csv").read_text().splitlines()) == 61


def test_ctrl_c_keeps_what_is_done_without_resume_as_well(world: World, tmp_path, monkeypatch):
    """Deliberate break: in data/growing.py let `__exit__` forget that it was Ctrl-C."""
    monkeypatch.setattr(predict, "WINDOW", 16)
    posts = many(tmp_path / "many.jsonl", 40)
    assert call(classify.main, *words(world, posts, "whole.csv")).code == 0
    with monkeypatch.context() as patch:
        patch.setattr(classify.Labeller, "label", stop_after(1, KeyboardInterrupt()))
        ended = call(classify.main, *words(world, posts, "a.csv"))
        piped = call(classify.main, *words(world, posts, "-"))
    assert ended.code == 130 and ended.err == "16 rows are kept; the same command with --resume continues\nstopped\n"
    assert piped.code == 130 and "are kept" not in piped.err  # a pipe has no file that could stay
    refused(classify.main, *words(world, posts, "a.csv"), says="--resume continues it, --overwrite")
    assert call(classify.main, *words(world, posts, "a.csv", "--resume")).code == 0
    assert Path("a.csv").read_bytes() == Path("whole.csv").read_bytes()


def test_labels_that_were_to_replace_others_go_on(world: World, tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "WINDOW", 16)
    posts = many(tmp_path / "many.jsonl", 40)
    Path("a.csv").write_text("old")
    with monkeypatch.context() as patch:
        patch.setattr(classify.Labeller, "label", stop_after(1, KeyboardInterrupt()))
        ended = call(classify.main, *words(world, posts, "a.csv", "--overwrite"))
    assert "the same command with --resume, without --overwrite, continues" in ended.err
    ended = call(classify.main, *words(world, posts, "a.csv", "--resume"))
    assert ended.code == 0 and "16 rows were labelled before" in ended.out, ended.err


@pytest.mark.parametrize(("error", "code", "windows", "more"), [
    (KeyboardInterrupt(), 130, 0, ["--resume"]), (KeyboardInterrupt(), 130, 0, []),
    (UserError("wrong"), 2, 0, ["--resume"]), (UserError("wrong"), 2, 1, [])])
def test_stopped_in_the_first_window_or_by_an_error_without_resume_nothing_is_left(
    world: World, tmp_path, monkeypatch, error, code, windows, more):
    monkeypatch.setattr(predict, "WINDOW", 16)
    monkeypatch.setattr(classify.Labeller, "label", stop_after(windows, error))
    assert call(classify.main, *words(world, world.test, "a.csv", *more)).code == code
    assert listing(tmp_path) == {}


def test_a_wrong_row_far_behind_is_told_before_anything_is_labelled(world: World, tmp_path, monkeypatch):
    posts = many(tmp_path / "many.jsonl", 300)
    with open(posts, "a") as handle:
        handle.write('{"text": 12}\n')
    monkeypatch.setattr(opened, "open_model", None)  # would be a TypeError
    refused(classify.main, *words(world, posts, "a.csv", "--max-bad-rows", "0"),
            says=("many.jsonl: row 301", "the text is a number"))


def test_an_input_that_changes_meanwhile(world: World, tmp_path, monkeypatch):
    posts = many(tmp_path / "many.jsonl", 40)
    open_model = opened.open_model

    def slowly(*args, **kwargs):
        with open(posts, "a") as handle:
            handle.write('{"text": "one more"}\n')
        return open_model(*args, **kwargs)

    monkeypatch.setattr(opened, "open_model", slowly)
    ended = call(classify.main, *words(world, posts, "a.csv"))
    assert ended.code == 2 and "has changed while it was being labelled" in ended.err and not Path("a.csv").exists()


def test_killed_between_the_renaming_and_the_journals_end(world: World, tmp_path, monkeypatch):
    """The labels are whole, and their journal is still there: --resume finds nothing left to do."""
    posts = many(tmp_path / "many.jsonl", 40)
    with monkeypatch.context() as patch:  # the journal stays, as a kill would leave it
        patch.setattr(Path, "unlink", lambda path, missing_ok=False: None)
        assert call(classify.main, *words(world, posts, "a.csv")).code == 0
    whole, journal = Path("a.csv").read_bytes(), partial_files("a.csv")[1].read_bytes()
    refused(classify.main, *words(world, posts, "a.csv"), says=("exists", "--overwrite"))
    refused(classify.main, *words(world, posts, "a.csv", "--resume", "--with-texts"), says="another --with-texts")
    assert Path("a.csv").read_bytes() == whole and partial_files("a.csv")[1].read_bytes() == journal
    ended = call(classify.main, *words(world, posts, "a.csv", "--resume"))
    assert ended.code == 0 and "40 rows were labelled before" in ended.out, ended.err
    assert Path("a.csv").read_bytes() == whole and not any(path.exists() for path in partial_files("a.csv"))
    partial_files("a.csv")[1].write_bytes(journal)
    Path("a.csv").unlink()  # a journal alone is no labelling that was stopped
    assert call(classify.main, *words(world, posts, "a.csv")).code == 0 and Path("a.csv").read_bytes() == whole


def test_two_programs_do_not_write_one_file(tmp_path):
    pytest.importorskip("fcntl", reason="locks are tested where fcntl is")
    with GrowingFile("a.jsonl", {}) as first:
        first.add([{"a": 1}])
        for resume in (False, True):
            with pytest.raises(UserError, match="another program is writing it"), GrowingFile("a.jsonl", {}, resume):
                pass
        first.add([{"a": 2}])
    write_rows("b.jsonl", [{"a": 1}, {"a": 2}])
    assert Path("a.jsonl").read_bytes() == Path("b.jsonl").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "b.jsonl"]


PEAK = """
import sys, threading
import classify
from inference import labeller as predict
predict.WINDOW = 128

def anonymous():
    with open("/proc/self/status") as handle:
        return next(int(line.split()[1]) * 1024 for line in handle if line.startswith("RssAnon"))

peak, done = 0, threading.Event()
def watch():
    global peak
    while not done.wait(0.005):
        peak = max(peak, anonymous())
thread = threading.Thread(target=watch)
thread.start()
try:
    classify.main(sys.argv[1:])
finally:
    done.set()
    thread.join()
print(peak)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="/proc is not there to read memory from")
def test_memory_does_not_grow_with_the_posts(world: World, tmp_path):
    """Three times the posts, each with a column of 2 kB, once windows read ahead and kernels have their memory."""
    peaks = []
    for count in (3000, 9000):
        rows = [row | {"long": f"{number:02000}"} for number, row in enumerate(post_rows(count=count // 2))]
        posts = jsonl(tmp_path / f"{count}.jsonl", rows)
        command = [sys.executable, "-c", PEAK, *words(world, posts, f"{count}.csv")]
        child = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path,
                               env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)})
        assert child.returncode == 0, child.stderr
        peaks.append(int(child.stdout.splitlines()[-1]))
    assert peaks[1] - peaks[0] < 12e6, peaks  # the allocator's own ups and downs
