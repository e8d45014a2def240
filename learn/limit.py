"""A limit of time for what others wrote: a loop that never ends must not hang whoever judges it.

Linux and macOS interrupt the main thread after a time (`setitimer`). Where nothing can interrupt it (Windows, another
thread), there is no limit, and `can_limit` says so: whoever judges then prints what is being called.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SECONDS = 20.0  # for all trials of one function; the slowest solution takes a small part of a second


class OutOfTime(BaseException):
    """The time is over. It is no `Exception`, so that an answer's `except Exception` does not stop it."""


def can_limit() -> bool:
    """Whether `at_most` limits anything here."""
    return hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise `OutOfTime` in what runs inside if it takes longer than so many seconds."""
    if not can_limit():
        yield
        return

    def interrupt(number, frame):
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
