"""Solutions of chapter 3."""

import math

import torch


def attention_shares(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """Scores, causal mask, softmax."""
    scores = q @ k.T / math.sqrt(q.shape[-1])
    later = torch.ones_like(scores).triu(1).bool()
    return scores.masked_fill(later, -math.inf).softmax(dim=-1)


def repeat_heads(k: torch.Tensor, heads: int) -> torch.Tensor:
    """Each head so many times in a row."""
    return k.repeat_interleave(heads // k.shape[1], dim=1)


def newest_token(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """One row of shares for each head, without a mask: all that is kept stands before the newest token."""
    keys, values = repeat_heads(k, len(q)), repeat_heads(v, len(q))
    scores = torch.einsum("jh,tjh->jt", q, keys) / math.sqrt(q.shape[-1])
    return torch.einsum("jt,tjh->jh", scores.softmax(dim=-1), values)
