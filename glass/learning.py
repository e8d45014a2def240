"""A step of learning: one post, one label, one step of the run's own recipe; and back again, bit by bit.

    from glass.learning import Learner
    learner = Learner(run)
    step = learner.step("They came here as children.", "neutral")      step.stages, step.after["neutral"]
    learner.undo()                                                      every weight has the bits of before

The step is `finetune.loop.Trainer.step`, with the loss over the labels, the clipping and the AdamW of a fine-tune; what
passes by is recorded (`watched`), nothing is computed a second time. It is the run's own model that learns, in memory
alone: none of the run's files is opened for it. Its moments begin at zero, as those of a run do, the rate is the
recipe's without warm-up or schedule, and dropout is left out, so that the numbers can be computed again.
"""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from common.device import as_loaded, best_threads
from common.errors import UserError, closest
from data.batching import make_batch, shared_prefix
from finetune.loop import Recipe, Trainer, label_loss
from glass.learning_stages import stages_of
from glass.stages import Stage, Trace
from glass.trace import readable
from inference.labeller import MICRO_TOKENS
from lora.inject import adapters

MOST = 16  # steps, each of which keeps the weights and moments that it found
KEPT = 2  # last steps of which every module's tensors are kept; of those before, the overview
AHEAD = 2  # steps towards each label in a page that cannot compute
SMALL = 2_000_000  # parameters of an adapter; beyond, a page that cannot compute has one label's steps


@dataclass
class Watched:
    """What passed by in one step, by the adapted linear's name: inputs (N, in), gradients of its output (N, out), of A
    (r, in) and of B (out, r) before clipping; the label logits (1, C) and their gradient."""

    inputs: dict[str, torch.Tensor] = field(default_factory=dict)
    slopes: dict[str, torch.Tensor] = field(default_factory=dict)
    gradients: dict[str, torch.Tensor] = field(default_factory=dict)
    logits: torch.Tensor | None = None
    logit_slopes: torch.Tensor | None = None


@dataclass(frozen=True)
class Taken:
    """One step: the first part of its stages' names, which of the steps it is, the post, the label, the loss and the
    labels' probabilities before and after."""

    name: str
    number: int
    text: str
    label: str
    losses: tuple[float, float]
    before: dict[str, float]
    after: dict[str, float]
    stages: tuple[Stage, ...]


def recipe_of(run) -> Recipe:
    """The run's own recipe with one post a step, at its rate, over the labels."""
    options = run.folder.facts["options"]
    return Recipe(options["learning_rate"], "constant", 0.0, options["weight_decay"], options["clip"], 1, "label")


class Learner:
    """A run's model, and the steps that it has taken here. threads: CPU threads; 0 chooses by the model's size."""

    def __init__(self, run, threads: int = 0):
        self.threads = threads
        self.model, self.prompt, self.recipe = run.model, run.prompt, recipe_of(run)
        self.taken: list[Taken] = []
        self._states: list[dict] = []  # before each step
        self._state: dict | None = None  # now
        self._named = 0

    def step(self, text: str, label: str) -> Taken:
        """One training step on `text` with the gold label `label`.

        Raises `UserError` for a text in which nothing can be seen, a label that the codebook lacks, a model without an
        adapter or in float16, a loss that is not finite, and after `MOST` steps; the model is then as it was.
        """
        labels = self.prompt.codebook.labels
        check_label(label, labels)
        if not adapters(self.model):
            raise UserError("a step of learning: the model carries no adapter, so nothing of it could learn")
        if self.model.dtype == torch.float16:
            raise UserError("a step of learning: in float16 the loss is scaled, and its gradients with it; open the "
                            "run in float32")
        if len(self.taken) == MOST:
            raise UserError(f"a step of learning: {MOST} steps are taken; undo some of them first")
        text, number, index = readable(text), len(self.taken) + 1, labels.index(label)
        row, name = self.prompt.encode(text), f"learning.{self._named}"
        with learnable(self.model), best_threads(self.model.config, self.threads):
            trainer = Trainer(self.model, [row], [index], [1.0], self.prompt.label_ids, lambda epoch: [0],
                              self.prompt.prefix_ids, self.recipe, MOST, MICRO_TOKENS)
            if self._state is not None:
                trainer.load_state(self._state)
            before = copy.deepcopy(trainer.state())
            try:
                with watched(self.model) as seen:
                    line = trainer.step()
                after = label_logits(trainer)  # (1, C)
                losses = float(line["loss"]), float(label_loss(after, trainer.labels.to(after.device)))
                if not all(map(math.isfinite, losses)):
                    raise UserError(f"a step of learning: the loss goes from {losses[0]:g} to {losses[1]:g}; the "
                                    "run's learning rate is too large for it")
                stages = stages_of(name, number, text, row, index, seen, line, before, trainer, after)
            except BaseException:
                self._restore(before)
                raise
        step = Taken(name, number, text, label, losses, named(labels, seen.logits), named(labels, after), stages)
        self._states.append(before)
        self._state, self._named = trainer.state(), self._named + 1
        self.taken = [short(one) for one in self.taken[:-KEPT + 1]] + self.taken[-KEPT + 1 :] + [step]
        return step

    def undo(self) -> None:
        """Take the last step back: weights and moments have the bits of before. Raises `UserError` without one."""
        if not self.taken:
            raise UserError("undo: no step is taken")
        self._restore(self._states.pop())
        self.taken.pop()

    @torch.no_grad()
    def _restore(self, state: dict) -> None:
        self._state = state
        for name, parameter in self.model.named_parameters():
            if name in state["parameters"]:
                parameter.copy_(state["parameters"][name])

    @property
    def stages(self) -> list[Stage]:
        """Of all steps that are taken."""
        return [stage for step in self.taken for stage in step.stages]


