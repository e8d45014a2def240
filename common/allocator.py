"""Memory that the C library keeps instead of giving it back: fewer page faults, for programs that label.

Every operation of a model makes a tensor and frees it soon after. glibc takes large ones from the system each time
(`mmap`), and every page of them is cleared and mapped anew. Told to take them from its heap and to keep that (`mallopt`
of malloc.h), it finds the memory already there. No number changes; a program keeps what it once needed until it ends.
"""

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h
MOST = 2**31 - 1  # bytes at the heap's end that may be free before it shrinks; the largest int


def keep_memory() -> bool:
    """Let malloc keep what is freed, on Linux with glibc; returns whether it does. Elsewhere nothing happens."""
    if not sys.platform.startswith("linux") or "CS_GNU_LIBC_VERSION" not in os.confstr_names:
        return False
    try:
        is_glibc = (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
        mallopt = ctypes.CDLL(None).mallopt
    except (ValueError, OSError, AttributeError):  # musl knows neither
        return False
    return is_glibc and bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, MOST))
