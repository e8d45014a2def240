"""benchmarks.compare --task: one task alone.

Deliberate break: keep every job in `compare.one_depth`, start a worker for every arithmetic that this processor has, or
print the table of training's memory without rows.
"""

from functools import partial

import pytest

from benchmarks import compare as program
from benchmarks import products
from common.errors import UserError
from tests.benchmarks.test_compare import compare
from tests.small import needs


@pytest.mark.slow
def test_one_task_alone(tmp_path, monkeypatch):
    """`--task label` trains nothing, and prints no table of training's memory."""
    needs("transformers", "peft", "bitsandbytes")
    monkeypatch.setattr(products, "_time", partial(products._time, least=0.0))
    printed, result = compare(tmp_path, "--llama", "off", "--task", "label")
    assert result["projection"] and all(", label, " in name for name in result["projection"])
    assert result["memory"] == [] and "peak memory" not in printed and "times faster" in printed


@pytest.fixture
def everything(monkeypatch):
    """All packages are there, and this processor has every arithmetic."""
    monkeypatch.setattr(program.importlib.util, "find_spec", lambda name: object())
    for name in ("has_bf16_kernels", "pays"):
        monkeypatch.setattr(program, name, lambda: True)


@pytest.mark.parametrize(("words", "says"), [
    ({"device": "cuda"}, "--llama on: llama.cpp is measured on the CPU, and --device is cuda"),
    ({"task": "train"}, "--llama on: llama.cpp labels and does not train")])
def test_llama_cpp_without_a_job_is_refused(everything, words, says):
    options = program.CompareOptions(llama="on", threads=1, **words)
    options.given = frozenset()
    with pytest.raises(UserError, match=says):
        program.settle(options)


@pytest.mark.parametrize(("task", "sides"), [
    ("train", ["ours", "usual"]),
    ("label", ["ours", "usual", "ours in bf16", "ours in int8", "usual in bf16", "llama.cpp"])])
def test_workers_are_those_that_have_a_job(everything, monkeypatch, tmp_path, task, sides):
    """With `--task train` no GGUF file is written, and nobody is started who labels alone."""
    begun, written = [], []

    class Silent:
        """A worker that answers nothing in particular."""

        def __init__(self, name, *_):
            begun.append(name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def ask(self, *_, **__):
            return {"system": "", "seconds": 1.0}

    monkeypatch.setattr(program, "Worker", Silent)
    monkeypatch.setattr(program, "llama_file", lambda *_: written.append("gguf") or tmp_path / "q4.gguf")
    monkeypatch.setattr(program, "measure_depth", lambda options, depth, sides, every, *_: every)
    options = program.CompareOptions(task=task, dtype="float32")
    options.given = frozenset()
    program.settle(options)
    every = program.one_depth(options, 2, tmp_path, tmp_path, {})
    assert begun == sides and {job.side for job in every} == set(sides)
    assert written == ["gguf"] * (task == "label")
