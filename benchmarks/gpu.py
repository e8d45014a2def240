"""Prove and measure on a card, in one command of eight minutes: `python -m benchmarks.gpu`.

    python -m benchmarks.gpu --out DIR           all parts; DIR/gpu.json and DIR/gpu.html are rewritten after each
    python -m benchmarks.gpu --part correct      one part
    python -m benchmarks.gpu --rehearse          the same code with tiny shapes on a CPU, to see that it runs

What is checked: that the card computes what the CPU does, to the bit where nothing but the place differs; that nothing
waits for the card inside a step. What is measured: kernels, labelling and training at the size of Llama 3.2-3B on
random weights and rows as long as the paper's tweets, each beside the time of its matrix products alone, and the usual
stack in turns with ours. Each part has its own time limit and is kept when a later one fails. Needs PyTorch with CUDA;
Triton, transformers, peft and bitsandbytes take part where they are installed.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.card.page import shown, write_page
from benchmarks.card.parts import PARTS
from benchmarks.machine import check_system
from common.errors import UserError, closest, run_program
from common.files import check_place, making, read_json, write_json
from common.options import option, parse_options
from common.terminal import human_seconds, table

ROOT = Path(__file__).resolve().parents[1]
AROUND = 12.0  # seconds of all that no part gets: to import PyTorch here, to stop what runs too long, and for the page
START = 60.0  # seconds in which a process has to begin


@dataclass
class GpuOptions:
    """Options of this program."""

    out: str = option("runs/gpu", "folder of gpu.json and gpu.html", metavar="DIR")
    seconds: float = option(480.0, "for all parts together; each gets its share", above=AROUND)
    part: list[str] = option((), "these parts only (default: all)", metavar="NAME")
    rehearse: bool = option(False, "tiny shapes on a CPU: what the code does, not how fast it is")


class Worker:
    """The process that makes the parts; started again if it died or had to be stopped."""

    def __init__(self, out: Path, rehearse: bool):
        self.out, self.process = out, None
        write_json(out / "settings.json", {"out": str(out), "rehearse": rehearse})

    def begin(self, seconds: float = START) -> str:
        """Start the process and wait until it has imported what it needs; "" or what went wrong."""
        if self.process is not None and self.process.poll() is None:
            return ""
        self.stop()
        with open(self.out / "log.txt", "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.card.parts", str(self.out / "settings.json")], cwd=ROOT,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, process_group=0)
        error = self._answer(seconds)
        return f"its process did not begin: {error}" if error else ""

    def make(self, name: str, seconds: float) -> str:
        """Let it make a part; "" or what went wrong."""
        if error := self.begin():
            return error
        try:
            self.process.stdin.write(f"{name} {seconds:.1f}\n".encode())
            self.process.stdin.flush()
        except OSError:
            return "its process ended at once (see log.txt)"
        error = self._answer(seconds)
        if error:  # after an error PyTorch or the card may not be fit to go on, so the next part has a new process
            self.stop()
        return error

    def _answer(self, seconds: float) -> str:
        if not select.select([self.process.stdout], [], [], max(0.0, seconds))[0]:
            self.stop()
            return f"stopped after its {human_seconds(seconds)}"
        line = self.process.stdout.readline()
        return json.loads(line)["error"] if line else "its process died (see log.txt)"

    def stop(self) -> None:
        """End the process, if there is one, and those that it started: they would take the next parts' time."""
        if self.process is not None:
            with suppress(ProcessLookupError, PermissionError):  # macOS: of a group that has ended
                os.killpg(self.process.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):  # of one that hangs in the card's driver
                self.process.communicate(timeout=AROUND / 2)
            self.process = None


def main(argv: list[str]) -> None:
    """Read the options, make the folder, then the parts."""
    began = time.monotonic()
    options = parse_options(GpuOptions, argv, program="python -m benchmarks.gpu", description=__doc__)
    check_system("benchmarks.gpu", "linux", "darwin")
    names = chosen(options)
    out = Path(options.out).resolve()
    check_place(out / "gpu.json", "--out")
    signal.signal(signal.SIGTERM, lambda *_: exit(143))  # else the parts' process would go on, on the card
    with making(out):
        measure(options, names, out, began)


def measure(options: GpuOptions, names: list[str], out: Path, began: float) -> None:
    """Make the parts into `out`. Raises `UserError` if a check failed."""
    (out / "log.txt").write_text("", encoding="utf-8")
    result = {"schema": 1, "rehearsal": options.rehearse, "parts": {}}
    worker = Worker(out, options.rehearse)
    left_out = {name: PARTS[name].card_only for name in names if options.rehearse and PARTS[name].card_only}
    planned = sum(PARTS[name].seconds for name in names if name not in left_out)
    try:
        for name in names:
            part = PARTS[name]
            if name in left_out:
                result["parts"][name] = {"title": part.title, "left_out": left_out[name], "figures": []}
            else:
                end = began + options.seconds - AROUND
                error = worker.begin(min(START, max(0.0, end - time.monotonic())))  # which is no part's time
                # What earlier parts left over is shared among those that are to come.
                share = max(0.0, end - time.monotonic()) * part.seconds / planned
                planned -= part.seconds
                result["parts"][name] = one_part(worker, out, name, share, error)
            result["seconds"] = round(time.monotonic() - began, 1)
            write_json(out / "gpu.json", result)
            write_page(out / "gpu.html", result)
    finally:
        worker.stop()
    wrong = [f"{name}: {figure['what']}" for name, part in result["parts"].items() for figure in part["figures"]
             if figure["check"] and not figure["met"]]
    failed = [f"{name}: {part['error']}" for name, part in result["parts"].items() if part.get("error")]
    print(f"{out / 'gpu.json'} and gpu.html: {len(result['parts'])} parts in {human_seconds(result['seconds'])}")
    if wrong or failed:
        raise UserError(f"{len(wrong) + len(failed)} of the checks failed: {'; '.join([*failed, *wrong])[:1500]}")


def one_part(worker: Worker, out: Path, name: str, seconds: float, error: str) -> dict:
    """Make one part, print it, and return what is kept of it; `error`: why its process has not begun."""
    place = out / f"{name}.json"
    place.unlink(missing_ok=True)
    began = time.monotonic()
    error = error or worker.make(name, seconds)
    figures = read_json(place) if place.exists() else []
    place.unlink(missing_ok=True)
    took = round(time.monotonic() - began, 1)
    print(f"\n{PARTS[name].title} ({human_seconds(took)})" + (f": {error}" if error else ""))
    if figures:
        print(table(["", "", "", "goal", ""], [[figure["what"], shown(figure["value"]), figure["unit"],
                                                     figure["goal"], verdict(figure["met"])] for figure in figures]))
    sys.stdout.flush()
    return {"title": PARTS[name].title, "seconds": took, "limit": round(seconds, 1), "error": error,
            "figures": figures}


def verdict(met: bool | None) -> str:
    """Whether a goal was reached, in words."""
    return "" if met is None else "met" if met else "NOT MET"


def chosen(options: GpuOptions) -> list[str]:
    """The parts to make. Raises `UserError` for an unknown one and where there is no card."""
    for name in options.part:
        if name not in PARTS:
            raise UserError(f"--part {name}: there is no such part{closest(name, PARTS)}; there are {', '.join(PARTS)}")
    if not options.rehearse and not torch.cuda.is_available():
        raise UserError("PyTorch sees no CUDA device here; --rehearse runs the same code with tiny shapes on a CPU")
    return list(options.part) or list(PARTS)


if __name__ == "__main__":
    run_program(main)
