"""Processes that are killed with SIGKILL at the n-th thing that they do to a file.

`die_at(n)` is for a process of one's own (a forked one, or a program's). The functions of `os` that change the file
system are counted, opening a file to write, each write into one, and the swap of two folders. A kill falls ahead of
the n-th operation; within a write, behind the first half of what was to be written.
"""

import builtins
import contextlib
import io
import os
import signal
from collections.abc import Callable

from common import leftovers

OPERATIONS = ("replace", "rename", "unlink", "rmdir", "mkdir", "fsync")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Dying:
    """A file that counts its writes; all else is the file's own."""

    def __init__(self, handle, count: Callable[..., None]):
        self._handle, self._count = handle, count

    def write(self, data):
        def half():
            self._handle.write(data[: len(data) // 2])
            self._handle.flush()

        self._count(half)
        return self._handle.write(data)

    def writelines(self, lines):
        for line in lines:
            self.write(line)

    def __enter__(self):
        self._handle.__enter__()
        return self

    def __exit__(self, *error):
        return self._handle.__exit__(*error)

    def __iter__(self):
        return iter(self._handle)

    def __getattr__(self, name):
        return getattr(self._handle, name)


def die_at(number: int, of=lambda path: True) -> Callable[[], int]:
    """Let this process kill itself at its `number`-th operation from now on; returns a function that counts them.

    of: whether a file that is opened to be written takes part.
    """
    done = 0

    def count(first=lambda: None) -> None:
        nonlocal done
        done += 1
        if done == number:
            first()
            die()

    def counted(function):
        def call(*args, **kwargs):
            count()
            return function(*args, **kwargs)

        return call

    for name in OPERATIONS:
        setattr(os, name, counted(getattr(os, name)))
    leftovers.exchange = counted(leftovers.exchange)
    opened = io.open

    def open_counted(file, mode="r", *args, **kwargs):
        if set(mode).isdisjoint("wax+") or isinstance(file, int) or not of(file):
            return opened(file, mode, *args, **kwargs)
        count()
        handle = opened(file, mode, *args, **kwargs)
        return Dying(handle, count)

    builtins.open = io.open = open_counted
    return lambda: done


def killed_at(number: int, work: Callable[[], None]) -> bool:
    """Do `work` in a forked process that kills itself at its `number`-th operation; False where it did fewer."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            die_at(number)
            with contextlib.redirect_stdout(io.StringIO()):
                work()
            status = 0
        finally:
            os._exit(status)
    ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert ended in (0, -signal.SIGKILL), ended
    return ended != 0
