"""Memory that the C library keeps: fewer page faults where glibc is, nothing at all elsewhere.

Deliberate breaks: give `M_MMAP_MAX` another number, or leave the look at the platform out.
"""

import ctypes
import os
import subprocess
import sys

import pytest
import torch

from common import allocator
from common.files import ROOT
from inference import options
from inference.options import LabelOptions
from tests.small import random_model

# Twenty times 48 MB, more than glibc ever takes from its heap by itself; prints the page faults behind the first.
CHILD = """
import ctypes, resource, sys
from common.allocator import keep_memory
kept = sys.argv[1] == "keep" and keep_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes, libc.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
for turn in range(20):
    address = libc.malloc(48 << 20)
    libc.memset(address, 1, 48 << 20)
    libc.free(address)
    if not turn:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(way: str) -> tuple[bool, int]:
    child = subprocess.run([sys.executable, "-c", CHILD, way], cwd=ROOT, capture_output=True, text=True, check=True)
    kept, count = child.stdout.split()
    return kept == "True", int(count)


@pytest.mark.skipif(not sys.platform.startswith("linux") or not (os.confstr("CS_GNU_LIBC_VERSION") or ""),
                    reason="is for Linux with glibc")
def test_memory_that_is_freed_is_found_again():
    (kept, few), (plain, many) = faults("keep"), faults("plain")
    assert kept and not plain and many > 100 and few < many / 10


@pytest.mark.parametrize("confstr", [lambda name: "", lambda name: None])
def test_elsewhere_nothing_is_called(monkeypatch, confstr):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("the C library was called"))
    monkeypatch.setattr(os, "confstr", confstr)
    assert not allocator.keep_memory()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not allocator.keep_memory()


def test_labelling_on_a_cpu_asks_for_it(monkeypatch):
    asked = []
    monkeypatch.setattr(options, "keep_memory", lambda: asked.append(1))
    model = random_model()
    LabelOptions().make_ready(model)
    assert asked == [1]
    LabelOptions().make_ready(model.to(torch.device("meta")))
    assert asked == [1]
