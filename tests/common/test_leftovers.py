"""Files and folders that are killed, fail, or meet each other while they are written: the old or the new, and no rest.

Deliberate break: in common/leftovers.py let `put_folder` remove `path` before it renames `new`, or `clear` remove a
`.old` without putting it back, or not ask if its owner is gone; in common/files.py let `atomic_write` forget Ctrl-C.
"""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common import leftovers, lock
from common.errors import UserError
from common.files import ROOT, atomic_folder, atomic_write, check_place, making, scratch_folder
from common.leftovers import clear, clear_below, holds_nothing, remove
from common.lock import Owner
from tests.kills import killed_at

HOST = Owner.me().host
no_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork processes")


@pytest.fixture(params=["swap in one step", "two renames"])
def way(request, monkeypatch):
    """Both ways to put a folder in the place of another."""
    if request.param == "two renames":
        monkeypatch.setattr(leftovers, "exchange", lambda one, other: False)
    elif leftovers._swap() is None:
        pytest.skip("this system cannot swap two names in one step")
    return request.param


@pytest.fixture
def dead() -> str:
    """The name of a process of this host that has ended."""
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    return f"{child.pid}-1@{HOST}"


def write_both(folder: Path, text: str) -> None:
    with atomic_folder(folder) as beside:
        with atomic_write(beside / "a") as handle:
            handle.write(text)
        (beside / "inner").mkdir()
        with atomic_write(beside / "inner" / "b") as handle:
            handle.write(text)


def read_both(folder: Path) -> tuple[str, str]:
    return (folder / "a").read_text(), (folder / "inner" / "b").read_text()


@no_fork
@pytest.mark.parametrize("before", [True, False])
def test_a_folder_killed_at_every_step(tmp_path, way, before, capsys):
    """After each kill: the old or the new (in two renames: once it was asked for), and after the next call no rest."""
    seen, number = set(), 0
    while True:
        number += 1
        place = tmp_path / str(number)
        place.mkdir()
        if before:
            write_both(place / "out", "old")
        if not killed_at(number, lambda place=place: write_both(place / "out", "new")):
            break
        if way != "two renames":
            assert not before or read_both(place / "out") in {("old", "old"), ("new", "new")}
        check_place(place / "out", "--out")
        said = capsys.readouterr().out
        there = read_both(place / "out") if (place / "out").exists() else None
        assert there in ({("old", "old"), ("new", "new")} if before else {None, ("new", "new")})
        assert sorted(os.listdir(place)) == (["out"] if there else [])
        seen.add((there and there[0], *(word for word in ("removed", "put back") if word in said)))
        write_both(place / "out", "newer")
        assert read_both(place / "out") == ("newer", "newer") and os.listdir(place) == ["out"]
    first = "old" if before else None
    expected = {(first,), (first, "removed"), ("new",)} | ({("new", "removed")} if before else set())
    assert seen == expected | ({("old", "removed", "put back")} if before and way == "two renames" else set())


@no_fork
def test_an_old_folder_that_was_moved_aside_is_put_back(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(leftovers, "exchange", lambda one, other: False)
    write_both(tmp_path / "out", "old")
    number, away = 0, 0
    while killed_at(number := number + 1, lambda: write_both(tmp_path / "out", "old")):
        if not (tmp_path / "out").exists():
            away += 1
            check_place(tmp_path / "out", "--out")
            assert "out: put back as it was" in capsys.readouterr().out
        assert read_both(tmp_path / "out") == ("old", "old")
    assert away == 1


@no_fork
def test_a_file_killed_at_every_step(tmp_path):
    path, number = tmp_path / "a.txt", 0

    def write(text: str) -> None:
        with atomic_write(path) as handle:
            handle.write(text)

    write("old")
    while killed_at(number := number + 1, lambda: write("new")):
        assert path.read_text() in ("old", "new")
        write("old")
        assert os.listdir(tmp_path) == ["a.txt"]
    assert number > 5 and path.read_text() == "new"


@pytest.mark.parametrize("step", [1, 2])
def test_a_rename_that_fails_puts_the_old_folder_back(tmp_path, monkeypatch, step):
    write_both(tmp_path / "out", "old")
    monkeypatch.setattr(leftovers, "exchange", lambda one, other: False)
    rename, calls = os.rename, []

    def failing(one, other):
        calls.append(one)
        if len(calls) == step:
            raise OSError(errno.EIO, "Input/output error")
        rename(one, other)

    monkeypatch.setattr(leftovers.os, "rename", failing)
    with pytest.raises(UserError, match=r"out: could not be written whole .Input/output error.; nothing was left"):
        write_both(tmp_path / "out", "new")
    assert read_both(tmp_path / "out") == ("old", "old") and os.listdir(tmp_path) == ["out"]


def test_what_a_living_process_writes_is_left_alone(tmp_path, dead, capsys):
    me = Owner.me()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        born = lock.born(child.pid)
        living = f"{child.pid}-{born}@{HOST}"
        kept = [f".out.{living}.partial", f".out.{living}.old", f".out.{me}.partial", ".out.12-1@elsewhere.partial",
                ".out.12-1@elsewhere.old", ".out.partial", ".out.done.partial", ".other.txt"]
        gone = [f".out.{dead}.partial", f".a.b.{dead}.partial", f".out.{child.pid}-0{born}@{HOST}.partial"]
        for name in [*kept, *gone]:
            (tmp_path / name).mkdir()
        clear(tmp_path, "out")
        assert set(os.listdir(tmp_path)) == {*kept, gone[1]}  # of another file: not asked for
        clear(tmp_path)
        assert set(os.listdir(tmp_path)) == set(kept)
        assert capsys.readouterr().out.count("removed; a program that was stopped had left it") == 3
        clear(tmp_path, locked=True)  # the living one's folder, too, is put back: whoever asks holds the lock
        assert set(os.listdir(tmp_path)) == {"out", f".out.{me}.partial", ".out.partial", ".out.done.partial",
                                             ".other.txt"}
    finally:
        child.communicate(b"\n")


def test_two_names_that_are_cut_to_fit(tmp_path, dead):
    """A name as long as a file system takes leaves no room for a process: a hash stands in its place."""
    name = "ü" * 120
    write_both(tmp_path / name, "old")
    assert os.listdir(tmp_path) == [name]
    aside = leftovers.beside(tmp_path / name, leftovers.OLD)
    os.rename(tmp_path / name, aside.with_name(aside.name.replace(str(Owner.me()), dead)))
    clear(tmp_path)
    assert os.listdir(tmp_path) != [name]  # a hash does not say of which folder it is
    clear(tmp_path, name)
    assert read_both(tmp_path / name) == ("old", "old") and os.listdir(tmp_path) == [name]


def test_a_link_is_replaced_and_what_it_names_stays(tmp_path, way):
    write_both(tmp_path / "elsewhere", "kept")
    (tmp_path / "out").symlink_to("elsewhere")
    write_both(tmp_path / "out", "new")
    assert read_both(tmp_path / "elsewhere") == ("kept", "kept") and read_both(tmp_path / "out") == ("new", "new")
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "out"] and not (tmp_path / "out").is_symlink()


