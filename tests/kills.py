"""Something that happens at the n-th thing that a process does to a file: a kill, or a disk that is full; and processes
that are cheap to start anew.

The functions of `os` that change the file system are counted, opening a file to write, writes into one, and the
swap of two folders. What happens, happens ahead of the n-th of them; within a write, behind the first half of it.
"""

import builtins
import contextlib
import errno
import io
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator

import pytest

from common import leftovers
from common.files import ROOT

CHANGES = ("replace", "rename", "unlink", "rmdir", "mkdir", "fsync")
NEEDS_ROOM = ("replace", "rename", "fsync")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def no_room() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Counted:
    """A file whose first, second, fourth, eighth ... write is counted (JSON has thousands); all else is its own."""

    def __init__(self, handle, count: Callable[..., None]):
        self._handle, self._count, self._writes = handle, count, 0

    def write(self, data):
        def half():
            self._handle.write(data[: len(data) // 2])
            self._handle.flush()

        self._writes += 1
        if self._writes.bit_count() == 1:
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


@contextlib.contextmanager
def at_operation(number: int, happens: Callable[[], None], functions=CHANGES, under: str = "") -> Iterator[list[int]]:
    """Let `happens` happen at the `number`-th operation in the block; gives a list whose only item counts them.

    under: count opening files whose path begins so, and writing into them; other files are let alone.
    """
    done = [0]

    def count(first=lambda: None) -> None:
        done[0] += 1
        if done[0] == number:
            first()
            happens()

    def counted(function):
        def call(*args, **kwargs):
            count()
            return function(*args, **kwargs)

        return call

    opened = io.open

    def open_counted(file, mode="r", *args, **kwargs):
        if set(mode).isdisjoint("wax+") or isinstance(file, int) or not os.path.abspath(file).startswith(under):
            return opened(file, mode, *args, **kwargs)
        count()
        return Counted(opened(file, mode, *args, **kwargs), count)

    kept = {name: getattr(os, name) for name in functions}
    exchange = leftovers.exchange
    try:
        for name in functions:
            setattr(os, name, counted(kept[name]))
        leftovers.exchange = counted(exchange)
        builtins.open = io.open = open_counted
        yield done
    finally:
        builtins.open = io.open = opened
        leftovers.exchange = exchange
        for name in functions:
            setattr(os, name, kept[name])


def killed_at(number: int, work: Callable[[], None]) -> bool:
    """Do `work` in a forked process that kills itself at its `number`-th operation; False where it did fewer."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            with at_operation(number, die), contextlib.redirect_stdout(io.StringIO()):
                work()
            status = 0
        finally:
            os._exit(status)
    ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert ended in (0, -signal.SIGKILL), ended
    return ended != 0


@contextlib.contextmanager
def forked(leg: Callable[..., None], *modules: str) -> Iterator[Callable[..., multiprocessing.Process]]:
    """start(folder, *words) -> a running process that calls `leg(str(folder), *words)`, forked from one that has
    imported `modules` and leg's own, so that it costs no import."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        pytest.skip("this system cannot fork processes")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*modules, "report.page", "torch._dynamo", "pytest", leg.__module__])

    def start(folder, *words):
        process = context.Process(target=leg, args=(str(folder), *words))
        process.start()
        return process

    with pytest.MonkeyPatch.context() as patch:  # the server imports by itself, with no sys.path of ours
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield start
