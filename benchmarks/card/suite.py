"""The tests that have something to say on a card, run there: kernels, attention, and the walks that need no card."""

import importlib.util
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

from benchmarks.card.state import State

ROOT = Path(__file__).resolve().parents[2]
FILES = ("tests/kernels/cases.py", "tests/kernels", "tests/cuda", "tests/model/test_varlen.py",
         "tests/lora/test_on_card.py", "tests/inference/test_labeller.py")
# It runs the cases in a process of its own; here each is named.
ALL_CASES = "tests/kernels/test_kernels.py::test_on_this_card_they_give_what_the_plain_versions_give"


def run(state: State) -> None:
    """Run them until the time is over; those that fail are named as they come, so that none is lost."""
    if importlib.util.find_spec("pytest") is None:
        state.note("left out", "pytest is not installed")
        return
    command = [sys.executable, "-u", "-m", "pytest", "-p", "no:cacheprovider", "-v", "--tb=line",
               "--deselect", ALL_CASES, *FILES]
    if importlib.util.find_spec("xdist") is not None:
        command += ["-n", str(min(8, os.cpu_count() or 1))]
    counts = {"PASSED": 0, "FAILED": 0, "ERROR": 0, "SKIPPED": 0}
    # Processes of pytest-xdist have its standard error, which goes to the log, and would keep a pipe open.
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        over = threading.Timer(max(0.0, state.left - 3), child.kill)  # also of a test that hangs and says nothing
        over.start()
        for line in child.stdout:
            if found := outcome(line):
                name, what = found
                counts[what] += 1
                if what in ("FAILED", "ERROR"):
                    state.note(name, False)
            elif re.match(r"(E |/).*(Error|assert)", line):
                state.note("  why", line.strip()[:300])
        over.cancel()
    if child.returncode < 0:
        state.note("stopped before its end", f"{sum(counts.values())} tests were made")
    for what, count in counts.items():
        state.note(what.lower(), float(count))


def outcome(line: str) -> tuple[str, str] | None:
    """A test's name, whose parameters may have spaces, and how it ended, from a line of `pytest -v`, of one process or
    of several; else `None`."""
    if found := re.match(r"(tests/.+?) (PASSED|FAILED|ERROR|SKIPPED)\b", line):
        return found[1], found[2]
    found = re.match(r"\[gw\d+\] \[ *\d+%\] (PASSED|FAILED|ERROR|SKIPPED) (tests/.+)", line)
    return (found[2].strip(), found[1]) if found else None
