"""The set that only tells whether a key came before, against Python's: through every growth, in memory and in a file.

Deliberate break: in data/seen.py, do not put the old marks into the grown table, or remove `or 1`.
"""

import random
import tempfile

import pytest

from common.errors import UserError
from data import seen
from data.seen import SeenKeys


@pytest.mark.parametrize("in_memory", [1 << 30, 1 << 12])
def test_it_tells_what_a_set_tells(monkeypatch, in_memory):
    monkeypatch.setattr(seen, "IN_MEMORY", in_memory)
    rng, keys, known = random.Random(3), SeenKeys(), set()
    for _ in range(60_000):
        key = rng.choice([f"post-{rng.randrange(40_000)}", (str(rng.randrange(20_000)), "en", "")])
        assert keys.add(key) == (key in known)
        known.add(key)
    assert len(known) > 30_000


def test_hashes_at_the_edge():
    """0 marks an empty slot; -1, 2^64 - 1 and marks with the same last bits are in one chain."""
    class Key(int):
        def __hash__(self):
            return int(self)

    keys = SeenKeys()
    some = [Key(n) for n in (0, -2, 1 << 12, 1 << 13, (1 << 60) + 4095, 4095, 3 << 12)]
    assert not any(keys.add(key) for key in some) and all(keys.add(key) for key in some)


def test_no_room_for_the_file_is_one_line(monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(seen, "IN_MEMORY", 1 << 12)
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(UserError, match=r"no room for a temporary file of 65,536 bytes .*set TMPDIR"):
        keys = SeenKeys()
        for number in range(5000):
            keys.add(number)
