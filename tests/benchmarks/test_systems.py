"""Where a benchmark cannot see what a process holds, it says so in a line, and shows no memory of zero bytes.

Deliberate break: leave `check_system` out of a program.
"""

import sys
from importlib import import_module

import pytest

from common.errors import UserError

PROGRAMS = {"compare": "darwin", "scaling": "darwin", "real_size": "darwin", "gpu": "win32"}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_benchmark_is_refused_where_it_cannot_measure(name, monkeypatch, tmp_path):
    program = import_module(f"benchmarks.{name}")
    monkeypatch.chdir(tmp_path)
    for platform in {PROGRAMS[name], "win32"}:
        monkeypatch.setattr(sys, "platform", platform)
        with pytest.raises(UserError, match=rf"^benchmarks\.{name}: .* what {platform} lacks .*; run it on Linux"):
            program.main([])
    assert not list(tmp_path.iterdir())
