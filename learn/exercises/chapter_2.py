"""Exercises of chapter 2: RoPE and the llama3 scaling. Replace each `raise NotImplementedError`, then check.

`learn/OPERATIONS.md` has PyTorch's operations, each with an example.
"""

import torch


def rotate_vector(x: torch.Tensor, position: int, frequencies: torch.Tensor) -> torch.Tensor:
    """A vector turned for its position.

    x: (h,); number i is paired with number i + h / 2. frequencies: (h / 2,), radians per position; pair i turns by
    position * frequencies[i], from the first number towards the second. Returns a new tensor (h,).
    """
    raise NotImplementedError


def scaled_frequency(f: float, factor: float, low: float, high: float, window: int) -> float:
    """One frequency after llama3's scaling.

    A pair that comes round more than `high` times in the window stays as it is; one that comes round less than `low`
    times is slowed by `factor`; in between the two go over into one another in a straight line.
    """
    raise NotImplementedError
