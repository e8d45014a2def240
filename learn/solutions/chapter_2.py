"""Solutions of chapter 2."""

import math

import torch


def rotate_vector(x: torch.Tensor, position: int, frequencies: torch.Tensor) -> torch.Tensor:
    """All pairs at once: the first halves and the second halves."""
    angle = position * frequencies
    first, second = x.chunk(2)
    return torch.cat([first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()])


def scaled_frequency(f: float, factor: float, low: float, high: float, window: int) -> float:
    """Fast ones stay, slow ones are slowed, in between a mixture."""
    turns = window * f / (2 * math.pi)
    share = min(1.0, max(0.0, (turns - low) / (high - low)))
    return share * f + (1 - share) * f / factor
