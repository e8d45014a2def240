"""Every chapter runs; every solution passes its check; every wrong answer is named for what it is; nothing is given
away.

Deliberate break: in `learn/checks/chapter_6.py` let `by_mean` divide by the largest magnitude; in
`learn/chapters/chapter_6_nf4.py` pack the second code first; let a chapter or a check import `learn.solutions`.
"""

import ast
import contextlib
import importlib
import io
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common.errors import UserError, run_program
from common.files import ROOT
from common.terminal import this_python
from learn import __main__ as program
from learn import picture
from learn.check import EMPTY, RIGHT, WRONG, difference, judge, tasks_of, verdicts
from learn.contents import CHAPTERS, LEARN, find_chapter
from learn.notebook import cells, write_notebook
from tests.test_layout import imports

NUMBERS = [chapter.number for chapter in CHAPTERS]
TASKS = [(chapter.number, task) for chapter in CHAPTERS for task in tasks_of(chapter)]
WRONG_ANSWERS = [(number, task, wrong) for number, task in TASKS for wrong in task.wrong]

LONG = {9}  # chapters that take more than a few seconds


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


@pytest.mark.parametrize("chapter", [
    pytest.param(chapter, id=str(chapter.number), marks=[pytest.mark.slow] if chapter.number in LONG else [])
    for chapter in CHAPTERS])
