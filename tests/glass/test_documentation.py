"""docs/glass.md: its commands are ones that the program takes, its lines of Python run, its pictures are there.

Deliberate break: rename --against-text in glass/__main__.py, or `compared` in glass/against.py.
"""

import contextlib
import io
import re
import shlex
import subprocess
import sys

import pytest

from common.files import ROOT
from common.options import parse_options
from glass.__main__ import GlassOptions
from glass.server import KEPT_BYTES

TEXT = (ROOT / "docs" / "glass.md").read_text(encoding="utf-8")
COMMANDS = [line for line in TEXT.splitlines() if line.startswith(".venv/bin/python -m glass")]


@pytest.mark.parametrize("line", COMMANDS)
def test_each_command_is_one_that_the_program_takes(line):
    words = shlex.split(line, comments=True)[3:]
    options = parse_options(GlassOptions, words, program="python -m glass", description="")
    assert len(COMMANDS) == 4 and any((options.text, options.against, options.against_text))


def test_the_lines_of_python_run(tmp_path):
    (tmp_path / "base").symlink_to(ROOT / "base")
    out = io.StringIO()
    with contextlib.chdir(tmp_path), contextlib.redirect_stdout(out):
        exec(re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)[1], {})
    said = out.getvalue().splitlines()
    assert re.fullmatch(r"torch.Size\(\[8, (\d+), \1\]\)", said[-2]) and "'differs': tensor([0, 1])" in said[-1]


def test_a_notebook_in_a_folder_of_the_clone_finds_the_modules():
    assert "`%cd ..`" in TEXT[TEXT.index("## In a notebook") :]
    imports = "; ".join(re.findall(r"^from .*$", re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)[1], re.MULTILINE))
    program = f"import os; os.chdir('..'); {imports}"  # `-c` looks for modules where it works, as a notebook does
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT / "docs", check=False).returncode == 0


def test_how_often_the_run_was_right_needs_a_test_first():
    assert "once eval.py has tested it" in TEXT and "`.venv/bin/python eval.py` tests the run" in TEXT


def test_it_says_how_much_memory_former_posts_keep():
    assert "a gigabyte at most is kept" in " ".join(TEXT.split()) and KEPT_BYTES == 1_000_000_000


def test_its_pictures_are_there():
    names = re.findall(r"\]\((\S+\.png)\)", TEXT)
    assert len(names) == 3 and all((ROOT / "docs" / name).stat().st_size < 150_000 for name in names)
