"""classify.py within a pipe: what stands on standard output are the labels, all or none, and nothing else.

Deliberate breaks: in bulk/piped.py leave `redirect_stdout` out, pass the labels on within the block, or let
`ToBeContinued` through. Cases below turn red.
"""

import gzip
import io
import json
import os
import signal
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest

import classify
from common.errors import run_program
from common.files import ROOT
from inference import labeller
from tests.programs.hostile import World, call, jsonl, post_rows, refused, words


def piped(world: World, *more, content: bytes = b"") -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, ROOT / "classify.py", *words(world, "--output", "-", *more)], input=content,
                          capture_output=True, env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})


def test_standard_output_has_the_file_and_nothing_else(world: World, tmp_path):
    posts = jsonl(tmp_path / "posts.jsonl", post_rows(count=5))
    assert call(classify.main, *words(world, "--input", posts, "--output", "file.jsonl")).code == 0
    ended = piped(world, "--input", "-", content=posts.read_bytes())
    assert ended.returncode == 0 and ended.stdout == Path("file.jsonl").read_bytes(), ended.stderr.decode()
    said = ended.stderr.decode()
    assert "  posts kept" in said and said.endswith("labels: standard output\n") and "labels-" not in said, said
    assert call(classify.main, *words(world, "--input", posts, "--output", "file.csv")).code == 0
    ended = piped(world, "--input", posts, "--format", "csv.gz")
    assert gzip.decompress(ended.stdout) == Path("file.csv").read_bytes(), ended.stderr.decode()
    named = tmp_path / "red\x1b[31m.jsonl"
    named.write_bytes(posts.read_bytes())
    ended = piped(world, "--input", named)
    assert ended.stdout == Path("file.jsonl").read_bytes() and b"\x1b" not in ended.stderr
    named.unlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.csv", "file.jsonl", "posts.jsonl"]


def test_what_stands_beside_does_not_name_a_file_that_is_gone(world: World, tmp_path):
    posts = jsonl(tmp_path / "posts.jsonl", post_rows(count=5))
    ended = piped(world, "--input", posts, "--progress-json", "far.json", "--report", "page.html")
    assert ended.returncode == 0, ended.stderr.decode()
    assert json.loads(Path("far.json").read_text())["file"] == "standard output"
    page = Path("page.html").read_text(encoding="utf-8")
    assert "--labels LABELS --coded" in page and "labels-" not in page


class Notebook(io.StringIO):
    """A stream that has no bytes, as ipykernel's."""


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_terminal_and_a_notebook_are_shown_the_labels(world: World, tmp_path, monkeypatch, is_terminal):
    posts = jsonl(tmp_path / "posts.jsonl", [row | {"id": f"\x1b[2J{row['id']}"} for row in post_rows(count=2)])
    monkeypatch.setattr(Notebook, "isatty", lambda self: is_terminal)
    with redirect_stdout(Notebook()) as shown:
        run_program(classify.main, words(world, "--input", posts, "--output", "-", "--format", "csv"))
        with pytest.raises(SystemExit):
            run_program(classify.main, words(world, "--input", posts, "--output", "-", "--format", "csv.gz"))
    first, *rows = shown.getvalue().splitlines()
    assert first.startswith("id,language,predicted") and [row.partition(",")[0] for row in rows] == [
        f"\\x1b[2J{row['id']}" for row in post_rows(count=2)]


def test_what_is_wrong_leaves_standard_output_empty(world: World, tmp_path):
    ended = piped(world, "--input", "-", content=b'text\n"a\n')
    assert (ended.returncode, ended.stdout) == (2, b"")
    last = ended.stderr.decode().splitlines()[-1]
    assert last.startswith("error: standard input: row 2: a quote"), last


def test_options_of_a_file_that_stays_are_refused(world: World, tmp_path):
    for name in "ab":
        jsonl(tmp_path / f"{name}.jsonl", post_rows(count=2))
    for more, says in ((["--resume"], "--output - and --resume"), (["--overwrite"], "--output - and --overwrite"),
                       (["--shard", "1/2"], "--output - and --shard")):
        refused(classify.main, *words(world, "--output", "-", "--input", "a.jsonl", *more), says=says)
    ended = call(classify.main, *words(world, "--output", "-", "--input", "a.jsonl", "b.jsonl"))
    assert (ended.code, ended.out) == (2, "") and "takes the labels of one file" in ended.err.splitlines()[-1]


@pytest.mark.parametrize("how", ["SIGTERM", "ctrl-c"])
def test_stopped_it_passes_nothing_on(world: World, tmp_path, monkeypatch, how):
    jsonl(tmp_path / "a.jsonl", post_rows(count=6))
    label = labeller.Labeller.label

    def stopped(self, posts):
        for window in label(self, posts):
            if how == "ctrl-c":
                raise KeyboardInterrupt
            os.kill(os.getpid(), signal.SIGTERM)
            yield window

    monkeypatch.setattr(labeller.Labeller, "label", stopped)
    ended = call(classify.main, *words(world, "--output", "-", "--input", "a.jsonl"))
    assert (ended.code, ended.out) == ((130, "") if how == "ctrl-c" else (2, "")) and "are kept" not in ended.err
    assert how == "ctrl-c" or "error: --output -: was asked to end" in ended.err