def check_label(label, labels, where: str = "label") -> None:
    """Raises `UserError` for a label that is not among the codebook's `labels`."""
    if label not in labels:
        raise UserError(f"{where} '{label}': is not in the codebook{closest(str(label), labels)}; it has "
                        f"{', '.join(labels)}")


def short(step: Taken) -> Taken:
    """The step without its modules' tensors."""
    return Taken(**{**vars(step), "stages": tuple(stage for stage in step.stages if ".model." not in stage.name)})


def with_steps(run, trace: Trace, label: str | None = None) -> Trace:
    """The trace with the stages of `AHEAD` steps on its post towards each label; the model is left as it was.

    label: towards this one alone; so it is, towards the most probable one but the model's answer, for an adapter of
    more than `SMALL` parameters. Unchanged if the model carries no adapter, or computes in float16 (`step`).
    """
    layers = adapters(trace.model).values()
    if not layers or trace.model.dtype == torch.float16:
        return trace
    others = sorted(trace.probabilities, key=trace.probabilities.get, reverse=True)
    small = sum(layer.lora_A.numel() + layer.lora_B.numel() for layer in layers) <= SMALL
    chosen = [label] if label is not None else list(trace.probabilities) if small else others[1:2]
    learner, stages = Learner(run, trace.threads), []
    for label in chosen:
        for _ in range(AHEAD):
            stages += learner.step(trace.text, label).stages
        while learner.taken:
            learner.undo()
    return trace.extended(stages)


def named(labels, logits: torch.Tensor) -> dict[str, float]:
    """The labels' probabilities by name, of logits (1, C)."""
    return dict(zip(labels, logits.softmax(-1)[0].tolist(), strict=True))


@torch.no_grad()
def label_logits(trainer: Trainer) -> torch.Tensor:
    """The label logits of the trainer's one row, computed as in its step: (1, C)."""
    batch = make_batch(trainer.rows, [0], shared_prefix(trainer.prefix, trainer.rows)).to(trainer.model.device)
    return trainer.model.label_logits(trainer.model.answer_hidden(batch), trainer.label_ids)


@contextmanager
def learnable(model) -> Iterator[None]:
    """Within the block A and B of the adapters can learn, without dropout; nothing is left but what they learnt.

    The state of the random numbers is that of before, too.
    """
    layers = list(adapters(model).values())
    before = [(layer.dropout, layer.lora_A.requires_grad, layer.lora_B.requires_grad) for layer in layers]
    cards = range(torch.cuda.device_count())
    with as_loaded(model), torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=cards):
        try:
            for layer in layers:
                layer.dropout = 0.0
                layer.lora_A.requires_grad_()
                layer.lora_B.requires_grad_()
            yield
        finally:
            for layer, (dropout, *learns) in zip(layers, before, strict=True):
                layer.dropout = dropout
                for parameter, learned in zip((layer.lora_A, layer.lora_B), learns, strict=True):
                    parameter.grad = None
                    parameter.requires_grad_(learned)
            model.eval()


@contextmanager
def watched(model) -> Iterator[Watched]:
    """Within the block, what one step computes is kept in the `Watched` that is given."""
    seen, handles, label_logits = Watched(), [], model.label_logits

    def keep(name):
        def hook(module, inputs, output):
            seen.inputs[name] = inputs[0].detach()
            output.register_hook(lambda slope: seen.slopes.update({name: slope}))
        return hook

    def keep_gradient(name):
        return lambda parameter: seen.gradients.update({name: parameter.grad.clone()})

    def watched_logits(*args, **options):
        found = label_logits(*args, **options)
        seen.logits = found.detach()
        found.register_hook(lambda slope: setattr(seen, "logit_slopes", slope))
        return found

    try:
        for name, layer in adapters(model).items():
            handles.append(layer.register_forward_hook(keep(name)))
            for part in ("lora_A", "lora_B"):
                handles.append(getattr(layer, part).register_post_accumulate_grad_hook(keep_gradient(f"{name}.{part}")))
        model.label_logits = watched_logits
        yield seen
    finally:
        del model.label_logits
        for handle in handles:
            handle.remove()
