"""The packed batch: what `data` builds, `model` computes on and the loops read, with no padding in it.

Shape legend of the whole repository:

    B   rows of a rectangular batch           R   rows of a packed batch
    T   tokens per row, where all are equal   N   tokens of a packed batch
    D   hidden size                           F   width of the MLP
    H   query heads                           K   key/value heads (H is a multiple of K)
    h   size of one head                      L   layers
    V   vocabulary                            C   labels
    r   LoRA rank                             S   keys visible to a row (cached ones included)
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise

import torch

# A product whose number of rows is a multiple of this gives each row the same bits, however many rows there are:
# float32 products of fewer than twelve rows take other code paths (MKL, oneDNN). tests/inference/test_invariance.py
# checks this on the machine that runs it.
ROWS = 16


def causal_mask(queries: int, keys: int, device=None) -> torch.Tensor:
    """Which of `keys` tokens each of the last `queries` of them sees: (queries, keys) bool, True where visible."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


def sent(device, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The same tensors, from the CPU, on `device`; to a GPU by way of pinned memory, so that nothing waits."""
    if torch.device(device).type == "cuda":
        tensors = tuple(x.pin_memory() for x in tensors)
    return tuple(x.to(device, non_blocking=True) for x in tensors)


@dataclass(frozen=True)
class Layout:
    """Which of the N packed tokens may see which: all that attention needs to know about rows.

    Tokens `[0, prefix_len)` are a prefix that every row shares and that is computed once. Row i owns the tokens
    `[row_start[i], row_start[i + 1])`; it sees the prefix, its own earlier tokens, and `past` cached keys of its own.
    Plain integers, so that reading them never waits for a device.
    """

    row_start: tuple[int, ...]  # R + 1 entries; row_start[0] == prefix_len
    prefix_len: int = 0
    past: int = 0  # cached tokens per row, in front of its own; only without a prefix
    query_tokens: tuple[int, ...] | None = None  # the query tokens, if not all N; none in the prefix
    _made: dict = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self):
        increasing = all(a < b for a, b in pairwise(self.row_start))
        if len(self.row_start) < 2 or self.row_start[0] != self.prefix_len or not increasing:
            raise ValueError(f"row_start {self.row_start} must rise from prefix_len {self.prefix_len}; no row is empty")
        if self.past and self.prefix_len:
            raise ValueError("a cached batch has no shared prefix: each row's past already holds it")
        if self.query_tokens is not None and (
                self.past or not all(self.prefix_len <= token < self.tokens for token in self.query_tokens)):
            raise ValueError("query tokens must lie in the rows, after the prefix, and without a cache")

    @property
    def rows(self) -> int:
        """R, the number of rows."""
        return len(self.row_start) - 1

    @property
    def tokens(self) -> int:
        """N, the number of packed tokens."""
        return self.row_start[-1]

    def row_of(self, token: int) -> int:
        """The row that owns a token after the prefix."""
        return bisect_right(self.row_start, token) - 1

    def with_queries(self, tokens: Iterable[int]) -> "Layout":
        """The same rows and keys with only these query tokens: `q` then has one entry for each of them."""
        tokens = tuple(tokens)
        return self.once(("with queries", tokens), lambda: replace(self, query_tokens=tokens))

    def mask(self, queries: int, keys: int, device) -> torch.Tensor:
        """`causal_mask(queries, keys)`, made once per batch and shape: every layer needs the same few."""
        return self.once(("mask", queries, keys, device), lambda: causal_mask(queries, keys, device))

    def padded(self, device) -> tuple[torch.Tensor, torch.Tensor]:
        """The rows as a rectangle (R, T), T the longest row's own length; made once per batch.

        (R, T): the token at each entry, or any other if the row has ended; (N - prefix_len,): the index of each token
        in the flattened rectangle.
        """
        def make():
            within = torch.arange(max(self.lengths))  # (T,)
            source = (torch.tensor(self.row_start[:-1])[:, None] + within).clamp_(max=self.tokens - 1)
            index = (within < torch.tensor(self.lengths)[:, None]).view(-1).nonzero()[:, 0]
            return sent(device, source, index)

        return self.once(("padded", device), make)

    def query_positions(self, device) -> tuple[torch.Tensor, torch.Tensor]:
        """For each query token its row and its position in that row, counting the prefix: (Q,) and (Q,)."""
        def make():
            row = torch.tensor([self.row_of(token) for token in self.query_tokens])
            position = torch.tensor(self.query_tokens) - torch.tensor(self.row_start)[row] + self.prefix_len
            return sent(device, row, position)

        return self.once(("queries", device), make)

    def once(self, key: tuple, make: Callable):
        """What `make()` gives, made at the first call with this key and then kept: every layer needs the same."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def keep(self, key: tuple, made) -> None:
        """From now on `once` gives `made` for this key."""
        self._made[key] = made

    @property
    def lengths(self) -> tuple[int, ...]:
        """Number of each row's own tokens, without the shared prefix; R entries."""
        return tuple(b - a for a, b in pairwise(self.row_start))

    @classmethod
    def rectangle(cls, rows: int, length: int, past: int = 0) -> "Layout":
        """`rows` rows of `length` tokens each, none of them shared."""
        return cls(tuple(range(0, rows * length + 1, length)), past=past)


@dataclass(frozen=True)
class PackedBatch:
    """R posts as N tokens in a line, the answer position of each, and which posts they are.

    The layout has R rows, or R + 1 if the last one only fills up the batch.
    """

    tokens: torch.Tensor  # (N,) int64
    positions: torch.Tensor  # (N,) int64: position in the row, counting the shared prefix
    layout: Layout
    answer_index: torch.Tensor  # (R,) int64 into the N tokens: where the label is read
    answer_tokens: tuple[int, ...]  # the same as plain integers
    indices: tuple[int, ...]  # R indices in the caller's list of posts

    def to(self, device) -> "PackedBatch":
        """The same batch with its tensors `sent` to `device`."""
        tokens, positions, answer_index = sent(device, self.tokens, self.positions, self.answer_index)
        return replace(self, tokens=tokens, positions=positions, answer_index=answer_index)


def pack(rows: list[list[int]], answers: list[int], indices: list[int], prefix_len: int = 0, multiple: int = 1
         ) -> PackedBatch:
    """Lay rows of token ids end to end, their first `prefix_len` ids (equal in all of them) once.

    `multiple`: fill up to a multiple of this many tokens with one more row, which has no answer and no index; with
    `ROWS` a post gets the same bits whatever else is in the batch.

    `pack([[1, 2, 3], [1, 2, 4, 5]], [2, 3], [0, 1], prefix_len=2)` has tokens `[1, 2, 3, 4, 5]`, positions
    `[0, 1, 2, 2, 3]`, row_start `(2, 3, 5)` and answer_index `[2, 4]`. `answers` count from the start of each
    full row.
    """
    if not rows:
        raise ValueError("a batch needs at least one row")
    prefix = rows[0][:prefix_len]
    if any(row[:prefix_len] != prefix for row in rows):
        raise ValueError(f"the rows do not share their first {prefix_len} ids")
    if not all(prefix_len <= answer < len(row) for row, answer in zip(rows, answers, strict=True)):
        raise ValueError(f"the answers at {answers} must lie in their rows, after the shared {prefix_len} ids")
    tokens, positions, row_start, answer_index = list(prefix), list(range(prefix_len)), [prefix_len], []
    for row, answer in zip(rows, answers, strict=True):
        answer_index.append(len(tokens) + answer - prefix_len)
        tokens += row[prefix_len:]
        positions += range(prefix_len, len(row))
        row_start.append(len(tokens))
    if fill := -len(tokens) % multiple:
        tokens += [tokens[-1]] * fill
        positions += range(prefix_len, prefix_len + fill)
        row_start.append(len(tokens))
    return PackedBatch(
        torch.tensor(tokens), torch.tensor(positions), Layout(tuple(row_start), prefix_len),
        torch.tensor(answer_index), tuple(answer_index), tuple(indices),
    )
