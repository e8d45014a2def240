"""Posts that come again, such as retweets: those with the same ids in the prompt are computed once.

What is kept of a post is a digest of its ids and the bits of its probabilities, for the `MOST` posts that came last.
Which posts are computed together changes no bit on a CPU, nor with --exact elsewhere (`inference.exact`), so the bits
that are kept are those of computing the post again. After a kill nothing is known any more, and nothing changes.
"""

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

MOST = 2**16  # posts, at some 250 bytes each
OTHER = -1  # no id: what a row that begins otherwise is digested with


class Repeats:
    """The probabilities of the `most` posts that came last; `count` says how many posts were found among them.

    prefix: ids that nearly all rows begin with, which need not be digested again and again.
    """

    def __init__(self, most: int = MOST, prefix: Sequence[int] = ()):
        self.most, self.count, self._prefix = most, 0, list(prefix)
        self._known: OrderedDict[bytes, bytes] = OrderedDict()

    def split(self, rows: list) -> tuple[list, list[bytes], list[int], list[np.ndarray | None]]:
        """Encoded posts without those that are known: (fresh, their keys, place of each row among the fresh, known
        values).

        place[i] is -1 where the row's probabilities are known; of equal rows the first is fresh, and the others have
        its place.
        """
        fresh, keys, places, values, first = [], [], [], [], {}
        for row in rows:
            key = self._key(row.ids)
            value = self._known.get(key)
            if value is not None:
                self._known.move_to_end(key)
                places.append(-1)
            else:
                place = first.setdefault(key, len(fresh))
                if place == len(fresh):
                    fresh.append(row)
                    keys.append(key)
                places.append(place)
            values.append(None if value is None else np.frombuffer(value, np.float32))
        self.count += len(rows) - len(fresh)
        return fresh, keys, places, values

    def keep(self, keys: list[bytes], probabilities: np.ndarray) -> None:
        """Remember the probabilities (n, C) float32 of fresh rows; the ones that came first are forgotten."""
        for key, values in zip(keys, probabilities, strict=True):
            self._known[key] = values.tobytes()
            if len(self._known) > self.most:
                self._known.popitem(last=False)

    def _key(self, ids: list[int]) -> bytes:
        count = len(self._prefix)
        return digest(ids[count:] if ids[:count] == self._prefix else [OTHER, *ids])


class Last:
    """Which texts are not among the `most` different ones that came last: what `Repeats` would compute, but for texts
    that differ and have the same ids, and without a model."""

    def __init__(self, most: int = MOST):
        self.most = most
        self._known: OrderedDict[bytes, None] = OrderedDict()

    def add(self, text: str) -> bool:
        """Whether `text` is new."""
        key = blake2b(text.encode(), digest_size=16).digest()
        is_new = key not in self._known
        self._known[key] = None
        self._known.move_to_end(key)
        if len(self._known) > self.most:
            self._known.popitem(last=False)
        return is_new


def digest(ids: list[int]) -> bytes:
    """16 bytes that stand for a row of ids (BLAKE2b)."""
    return blake2b(array("q", ids).tobytes(), digest_size=16).digest()
