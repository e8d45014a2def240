"""What Windows refuses: a library without a name, and names that change while a program has their file open.

Deliberate break: in common/leftovers.py let `_swap` ask for a library on every system, or let `patiently` give up at
once, or never. In data/growing.py let `__exit__` remove the rows of a file that could not be put in its place.
"""

import ast
import ctypes
import errno
import os

import pytest

from common import errors, leftovers, terminal
from common.errors import UserError
from common.files import ROOT, atomic_folder, atomic_write, check_place
from data.growing import GrowingFile, partial_files
from tests.test_layout import FILES


@pytest.fixture
def windows(monkeypatch):
    """Windows, as far as files are renamed there: a dict of name -> how often a rename onto it is refused."""
    refused, real = {}, {name: getattr(os, name) for name in ("rename", "replace")}

    def nameless(name, *arguments, **words):
        raise TypeError("argument of type 'NoneType' is not iterable")

    def renaming(how):
        def rename(one, other):
            name = os.path.basename(other)
            if refused.get(name, 0) > 0:
                refused[name] -= 1
                raise PermissionError(13, "Access is denied", str(one), 5, str(other))
            real[how](one, other)
        return rename

    leftovers._swap.cache_clear()
    monkeypatch.setattr(leftovers.sys, "platform", "win32")
    monkeypatch.setattr(ctypes, "CDLL", nameless)
    for how in real:
        monkeypatch.setattr(os, how, renaming(how))
    yield refused
    leftovers._swap.cache_clear()


def write_folder(folder, text: str) -> None:
    with atomic_folder(folder) as beside, atomic_write(beside / "a") as handle:
        handle.write(text)


def test_a_folder_takes_the_place_of_another(tmp_path, windows):
    for text in ("old", "new"):
        write_folder(tmp_path / "out", text)
        assert (tmp_path / "out" / "a").read_text(encoding="utf-8") == text and os.listdir(tmp_path) == ["out"]


def test_a_file_that_a_scanner_has_open_for_a_moment_is_waited_for(tmp_path, windows):
    windows |= {"a": 3, "out": 3, "b.csv": 3, "c.csv.gz": 3}
    write_folder(tmp_path / "out", "text")
    for name in ("b.csv", "c.csv.gz"):
        with GrowingFile(tmp_path / name, {}) as file:
            file.add([{"id": "1"}])
    assert sorted(os.listdir(tmp_path)) == ["b.csv", "c.csv.gz", "out"] and not any(windows.values())


def test_one_that_stays_open_is_told_and_nothing_is_left(tmp_path, windows, monkeypatch):
    monkeypatch.setattr(leftovers, "PATIENCE", 0.1)
    windows["a"] = 10**9
    with pytest.raises(UserError, match=r"a: could not be written whole \(Access is denied\); nothing was left"), \
            atomic_write(tmp_path / "a") as handle:
        handle.write("text")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["b.csv", "c.csv.gz"])
def test_rows_whose_place_a_spreadsheet_has_open_are_kept(tmp_path, windows, monkeypatch, name):
    monkeypatch.setattr(leftovers, "PATIENCE", 0.1)
    path = tmp_path / name
    windows[name] = 10**9
    with pytest.raises(UserError, match=r"close it where it is open, or let it be replaced, and run .* --resume"), \
            GrowingFile(path, {}) as file:
        file.add([{"id": "1"}])
    assert sorted(os.listdir(tmp_path)) == sorted(one.name for one in partial_files(path))
    windows.clear()
    with GrowingFile(path, {}, resume=True) as file:
        assert file.counts["rows"] == 1
    assert os.listdir(tmp_path) == [name]


def test_a_place_that_a_spreadsheet_has_open_is_told_before_the_work(tmp_path, windows, monkeypatch):
    monkeypatch.setattr(leftovers, "PATIENCE", 0.1)
    write_folder(tmp_path / "out", "text")
    for place in (tmp_path / "out", tmp_path / "out" / "a"):
        check_place(place, "--out")
        windows["a"] = 10**9
        with pytest.raises(UserError, match=r"--out .*out.*: another program has a open; close it there"):
            check_place(place, "--out")
        windows.clear()


@pytest.mark.parametrize(("word", "quoted"), [
    ("runs\\mine", "runs\\mine"), ("C:\\Jürgen Müller\\mine", '"C:\\Jürgen Müller\\mine"'), ("it's", '"it\'s"'),
    ("it's $5", "'it''s $5'"), ("a,b", '"a,b"'), ("@posts", '"@posts"')])
def test_a_command_is_quoted_as_powershell_takes_it(windows, word, quoted):
    assert terminal.command("eval.py", word) == f"{terminal.this_python()} eval.py {quoted}"


def test_text_has_one_encoding_and_the_same_line_ends_everywhere():
    """What is not said is cp1252 there, and two signs at the end of a line. Benchmarks are for Linux."""
    found = set()
    for path in FILES:
        place = path.relative_to(ROOT)
        if place.parts[0] not in ("tests", "benchmarks"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            found |= {(place.as_posix(), word) for call in ast.walk(tree) if isinstance(call, ast.Call)
                      for word in unsaid(call)}
    assert found == {("finetune/team.py", "newline")}  # of os.devnull


def unsaid(call: ast.Call) -> set[str]:
    """What a call that opens a file as text leaves to the system."""
    name, modes = ast.unparse(call.func), []
    if name == "open":
        given = ast.walk(call.args[1]) if call.args[1:] else [ast.Constant("r")]
        modes = [each.value for each in given if isinstance(each, ast.Constant)]
    elif name.endswith((".read_text", ".write_text")):
        modes = "w" if "write" in name else "r"
    words = {"encoding", *(["newline"] if set("wax") & set("".join(modes)) else [])}
    return words - {word.arg for word in call.keywords} if any("b" not in mode for mode in modes) else set()


def test_a_pipe_that_nobody_reads_any_more_is_no_defect(windows, monkeypatch):
    muted = []
    monkeypatch.setattr(errors, "_mute_stdout", lambda: muted.append(True))

    def main(argv):
        raise OSError(errno.EINVAL, "Invalid argument")

    with pytest.raises(SystemExit) as ended:
        errors.run_program(main, [])
    assert ended.value.code == 141 and muted


def test_elsewhere_a_refusal_is_one(tmp_path, windows, monkeypatch):
    monkeypatch.setattr(leftovers.sys, "platform", "linux")
    windows["a"] = 1
    with pytest.raises(UserError, match="Access is denied"), atomic_write(tmp_path / "a") as handle:
        handle.write("text")
