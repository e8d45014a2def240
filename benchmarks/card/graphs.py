"""Steps recorded as CUDA graphs beside steps that are not: losses, gradients, and a run from its first step on."""

import random
import time

import torch

from benchmarks.card.correct import ROUNDED, close, difference
from benchmarks.card.speed import held
from benchmarks.card.state import TEMPLATES, State, make_trainer
from lora.inject import trainable_parameters

NOISE = 2.0  # times as far as steps cut into other pieces are apart
STEPS = 60  # of the run from its first step on


def compare(state: State) -> None:
    """Both ways, for each template, loss and way to keep activations; then how long a run takes from its beginning."""
    for template in TEMPLATES:
        for name, more in {"": {}, ", recomputed": {"checkpointing": True}, ", vocabulary": {"loss": "vocabulary"},
                           ", pieces of 1,024 tokens": {"micro_tokens": 1024}}.items():
            if not state.has(10):
                return
            with held(state, "NF4"):
                agree(state, template, name, **more)
        if state.has(25):
            from_the_first(state, template)


def agree(state: State, template: str, name: str, micro_tokens: int = 16384, **more) -> None:
    """Losses and gradients (not clipped) of four steps at a rate of 0: each has its numbers whenever it is made.

    A recorded step is held to the same step computed, whose operations and sizes it has; and to a usual one, whose
    products have other sizes and so round otherwise: no further than a usual one in pieces of another size is from it.
    """
    size = 4 if state.rehearse else 16
    rows, prefix = state.rows(template, 4 * size), state.prefix(template)

    def trainer(tokens: int, graphs: bool = False):
        return make_trainer(state.large, rows, prefix, size, 1000, tokens, rate=0.0, clip=0.0, graphs=graphs,
                            **more)

    usual, other = (steps(trainer(tokens)) for tokens in (micro_tokens, 700))
    recording = trainer(micro_tokens, graphs=True)
    computed, _, replayed = (steps(recording) for _ in range(3))
    state.note(f"recorded, {template}{name}: losses as computed", torch.equal(replayed[0], computed[0]))
    close(state, f"recorded, {template}{name}: gradients beside computed", apart(replayed[1], computed[1]), ROUNDED)
    for what, place, far in (("losses", 0, difference), ("gradients", 1, apart)):
        noise = far(other[place], usual[place])
        close(state, f"recorded, {template}{name}: {what} beside usual", far(replayed[place], usual[place]),
              max(NOISE * noise, 1e-3))


def steps(trainer) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses (4,) and gradients (4, all trainable numbers) of an epoch's steps."""
    losses, gradients = [], []
    for _ in range(trainer.steps_per_epoch):
        losses.append(trainer.step()["loss"].clone())
        gradients.append(torch.cat([part.grad.flatten() for part in trainable_parameters(trainer.model).values()]))
    return torch.stack(losses), torch.stack(gradients)


def apart(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """|found - wanted| / |wanted| of all numbers together: single ones near zero may turn their sign."""
    return ((found - wanted).norm() / wanted.norm()).item()


def from_the_first(state: State, template: str) -> None:
    """Seconds of a run's first steps of 16 posts drawn from all, every new size computed and recorded on the way."""
    size, count = (2, 24) if state.rehearse else (16, 875)
    number = 4 if state.rehearse else STEPS
    rows, prefix = state.rows(template, count), state.prefix(template)
    places = random.Random(0).sample(range(count), count)
    with held(state, "resident"):
        for graphs in (True, False):
            trainer = make_trainer(state.large, rows, prefix, size, 1000, 16384, graphs=graphs,
                                   order=lambda epoch: places)
            state.synchronise()
            began = time.perf_counter()
            for _ in range(number):
                trainer.step()
            state.synchronise()
            how = "recorded" if graphs else "not recorded"
            state.note(f"the first {number} steps of 16 posts, {template}, {how}", time.perf_counter() - began, "s")
            if graphs:
                state.note("  sizes seen", float(len(trainer.graphs.pieces)))
