"""Solutions of chapter 8."""

from itertools import pairwise

import torch


def common_prefix(rows: list[list[int]]) -> int:
    """Go along until two rows differ, or one ends."""
    for place, ids in enumerate(zip(*rows, strict=False)):
        if len(set(ids)) > 1:
            return place
    return min(len(row) for row in rows)


def may_see(starts: tuple[int, ...], prefix: int) -> torch.Tensor:
    """Row by row of the batch: the prefix, and a triangle of its own."""
    seen = torch.zeros(starts[-1], starts[-1], dtype=torch.bool)
    seen[:prefix, :prefix] = torch.ones(prefix, prefix).tril().bool()
    for start, end in pairwise(starts):
        seen[start:end, :prefix] = True
        seen[start:end, start:end] = torch.ones(end - start, end - start).tril().bool()
    return seen


def label_shares(hidden: torch.Tensor, table: torch.Tensor, label_ids: torch.Tensor) -> torch.Tensor:
    """Dot products with the labels' rows, then softmax over them."""
    return (hidden @ table[label_ids].T).softmax(dim=-1)
