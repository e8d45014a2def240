"""Exercises of chapter 8: prefix and labels. Replace each `raise NotImplementedError`, then check.

`learn/OPERATIONS.md` has PyTorch's operations, each with an example.
"""

import torch


def common_prefix(rows: list[list[int]]) -> int:
    """How many ids all rows begin with: `common_prefix([[1, 2, 3], [1, 2, 4, 3]])` is 2."""
    raise NotImplementedError


def may_see(starts: tuple[int, ...], prefix: int) -> torch.Tensor:
    """Who may see whom in a packed line of N tokens: (N, N) bool; row: the token that looks, column: the one seen.

    The first `prefix` tokens are shared. Row i of the batch owns the tokens from starts[i] up to, but not including,
    starts[i + 1]; starts[0] is `prefix`, the last entry is N. A token sees the prefix, the earlier tokens of its own
    row, and itself. In the prefix, a token sees the earlier ones and itself.
    """
    raise NotImplementedError


def label_shares(hidden: torch.Tensor, table: torch.Tensor, label_ids: torch.Tensor) -> torch.Tensor:
    """The labels' probabilities: softmax over the labels' scores alone.

    hidden: (R, D), a vector for each post; table: (V, D), a row for each piece; label_ids: (C,), the labels' pieces.
    Returns (R, C).
    """
    raise NotImplementedError
