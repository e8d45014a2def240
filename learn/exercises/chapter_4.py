"""Exercises of chapter 4: the block. Replace each `raise NotImplementedError`, then `python -m learn check 4`.

`learn/OPERATIONS.md` has PyTorch's operations, each with an example.
"""

from collections.abc import Callable

import torch

Part = Callable[[torch.Tensor], torch.Tensor]  # takes (tokens, D) and gives (tokens, D)


def rms_norm(x: torch.Tensor, gain: torch.Tensor, eps: float) -> torch.Tensor:
    """Each row divided by its root mean square, then multiplied by the gain.

    x: (tokens, D); gain: (D,); eps: a small number that is added to the mean of the squares.
    """
    raise NotImplementedError


def block(x: torch.Tensor, attention: Part, mlp: Part, norm_1: Part, norm_2: Part) -> torch.Tensor:
    """One layer: attention and then the MLP, each on a normed copy and added to what came in; (tokens, D)."""
    raise NotImplementedError
