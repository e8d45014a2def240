"""Exercises of chapter 3: attention. Replace each `raise NotImplementedError`, then `python -m learn check 3`."""

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
