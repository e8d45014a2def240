"""Links in the place of files that programs write where they lie: what they lead to stays as it is.

A run that a stranger made, or a folder that others may write to, can hold `.lock -> ../thesis.txt`. Deliberate break
that turns this red: in common/reading.py let `open_to_write` be `open`.
"""

import os

import pytest

import classify
import train
from common.errors import UserError
from common.files import atomic_write, scratch_folder
from common.leftovers import beside
from common.lock import LOCK, hold
from data.growing import GrowingFile
from tests.programs.hostile import call, in_an_empty_folder, refused, shared_world, world  # noqa: F401

MINE = "ten years of work"


@pytest.fixture
def mine(tmp_path):
    """A file that no program was asked to touch."""
    path = tmp_path / "mine.txt"
    path.write_text(MINE)
    yield path
    assert path.read_text() == MINE


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "theirs").mkdir()
    return tmp_path / "theirs"


def test_a_lock(folder, mine):
    (folder / LOCK).symlink_to(mine)
    with pytest.raises(UserError, match=r"theirs: cannot be written \(\.lock is a link"), hold(folder):
        pass


def test_a_lock_that_is_a_pipe(folder):
    os.mkfifo(folder / LOCK)
    with pytest.raises(UserError, match="is a pipe or a device"), hold(folder):
        pass


@pytest.mark.parametrize(("name", "kind"), [("labels.csv", "partial"), ("labels.csv", "done.partial"),
                                            ("labels.csv.gz", "whole.partial")])
def test_a_file_that_grows(folder, mine, name, kind):
    (folder / f".{name}.{kind}").symlink_to(mine)
    with pytest.raises(UserError, match="is a link"), GrowingFile(folder / name, {}) as file:
        file.add([{"a": "b"}])
    assert not (folder / name).exists()


def test_a_file_that_is_made_beside(folder, mine):
    """The name holds the process's id and its start, which every user of a machine can see."""
    beside(folder / "a.json").symlink_to(mine)
    with pytest.raises(UserError, match="is a link"), atomic_write(folder / "a.json") as handle:
        handle.write("{}")
    assert os.listdir(folder) == []


def test_a_folder_that_is_made_beside(folder, tmp_path):
    (tmp_path / "other").mkdir()
    beside(folder / "rows").symlink_to(tmp_path / "other")
    with scratch_folder(folder / "rows") as scratch:
        (scratch / "a").write_text("a")
        assert not list((tmp_path / "other").iterdir())


def test_programs_in_a_run_of_a_stranger(world, tmp_path, mine):  # noqa: F811
    run = world.copy(world.run, tmp_path)
    (run / LOCK).symlink_to(mine)
    (run / f".labels-{world.test.name}.partial").symlink_to(mine)
    refused(classify.main, "--run", run, "--input", world.test, says="is a link", under=run)
    facts = run / "run.json"
    facts.write_text(facts.read_text().replace('"finished": true', '"finished": false'))
    refused(train.main, "--resume", "--out", run, says=".lock is a link", under=run)
    (run / LOCK).unlink()
    (run / "log.jsonl").rename(tmp_path / "log.jsonl")
    (run / "log.jsonl").symlink_to(tmp_path / "log.jsonl")
    before = (tmp_path / "log.jsonl").read_bytes()
    assert call(train.main, "--resume", "--out", run).code == 0 and (tmp_path / "log.jsonl").read_bytes() == before
