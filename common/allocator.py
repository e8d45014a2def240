"""Memory that the C library keeps instead of giving it back: fewer page faults, for programs that label.

Every operation of a model makes a tensor that is freed soon after. glibc takes large ones from the system each time
(`mmap`), which clears and maps every page of them anew. Told to take them from its heap and not to shrink that
(`mallopt` of malloc.h), it finds the memory already there. No number changes; the process holds the most that it ever
needed.
"""

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h
MOST = 2**31 - 1  # bytes that may be free at the heap's end; the largest int


def keep_memory() -> bool:
    """Let malloc keep what is freed, on Linux with glibc; returns whether it will. Elsewhere nothing happens."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        is_glibc = (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (ValueError, OSError):  # another C library does not know the name
        return False
    if not is_glibc:
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, MOST))
