"""How much of the machine's memory programs can have now, as each system tells it.

    Linux      MemAvailable in /proc/meminfo
    macOS      the pages that `vm_stat` counts as free, speculative or inactive: the last are given up when asked for
    Windows    ullAvailPhys, of GlobalMemoryStatusEx
    elsewhere  the free pages that sysconf knows, or, where it knows none, all pages

All pages are a poor answer: weights that fill a machine on which half is taken go to the disk and back.
"""

import ctypes
import os
import re
import subprocess
import sys

COUNTED = ("free", "speculative", "inactive")


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX of Windows' sysinfoapi.h."""

    _fields_ = (("length", ctypes.c_uint32), ("load", ctypes.c_uint32), ("total", ctypes.c_uint64),
                ("available", ctypes.c_uint64), *((f"rest{n}", ctypes.c_uint64) for n in range(5)))  # fmt: skip


def free_memory() -> int:
    """Bytes of the machine's memory that are free now, or can be at once."""
    if sys.platform == "win32":
        return _by_windows()
    if sys.platform == "darwin":
        return _by_vm_stat() or _by_sysconf()
    return _by_meminfo() or _by_sysconf()


def _by_meminfo() -> int | None:
    try:
        with open("/proc/meminfo", encoding="ascii") as handle:
            for line in handle:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        return None
    raise RuntimeError("/proc/meminfo has no line MemAvailable")


def _by_vm_stat() -> int | None:
    try:
        told = subprocess.run(["vm_stat"], capture_output=True, encoding="utf-8", check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    size = re.search(r"page size of (\d+) bytes", told)
    pages = dict(re.findall(r"^Pages (\w+): +(\d+)\.$", told, re.MULTILINE))
    if size is None or not pages.keys() >= set(COUNTED):
        return None
    return int(size[1]) * sum(int(pages[name]) for name in COUNTED)


def _by_windows() -> int:
    status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
    if not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        raise RuntimeError("GlobalMemoryStatusEx failed")
    return status.available


def _by_sysconf() -> int:
    pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
