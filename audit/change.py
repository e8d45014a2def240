"""What a change to the model does to its labels (stats/change.py), from the probabilities before and after it."""

import numpy as np

from inference.decide import decide
from stats import change as figures
from stats.predictions import Predictions, Rows


def predictions(table: Rows, probabilities: np.ndarray) -> Predictions:
    """Probabilities (n, C) as `stats` takes them."""
    return Predictions(table, decide(probabilities), probabilities.astype(np.float64))


def macro_f1(table: Rows, probabilities: np.ndarray) -> float:
    """Macro-F1 of the most probable labels."""
    return predictions(table, probabilities).figure("macro_f1")


def change(table: Rows, before: np.ndarray, after: np.ndarray, draws: int = 2000, seed: int = 0) -> dict:
    """Flips, divergence and macro-F1 with their intervals, for probabilities (n, C) before and after."""
    return figures.change(predictions(table, before), predictions(table, after), draws, seed)
