"""What the README and docs/install.md say is so: tables, paths, options, packages.

Deliberate break: change one figure of the memory table, rename an option that the README uses, rename
`quant.nf4.quantize_nf4`, or forget `$(ARGS)` behind one of the programs in Makefile.
"""

import ast
import dataclasses
import re
import shutil
import subprocess
import sys
import tomllib

import pytest

from audit.__main__ import AuditOptions
from classify import ClassifyOptions
from common.files import ROOT
from common.terminal import human_bytes
from eval import EvalOptions
from finetune.options import TrainOptions
from model.config import LlamaConfig
from study.__main__ import StudyOptions
from tools.export.options import ExportOptions
from tools.memory import FitsOptions, on_card
from tools.split import SplitOptions

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
LLAMA = {"model_type": "llama", "vocab_size": 128256, "intermediate_size": 8192, "num_key_value_heads": 8,
         "tie_word_embeddings": True}
SIZES = [
    LLAMA | {"hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32, "head_dim": 64},  # 3.2-1B
    LLAMA | {"hidden_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 24, "head_dim": 128},  # 3.2-3B
]


@pytest.mark.parametrize("card", [6, 8, 12, 24])
def test_memory_table(card):
    row = next(line for line in TEXT.splitlines() if line.startswith(f"| {card} GB"))
    plans = [on_card(LlamaConfig.from_dict(size), card) for size in SIZES]
    assert [cell.strip() for cell in row.split("|")[2:4]] == [human_bytes(plan.total) for plan in plans]
    assert all(plan.total < card * 2**30 for plan in plans)


def test_paths_exist():
    layout = TEXT.split("## Layout")[1].split("## Citing")[0]
    folders = "|".join(path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith("."))
    names = re.findall(rf"[\w/]+\.(?:py|md|toml)\b|\b(?:{folders})/", layout)
    assert len(names) > 20
    assert not [name for name in names if not (ROOT / name).exists()]


def test_the_layout_names_every_module_of_the_core():
    layout = TEXT.split("## Layout")[1].split("## Citing")[0]
    for folder in ("model", "quant", "lora", "loading", "finetune", "inference"):
        row = re.search(rf"^{folder}/.*$", layout, re.MULTILINE)[0]
        modules = {path.stem for path in (ROOT / folder).rglob("*.py")} - {"__init__"}
        assert modules <= set(re.findall(r"\w+", row)), folder


def test_options_exist():
    programs = {"train.py": TrainOptions, "eval.py": EvalOptions, "classify.py": ClassifyOptions,
                "tools.split": SplitOptions, "tools.memory": FitsOptions, "-m study": StudyOptions,
                "tools.export": ExportOptions, "-m audit": AuditOptions}
    used = 0
    for line in re.findall(r"^.*(?:python|py) .*--.*$", TEXT, re.MULTILINE):
        cls = next((cls for name, cls in programs.items() if name in line), None)
        if cls is not None:
            known = {"--" + field.name.replace("_", "-") for field in dataclasses.fields(cls)} | {"--preset", "--help"}
            options = re.findall(r"(--[a-z][a-z0-9-]+)", line)
            assert set(options) <= known, line
            used += len(options)
    assert used > 8


def defined(path) -> set[str]:
    """What a file defines: functions, classes, methods as `Class.method`, assigned names and attributes."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef):
            names |= {node.name, *(f"{node.name}.{part.name}" for part in node.body if hasattr(part, "name"))}
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.id if isinstance(node, ast.Name) else node.attr)
    return names


def test_where_things_are():
    """Each row names files that exist, and every other name in it is defined or written in one of them."""
    table = TEXT.split("## Where is ...?")[1].split("## Layout")[0]
    rows = [row.split("|")[2] for row in re.findall(r"^\| (?!Where ).*$", table, re.MULTILINE)]
    assert len(rows) == 5
    checked = 0
    for row in rows:
        names = re.findall(r"`([^`]+)`", row)
        files = [name for name in names if "/" in name]
        assert files and not [name for name in files if not (ROOT / name).exists()], row
        modules = [ROOT / name for name in files if name.endswith(".py")]
        known, texts = set().union(*map(defined, modules)), [path.read_text(encoding="utf-8") for path in modules]
        for name in names:
            if "/" not in name:
                assert any(name in text for text in texts) if "(" in name else name in known, name
                checked += 1
    assert checked >= 10


def test_the_layout_names_every_tool():
    named = set(re.findall(r"\w+", re.search(r"^tools/.*\n +(.*)$", TEXT, re.MULTILINE)[1]))
    tools = ROOT / "tools"
    assert named == {path.stem for path in tools.iterdir() if path.name[0] != "_" and path.suffix in ("", ".py")}


def test_the_packages_to_install_by_hand_are_those_of_the_project():
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = lambda words: {re.match(r"[\w-]+", word)[0] for word in words}  # noqa: E731
    programs = re.search(r"pip install (\"torch>.*)", page)[1].replace('"', "").split()
    assert names(programs) == names(project["dependencies"]) and project["dependencies"][0] in programs
    least = {re.search(r">=([\d.]+)", words)[1] for words in re.findall(r'"torch>[^"]+"', page)}
    assert least == {re.search(r">=([\d.]+)", project["dependencies"][0])[1]}
    tests = re.search(r"`(pytest [^`]+)`, and\n`(triton)` on Linux", page)
    assert names(" ".join(tests.groups()).split()) == names(project["optional-dependencies"]["test"])


def test_nothing_is_left_to_fill_in():
    assert not re.findall(r"\b[A-Z]+_[A-Z]+\b", TEXT.replace("LICENSE", ""))


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
@pytest.mark.parametrize("target, programs", [("demo", 2), ("real", 2), ("glass", 1)])
def test_what_make_is_given_goes_to_every_program(target, programs):
    """make says what it would start, and starts nothing."""
    words = re.search(r'ARGS="(.*?)"', TEXT)[1]
    said = subprocess.run(["make", "-n", target, f"ARGS={words}"], cwd=ROOT, capture_output=True, text=True, check=True)
    started = [line for line in said.stdout.splitlines() if re.match(r"\.venv/bin/python (train|eval|-m glass)", line)]
    assert len(started) == programs and all(line.endswith(f" {words}") for line in started)


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_an_environment_without_pip_is_made_whole(tmp_path):
    """As Debian's Python leaves one behind where python3-venv was missing."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", ".venv"], cwd=tmp_path, check=True)
    subprocess.run(["make", "venv", f"PYTHON={sys.executable}"], cwd=tmp_path, check=True, capture_output=True)
    said = subprocess.run([".venv/bin/python", "-m", "pip", "--version"], cwd=tmp_path, check=True, capture_output=True)
    assert said.stdout.startswith(b"pip ")
