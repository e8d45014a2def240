"""Exercises of chapter 5: loading. Replace each `raise NotImplementedError`, then `python -m learn check 5`.

`learn/OPERATIONS.md` has PyTorch's operations, each with an example.
"""

import torch


def from_bfloat16(data: bytes) -> torch.Tensor:
    """Bytes that hold bfloat16 numbers, as 32-bit numbers: two bytes each, the lower one first -> (n,) float32.

    Write it without `torch.bfloat16`: put sixteen zero bits behind, and take the 32 for what they are.
    """
    raise NotImplementedError


def find_tensor(data: bytes, name: str) -> tuple[list[int], int, int]:
    """Where a tensor lies in a safetensors file: its shape, and the places in `data` at which its bytes begin and end.

    data: the whole file. `data[start:end]` are then the tensor's bytes.
    """
    raise NotImplementedError
