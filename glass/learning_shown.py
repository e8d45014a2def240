"""What the page is given of steps of learning: an overview of each, and of its large tensors one line of numbers."""

import torch

from glass.stages import Stage, Trace
from lora.inject import adapters

SOME = 16  # numbers of a module's inputs and slopes


def of_learning(trace: Trace, numbers) -> list[dict] | None:
    """The steps in order, each with its lengths by module; None for a model in which nothing could learn.

    numbers: `glass.shown.numbers`.
    """
    names = list(adapters(trace.model))
    if not names:
        return None
    found = []
    for loss in trace.stages:
        if loss.name.startswith("learning.") and loss.name.endswith(".loss"):
            name = loss.name.removesuffix(".loss")
            clipping, changes, after = (trace.by_name[f"{name}.{part}"] for part in ("clipping", "changes", "after"))
            found.append(loss.facts | clipping.facts | {
                "name": name, "label": int(loss.label), "losses": [*numbers(loss.loss), *numbers(after.loss)],
                "before": numbers(loss.probabilities), "after": numbers(after.probabilities),
                "norm": numbers(clipping.norm)[0], "factor": numbers(clipping.factor)[0], "modules": names,
                "A_gradients": numbers(clipping.A_sizes), "B_gradients": numbers(clipping.B_sizes),
                "whole": f"{name}.update.{names[0]}" in trace.by_name,
                "rate": numbers(changes.rate)[0],
            } | {key: numbers(tensor) for key, tensor in changes.tensors.items() if tensor.dim()})
    return found


def line_of(stage: Stage, name: str, tensor: torch.Tensor) -> tuple[torch.Tensor, str]:
    """The part of a step's tensor that the page shows, and words for it: of A and B the line of r numbers that goes
    through the entry with the largest gradient."""
    if name in ("inputs", "slopes") and tensor.dim() == 2 and "A" in stage.facts:
        return tensor[-1, :SOME], f"the row of the answer, its first {min(SOME, tensor.shape[1])} numbers"
    if tensor.dim() == 2 and name[:2] in ("A_", "B_"):
        row, column = stage.facts[name[0]]
        return (tensor[:, column], f"column {column}") if name[0] == "A" else (tensor[row], f"row {row}")
    return tensor, ""
