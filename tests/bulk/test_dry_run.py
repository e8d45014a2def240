"""The memory that a dry run tells of, also where the system counts it in another unit or not at all.

Deliberate break: in bulk/dry_run.py import `resource` at the top of the file, or forget one of the two units.
"""

import sys
from types import SimpleNamespace

import pytest
import torch

from bulk.dry_run import peak_memory

MODEL = SimpleNamespace(device=torch.device("cpu"))


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_kilobytes_on_linux_and_bytes_on_a_mac(platform, unit, monkeypatch):
    told = SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda who: SimpleNamespace(ru_maxrss=5 * 10**5))
    monkeypatch.setitem(sys.modules, "resource", told)
    monkeypatch.setattr(sys, "platform", platform)
    assert peak_memory(MODEL) == 5 * 10**5 * unit


def test_windows_does_not_tell(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    assert peak_memory(MODEL) == 0
