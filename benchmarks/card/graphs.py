"""Training with `--graphs` beside training without: the same losses, and posts a second."""

from functools import partial

import torch

from benchmarks.card.correct import ROUNDED, close, difference
from benchmarks.card.speed import resident, steps
from benchmarks.card.state import TEMPLATES, State, make_trainer
from lora.inject import trainable_parameters

STEPS = 6  # of which each size's first is computed and its second recorded


def compare(state: State) -> None:
    """Steps of 16 posts, and of as many in two or more pieces, by both ways, from the same adapter."""
    for template in TEMPLATES:
        rows, prefix = state.rows(template, 64), state.prefix(template)
        for name, more in {"": {}, ", recomputed": {"checkpointing": True}, ", vocabulary": {"loss": "vocabulary"},
                           ", pieces of 1,024 tokens": {"micro_tokens": 1024}}.items():
            tokens = more.pop("micro_tokens", 16384)
            with resident(state, False):
                found = [losses(state, partial(make_trainer, state.large, rows, prefix, 16, 1000, tokens, graphs=graphs,
                                               **more)) for graphs in (False, True)]
            close(state, f"losses of {STEPS} steps, {template}{name}", difference(found[1], found[0]), ROUNDED)
        for name, dense in (("NF4", False), ("resident", True)):
            with resident(state, dense):
                for graphs in (False, True):
                    if state.left < 4:
                        return
                    measure(state, f"train, {template}, 16 posts a step, {name}{', graphs' * graphs}",
                            make_trainer(state.large, rows, prefix, 16, 1000, 16384, graphs=graphs))


def losses(state: State, make) -> torch.Tensor:
    """Losses of some steps; the adapter is afterwards as it was."""
    before = {name: part.detach().clone() for name, part in trainable_parameters(state.large).items()}
    trainer = make()
    lines = [trainer.step()["loss"] for _ in range(STEPS)]
    with torch.no_grad():
        for name, part in trainable_parameters(state.large).items():
            part.copy_(before[name])
            part.grad = None
    return torch.stack(lines)


def measure(state: State, what: str, trainer) -> None:
    """Posts a second once every size is recorded, the host's time, and memory."""
    for _ in range(3 * trainer.steps_per_epoch):  # each size is computed, recorded, replayed
        trainer.step()
    with state.peak() as memory:
        seconds = state.time(partial(steps, trainer), 5, 1) / 2
    state.note(what, 16 / seconds, "posts/s")
    state.note("  host time of a step", 1e3 * state.host(trainer.step), f"ms of {1e3 * seconds:.0f}")
    if trainer.graphs is not None:
        state.note("  sizes recorded", float(len(trainer.graphs.pieces)))
    if memory:
        state.note("  allocated at most", memory["bytes"] / 1e9, "GB")
        state.note("  reserved", torch.cuda.memory_reserved() / 1e9, "GB")
