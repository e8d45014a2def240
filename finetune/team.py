"""Several processes that train one adapter, one on each GPU (`torchrun --nproc-per-node 4 train.py ...`).

A step is that of one process: its posts are dealt out in turn, each process computes the gradients of its share of the
whole step's mean, and these are added up in the processes' order, so that all have the same sum, to the bit, each time:

    g = g_0 + g_1 + ... + g_(n-1),    g_r = sum over posts i of process r of w_i grad l_i / sum over all posts of w

Each then makes the same update. One process, the first, keeps the run; the others follow it step by step and write
nothing. Dropout is drawn anew for every step and process, from the seed, so that a resumed run needs no other state
than that of one process; with dropout 0 the adapter is that of one process, up to the rounding of the sum.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import asdict
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed

from common.errors import UserError, one_line
from finetune.loop import Trainer
from finetune.resume import FREE_ON_RESUME

T = TypeVar("T")
GO, END = 1, 0
PATIENCE = timedelta(hours=6)  # the others wait while the first one validates
PRIME = 1_000_003  # between the seeds of two steps' dropout
SEEDS = 2**64  # PyTorch takes those below
NUMBERS = ("WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")  # what torchrun tells each process
TORCHRUN = "start the processes with python -m torch.distributed.run, or unset WORLD_SIZE to train in one"


def _is_set() -> str:
    return f"WORLD_SIZE is set to {os.environ['WORLD_SIZE'][:20]!r} in the environment"


def _number(name: str) -> int:
    value = os.environ.get(name)
    if value is None or not value.isascii() or not value.isdigit():
        raise UserError(f"{_is_set()}, but {name} is {'not set' if value is None else f'{value[:20]!r}, no number'}; "
                        f"{TORCHRUN}")
    return int(value)


@contextmanager
def _together() -> Iterator[None]:
    """Around what all processes do at once. Raises `UserError` where one of them is not there any more, with PyTorch's
    words: where they cannot reach each other, no process has an error of its own."""
    try:
        yield
    except RuntimeError as error:  # gloo's are of no narrower kind
        raise UserError("another of the processes has ended, and its own error says why; if the run had begun, "
                        f"--resume continues it (PyTorch says: {one_line(str(error).partition(chr(10))[0], 200)})"
                        ) from error


class Team:
    """The processes that torchrun has started, seen from one of them."""

    def __init__(self, rank: int, size: int):
        self.rank, self.size = rank, size

    @classmethod
    def joined(cls, device: str = "auto") -> "Team | None":
        """The team that this process belongs to, as torchrun's environment says; None where it is alone.

        device: as `--device` says it. With "cpu" the team computes there, whatever GPUs there are. Raises `UserError`
        for a device of one's own, for more processes on this machine than it has GPUs, and for an environment that
        names a team of which torchrun knows nothing.
        """
        if os.environ.get("WORLD_SIZE", "1") == "1":
            return None
        size, rank, here, place, _ = (_number(name) for name in NUMBERS)
        if not os.environ.get("MASTER_ADDR") or rank >= size or place >= here:
            raise UserError(f"{_is_set()}, and MASTER_ADDR, RANK {rank} and LOCAL_RANK {place} of LOCAL_WORLD_SIZE "
                            f"{here} do not go with it; {TORCHRUN}")
        if device not in ("auto", "cuda", "cpu"):
            raise UserError(f"--device {device}: each of several processes has its own device; leave the option out")
        has_gpu = device != "cpu" and torch.cuda.is_available()
        if has_gpu:
            cards = torch.cuda.device_count()
            if here > cards:
                raise UserError(f"--nproc-per-node {here}: each process needs a GPU of its own, and this machine has "
                                f"{cards}; start {cards}, or train with --device cpu")
            torch.cuda.set_device(place)
        distributed.init_process_group("nccl" if has_gpu else "gloo", timeout=PATIENCE)
        return cls(distributed.get_rank(), distributed.get_world_size())

    @property
    def is_first(self) -> bool:
        """Whether this process keeps the run."""
        return self.rank == 0

    def device(self, name: str) -> str:
        """The device of this process where `--device` leaves it open."""
        return f"cuda:{torch.cuda.current_device()}" if distributed.get_backend() == "nccl" else name

    def first_says(self, make: Callable[[], T]) -> T:
        """What `make()` gives in the first process, for all: the others may find more or less free memory."""
        said = [make() if self.is_first else None]
        with _together():
            distributed.broadcast_object_list(said, src=0)
        return said[0]

    def agree(self, options, hashes: dict, here: dict) -> None:
        """Raise `UserError`, in all processes, unless all were given the same: options, files, code.

        hashes: of the files, `here`: the environment, as run.json is to have them. What may change when a run is
        resumed may be another in each.
        """
        mine = {f"--{key.replace('_', '-')}": value for key, value in asdict(options).items()
                if key not in FREE_ON_RESUME}
        mine |= hashes | {key: here[key] for key in ("dtype", "packages", "commit")}
        every: list = [None] * self.size
        with _together():
            distributed.all_gather_object(every, mine)
        for rank, theirs in enumerate(every):
            if different := [key for key in every[0] | theirs if theirs.get(key) != every[0].get(key)]:
                raise UserError(f"process {rank + 1} of {self.size} has another {', '.join(different)} than the first; "
                                "start all with the same command, files and code")

    def share(self, indices: list[int]) -> list[int]:
        """This process's posts of a step's."""
        return indices[self.rank :: self.size]

    def add_up(self, parameters, loss: torch.Tensor) -> torch.Tensor:
        """Put the sum over all processes into each gradient, in their order; returns the sum of the losses."""
        grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        flat = torch.cat([*(grad.reshape(-1) for grad in grads), loss.reshape(1).to(grads[0].dtype)])
        parts = [torch.empty_like(flat) for _ in range(self.size)]
        with _together():
            distributed.all_gather(parts, flat)
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        start = 0
        for parameter in parameters:
            parameter.grad = total[start : start + parameter.numel()].view_as(parameter).clone()
            start += parameter.numel()
        return total[start].to(loss.dtype)

    def begin(self, trainer: Trainer) -> None:
        """Give every process the state of the first: its adapter, its moments, its step."""
        state = [trainer.state() if self.is_first else None]
        with _together():
            distributed.broadcast_object_list(state, src=0)
        if not self.is_first:
            trainer.load_state(state[0])

    def tell(self, word: int) -> int:
        """The first one's word, to all: another step, or the end."""
        said = torch.tensor([word], device="cuda" if distributed.get_backend() == "nccl" else "cpu")
        with _together():
            distributed.broadcast(said, src=0)
        return int(said.item())

    def follow(self, trainer: Trainer) -> None:
        """What all but the first do: step after step with it, to its end."""
        self.begin(trainer)
        while self.tell(END) == GO:
            trainer.step()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Around all that the program does: the first process says it all, and in the end the group is let go; the
        others then end with an error of theirs if they still wait."""
        with ExitStack() as held:
            held.callback(distributed.destroy_process_group)
            if not self.is_first:
                held.enter_context(redirect_stdout(held.enter_context(open(os.devnull, "w", encoding="utf-8"))))
            yield


class TeamTrainer(Trainer):
    """A `Trainer` whose steps are made by a team."""

    team: Team
    seed: int

    def step(self) -> dict:
        """One optimiser step of all processes; see `Trainer.step`."""
        if self.team.is_first:
            self.team.tell(GO)
        torch.manual_seed(((self.seed + PRIME * self.step_count) * self.team.size + self.team.rank) % SEEDS)
        return super().step()

    def _accumulate(self, indices: list[int], whole: list[int] | None = None) -> torch.Tensor:
        mine = self.team.share(indices)
        if mine:
            loss = super()._accumulate(mine, indices)
        else:  # the last step of an epoch may have fewer posts than there are processes
            self.optimizer.zero_grad(set_to_none=True)
            loss = torch.zeros((), dtype=torch.promote_types(self.model.dtype, torch.float32), device=self.model.device)
        return self.team.add_up(list(self.named.values()), loss)
