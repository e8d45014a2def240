"""Learn how a 4-bit fine-tune works by building one: chapters in cells, exercises, and a check that explains.

    python -m learn                                 the chapters, and what comes next
    python -m learn run 6 --out pictures            run a chapter; its picture goes into that folder
    python -m learn check 6                         judge your answers in learn/exercises/chapter_6.py
    python -m learn check 6 --file handed_in.py     judge another file
    python -m learn notebooks --out notebooks       write the chapters as .ipynb files for Jupyter

Run these in the clone's folder; in a cell of a chapter's notebook, `%run -m learn check 6` does the same. `check` ends
with status 0 if all is right, 1 if something is not or if Python cannot read the file, and 2 if nothing is written yet.
"""

import argparse
import builtins
import contextlib
import io
import runpy
import sys
from pathlib import Path

import torch

from common.errors import UserError, run_program
from common.files import ROOT
from common.terminal import this_python
from learn import picture
from learn.answers import Unreadable
from learn.check import EMPTY, RIGHT, WRONG, verdicts
from learn.contents import CHAPTERS, Chapter, find_chapter
from learn.notebook import write_notebook


def parser() -> argparse.ArgumentParser:
    """The command line."""
    whole = argparse.ArgumentParser("python -m learn", description=__doc__,
                                    formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = whole.add_subparsers(dest="command", metavar="{run,check,notebooks}")
    run = commands.add_parser("run", help="run a chapter")
    run.add_argument("chapter", type=int, help="its number")
    run.add_argument("--out", type=Path, help="folder for its picture; without it the picture is shown")
    check = commands.add_parser("check", help="judge the answers to a chapter's exercises")
    check.add_argument("chapter", type=int, help="its number")
    check.add_argument("--file", type=Path, help="judge this file instead of the one in learn/exercises/")
    notebooks = commands.add_parser("notebooks", help="write the chapters as notebooks")
    notebooks.add_argument("--out", type=Path, default=Path("notebooks"), help="folder for them (default: notebooks)")
    return whole


def main(argv: list[str]) -> None:
    """List, run, check, or write notebooks."""
    given = parser().parse_args(argv)
    if given.command == "run":
        picture.folder = given.out
        runpy.run_path(str(find_chapter(given.chapter).script), run_name="__main__")
    elif given.command == "check":
        status = check(find_chapter(given.chapter), given.file)
        if not hasattr(builtins, "__IPYTHON__"):  # a notebook has no use for a status, and shows it as an error
            sys.exit(status)
    elif given.command == "notebooks":
        for chapter in CHAPTERS:
            print(write_notebook(chapter.script, given.out))
    else:
        contents()


def check(chapter: Chapter, path: Path | None = None) -> int:
    """Print a verdict for each function as it is found; 0 if all are right, 1 if one is not or the file cannot be read,
    2 if nothing is written yet."""
    print(f"chapter {chapter.number}: {chapter.title}", flush=True)
    kinds = set()
    try:
        for name, verdict in verdicts(chapter, path):
            print(f"  {name}: {verdict.status}" + (f": {verdict.words}" if verdict.status == WRONG else ""), flush=True)
            kinds.add(verdict.status)
    except Unreadable as error:
        print(f"  {shown(path or chapter.exercise)}: {WRONG}: {error}")
        return 1
    if kinds == {EMPTY}:
        print(f"Nothing is written yet. Open {shown(path or chapter.exercise)}, replace a `raise NotImplementedError` "
              "by your lines, and check again.")
        return 2
    if kinds == {RIGHT}:
        later = [other for other in CHAPTERS if other.number > chapter.number]
        print("All right." + (f" Next: chapter {later[0].number}, {later[0].title}." if later else " That was the last "
              "chapter: you have written a 4-bit fine-tune."))
        return 0
    return 1


def contents() -> None:
    """Print the chapters, how far the reader is in each, and what comes next."""
    print("From an empty file to a 4-bit fine-tune. Two chapters make an evening (learn/TEACHING.md has a plan).\n")
    following = None
    for chapter in CHAPTERS:
        print(f"  {chapter.number}  {chapter.title:<46} ", end="", flush=True)
        state = state_of(chapter)
        if following is None and state != "done":
            following = chapter
        print(f"{state}\n     {chapter.question}")
    if following is None:
        print("\nAll chapters are done.")
        return
    print(f"\nNext: chapter {following.number}.\n"
          f"  read   {shown(following.script)}, cell by cell in an editor that knows `# %%`, or\n"
          f"         {this_python()} -m learn run {following.number} --out pictures\n"
          f"  write  {shown(following.exercise)}\n"
          f"  check  {this_python()} -m learn check {following.number}")


def state_of(chapter: Chapter) -> str:
    """How far the reader is in a chapter. What the answers print is not shown: it belongs into no list."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            kinds = {verdict.status for _, verdict in verdicts(chapter)}
    except UserError:  # a file that Python cannot read, or that is away; `check` says so
        return "begun"
    return "done" if kinds == {RIGHT} else "not begun" if kinds == {EMPTY} else "begun"


def shown(path: Path) -> Path:
    """`path` from the clone's root, if it lies there."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


if __name__ == "__main__":
    torch.set_num_threads(min(2, torch.get_num_threads()))
    run_program(main)
