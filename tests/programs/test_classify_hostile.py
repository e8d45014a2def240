"""Inputs that change while they are labelled, and cells that a spreadsheet would compute.

Deliberate break that turns this red: in classify.py, leave `notes.have_changed()` out of `label`.
"""

import os
import shutil
from pathlib import Path

import pytest

import classify
from tests.programs.hostile import World, call, jsonl, post_rows, refused

CHANGES = {
    "written to": lambda path: path.write_bytes(path.read_bytes().replace(b"cat", b"dog")),
    "replaced by the same": lambda path: (shutil.copy(path, "copy"), os.replace("copy", path)),
    "removed": lambda path: path.unlink(),
    "cut": lambda path: os.truncate(path, path.stat().st_size - 1),
    "grown": lambda path: path.open("ab").write(b"\n"),
    "touched": lambda path: os.utime(path, (1, 1)),
}


@pytest.mark.parametrize("case", CHANGES)
def test_an_input_that_changes_while_it_is_labelled(case, world: World, monkeypatch):
    path = Path(shutil.copy(world.test, "posts.jsonl"))
    label, changed = classify.Labeller.label, []

    def label_and_change(*words):
        for window in label(*words):
            if not changed:
                changed.append(CHANGES[case](path))
            yield window

    monkeypatch.setattr(classify.Labeller, "label", label_and_change)
    ended = call(classify.main, "--run", world.run, "--input", path, "--output", "labels.csv")
    assert ended.code == 2 and ended.err.startswith("error: posts.jsonl: has changed"), ended.err
    assert changed and not Path("labels.csv").exists() and not list(Path().glob(".*partial"))
    monkeypatch.undo()


def test_an_input_that_stays_is_labelled(world: World):
    assert call(classify.main, "--run", world.run, "--input", world.test, "--output", "labels.csv").code == 0


def test_safe_cells(world: World):
    rows = [row | {"id": start + row["id"]} for row in post_rows(count=4) for start in "=+-@a"]
    posts = jsonl(Path("posts.jsonl"), rows)
    for words, mark in (([], ""), (["--safe-cells"], "'")):
        ended = call(classify.main, "--run", world.run, "--input", posts, "--output", "l.tsv", "--overwrite", *words)
        assert ended.code == 0, ended.err
        ids = [line.partition("\t")[0] for line in Path("l.tsv").read_text().splitlines()[1:]]
        assert ids == [("" if row["id"][0] == "a" else mark) + row["id"] for row in rows]
    words = ("--run", world.run, "--input", posts, "--output", "l.jsonl", "--safe-cells")
    refused(classify.main, *words, says=("--safe-cells", "l.jsonl"))
    refused(classify.main, "--run", world.run, "--text", "a", "--safe-cells", says=("--text", "--safe-cells"))
    assert "--[no-]safe-cells" in call(classify.main, "--help").out