def test_a_chapter_runs_and_leaves_its_picture(chapter, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(picture, "folder", tmp_path)
    runpy.run_path(str(chapter.script), run_name="__main__")
    assert [path.name for path in tmp_path.iterdir()] == [f"{chapter.name}.png"]
    assert (tmp_path / f"{chapter.name}.png").stat().st_size > 10_000
    assert len(capsys.readouterr().out.splitlines()) > 5


@pytest.mark.parametrize("chapter", CHAPTERS, ids=NUMBERS)
def test_a_chapter_begins_with_its_question_and_ends_with_its_exercises(chapter):
    source = chapter.script.read_text(encoding="utf-8")
    title, _, question = ast.get_docstring(ast.parse(source)).partition("\n\n")
    assert (title, question) == (f"Chapter {chapter.number}: {chapter.title}", chapter.question)
    kind, last = cells(source)[-1]
    assert kind == "markdown" and last.startswith("## Exercises")
    assert all(f"`{task.name}`" in last for task in tasks_of(chapter))
    assert f"learn/exercises/chapter_{chapter.number}.py" in last
    assert f"python -m learn check {chapter.number}" in last


@pytest.mark.parametrize("number", NUMBERS)
def test_a_solution_passes_and_an_empty_exercise_is_told_so(number):
    status, out, _ = command("check", number, "--file", solution(number))
    assert status == 0 and "All right" in out, out
    status, out, _ = command("check", number, "--file", find_chapter(number).exercise)
    assert status == 2 and "Nothing is written yet" in out


@pytest.mark.parametrize(("number", "task"), TASKS, ids=[f"{number}-{task.name}" for number, task in TASKS])
def test_a_task_names_three_wrong_answers_and_its_exercise_is_empty(number, task):
    assert len(task.wrong) >= 3
    exercise = importlib.import_module(f"learn.exercises.chapter_{number}")
    solved = importlib.import_module(f"learn.solutions.chapter_{number}")
    assert judge(task, getattr(exercise, task.name)).status == EMPTY
    assert judge(task, getattr(solved, task.name)).status == RIGHT
    assert getattr(exercise, task.name).__annotations__ == getattr(solved, task.name).__annotations__


@pytest.mark.parametrize(("number", "task", "wrong"), WRONG_ANSWERS,
                         ids=[f"{n}-{task.name}-{task.wrong.index(wrong)}" for n, task, wrong in WRONG_ANSWERS])
def test_a_wrong_answer_is_named_for_what_it_is(number, task, wrong):
    verdict = judge(task, wrong.answer)
    assert (verdict.status, verdict.words) == (WRONG, wrong.words)
    assert len(wrong.words) > 40 and not any(mark in wrong.words for mark in ("=", ".amax(", "def "))


def test_only_tests_import_solutions():
    files = [path for path in ROOT.rglob("*.py") if not any(part.startswith(".") for part in path.parts)]
    named = [path for path in files if "solutions" in path.read_text(encoding="utf-8")]  # parsing all takes a second
    users = [path for path in named if any("learn.solutions" in name for name in imports(path))]
    assert not [path for path in users if path.relative_to(ROOT).parts[0] != "tests"]
    assert "solutions" not in (LEARN / "check.py").read_text() + (LEARN / "__main__.py").read_text()


@pytest.mark.parametrize("chapter", CHAPTERS, ids=NUMBERS)
def test_a_notebook_holds_the_whole_chapter(chapter, tmp_path):
    made = json.loads(write_notebook(chapter.script, tmp_path).read_text(encoding="utf-8"))
    assert (made["nbformat"], made["nbformat_minor"]) == (4, 5)
    code = "\n".join("".join(cell["source"]) for cell in made["cells"] if cell["cell_type"] == "code")
    script = ast.parse(chapter.script.read_text(encoding="utf-8"))
    assert ast.dump(ast.parse(code)) == ast.dump(ast.Module(script.body[1:], []))
    text = "".join("".join(cell["source"]) for cell in made["cells"] if cell["cell_type"] == "markdown")
    assert text.startswith(f"# Chapter {chapter.number}: {chapter.title}") and "\n# %%" not in text


@pytest.mark.slow
@pytest.mark.parametrize("chapter", CHAPTERS, ids=NUMBERS)
def test_a_notebook_runs_in_jupyter(chapter, tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    execute(chapter, tmp_path, nbformat, nbclient)


def test_one_notebook_runs_in_jupyter(tmp_path):
    """One for the ordinary suite, all nine for the slow one."""
    nbformat = pytest.importorskip("nbformat", reason="needs nbformat, which nbclient brings")
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient")
    pytest.importorskip("ipykernel", reason="needs ipykernel")
    book = execute(find_chapter(6), tmp_path, nbformat, nbclient)
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    assert "the same bits" in "".join(output.get("text", "") for output in outputs)
    assert any("image/png" in output.get("data", {}) for output in outputs)


def execute(chapter, folder: Path, nbformat, nbclient):
    """The chapter's notebook after every cell has run, as Jupyter runs it in the clone."""
    book = nbformat.read(write_notebook(chapter.script, folder), 4)
    nbclient.NotebookClient(book, resources={"metadata": {"path": str(ROOT)}}).execute()
    return book


def test_notebooks_are_written_by_one_command(tmp_path):
    status, out, _ = command("notebooks", "--out", tmp_path / "new")
    assert status == 0 and out.splitlines() == [str(tmp_path / "new" / f"{c.name}.ipynb") for c in CHAPTERS]
    assert sorted(path.stem for path in (tmp_path / "new").iterdir()) == sorted(c.name for c in CHAPTERS)


def test_the_list_says_what_comes_next():
    status, out, _ = command()
    assert status == 0 and all(chapter.question in out for chapter in CHAPTERS)
    assert f"Next: chapter {NUMBERS[0]}." in out and f"learn check {NUMBERS[0]}" in out


def test_the_course_has_every_chapter_once():
    text = (LEARN / "TEACHING.md").read_text(encoding="utf-8")
    evenings = re.findall(r"^\| (\d) [^|]*\| ([\d, ]+) \|", text, re.MULTILINE)
    assert [number for number, _ in evenings] == ["1", "2", "3", "4", "5"]
    assert [int(number) for _, chapters in evenings for number in chapters.split(", ")] == NUMBERS
    assert f"{len(CHAPTERS)} chapters" == "9 chapters" and "Nine chapters" in text
    for name in re.findall(r"`((?:learn|docs)/[\w/.]+)`", text):
        assert name.endswith("chapter_N.py") or (ROOT / name).exists(), name


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "wait4"), reason="needs wait4")
def test_the_longest_chapter_fits_into_the_memory_that_the_course_names(tmp_path):
    assert "1 GB of memory" in (LEARN / "TEACHING.md").read_text(encoding="utf-8")
    words = [sys.executable, "-m", "learn", "run", str(max(LONG)), "--out", str(tmp_path)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL,
                          env=os.environ | {"OMP_NUM_THREADS": "1"}) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = status
    assert status == 0 and used.ru_maxrss * (1 if sys.platform == "darwin" else 1024) < 10**9


