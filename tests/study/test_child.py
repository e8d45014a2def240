"""The training of a study ends with it, on Windows as well, where nothing may wait in a read of standard input.

Deliberate break: in study/child.py read standard input on every system, or ask the pipe once. tests/study/
test_study_program.py kills a real study.
"""

import ctypes
import os
import sys
import time
from types import SimpleNamespace

import pytest

from study import child


def ended(monkeypatch) -> list:
    """What is done at the end, which is raised instead of done."""
    def end(status):
        raise SystemExit(status)

    said = []
    monkeypatch.setattr(os, "write", lambda number, words: said.append((number, words)))
    monkeypatch.setattr(os, "_exit", end)
    with pytest.raises(SystemExit, match="1"):
        child.watch()
    return said


def test_on_windows_the_pipe_is_asked_and_never_read(monkeypatch):
    asked, slept = [], []

    def peek(pipe, *rest):
        asked.append((pipe.value, *rest))
        return len(asked) < 4

    def reading(number, count):
        raise AssertionError("numpy would wait for this read")

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=SimpleNamespace(PeekNamedPipe=peek)), raising=False)
    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(get_osfhandle=lambda number: 700 + number))
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(os, "read", reading)
    assert ended(monkeypatch) == [(2, b"stopped: the study that began this training has ended\n")]
    assert asked == [(700, None, 0, None, None, None)] * 4 and slept == [1] * 3


def test_elsewhere_the_pipe_is_read_to_its_end(monkeypatch):
    pieces = [b"a", b"b", b""]
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(os, "read", lambda number, count: pieces.pop(0))
    assert len(ended(monkeypatch)) == 1 and not pieces
