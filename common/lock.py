"""One writer at a time: who holds a folder, and whether the process that is named somewhere still lives.

    runs/mine/.lock     a line of JSON for its owner: process id, when that process began, host, since when it holds

The lock itself is the system's (flock; on Windows msvcrt) on that file: it goes with its process, however that ends, so
what a dead owner left is taken over. The line is for people, for network file systems whose locks stay on one machine,
and for file systems without locks. There, on the same host, an owner is dead when no process has its id, or the one
that has it began at another time; of another host nothing can be known, and the user is told which file to remove.
"""

import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from common.errors import UserError
from common.reading import open_to_write

LOCK = ".lock"
FAR = 1 << 30  # the byte that Windows locks: it keeps others from reading what it locks, so it lies behind the text


@dataclass(frozen=True)
class Owner:
    """A process, so that it can be told from a later one of the same id: `born` is its start as the system tells it."""

    pid: int
    born: str
    host: str

    @staticmethod
    def me() -> "Owner":
        """This process."""
        return _me(os.getpid())

    @staticmethod
    def parse(token: str) -> "Owner | None":
        """The process that `str(owner)` names; `None` where `token` is no such text."""
        found = re.fullmatch(r"(\d{1,18})-(\w*)@([\w-]+)", token, re.ASCII)
        return Owner(int(found[1]), found[2], found[3]) if found else None

    def __str__(self) -> str:
        """`"4711-88345@node17"`, which may be part of a file's name."""
        return f"{self.pid}-{self.born}@{self.host}"

    @property
    def is_elsewhere(self) -> bool:
        """Whether it runs, or ran, on another host: nothing can be known of it from here."""
        return self.host != Owner.me().host

    @property
    def is_gone(self) -> bool:
        """Whether it is known to have ended."""
        if self.is_elsewhere:
            return False
        now = born(self.pid)
        return now is None or bool(self.born and now and now != self.born)


@cache
def _me(pid: int) -> Owner:
    host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:24] or "host"
    return Owner(pid, born(pid) or "", host)


def born(pid: int) -> str | None:
    """When a process of this host began, in letters and digits; "" where that cannot be told, `None`: there is none."""
    if os.name == "nt":
        return "" if _lives_on_windows(pid) else None
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except PermissionError:
        pass  # it lives, and is another user's
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return None if state in b"ZX" else rest[18].decode()  # the 22nd field: clock ticks since the machine started
    except (OSError, IndexError):  # macOS has no /proc
        return _born_by_ps(pid)


def _born_by_ps(pid: int) -> str:
    with suppress(OSError):
        told = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False,
                              env=os.environ | {"LC_ALL": "C", "TZ": "UTC"})
        return re.sub(r"[^A-Za-z0-9]", "", told.stdout)
    return ""


def _lives_on_windows(pid: int) -> bool:
    """os.kill would end the process there."""
    import ctypes

    query, still_active, code = 0x1000, 259, ctypes.c_ulong()
    kernel = ctypes.windll.kernel32
    handle = kernel.OpenProcess(query, False, pid)
    found = bool(handle) and bool(kernel.GetExitCodeProcess(handle, ctypes.byref(code)))
    if handle:
        kernel.CloseHandle(handle)
    return found and code.value == still_active


def lock_handle(handle) -> bool:
    """Lock an open, writable file for as long as it is open; False where the file system has no locks.

    Raises `BlockingIOError` where another process, or another handle of this one, has it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        os.lseek(handle.fileno(), FAR, os.SEEK_SET)
        try:
            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError(*error.args) from error
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def open_locked(path: Path, buffering: int = -1):
    """Open the file at `path`, made if it is not there, to append and to read: (handle, what `lock_handle` says).

    Raises `BlockingIOError` where another has locked it.
    """
    while True:
        handle = open_to_write(path, "a+b", buffering)  # open for as long as it is locked
        try:
            is_locked = lock_handle(handle)
        except BlockingIOError:
            handle.close()
            raise
        if not is_locked or is_at(handle, path):
            return handle, is_locked
        handle.close()


def is_at(handle, path: Path) -> bool:
    """Whether `path` still names the open file: its last owner may have removed it before it could be locked."""
    try:
        return os.path.samestat(os.fstat(handle.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


@contextmanager
def hold(folder: str | Path, wait: float = 0, name: str = LOCK) -> Iterator[None]:
    """Keep other processes out of an existing folder until the block ends; `name`: of the lock, where it is for a part
    of the folder only.

    Raises `UserError`, naming the process that is in it, if it is not free within `wait` seconds; and where `folder`
    cannot be written.
    """
    path = Path(folder) / name
    give_up = time.monotonic() + wait
    while True:
        try:
            handle = _take(path)
            break
        except _Held as held:
            if time.monotonic() >= give_up:
                raise UserError(f"{folder}: {held}") from held
        except OSError as error:
            raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another place") from error
        time.sleep(0.05)
    try:
        yield
    finally:
        with suppress(OSError):  # Windows removes no open file; elsewhere it goes before another can lock it
            path.unlink()
        handle.close()
        if os.name == "nt":
            with suppress(OSError):
                path.unlink()


class _Held(Exception):
    """Somebody has the lock; the text says who, and what to do."""


def _take(path: Path):
    """The open lock file, with this process as its owner. Raises `_Held`, and `OSError` where it cannot be written."""
    try:
        handle, is_locked = open_locked(path, buffering=0)
    except BlockingIOError as error:
        lines = []
        with suppress(FileNotFoundError), open(path, "rb") as other:  # it may have been let go of since
            lines = _lines(other)
        raise _Held(_in_the_way(lines, path)) from error
    try:
        lines = _lines(handle)
        # Where the system locks, whoever is named here from this host has ended, or the file would be locked.
        others = [line for line in lines if (line[0].is_elsewhere if is_locked else not line[0].is_gone)]
        if others:
            raise _Held(_in_the_way(others, path))
        if lines:
            print(f"{path.parent.resolve()}: taken over from process {lines[0][0].pid}, which has ended")
        if is_locked:
            handle.truncate(0)
        me = Owner.me()
        facts = asdict(me) | {"since": time.strftime("%Y-%m-%d %H:%M:%S")}
        handle.write(b"\n" * (not is_locked) + json.dumps(facts).encode() + b"\n")  # a line before may be torn
        # Without locks two may have written: the first of those that live has it.
        first = next(line for line in _lines(handle) if not line[0].is_gone)
        if first[0] != me:
            raise _Held(_in_the_way([first], path))
        return handle
    except BaseException as error:
        if isinstance(error, OSError):  # no room for the line: an empty file is of no use to anybody
            with suppress(OSError):
                path.unlink()
        handle.close()
        raise


def _lines(handle) -> list[tuple[Owner, str]]:
    """The owners that a lock file names and since when; what was torn or is no owner is left out."""
    handle.seek(0)
    found = []
    for line in handle.read(1 << 16).split(b"\n")[:-1]:
        with suppress(ValueError, TypeError, KeyError):
            facts = json.loads(line)
            found.append((Owner(int(facts["pid"]), str(facts["born"]), str(facts["host"])), str(facts["since"])))
    return found


def _in_the_way(lines: list[tuple[Owner, str]], path: Path) -> str:
    if not lines:
        return "another process is writing here; wait for its end"
    owner, since = lines[0]
    if owner.is_elsewhere:
        return (f"process {owner.pid} on {owner.host} has been writing here since {since}; wait for its end, or, if it "
                f"has ended already, remove {path}")
    return f"process {owner.pid} has been writing here since {since}; wait for its end, or stop it"
