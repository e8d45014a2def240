"""Exercises of chapter 9: training and evaluation. Replace each `raise NotImplementedError`, then check.

`learn/OPERATIONS.md` has PyTorch's operations, each with an example.
"""

import torch


def adamw_step(p: torch.Tensor, grad: torch.Tensor, m: torch.Tensor, v: torch.Tensor, step: int, rate: float,
               decay: float, beta_1: float, beta_2: float, eps: float
               ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One step of AdamW.

    p: the numbers to learn; grad: their gradient; m, v: the running means of the gradient and of its square, before
    this step; step: 1 for the first step. Weight decay first makes p smaller by the factor 1 - rate * decay, apart from
    the gradient. eps is added to the root of the corrected v. Returns the new p, m and v, all of p's shape.
    """
    raise NotImplementedError


def macro_f1(gold: list[str], predicted: list[str], labels: list[str]) -> float:
    """The mean over `labels` of each label's F1. Each label occurs in `gold`; one that is never predicted has F1 0."""
    raise NotImplementedError


def wilson(k: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval for k right of n: its lower and its upper end. z is 1.959964."""
    raise NotImplementedError
