"""Every chapter runs, as a script and as a notebook, and begins and ends as it should; nothing is given away.

Deliberate break: in `learn/chapters/chapter_6_nf4.py` pack the second code first; in chapter 4 let `x` be what the
cell's last run left; let a chapter or a check import `learn.solutions`; in `model/tokenizer/__init__.py` look for a
tokenizer in the working directory alone.
"""

import ast
import contextlib
import json
import runpy
from pathlib import Path

import pytest

from common.files import ROOT
from common.terminal import this_python
from learn import picture
from learn.check import tasks_of
from learn.contents import CHAPTERS, LEARN, find_chapter
from learn.notebook import cells, write_notebook
from tests.learn.commands import NUMBERS, command
from tests.test_layout import imports

LONG = {9}  # chapters that take more than a few seconds


@pytest.mark.parametrize("chapter", [
    pytest.param(chapter, id=str(chapter.number), marks=[pytest.mark.slow] if chapter.number in LONG else [])
    for chapter in CHAPTERS])
def test_a_chapter_runs_and_leaves_its_picture(chapter, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(picture, "folder", tmp_path)
    runpy.run_path(str(chapter.script), run_name="__main__")
    assert [path.name for path in tmp_path.iterdir()] == [f"{chapter.name}.png"]
    assert (tmp_path / f"{chapter.name}.png").stat().st_size > 10_000
    assert len(capsys.readouterr().out.splitlines()) > 5


@pytest.mark.parametrize("chapter", [
    pytest.param(chapter, id=str(chapter.number), marks=[] if chapter.number == 4 else [pytest.mark.slow])
    for chapter in CHAPTERS])
def test_a_cell_can_be_run_again(chapter, tmp_path, monkeypatch):
    """As one does in a notebook: no comparison fails, and the picture is the same one."""
    monkeypatch.setattr(picture, "folder", tmp_path)
    names, drawn = {"__name__": "__main__", "__file__": str(chapter.script)}, []
    for kind, text in cells(chapter.script.read_text(encoding="utf-8")):
        for _ in range(2 if kind == "code" else 0):
            exec(compile(text, chapter.name, "exec"), names)
            drawn += [path.read_bytes() for path in tmp_path.iterdir()]
    assert len(drawn) == 2 and drawn[0] == drawn[1]


@pytest.mark.parametrize("number", [3, 4, 8])  # they need the tokenizer
def test_a_chapter_runs_in_its_own_folder(number, tmp_path, monkeypatch):
    """As an editor runs it; the folder of notebooks lies as deep as this one."""
    monkeypatch.setattr(picture, "folder", tmp_path)
    chapter = find_chapter(number)
    with contextlib.chdir(chapter.script.parent):
        runpy.run_path(chapter.script.name, run_name="__main__")
    assert (tmp_path / f"{chapter.name}.png").exists()


@pytest.mark.parametrize("chapter", CHAPTERS, ids=NUMBERS)
def test_a_chapter_begins_with_its_question_and_ends_with_its_exercises(chapter):
    source = chapter.script.read_text(encoding="utf-8")
    title, _, question = ast.get_docstring(ast.parse(source)).partition("\n\n")
    assert (title, question) == (f"Chapter {chapter.number}: {chapter.title}", chapter.question)
    kind, last = cells(source)[-1]
    assert kind == "markdown" and last.startswith("## Exercises")
    assert all(f"`{task.name}`" in last for task in tasks_of(chapter))
    assert f"learn/exercises/chapter_{chapter.number}.py" in last
    assert f"python -m learn check {chapter.number}" in last and "terminal in the clone's folder" in last
    assert f"`%run -m learn check {chapter.number}`" in last


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
    """The chapter's notebook after every cell has run, and then the command of its last one. Jupyter works in the
    notebook's folder, which lies in the clone; `learn/chapters` stands for it here."""
    book = nbformat.read(write_notebook(chapter.script, folder), 4)
    book.cells.append(nbformat.v4.new_code_cell(f"%run -m learn check {chapter.number}"))
    nbclient.NotebookClient(book, resources={"metadata": {"path": str(chapter.script.parent)}}).execute()
    said = "".join(output.get("text", "") for output in book.cells[-1].outputs)
    assert said.startswith(f"chapter {chapter.number}: ") and "Nothing is written yet" in said
    return book


def test_notebooks_are_written_by_one_command(tmp_path):
    status, out, _ = command("notebooks", "--out", tmp_path / "new")
    assert status == 0 and out.splitlines() == [str(tmp_path / "new" / f"{c.name}.ipynb") for c in CHAPTERS]
    assert sorted(path.stem for path in (tmp_path / "new").iterdir()) == sorted(c.name for c in CHAPTERS)


def test_the_list_says_what_comes_next():
    status, out, _ = command()
    assert status == 0 and all(chapter.question in out for chapter in CHAPTERS)
    assert f"Next: chapter {NUMBERS[0]}." in out and f"learn check {NUMBERS[0]}" in out


def test_without_a_screen_the_picture_says_how_to_save_it(monkeypatch, capsys):
    monkeypatch.setattr(picture, "folder", None)
    monkeypatch.setattr(picture.matplotlib, "get_backend", lambda: "agg")
    figure, _ = picture.panels(2)
    picture.show(figure, "chapter_6_nf4")
    assert f"{this_python()} -m learn run 6 --out pictures" in capsys.readouterr().out
