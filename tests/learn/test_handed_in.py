"""What people hand in: files that Python cannot read, loops that never end, lines that print, names of all kinds.

Deliberate break: in `learn/__main__.py` let `check` raise `Unreadable` on, or `state_of` leave stdout as it is; in
`learn/limit.py` leave `setitimer` out.
"""

import builtins
import contextlib
import re
import signal
import threading

import pytest

from common.errors import UserError
from learn import __main__ as program
from learn import limit
from learn.check import verdicts
from learn.contents import CHAPTERS, LEARN, Chapter, find_chapter
from tests.learn.commands import command, line_on, solution, written

LOOP = "def pack(codes):\n    while True:\n        codes = codes + 1\n"


@pytest.mark.parametrize(("text", "words"), [
    ("def quantize(:\n", "Python cannot read line 2: invalid syntax"),
    ("import nothing_of_this_name\n", "stops with ModuleNotFoundError: No module named 'nothing_of_this_name' (line"),
    ("raise SystemExit(0)\n", "stops with SystemExit: 0 (line 2 of anna.py), before any function is called"),
    ("# größe\n".encode("utf-16"), "is not plain text in UTF-8; it looks like UTF-16"),
    ("# größe\n".encode("utf-16-le"), "is not plain text in UTF-8; it looks like UTF-16"),
    ("x = 1\ny = 'größe'\n".encode("latin-1"), "Python cannot read line 2: "),
])
def test_a_file_that_cannot_be_read_is_not_yet(text, words, tmp_path):
    path = written(tmp_path, text)
    status, out, err = command("check", 6, "--file", path)
    assert (status, err) == (1, "") and out.splitlines()[0] == "chapter 6: NF4 by hand"
    assert len(out.splitlines()) == 2 and out.splitlines()[1].startswith(f"  {path}: not yet: {words}"), out
    assert "None" not in out


def test_a_dataclass_in_an_answer_finds_its_module(tmp_path):
    lines = ["from dataclasses import dataclass", "@dataclass", "class Block:", "    x: 'int'"]
    functions = solution(6).read_text().split('"""', 2)[2]  # behind the file's docstring
    status, out, _ = command("check", 6, "--file", written(tmp_path, "\n".join(lines) + functions))
    assert status == 0 and "All right" in out, out


def test_a_missing_file_is_an_error(tmp_path):
    status, out, err = command("check", 6, "--file", tmp_path / "none.py")
    assert status == 2 and err == f"error: {tmp_path / 'none.py'}: is not there\n" and "not yet" not in out
    with pytest.raises(UserError, match=r"chapter 12: there is none; the chapters are"):
        find_chapter(12)


def test_the_loop_of_the_course_leaves_a_line_in_every_report(tmp_path):
    """As TEACHING has it: stdout alone goes into a file."""
    assert '> "$file.txt"' in (LEARN / "TEACHING.md").read_text(encoding="utf-8")
    texts = {"right": solution(6).read_text(), "broken": "def pack(:\n", "empty": "", "loud": "print('hello')\n"}
    for name, text in texts.items():
        status, out, _ = command("check", 6, "--file", written(tmp_path, text, f"{name}.py"))
        assert status == (0 if name == "right" else 1) and out.count("\n") >= 2


@pytest.mark.skipif(not limit.can_limit(), reason="nothing can interrupt Python here")
def test_a_loop_that_never_ends_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(limit, "SECONDS", 0.2)
    monkeypatch.setattr(signal, "ITIMER_REAL", signal.ITIMER_VIRTUAL)  # what this process computes counts: on a busy
    monkeypatch.setattr(signal, "SIGALRM", signal.SIGVTALRM)  # machine reading the file may take as long as the limit
    line = line_on(6, "pack", tmp_path, LOOP)
    assert re.fullmatch(r"pack: not yet: it is still running after 0.2 seconds, trial 1 of 3, pack\(tensor\(\[1, 2, 15,"
                        r" 0\]\)\) \(line [34] of anna.py\); is there a loop that never ends\?", line), line
    assert line_on(6, "pack", tmp_path, LOOP.replace("        codes", "        try:\n            codes")
                   + "        except Exception:\n            pass\n").startswith("pack: not yet: it is still running")
    status, out, _ = command("check", 6, "--file", written(tmp_path, "while True:\n    pass\n"))
    assert status == 1 and "Python has not come to the file's end after 0.2 seconds (line" in out


@pytest.mark.skipif(not limit.can_limit(), reason="nothing can interrupt Python here")
def test_the_limit_ends_with_the_call():
    before = signal.getsignal(signal.SIGALRM)
    with limit.at_most(1000):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0) and signal.getsignal(signal.SIGALRM) is before
    with pytest.raises(limit.OutOfTime), limit.at_most(0.05):
        while True:
            pass
    assert limit.SECONDS >= 20


def test_without_a_limit_the_name_is_printed_before_the_call(tmp_path, monkeypatch):
    monkeypatch.setattr(limit, "can_limit", lambda: False)
    _, out, _ = command("check", 6, "--file", solution(6))
    lines = out.splitlines()
    assert lines[1:3] == ["  (quantize is being called, without a limit of time)", "  quantize: right"]
    found = []
    thread = threading.Thread(target=lambda: found.extend(verdicts(find_chapter(6), solution(6))))
    thread.start()
    thread.join()
    assert len(found) == 3


def test_the_title_stands_there_before_anything_is_called(tmp_path):
    _, out, _ = command("check", 6, "--file", written(tmp_path, "print('at import')\n"))
    assert out.splitlines()[:2] == ["chapter 6: NF4 by hand", "at import"]


def test_what_answers_print_does_not_land_in_the_list(tmp_path, monkeypatch):
    text = "print('noise')\ndef pack(codes):\n    print('noise')\n    return codes\n"
    path = written(tmp_path, text)
    monkeypatch.setattr(Chapter, "exercise", property(lambda chapter: path if chapter.number == 6 else
                                                      LEARN / "exercises" / f"chapter_{chapter.number}.py"))
    status, out, _ = command()
    assert status == 0 and "noise" not in out
    states = re.findall(r"^  \d  .{46} (.*)$", out, re.MULTILINE)
    assert states == ["begun" if chapter.number == 6 else "not begun" for chapter in CHAPTERS]
    path.write_text("def pack(:\n")
    assert program.state_of(find_chapter(6)) == "begun"


def test_a_file_in_another_folder_has_its_line_named(tmp_path):
    text = "def inner(codes):\n    return codes / nothing\n\ndef pack(codes):\n    return inner(codes)\n"
    with contextlib.chdir(tmp_path):
        assert "(line 3 of anna.py)" in line_on(6, "pack", tmp_path, text)
        written(tmp_path, text)
        assert "(line 3 of anna.py)" in command("check", 6, "--file", "anna.py")[1]
    assert "name 'nothing' is not defined (line 3 of anna.py); trial 1 of 3, pack(tensor([1, 2, 15, 0]))" in line_on(
        6, "pack", tmp_path, text)


def test_a_verdict_is_one_line(tmp_path):
    line = line_on(6, "pack", tmp_path, "def pack(codes):\n    raise ValueError('a\\nb' + 'x' * 2000)\n")
    assert r"ValueError: a\nb" in line and len(line) < 500


def test_a_notebook_gets_the_verdict_and_no_status(monkeypatch):
    monkeypatch.setattr(builtins, "__IPYTHON__", True, raising=False)
    status, out, _ = command("check", 6)
    assert status == 0 and "Nothing is written yet" in out
