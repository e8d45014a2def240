"""benchmarks.compare --task: one task alone.

Deliberate break: keep every job in `compare.one_depth`, or print the table of training's memory without rows.
"""

from functools import partial

import pytest

from benchmarks import products
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
