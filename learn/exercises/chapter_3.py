"""Exercises of chapter 3: attention. Replace each `raise NotImplementedError`, then `python -m learn check 3`.

`learn/OPERATIONS.md` has PyTorch's operations, each with an example.
"""

import torch


def attention_shares(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """How much each token takes from each, in one head.

    q, k: (T, h), turned by their positions already. Returns (T, T): row i has token i's shares, which sum to one; it
    takes nothing from later tokens.
    """
    raise NotImplementedError


def repeat_heads(k: torch.Tensor, heads: int) -> torch.Tensor:
    """Keys laid out once for every query head: (T, K, h) -> (T, heads, h), `heads` a multiple of K.

    Neighbouring query heads share a key/value head.
    """
    raise NotImplementedError


def newest_token(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """What the newest token takes from those that are kept, in every head, as a model does when it writes.

    q: (H, h), the newest token's queries; k, v: (T, K, h), keys and values of all tokens so far, its own last.
    Returns (H, h).
    """
    raise NotImplementedError
