"""Solutions of chapter 9."""

import math

import torch


def adamw_step(p: torch.Tensor, grad: torch.Tensor, m: torch.Tensor, v: torch.Tensor, step: int, rate: float,
               decay: float, beta_1: float, beta_2: float, eps: float
               ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Decay, the two means, their correction, the step."""
    m = beta_1 * m + (1 - beta_1) * grad
    v = beta_2 * v + (1 - beta_2) * grad**2
    moved = (m / (1 - beta_1**step)) / ((v / (1 - beta_2**step)).sqrt() + eps)
    return p * (1 - rate * decay) - rate * moved, m, v


def macro_f1(gold: list[str], predicted: list[str], labels: list[str]) -> float:
    """2 right / (given + wanted), for each label."""
    scores = []
    for label in labels:
        right = sum(a == b == label for a, b in zip(gold, predicted, strict=True))
        scores.append(2 * right / (gold.count(label) + predicted.count(label)))
    return sum(scores) / len(scores)


def wilson(k: int, n: int) -> tuple[float, float]:
    """The truths for which k of n would not be surprising."""
    z = 1.959964
    half = z * math.sqrt(k * (n - k) / n + z * z / 4)
    return (k + z * z / 2 - half) / (n + z * z), (k + z * z / 2 + half) / (n + z * z)