def test_an_error_leaves_the_old_and_no_rest(tmp_path, way):
    write_both(tmp_path / "out", "old")
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "out") as beside:
        (beside / "a").write_text("new")
        raise RuntimeError
    assert read_both(tmp_path / "out") == ("old", "old") and os.listdir(tmp_path) == ["out"]


class Interrupted:
    """A file whose n-th write is interrupted by Ctrl-C."""

    def __init__(self, handle, number: int):
        self.handle, self.left = handle, number

    def write(self, piece) -> int:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt
        return self.handle.write(piece)

    def flush(self) -> None:
        self.handle.flush()


def test_ctrl_c_while_a_checkpoint_is_written_stays_ctrl_c(tmp_path):
    path, number = tmp_path / "state.pt", 0
    while not path.exists():  # until no write is left to be interrupted
        number += 1
        try:
            with atomic_write(path, "wb") as handle:
                torch.save({"a": torch.zeros(1000)}, Interrupted(handle, number))
        except KeyboardInterrupt:
            assert list(tmp_path.iterdir()) == [] and number < 1000
    assert number > 10


@pytest.mark.parametrize("kind", ["file", "folder", "new folder"])
def test_ctrl_c_at_every_line(tmp_path, kind):
    """Nothing half-written stays, whichever line of common/ is interrupted on the way."""
    def write():
        if kind == "file":
            with atomic_write(tmp_path / "out") as handle:
                handle.write("new")
        elif kind == "folder":
            with atomic_folder(tmp_path / "out") as folder:
                (folder / "a").write_text("new")
        else:
            with making(tmp_path / "out"):
                pass

    moment, is_through = 0, False
    while not is_through:
        moment += 1
        is_through = interrupted_at(moment, write)
        left = sorted(path.name for path in tmp_path.iterdir())
        assert left in ([], ["out"]) and moment < 1000
        if left:
            remove(tmp_path / "out")
    assert moment > 10


def interrupted_at(moment: int, work) -> bool:
    """Run `work()` with a KeyboardInterrupt at the n-th line of common/; whether it ended before that."""
    seen = 0

    def trace(frame, event, argument):
        nonlocal seen
        if not frame.f_code.co_filename.startswith(str(ROOT / "common")):
            return None
        seen += event == "line"
        if seen == moment and event == "line":
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
        return True
    except KeyboardInterrupt:
        return False
    finally:
        sys.settrace(before)


def test_folders_for_a_while(tmp_path, dead):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / f".work.{dead}.partial").mkdir()
    with scratch_folder(tmp_path / "a" / "work") as folder:
        (folder / "big").write_text("x")
        assert os.listdir(tmp_path / "a") == [folder.name]
    assert os.listdir(tmp_path / "a") == []
    with making(tmp_path / "b" / "c"):
        pass
    with making(tmp_path / "d" / "e"):
        (tmp_path / "d" / "kept").write_text("x")
    with making(tmp_path / "a"):  # it was there before
        pass
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["a", "d", "d/kept"]


def test_nothing_but_leftovers_is_nothing(tmp_path, dead):
    for name in (".lock", f".run.json.{dead}.partial", f".adapter.{dead}.old"):
        (tmp_path / name).write_text("x")
    assert holds_nothing(tmp_path)
    (tmp_path / ".mine").write_text("x")
    assert not holds_nothing(tmp_path)


def test_everything_below_a_folder(tmp_path, dead):
    for place in ("a/b", "a/.git"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / f".x.{dead}.partial").write_text("half")
    clear_below(tmp_path)
    assert [path.name for path in tmp_path.rglob("*.partial")] == [f".x.{dead}.partial"]  # .git is not ours


def test_the_working_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (".", tmp_path):
        with pytest.raises(UserError, match=r"--out .*: is the working folder itself"):
            check_place(name, "--out")
