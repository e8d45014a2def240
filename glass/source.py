"""The lines of this repository that computed a number: read from the source while the program runs, never copied.

    code(Block.forward, "self.mlp(")  ->  Code(path="model/llama.py", first=43, lines=(...), marked=(45,))
"""

import inspect
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from common.files import ROOT


@dataclass(frozen=True)
class Code:
    """One function's source: its file, the number of its first line, its lines, and the numbers of the marked ones."""

    path: str
    name: str
    first: int
    lines: tuple[str, ...]
    marked: tuple[int, ...]

    def __str__(self) -> str:
        numbered = ((self.first + place, line) for place, line in enumerate(self.lines))
        return f"{self.path}\n" + "\n".join(f"{'>' if n in self.marked else ' '} {n:4} {line}" for n, line in numbered)


@cache
def code(function, *marks: str) -> Code:
    """The source of a function or method; a line is marked if it holds one of `marks`.

    Raises `ValueError` for a mark that no line holds: the source has changed, and whoever shows it must look again.
    """
    function = inspect.unwrap(function)
    lines, first = inspect.getsourcelines(function)
    lines = tuple(line.rstrip("\n") for line in lines)
    missing = [mark for mark in marks if not any(mark in line for line in lines)]
    if missing:
        raise ValueError(f"{function.__qualname__}: no line holds {missing[0]!r}")
    marked = tuple(first + place for place, line in enumerate(lines) if any(mark in line for mark in marks))
    path = Path(inspect.getsourcefile(function)).resolve().relative_to(ROOT).as_posix()
    return Code(path, function.__qualname__, first, lines, marked)