def answers(tmp_path, text: str):
    path = tmp_path / "chapter_6.py"
    path.write_text("import torch\n" + text, encoding="utf-8")
    return path


@pytest.mark.parametrize(("body", "words"), [
    ("return None", "is there a `return`?"),
    ("return weight / undefined, None", "it stops with NameError: name 'undefined' is not defined (line 3 of"),
    ("weight.mul_(2); return weight, weight", "it changes the arguments"),
    ("return weight", "one Tensor where 2 results are wanted"),
    ("return weight.long(), weight", "result 1: it gives shape (2, 128); (256,) is wanted"),
    ("return weight.reshape(-1), weight", "result 1: it gives numbers of type torch.float32; torch.int64 is wanted"),
    ("return torch.zeros(weight.numel()).long(), weight", "result 1: at [0] it gives 0 where"),
    ("return levels[weight.reshape(-1).byte()], weight", "`.long()` makes places of them"),
    ("raise SystemExit(0)", "it stops with SystemExit: 0 (line 3 of"),
    ("return weight @ weight, weight", "in a product A @ B of matrices, A has as many columns as B has rows"),
])
def test_other_mistakes_are_told_with_their_place(body, words, tmp_path):
    path = answers(tmp_path, f"def quantize(weight, levels):\n    {body}\n")
    status, out, _ = command("check", 6, "--file", path)
    assert status == 1 and words in out
    assert "pack: not yet: there is no function pack in the file any more" in out


@pytest.mark.parametrize(("text", "words"), [
    ("def quantize(:\n", "Python cannot read line 2"),
    ("import nothing_of_this_name\n", "stops with ModuleNotFoundError"),
    ("raise SystemExit(0)\n", "stops with SystemExit: 0, before any function is called"),
])
def test_a_file_that_cannot_be_read_is_told_in_one_line(text, words, tmp_path):
    status, out, err = command("check", 6, "--file", answers(tmp_path, text))
    assert status == 2 and not out and words in err and len(err.splitlines()) == 1
    with pytest.raises(UserError, match="is not there"):
        verdicts(find_chapter(6), tmp_path / "none.py")
    with pytest.raises(UserError, match=r"chapter 12: there is none; the chapters are"):
        find_chapter(12)


def test_half_written_answers_end_in_status_one(tmp_path):
    path = tmp_path / "chapter_6.py"
    shutil.copyfile(solution(6), path)
    path.write_text(path.read_text() + "\n\ndef pack(codes):\n    raise NotImplementedError\n")
    status, out, _ = command("check", 6, "--file", path)
    assert status == 1 and "quantize: right" in out and "pack: not begun" in out


def test_without_a_screen_the_picture_says_how_to_save_it(monkeypatch, capsys):
    monkeypatch.setattr(picture, "folder", None)
    monkeypatch.setattr(picture.matplotlib, "get_backend", lambda: "agg")
    figure, _ = picture.panels(2)
    picture.show(figure, "chapter_6_nf4")
    assert f"{this_python()} -m learn run 6 --out pictures" in capsys.readouterr().out


def test_a_factor_and_a_transposed_matrix_are_named():
    right = torch.tensor([[1.0, -2.0, 0.0], [4.0, 0.5, 8.0]])
    assert difference(-0.5 * right, right, 1e-6).endswith("; every number is -0.5 times the one that is wanted")
    for other in (right + 1, 0 * right, right.square(), torch.tensor([[2.0, -4.0, 1.0], [8.0, 1.0, 16.0]])):
        assert "times" not in difference(other, right, 1e-6) and difference(other, right, 1e-6)
    assert difference(right.T, right, 0).endswith("(2, 3) is wanted; rows and columns have changed places")
    assert "NaN" in difference(right / 0 * 0, right, 0)
    codes = torch.tensor([1, 2, 3])
    assert difference(codes, codes.byte(), 0).endswith("torch.uint8 is wanted") and not difference(codes, codes, 0)


def test_differences_are_found():
    assert difference(0.5, 0.5000001, 1e-6) == "" and difference(0.5, 0.6, 1e-6)
    assert difference(["a"], ["a"], 0) == "" and "where 2 are" in difference(["a"], ["a", "b"], 0)
