"""The layout as the README draws it: who may import whom, how long a file may be, what no file may say.

Deliberate break: write `import quant` into `model/llama.py` or `import report.metrics` into `finetune/loop.py`, add a
folder that `RULE` does not name, or let a file grow past the limit; the tests turn red.
"""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(path for path in ROOT.rglob("*.py") if not path.relative_to(ROOT).as_posix().startswith("."))
PROGRAMS = ("train", "eval", "classify")
CORE = ("common", "model", "quant", "lora")
LIBRARY = (*CORE, "data", "loading", "finetune", "inference", "report", "stats", "baselines", "bulk")
ANYTHING = (*LIBRARY, *PROGRAMS, "study", "tools", "glass", "audit", "learn", "tests", "benchmarks")
# Who may import whom, beside itself: folders, or single modules by their dotted names.
RULE = {
    "common": (), "model": ("common",), "quant": ("common",), "lora": ("common",), "data": ("common",),
    "report": ("common",),
    "loading": CORE,
    "finetune": (*CORE, "data", "loading"),
    "inference": (*CORE, "data", "loading", "finetune.run_folder"),
    "stats": ("common", "report"),
    "baselines": ("common", "data", "report", "stats"),
    "bulk": (*CORE, "data", "loading", "inference", "report", "finetune.run_folder"),
    **dict.fromkeys(("study", "tools", "glass", "audit", "learn", *PROGRAMS), LIBRARY),
    **dict.fromkeys(("tests", "benchmarks"), ANYTHING),
}  # fmt: skip
# Packages from outside, for the folders that a reader meets first.
OUTSIDE = {
    "common": {"torch", "tqdm", "regex", "triton"},
    "model": {"torch", "tiktoken", "sentencepiece", "regex", "triton"},
    "quant": {"torch", "triton"}, "lora": {"torch", "safetensors"},
    "data": {"torch", "numpy", "pyarrow", "regex"}, "report": {"numpy", "matplotlib"}, "stats": {"numpy"},
    "loading": {"torch", "safetensors", "numpy", "huggingface_hub"}, "finetune": {"torch"},
    "inference": {"torch", "numpy"}, "bulk": {"torch", "numpy", "ray", "fsspec"},
}  # fmt: skip
REFERENCES = {"transformers", "peft", "bitsandbytes", "tokenizers", "scipy", "statsmodels"}
ENCODER = ROOT / "baselines" / "encoder.py"  # a baseline of another kind, read by transformers where it is installed
MOST_LINES = 300


def part_of(path: Path) -> str:
    """The folder at the root that a file lies in, or the program that it is."""
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Dotted names of everything that a file imports, wherever the import stands; `from a import b` is a.b."""
    found, package = set(), path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(name for name in (above, node.module) if name)
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def first(name: str) -> str:
    return name.split(".")[0]


def is_allowed(name: str, allowed: tuple[str, ...]) -> bool:
    return any(name == entry or name.startswith(entry + ".") for entry in allowed)


def test_every_folder_has_a_rule():
    assert {part_of(path) for path in FILES} == set(RULE)


@pytest.mark.parametrize("part", RULE)
def test_nobody_imports_what_the_rule_does_not_allow(part):
    own = [path for path in FILES if part_of(path) == part]
    assert own
    for path in own:
        ours = {name for name in imports(path) if first(name) in RULE}
        assert not {name for name in ours if not is_allowed(name, (part, *RULE[part]))}, path


@pytest.mark.parametrize("part", OUTSIDE)
def test_folders_use_few_packages(part):
    for path in FILES:
        if part_of(path) == part:
            names = {first(name) for name in imports(path)} - set(RULE) - set(sys.stdlib_module_names)
            assert names <= OUTSIDE[part], path


def test_reference_libraries_stay_in_tests_and_benchmarks():
    for path in FILES:
        if part_of(path) not in ("tests", "benchmarks") and path != ENCODER:
            assert not {first(name) for name in imports(path)} & REFERENCES, path


def test_every_file_is_read_in_one_sitting():
    long = {str(path.relative_to(ROOT)): count for path in FILES
            if (count := len(path.read_text(encoding="utf-8").splitlines())) > MOST_LINES}
    assert not long


def test_names_at_the_root_shadow_nothing_in_the_standard_library():
    names = {path.stem for path in ROOT.glob("*.py")} | {path.name for path in ROOT.iterdir() if path.is_dir()}
    assert not names & set(sys.stdlib_module_names)


def test_no_test_measures_how_long_something_takes():
    """Count what must not grow: a machine with other work, or a faster one, turns a test of seconds red."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        calls = {node.func.attr for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                 if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)}  # fmt: skip
        assert not calls & {"process_time", "perf_counter", "perf_counter_ns", "thread_time"}, path


def test_every_module_says_what_it_is_for():
    bare = [str(path.relative_to(ROOT)) for path in FILES
            if path.name != "__init__.py" and not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]
    assert not bare


def test_every_test_file_names_its_break():
    quiet = [path.name for path in (ROOT / "tests").rglob("test_*.py")
             if "break" not in (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").lower()]
    assert not quiet
