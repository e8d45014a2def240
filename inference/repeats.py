"""Posts that come again, such as retweets: those with the same ids in the prompt are computed once.

What is kept of a post is a digest of its ids and the bits of its probabilities, for the `MOST` posts that came last.
Which posts are computed together changes no bit on a CPU, nor with --exact elsewhere (`inference.exact`), so the bits
that are kept are those of computing the post again. After a kill nothing is known any more, and nothing changes.
"""

from array import array
from collections import OrderedDict
from hashlib import blake2b

import numpy as np

MOST = 2**16  # posts, at some 250 bytes each


class Repeats:
    """The probabilities of the `most` posts that came last; `count` says how many posts were found among them."""

    def __init__(self, most: int = MOST):
        self.most, self.count = most, 0
        self._known: OrderedDict[bytes, bytes] = OrderedDict()

    def split(self, rows: list) -> tuple[list, list[int], list[np.ndarray | None]]:
        """Encoded posts without those that are known: (fresh, place of each row among the fresh, known values).

        place[i] is -1 where the row's probabilities are known; of equal rows the first is fresh, and the others have
        its place.
        """
        fresh, places, values, first = [], [], [], {}
        for row in rows:
            key = digest(row.ids)
            value = self._known.get(key)
            if value is not None:
                self._known.move_to_end(key)
                places.append(-1)
            else:
                place = first.setdefault(key, len(fresh))
                if place == len(fresh):
                    fresh.append(row)
                places.append(place)
            values.append(None if value is None else np.frombuffer(value, np.float32))
        self.count += len(rows) - len(fresh)
        return fresh, places, values

    def keep(self, rows: list, probabilities: np.ndarray) -> None:
        """Remember the probabilities (n, C) float32 of fresh rows; the ones that came first are forgotten."""
        for row, values in zip(rows, probabilities, strict=True):
            self._known[digest(row.ids)] = values.tobytes()
            if len(self._known) > self.most:
                self._known.popitem(last=False)


def digest(ids: list[int]) -> bytes:
    """16 bytes that stand for a row of ids (BLAKE2b)."""
    return blake2b(array("q", ids).tobytes(), digest_size=16).digest()
