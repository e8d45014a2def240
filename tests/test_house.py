"""The house as the README draws it: which room imports which, how long a file may be, what no file may say.

Deliberate break: write `import quant` into `model/llama.py`, or let a file grow past the limit; the tests turn red.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(path for path in ROOT.rglob("*.py") if not any(part.startswith(".") for part in path.parts))
ROOMS = {"model": {"common"}, "quant": {"common"}, "lora": {"common"}, "data": {"common"}, "report": {"common"},
         "common": set()}
OUTSIDE = {
    "model": {"torch", "safetensors", "tiktoken", "sentencepiece", "regex", "numpy"}, "quant": {"torch"},
    "lora": {"torch", "safetensors"}, "data": {"torch", "numpy", "pyarrow"}, "report": {"numpy", "matplotlib"},
    "common": {"torch", "tqdm"},
}
PROGRAMS = {"train", "eval", "classify", "study"}
REFERENCES = {"transformers", "peft", "bitsandbytes", "tokenizers", "scipy", "statsmodels"}
ENCODER = ROOT / "design" / "encoder.py"  # a baseline of another kind, read by transformers where that is installed
MOST_LINES = 300


def imports(path: Path) -> set[str]:
    """First names of everything that a file imports, wherever the import stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.split(".")[0])
    return found


def own_names() -> set[str]:
    return {path.stem for path in ROOT.glob("*.py")} | {path.parent.name for path in FILES if path.parent != ROOT}


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_nothing_but_common(room):
    import sys

    for path in (ROOT / room).glob("*.py"):
        names = imports(path)
        assert names & own_names() <= ROOMS[room] | {room}, path
        assert names - own_names() - set(sys.stdlib_module_names) <= OUTSIDE[room], path


def test_programs_do_not_import_one_another():
    for name in PROGRAMS:
        path = ROOT / f"{name}.py"
        if path.exists():
            assert not imports(path) & (PROGRAMS - {name}), path


def test_reference_libraries_stay_in_tests_golden_scripts_and_benchmarks():
    for path in FILES:
        if path.relative_to(ROOT).parts[0] not in ("tests", "benchmarks") and path != ENCODER:
            assert not imports(path) & REFERENCES, path


def test_every_file_is_read_in_one_sitting():
    long = {str(path.relative_to(ROOT)): count for path in FILES
            if (count := len(path.read_text(encoding="utf-8").splitlines())) > MOST_LINES}
    assert not long


def test_names_at_the_root_shadow_nothing_in_the_standard_library():
    import sys

    names = {path.stem for path in ROOT.glob("*.py")} | {path.name for path in ROOT.iterdir() if path.is_dir()}
    assert not names & set(sys.stdlib_module_names)


def test_every_module_says_what_it_is_for():
    bare = [str(path.relative_to(ROOT)) for path in FILES
            if path.name != "__init__.py" and not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]
    assert not bare


def test_every_test_file_names_its_break():
    quiet = [path.name for path in (ROOT / "tests").glob("test_*.py")
             if "break" not in (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").lower()]
    assert not quiet
