"""The parts of the measurement in their order, and the process that makes them.

Started by benchmarks/gpu.py: `python -m benchmarks.card.parts SETTINGS`. It says in one line that it has begun, gets a
part's name on each line of its standard input, and answers each with one line. What a part finds is in its own file
from the moment it is found, so a process that is stopped, or that the card's driver ends, loses nothing. Parts that
look at the time end by themselves, since a new process has to make the large model anew.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.card.state import State


@dataclass(frozen=True)
class Part:
    """A part: its title, its share of the time, what makes it, and why a rehearsal leaves it out (else "")."""

    title: str
    seconds: float  # of 480; the whole is scaled to --seconds
    file: str
    function: str
    card_only: str = ""

    def make(self) -> Callable[[State], None]:
        """The function; imported here, so that one part's missing package does not stop the others."""
        from importlib import import_module

        return getattr(import_module(f"benchmarks.card.{self.file}"), self.function)


PARTS = {
    "machine": Part("The machine", 10, "speed", "machine"),
    "correct": Part("Is it right? Beside the CPU", 60, "correct", "check"),
    "large": Part("A model of 3 billion weights", 5, "speed", "make_large"),
    "waits": Part("Does anything wait for the card?", 8, "correct", "synchronisations",
                  "a CPU has no queue to wait for"),
    "kernels": Part("Kernels beside plain PyTorch", 12, "kernels", "compare", "Triton's kernels need a card"),
    "label": Part("Labelling", 64, "speed", "labelling"),
    "train": Part("Training", 98, "speed", "training"),
    "usual": Part("Beside the usual stack", 86, "usual", "in_turns"),
    "attention": Part("Attention for all rows at once", 10, "speed", "attentions"),
    "graphs": Part("Training with CUDA graphs", 62, "graphs", "compare", "a CPU has no launches to record"),
    "tests": Part("The tests that know about cards", 65, "suite", "run", "they are part of the ordinary tests"),
}


def main() -> None:
    """Make one part after another, as their names come."""
    settings = json.loads(Path(sys.argv[1]).read_text())
    wire = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever libraries print goes to the log, and cannot mix with the answers
    state = State(Path(), settings["rehearse"])
    print(json.dumps({"error": ""}), file=wire, flush=True)  # it has begun
    for line in sys.stdin:
        name, seconds = line.split()
        state.out = Path(settings["out"]) / f"{name}.json"
        error = ""
        try:
            state.begin(float(seconds))
            PARTS[name].make()(state)
        except Exception as problem:  # the parent notes it and goes on to the next part
            traceback.print_exc()
            error = f"{type(problem).__name__}: {problem}".splitlines()[0][:500]
        print(json.dumps({"error": error}), file=wire, flush=True)


if __name__ == "__main__":
    main()
