"""Free memory as Linux, macOS and Windows tell it; the last two by what their programs and structures look like.

Deliberate break: in common/free_memory.py count "active" instead of "inactive", give `_MemoryStatus` fields of
`ctypes.c_ulong`, or ask `os.sysconf` before the system is known.
"""

import ctypes
import os
import subprocess
from types import SimpleNamespace

import pytest

from common import free_memory
from common.free_memory import COUNTED

VM_STAT = """Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                               10000.
Pages active:                            400000.
Pages inactive:                          300000.
Pages speculative:                         2000.
Pages throttled:                              0.
Pages wired down:                        150000.
Pages purgeable:                           7000.
"Translation faults":                 987654321.
Pages copy-on-write:                   12345678.
File-backed pages:                       200000.
"""


def on(monkeypatch, platform: str, told: str | None = None) -> None:
    """The system that is asked, and what its vm_stat says; None: it has none."""
    def run(command, **words):
        assert command == ["vm_stat"]
        if told is None:
            raise FileNotFoundError("vm_stat")
        return SimpleNamespace(stdout=told)

    monkeypatch.setattr(free_memory.sys, "platform", platform)
    monkeypatch.setattr(free_memory, "subprocess", SimpleNamespace(
        run=run, CalledProcessError=subprocess.CalledProcessError))


def test_on_a_mac_what_is_taken_is_not_free(monkeypatch):
    on(monkeypatch, "darwin", VM_STAT)
    assert free_memory.free_memory() == 16384 * (10000 + 300000 + 2000)


@pytest.mark.parametrize("told", [None, "", *(VM_STAT.replace(f"Pages {name}:", "Pages what:") for name in COUNTED),
                                  VM_STAT.replace("page size", "size")])
def test_a_mac_whose_vm_stat_says_something_else_is_asked_for_all_its_pages(monkeypatch, told):
    on(monkeypatch, "darwin", told)
    monkeypatch.setattr(os, "sysconf_names", {"SC_PHYS_PAGES": 1, "SC_PAGE_SIZE": 2}, raising=False)
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 10**6, "SC_PAGE_SIZE": 16384}.__getitem__, raising=False)
    assert free_memory.free_memory() == 10**6 * 16384


def test_windows_has_no_sysconf_and_is_not_asked_for_it(monkeypatch):
    def status(reference) -> int:
        found = ctypes.cast(reference, ctypes.POINTER(ctypes.c_uint32 * 16)).contents
        assert found[0] == 64  # the size of MEMORYSTATUSEX, without which Windows refuses
        for place, value in {2: 16 * 2**30, 4: 5 * 2**30}.items():  # ullTotalPhys, ullAvailPhys
            found[place], found[place + 1] = value & 0xFFFFFFFF, value >> 32
        return 1

    on(monkeypatch, "win32")
    monkeypatch.delattr(os, "sysconf", raising=False)
    monkeypatch.delattr(os, "sysconf_names", raising=False)
    windll = SimpleNamespace(kernel32=SimpleNamespace(GlobalMemoryStatusEx=status))
    monkeypatch.setattr(ctypes, "windll", windll, raising=False)
    assert free_memory.free_memory() == 5 * 2**30


def test_linux_tells_less_than_all_pages():
    if not os.path.exists("/proc/meminfo"):
        pytest.skip("this system has no /proc")
    assert 2**26 < free_memory.free_memory() < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
