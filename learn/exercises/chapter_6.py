"""Exercises of chapter 6: NF4 by hand. Replace each `raise NotImplementedError`, then `python -m learn check 6`.

`learn/OPERATIONS.md` has PyTorch's operations, each with an example.
"""

import torch


def quantize(weight: torch.Tensor, levels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes and scales of a matrix.

    weight: (rows, columns), a multiple of 64 numbers, none of its blocks all zero; it is cut into blocks of 64 row by
    row. levels: (16,), rising from -1 to 1.
    Returns the code of each weight, (rows * columns,) whole numbers, and the scale of each block, (blocks,).
    """
    raise NotImplementedError


def pack(codes: torch.Tensor) -> torch.Tensor:
    """Two codes in each byte, the first in the upper half: (n,) whole numbers from 0 to 15, n even -> (n / 2,) uint8.

    `pack(torch.tensor([1, 2, 15, 0]))` is `tensor([18, 240], dtype=torch.uint8)`.
    """
    raise NotImplementedError


def dequantize(packed: torch.Tensor, scales: torch.Tensor, levels: torch.Tensor, shape: tuple[int, int]
               ) -> torch.Tensor:
    """The weights that bytes and scales stand for: the way back, from what is stored to a matrix.

    packed: (n / 2,) uint8, as `pack` makes them; scales: (n / 64,); levels: (16,). Returns a matrix of `shape`, whose
    n numbers lie row by row.
    """
    raise NotImplementedError
