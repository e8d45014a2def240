"""The settings of a fine-tune that decide its result, and what follows from them for an epoch and a step."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

SCHEDULES = ("constant", "linear", "cosine")


@dataclass(frozen=True)
class Recipe:
    """The settings of a fine-tune that decide its result."""

    learning_rate: float
    schedule: str
    warmup: float  # share of all steps
    weight_decay: float
    clip: float  # largest norm of the gradient; 0 for no limit
    batch_size: int  # posts a step
    loss: str
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8


def steps_per_epoch(posts: int, batch_size: int) -> int:
    """Steps that show each post once; the last one may be smaller."""
    return math.ceil(posts / batch_size)


def shares_of(labels: Sequence[int], weights: Sequence[float], places: Sequence[int], classes: int) -> list[float]:
    """Each label's share of the rows `places` (an epoch's, which may name a row twice) by weight: (classes,)."""
    sums = [0.0] * classes
    for place in places:
        sums[labels[place]] += weights[place]
    return [part / sum(sums) for part in sums]


def learning_rate(step: int, total: int, recipe: Recipe) -> float:
    """The rate of step 0 .. total - 1: linear warm-up, then constant, or down to 0 in a line or half a cosine."""
    warmup = round(recipe.warmup * total)
    if step < warmup:
        return recipe.learning_rate * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, total - warmup)
    falling = {"constant": 1.0, "linear": 1 - progress, "cosine": 0.5 * (1 + math.cos(math.pi * progress))}
    return recipe.learning_rate * falling[recipe.schedule]
