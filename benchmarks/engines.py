"""Rows a second by engine and number of workers, beside the plain loop over the same posts in memory.

    python -m benchmarks.engines --count 6000 --turns 3 --json engines.json

The plain loop is `Labeller.label` alone: nothing is read, no repeat is looked for, nothing is written. Beside it
classify.py labels the same posts from a csv, by itself and by workers of Ray (extra `scale`), one thread each. All take
turns. A rate is that after the first window, so that neither starting Python nor starting a cluster is in it; what a
start takes stands in a column of its own.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.beside import made
from bulk.check import READING
from bulk.opened import OpenOptions, ready
from common.errors import UserError, run_program
from common.files import check_file, find_path, write_json
from common.options import option, parse_options
from common.terminal import table
from data.readers import iter_posts
from inference.labeller import Labeller
from inference.run import finished_run

TOO_FEW = "--count: all posts were in the first window; give more"
PLAIN, PROGRAM = "plain loop over Labeller.label, posts in memory", "classify.py"


@dataclass
class EnginesOptions:
    """Options of this program."""

    run: str = option("base/run", "a finished run on a CPU", metavar="DIR")
    posts: str = option("data/samples/test.jsonl", "posts, taken over and over, each with a number behind it",
                        metavar="FILE")
    count: int = option(6000, "posts that each side labels", minimum=2000)
    workers: list[str] = option(("1", "2"), "numbers of Ray's workers", metavar="1,2")
    turns: int = option(3, "turns of every side, of which the median is shown", minimum=1)
    json: str | None = option(None, "everything measured, as JSON", metavar="FILE")


def plain(run: str, path: Path) -> tuple[float, float]:
    """Rows a second behind the first window, and the seconds until that was there."""
    began = time.monotonic()
    model, prompt = ready(finished_run(run), OpenOptions(device="cpu", dtype="float32", threads=1), [])
    posts = list(iter_posts([path], **READING))
    return rate(began, ((time.monotonic(), len(window.posts)) for window in Labeller(model, prompt).label(posts)))


def rate(began: float, windows: Iterator[tuple[float, int]]) -> tuple[float, float]:
    """Of the times at which windows of so many rows were there: rows a second behind the first, and that one's time
    since `began`: `rate(0, iter([(2, 5), (4, 10), (6, 10)])) -> (5.0, 2)`."""
    first, _ = next(windows)
    last, rows = first, 0
    for last, more in windows:  # noqa: B007
        rows += more
    if not rows:
        raise UserError(TOO_FEW)
    return rows / (last - first), first - began


def program(words: list[str], folder: Path) -> tuple[float, float]:
    """The same for classify.py, from what it says for dashboards."""
    state, began = folder / "progress.json", time.monotonic()
    state.unlink(missing_ok=True)
    first = None
    command = [sys.executable, "classify.py", *words, "--progress-json", str(state)]
    with (folder / "said.txt").open("w+") as said, subprocess.Popen(command, stdout=said, stderr=said) as child:
        while child.poll() is None:
            time.sleep(0.05)
            if first is None:
                with suppress(FileNotFoundError):
                    first = json.loads(state.read_text()), time.monotonic() - began
        if child.returncode:
            said.seek(0)
            raise UserError(f"classify.py {' '.join(words)}: ended with status {child.returncode}: {said.read()}")
    last = json.loads(state.read_text())
    if first is None or first[0]["done"] == last["done"]:
        raise UserError(TOO_FEW)
    return (last["done"] - first[0]["done"]) / (last["seconds"] - first[0]["seconds"]), first[1]


def main(argv: list[str]) -> None:
    """Make the posts, take turns, print the table."""
    options = parse_options(EnginesOptions, argv, program="python -m benchmarks.engines", description=__doc__)
    check_file(options.json, "--json")
    found: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        path = made(find_path(options.posts), options.count, folder)
        words = ["--run", options.run, "--input", str(path), "--output", str(folder / "labels.csv"), "--overwrite",
                 "--threads", "1", "--device", "cpu", "--dtype", "float32"]
        sides = {PROGRAM: words} | {f"--engine ray, {count} worker{'s' * (count != '1')}":
                                    [*words, "--engine", "ray", "--workers", count] for count in options.workers}
        for turn in range(options.turns):
            found.setdefault(PLAIN, []).append(plain(options.run, path))
            for name, chosen in sides.items():
                found.setdefault(name, []).append(program(chosen, folder))
            print(f"turn {turn + 1} of {options.turns}: " + ", ".join(f"{found[name][-1][0]:,.0f}" for name in found),
                  flush=True)
    reference = statistics.median(per_second for per_second, _ in found[PLAIN])
    rows = []
    for name, values in found.items():
        rates = sorted(per_second for per_second, _ in values)
        middle, start = (statistics.median(column) for column in zip(*values, strict=True))
        rows.append([name, f"{middle:,.0f}", f"{rates[0]:,.0f} to {rates[-1]:,.0f}",
                     f"{100 * (reference / middle - 1):+.1f} %", f"{start:.1f}"])
    print(table(["engine", "rows a second", "from, to", "time beside the plain loop", "start, s"], rows))
    if options.json:
        write_json(options.json, {"schema": 1, "count": options.count, "rows a second, seconds to the first": found})


if __name__ == "__main__":
    run_program(main)
