"""Which keys came before, for files of any length: a set of 64-bit hashes that need not stay in memory.

An open-addressing table with linear probing (Knuth, The Art of Computer Programming 3, 6.4, algorithm L), at most two
thirds full, with 0 for an empty slot. A slot takes 8 bytes; a Python set takes several times that for each key. Beyond
`IN_MEMORY` slots the table is a mapped temporary file, whose pages the system writes back and drops when memory is
short.

Two keys with the same hash would be taken for one; among n keys the probability of that is about n^2 / 2^65.
"""

import mmap
import tempfile

from common.errors import UserError

IN_MEMORY = 1 << 17  # slots, 1 MB
EMPTY = bytes(1 << 20)


class SeenKeys:
    """A set of hashable keys that only tells whether a key came before."""

    def __init__(self):
        self._slots, self._count = 1 << 12, 0
        self._table = _table(self._slots)

    def add(self, key) -> bool:
        """Add `key`; True if it was there already. Raises `UserError` if there is no room for a temporary file."""
        mark = hash(key) & 0xFFFF_FFFF_FFFF_FFFF or 1
        if not self._put(mark):
            return True
        self._count += 1
        if self._count * 3 > self._slots * 2:
            old = self._table
            self._slots *= 2
            self._table = _table(self._slots)
            for mark in old:
                if mark:
                    self._put(mark)
        return False

    def _put(self, mark: int) -> bool:
        table, last = self._table, self._slots - 1
        slot = mark & last
        while (there := table[slot]) != mark:
            if not there:
                table[slot] = mark
                return True
            slot = (slot + 1) & last
        return False


def _table(slots: int) -> memoryview:
    """`slots` empty 64-bit numbers. A file is written out first: a mapped page without room on the disk is fatal."""
    size = 8 * slots
    if slots <= IN_MEMORY:
        return memoryview(mmap.mmap(-1, size)).cast("Q")
    try:
        with tempfile.TemporaryFile() as file:
            for _ in range(0, size, len(EMPTY)):
                file.write(EMPTY)
            file.flush()
            return memoryview(mmap.mmap(file.fileno(), size)).cast("Q")
    except OSError as error:
        raise UserError(f"{tempfile.gettempdir()}: has no room for a temporary file of {size:,} bytes "
                        f"({error.strerror}); set TMPDIR to another folder") from error
