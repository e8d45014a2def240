"""The course: its plans cover every chapter, and what it and the chapters say in numbers is so.

Deliberate break: in `learn/TEACHING.md` give the base five million numbers or a chapter another time; in a chapter,
leave out what a test reads; in `learn/OPERATIONS.md` change a result.
"""

import ast
import contextlib
import doctest
import importlib.util
import io
import json
import math
import os
import re
import runpy
import subprocess
import sys

import matplotlib
import pytest
import torch

from common.files import ROOT
from learn.check import judge, tasks_of
from learn.contents import CHAPTERS, LEARN, find_chapter
from loading import load_model
from quant.nf4 import NF4_CODE
from tests.learn.commands import NUMBERS

TEACHING = (LEARN / "TEACHING.md").read_text(encoding="utf-8")
OPERATIONS = (LEARN / "OPERATIONS.md").read_text(encoding="utf-8")
MOST = 90  # minutes of a weekly session


def one_line(text: str) -> str:
    return " ".join(text.split())


def prose(number: int) -> str:
    """A chapter's comments as one line."""
    lines = find_chapter(number).script.read_text(encoding="utf-8").splitlines()
    return one_line(" ".join(line[1:] for line in lines if line.startswith("#")))


@pytest.fixture(scope="module")
def ran():
    """What a chapter leaves in its names and prints: number -> (names, text)."""
    kept = {}

    def run(number: int) -> tuple[dict, str]:
        if number not in kept:
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                names = runpy.run_path(str(find_chapter(number).script), run_name="__main__")
            kept[number] = names, out.getvalue()
        return kept[number]

    matplotlib.use("agg")
    return run


def test_the_course_has_every_chapter_once():
    text = TEACHING
    evenings = re.findall(r"^\| (\d) [^|]*\| ([\d, ]+) \|", text, re.MULTILINE)
    assert [number for number, _ in evenings] == ["1", "2", "3", "4", "5"]
    assert [int(number) for _, chapters in evenings for number in chapters.split(", ")] == NUMBERS
    assert f"{len(CHAPTERS)} chapters" == "9 chapters" and "Nine chapters" in text
    assert {len(tasks_of(chapter)) for chapter in CHAPTERS} == {2, 3} and "two or three functions to write" in text
    for name in re.findall(r"`((?:learn|docs)/[\w/.-]+)`", text):
        assert name.endswith("chapter_N.py") or (ROOT / name).exists(), name


# In a small process of its own: Linux counts what a program's parent held when it started it as the program's.
PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("resource") is None, reason="needs the module resource")
def test_the_longest_chapter_fits_into_the_memory_that_the_course_names(tmp_path):
    assert "1 GB of memory" in TEACHING
    words = [sys.executable, "-c", PEAK, sys.executable, "-m", "learn", "run", str(NUMBERS[-1]), "--out", tmp_path]
    peak = int(subprocess.check_output(words, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}))
    assert 10**8 < peak * (1 if sys.platform == "darwin" else 1024) < 10**9


def minutes(number: int) -> tuple[int, int]:
    """The estimate that the course names: a minute for five lines, rounded to five; 15 for each function."""
    lines = len(find_chapter(number).script.read_text(encoding="utf-8").splitlines())
    return 5 * round(lines / 5 / 5), 15 * len(tasks_of(find_chapter(number)))


def test_the_weeks_have_every_chapter_with_the_times_of_the_estimate():
    rows = re.findall(r"^\| week (\d+) \| (\d) \| (\S+) \| (\S+) \| (\d+) min \|$", TEACHING, re.MULTILINE)
    assert [int(week) for week, *_ in rows] == list(range(1, 11)) and "ten weeks" in TEACHING.splitlines()[0]
    planned = {number: [0, 0] for number in NUMBERS}
    for _, number, reading, exercises, together in rows:
        times = [0 if time == "–" else int(time) for time in (reading, exercises)]
        assert sum(times) == int(together) <= MOST
        planned[int(number)] = [a + b for a, b in zip(planned[int(number)], times, strict=True)]
    assert {number: tuple(times) for number, times in planned.items()} == {n: minutes(n) for n in NUMBERS}
    assert "an estimate that nobody has measured" in one_line(TEACHING)


