"""What the tests of learn/ share: the program called with arguments, files of answers, all tasks."""

import contextlib
import io
from pathlib import Path

from common.errors import run_program
from learn import __main__ as program
from learn.check import tasks_of
from learn.contents import CHAPTERS, LEARN

NUMBERS = [chapter.number for chapter in CHAPTERS]
TASKS = [(chapter.number, task) for chapter in CHAPTERS for task in tasks_of(chapter)]


def solution(number: int) -> Path:
    return LEARN / "solutions" / f"chapter_{number}.py"


def command(*argv) -> tuple[int, str, str]:
    """Status, stdout and stderr of `python -m learn` with these arguments."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run_program(program.main, [str(part) for part in argv])
        except SystemExit as ended:
            return ended.code or 0, out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()


def written(folder: Path, text: str | bytes, name: str = "anna.py") -> Path:
    """A file as somebody hands it in."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else ("import torch\n" + text).encode())
    return path


def line_on(number: int, name: str, folder: Path, text: str) -> str:
    """What `check` says of one function in a file with this text."""
    _, out, err = command("check", number, "--file", written(folder, text))
    return next(line.strip() for line in (out + err).splitlines() if line.strip().startswith(f"{name}: "))
