"""What a study will take: time and memory of every model, in order, estimated from one short measured run.

The first untrained model is trained for `STEPS` steps by train.py, as in a real run but in a folder that is removed
afterwards, and labels `POSTS` test posts. From this, for every model:

    seconds = start-up + steps * seconds per step + labellings * (loading + posts * seconds per post)

Other models' steps may be longer or shorter than the measured ones, as their posts are, and the first steps of a
process, which set up its kernels, are the slowest. So the total is a bound to plan with, not a promise.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from common.files import scratch_folder
from common.terminal import human_bytes, human_seconds, table
from finetune.loop import steps_per_epoch
from study.fits import TEST, Asked, Fit, asked_of, unique
from study.runner import ZERO, Runner

STEPS, POSTS = 3, 32
STATES = ("done", "started", "to do")
ARMS = {"exposure": "added languages", "english": "placebo: English rows", "steps": "placebo: steps",
        "codebook": "other words", "earlier": "earlier posts alone", "mixed": "as many of all days"}


def state(runner: Runner, fit: Fit) -> str:
    """One of `STATES`."""
    if runner.is_trained(fit):
        return "done"
    return "started" if (runner.folder(fit) / "run" / "run.json").exists() else "to do"


def cells_table(runner: Runner, fits: Sequence[Fit]) -> str:
    """The terminal's table of sets and arms: models, rows, and how many are done, started and to do.

    A model that two parts of the plan share is counted under the first.
    """
    groups: dict[str, list[Fit]] = {}
    for fit in unique(fits):
        own = fit.kind in ("codebook", "earlier", "mixed")
        name = fit.name if fit.kind in ("set", ZERO) else \
            f"{fit.name if own else runner.plan.exposure.base}, {ARMS[fit.kind]}"
        groups.setdefault(name, []).append(fit)
    lines = []
    for name, members in groups.items():
        rows = sorted({len(fit.keys) for fit in members})
        states = [state(runner, fit) for fit in members]
        span = f"{rows[0]:,}" if len(rows) == 1 else f"{rows[0]:,} to {rows[-1]:,}"
        lines.append([name, f"{len(members):,}", span if rows[-1] else None, *(states.count(one) for one in STATES)])
    return table(["set or arm", "models", "rows", *STATES], lines)


def steps_of(runner: Runner, fit: Fit) -> int:
    """Optimiser steps of a fit; 0 for the base itself."""
    if fit.kind == ZERO:
        return 0

    def given(name: str):
        return fit.options.get(name, runner.option(name))

    steps = steps_per_epoch(len(fit.keys), given("batch_size")) * given("epochs")
    return min(steps, given("max_steps")) if given("max_steps") else steps


@dataclass(frozen=True)
class Measured:
    """What one short run took, in seconds and bytes."""

    fit: Fit
    start: float  # of a training process: imports, reading, loading, and writing the run at the end
    step: float
    load: float  # of a trained model, before it labels
    post: float
    memory: int
    how: str  # where `memory` comes from

    def seconds(self, runner: Runner, fit: Fit, asked: Sequence[Asked]) -> float:
        """The seconds that a fit still needs: training, unless it is trained, and what it has not been asked yet."""
        training = 0.0 if runner.is_trained(fit) else self.start + self.step * steps_of(runner, fit)
        todo = [one for one in asked if not runner.answers_path(fit, one).exists()]
        loads = len({one.quantize for one in todo})
        return training + loads * self.load + len(todo) * len(runner.material.rows) * self.post


def dry_run(runner: Runner, fits: Sequence[Fit]) -> str:
    """Every model in order with rows, steps, expected time and memory, and the total; nothing is kept."""
    models = unique(fits)
    todo = [fit for fit in models if not runner.is_trained(fit)]
    if not todo:
        return "\n".join([cells_table(runner, fits), "every model is trained; nothing was measured"])
    measured = measure(runner, todo[0])
    asked = {fit.key: [] for fit in models}
    for fit in fits:
        asked[fit.key] += [one for one in asked_of(runner.plan, fit) if one not in asked[fit.key]]
    seconds = [measured.seconds(runner, fit, asked[fit.key]) for fit in models]
    lines = [[number, fit.title, f"{len(fit.keys):,}" if fit.keys else None, f"{steps_of(runner, fit):,}",
              len(asked[fit.key]), human_seconds(took) if took else None,
              human_bytes(measured.memory) if took else None, state(runner, fit)]
             for number, (fit, took) in enumerate(zip(models, seconds, strict=True), 1)]
    total = f"total: {human_seconds(sum(seconds))} one after another"
    if runner.jobs > 1:
        total += (f"; about {human_seconds(sum(seconds) / runner.jobs)} with {runner.jobs} at a time, and "
                  f"{human_bytes(runner.jobs * measured.memory)} of memory")
    return "\n".join([
        cells_table(runner, fits), "",
        table(["order", "model", "rows", "steps", "labellings", "time", "memory", "state"], lines), "",
        f"measured: {measured.fit.title}, {STEPS} steps and {POSTS} posts: {human_seconds(measured.start)} to start "
        f"and end, {measured.step:.3g} s a step, {human_seconds(measured.load)} to load, {1 / measured.post:,.0f} "
        f"posts a second; memory: {measured.how}",
        "the first steps and posts are the slowest, and other rows differ in length: a bound to plan with", total])


def measure(runner: Runner, fit: Fit) -> Measured:
    """Train `fit` for a few steps and label a few posts in a folder that is removed afterwards."""
    rows = runner.material.rows
    few = rows[:: max(1, len(rows) // POSTS)][:POSTS]
    with short_folder(runner.out) as folder:
        short = replace(runner, out=folder, material=replace(runner.material, rows=few), jobs=1)
        short.machine = replace(runner.machine, threads=runner.threads())
        began = time.perf_counter()
        short.train(fit, max_steps=min(STEPS, steps_of(runner, fit)))
        whole, facts = time.perf_counter() - began, short.facts(fit)
        began = time.perf_counter()
        short.ask(fit, [TEST])
        asking, told = time.perf_counter() - began, short.read(fit, TEST)
    expected = facts["memory_expected"]["total"]
    if runner.device.type == "cpu" and (peak := peak_of_children()):
        memory, how = peak, "the peak of a training process"
    else:
        memory, how = expected, "train.py's estimate"
    return Measured(fit, whole - facts["seconds"], facts["seconds"] / facts["step"], asking - told["seconds"],
                    told["seconds"] / told["posts"], memory, how)


@contextmanager
def short_folder(out: Path) -> Iterator[Path]:
    """A folder in OUT/fits that is removed again, with those above it that were not there before."""
    with scratch_folder(out / "fits" / "dry-run") as folder:
        yield folder


def peak_of_children() -> int:
    """The largest resident memory of any process that this one started and waited for, in bytes; 0 if unknown."""
    try:
        from resource import RUSAGE_CHILDREN, getrusage
    except ImportError:  # Windows
        return 0
    return getrusage(RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)  # kilobytes except on macOS