def test_an_evening_leaves_time_for_two_or_three_functions():
    reading = [minutes(a)[0] + minutes(b)[0] for a, b in ((1, 2), (3, 4), (5, 6), (7, 8))]
    assert max(reading) == 80 and "reading two chapters takes up to 80 minutes" in one_line(TEACHING)
    assert [(120 - time) // 15 in (2, 3) for time in reading] == [True] * 4 and "two or three functions" in TEACHING


def test_the_shorter_course_says_what_chapter_nine_holds():
    source = find_chapter(9).script.read_text(encoding="utf-8")
    cell = next(cell for cell in source.split("# %%\n") if "def label_scores" in cell)
    assert all(part in cell for part in ("def norm", "def turned", "repeat_interleave", "torch.sigmoid(gate)"))
    assert "RMSNorm, RoPE, attention with shared heads and SwiGLU" in one_line(TEACHING)


def test_the_base_has_as_many_numbers_as_the_course_says():
    with open(ROOT / "base/model.safetensors", "rb") as file:
        head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    sizes = {name: math.prod(entry["shape"]) for name, entry in head.items() if name != "__metadata__"}
    assert round(sum(sizes.values()) / 1e6) == 13 and "thirteen million numbers" in TEACHING
    assert round(sizes["model.embed_tokens.weight"] / 1e6) == 11 and "eleven million of them" in TEACHING
    assert "15.8 minutes" in (ROOT / "base/README.md").read_text() and "sixteen minutes" in TEACHING


def test_dividing_and_multiplying_give_the_same_codes_of_the_base_and_in_the_trials(ran):
    middles = (NF4_CODE[:-1] + NF4_CODE[1:]) / 2

    def by(scaled):
        def quantize(weight, levels):
            blocks = weight.reshape(-1, 64)
            scales = blocks.abs().amax(dim=1)
            return torch.bucketize(scaled(blocks, scales[:, None]).reshape(-1), middles), scales
        return quantize

    ways = by(lambda blocks, scales: blocks / scales), by(lambda blocks, scales: blocks * (1 / scales))
    for name, weight in load_model("base").named_parameters():
        if "_proj" in name:
            divided, multiplied = (way(weight.detach().float(), NF4_CODE)[0] for way in ways)
            assert torch.equal(divided, multiplied), name
    task = next(task for task in tasks_of(find_chapter(6)) if task.name == "quantize")
    assert [judge(task, way).status for way in ways] == ["right", "right"]
    said = ran(6)[1]
    assert "-0.034307621 divided by 0.101 gets code 3" in said
    assert "-0.034307621 multiplied by 1 / 0.101 gets code 4" in said


def test_even_levels_do_as_well_in_small_blocks_alone(ran):
    assert "in blocks of 16, even levels do as well as NF4's" in prose(6)
    names, _ = ran(6)
    ours, even = (names["found"][name] for name in ("NF4's levels", "even levels"))
    assert names["sizes"][0] == 16 and abs(ours[0] / even[0] - 1) < 0.02
    assert all(a < b - 0.005 for a, b in zip(ours[1:], even[1:], strict=True))


def test_without_norms_a_short_stream_stays_and_a_long_one_blows_up(ran):
    names, said = ran(4)
    for times, found in names["with_norms"].items():
        assert found[-1] - found[0] < 15, "what is poured in does not grow with the stream"
        assert f"{times:3d} times as long, with norms:" in said
    assert names["without"][1][-1] < 1.5 * names["without"][1][0] < names["with_norms"][1][-1] / 5
    assert names["without"][256][-1] > 10_000 * names["without"][256][0]
    assert "why does nothing blow up" in find_chapter(4).question and "to long ones?" in TEACHING


def test_the_word_mark_is_the_main_reason_why_parts_encoded_apart_differ(ran):
    names, said = ran(8)
    assert len(names["posts"]) == 16
    assert [names[name] for name in ("others", "marks", "front", "back")] == [16, 16, 0, 7]
    assert "a word mark too many in front of the post and behind it: 16 of 16" in said
    assert "where the post begins: 0 of 16; where it ends: 7 of 16" in said


def test_bfloat16_is_rounded(ran):
    said = ran(5)[1]
    assert "cut to 16: 0.099609, rounded to 16: 0.100098" in said and "PyTorch rounds" in prose(5)


def test_wilsons_rule_keeps_its_promise_on_average_alone():
    tree = ast.parse(find_chapter(9).script.read_text(encoding="utf-8"))
    wanted = [node for node in tree.body if getattr(node, "name", "") in ("wilson", "textbook", "covers")]
    names = {"math": math}
    exec(compile(ast.Module(wanted, []), "chapter 9", "exec"), names)
    found = {rule: [names["covers"](names[rule], place / 1000, 25) for place in range(1, 1000)]
             for rule in ("wilson", "textbook")}
    mean = {rule: sum(shares) / len(shares) for rule, shares in found.items()}
    assert mean["wilson"] == pytest.approx(0.95, abs=0.005) and mean["textbook"] < 0.87
    assert min(found["wilson"]) < 0.85 and min(found["textbook"]) < 0.05
    assert found["wilson"][499] == found["textbook"][499] and found["wilson"][599] == found["textbook"][599]
    assert "It keeps to the 95 on average over truths, but not for each." in prose(9)


def test_sample_posts_were_labelled_by_a_language_model():
    for number in (8, 9):
        assert "language model" in prose(number) and "label that people gave" not in prose(number)


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", OPERATIONS, re.DOTALL))
def test_an_operation_prints_what_its_page_says(block):
    before = OPERATIONS[: OPERATIONS.index(block)]
    names = {"torch": torch}
    for line in re.findall(r"^>>> (\w+(?:, \w+)* = .*)$", before, re.MULTILINE):
        exec(line, names)
    result = doctest.DocTestRunner(verbose=False).run(
        doctest.DocTestParser().get_doctest(block, names, "OPERATIONS.md", "OPERATIONS.md", 0), out=print)
    assert result.attempted and not result.failed


def test_the_operations_of_the_solutions_have_an_example():
    listed = set(re.findall(r"\w+", OPERATIONS))
    python = {name for kind in (str, list, dict, int) for name in dir(kind)}
    for path in (LEARN / "solutions").glob("chapter_*.py"):
        used = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        operations = {name for name in used if hasattr(torch.Tensor, name) or hasattr(torch, name)}
        assert operations - python - {"Tensor", "pi", "float32"} <= listed, path
    for name in ("[:, None]", "einsum", "masked_fill", "triu", "bucketize", "argmin", "amax", "keepdim", "stack",
                 "repeat_interleave", "`@`", "Broadcasting"):
        assert name in OPERATIONS


def test_the_operations_are_linked_where_they_are_needed():
    assert "(OPERATIONS.md)" in TEACHING
    for chapter in CHAPTERS[1:]:
        assert "`learn/OPERATIONS.md`" in ast.get_docstring(ast.parse(chapter.exercise.read_text(encoding="utf-8")))
