"""A scheduler's warning: SIGTERM and SIGUSR1 end a labelling behind the window in hand, to be continued.

The exit status is then 75 (`common.errors.UNFINISHED`), which a job script can answer with a new submission.
"""

import signal
import threading

from common.errors import ToBeContinued

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))


class Stop:
    """Takes the two signals inside a `with` block; `check` raises where one has come."""

    def __init__(self):
        self._asked: str | None = None
        self._before: dict = {}

    def __enter__(self) -> "Stop":
        self._before = self.take()
        return self

    def take(self) -> dict:
        """Take the signals, also where a library has put handlers of its own there since; returns those."""
        if threading.current_thread() is not threading.main_thread():  # others may not
            return {}
        return {number: signal.signal(number, self._ask) for number in SIGNALS}

    def __exit__(self, *error) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame) -> None:
        self._asked = signal.Signals(number).name

    @property
    def is_asked(self) -> bool:
        return self._asked is not None

    def check(self, kept: str = "nothing was begun") -> None:
        """Raise `ToBeContinued` if the program was asked to end; `kept` says what there is."""
        if self._asked is not None:
            raise ToBeContinued(f"{self._asked}: {kept}; to be continued: the same command with --resume goes on")
