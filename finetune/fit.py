"""Step after step to the end of a run: what is logged, when the adapter is scored and kept, and why it ends."""

import math
from dataclasses import dataclass

import torch

from common.errors import UserError
from common.terminal import counted
from finetune.loop import Trainer


@dataclass
class Watch:
    """What evaluation during training remembers: the best score so far and how long ago it was."""

    best: float | None = None
    best_step: int = 0
    without_gain: int = 0

    def update(self, score: float, step: int) -> bool:
        """Note a validation score; True if it is the best so far."""
        if self.best is None or score > self.best:
            self.best, self.best_step, self.without_gain = score, step, 0
            return True
        self.without_gain += 1
        return False


class NotFinite(UserError):
    """A loss or a gradient is no number: further steps would make nothing of it."""


def figures(line: dict) -> dict:
    """What a step returned, as plain numbers. A float16 step whose gradients overflowed has a `grad_norm` of None: its
    scale was too large, so it changed nothing, and the next one has half of it.
    """
    line = {key: value.item() if isinstance(value, torch.Tensor) else value for key, value in line.items()}
    overflows = line.get("scale", 0.0) > 1 and math.isfinite(line["loss"]) and not math.isfinite(line["grad_norm"])
    return line | {"grad_norm": None} if overflows else line


def overflowed(steps: list[dict]) -> list[str]:
    """A line for the run's end, if some of its logged steps overflowed."""
    count = sum(line.get("grad_norm", 0.0) is None for line in steps)
    return [f"{counted(count, 'step')} changed nothing, since a gradient was too large for float16; each time, the "
            "next step had half the scale."] if count else []


def fit(trainer: Trainer, watch: Watch, *, evaluate, on_best, save, log, show, eval_every: int, save_every: int,
        patience: int) -> str:
    """Run the remaining steps; returns why it ended: "all steps" or "no gain in N evaluations".

    evaluate() -> (score, dict), or None if there is nothing to evaluate on; on_best() keeps the adapter; save() writes
    the checkpoint; log(dict) writes a line; show(dict) moves the progress bar. Losses are read for several steps at a
    time, when the loop pauses anyway. Raises `NotFinite` for one that is no number.
    """
    waiting: list[dict] = []

    def flush():
        for line in map(figures, waiting):
            if not all(math.isfinite(line.get(key) or 0.0) for key in ("loss", "grad_norm")):
                wider = ", or --dtype float32" if "scale" in line else ""  # a step in float16; the others reach as far
                raise NotFinite(f"step {line['step']}: the loss is {line['loss']} and its gradient's norm "
                                f"{line['grad_norm']}; try a smaller --learning-rate{wider}")
            log(line)
        waiting.clear()

    out_of_patience = f"no gain in {patience} evaluations"
    if patience and watch.without_gain >= patience:  # killed after the last step, before the run was closed
        return out_of_patience
    ended = "all steps"
    while trainer.step_count < trainer.total_steps:
        line = trainer.step()
        waiting.append(line)
        show(line)
        step = trainer.step_count
        is_last = step == trainer.total_steps
        if evaluate is not None and (step % eval_every == 0 or is_last):
            flush()  # a loss that is not finite raises here, before its adapter is scored or kept
            score, facts = evaluate()
            waiting.append({"step": step, "validation": facts})
            if watch.update(score, step):
                on_best()
            if patience and watch.without_gain >= patience:
                ended = out_of_patience
                is_last = True
        if step % save_every == 0 or is_last or (evaluate is not None and step % eval_every == 0):
            flush()
            save()
        elif len(waiting) >= 20:
            flush()
        if is_last:
            break
    return ended
