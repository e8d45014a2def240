"""`--engine ray`: the same windows, in the same order, computed by workers of a Ray cluster.

One actor holds the model on each GPU, or on `--threads` CPU cores. This process reads the input, hands blocks of posts
to idle actors, and takes their probabilities in the input's order; at most `AHEAD` blocks for each actor are on their
way, so that memory does not grow with the input. A block whose actor is lost goes to another, and a new actor is asked
for: where and when it starts is Ray's affair, and so is a cluster that grows. The writer, its journal and what
`--resume` means are those of one process.

Ray Data, which reads and writes in its workers, is not used: the order, the journal and the check of all rows ahead of
the first label belong to one reader, and reading takes microseconds where a model takes milliseconds.
"""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from bulk.opened import OpenOptions, arithmetic, portable, ready
from bulk.stop import Stop
from common.errors import UserError
from common.files import ROOT
from data.prompt import Prompt
from finetune.run_folder import RunFolder
from inference import labeller
from inference.labeller import Labelled, Labeller
from inference.repeats import Repeats
from inference.run import base_folder, run_prompt

AHEAD = 2  # blocks for each actor: one in hand, one waiting
LOSSES = 20  # actors that may be lost for each that there is, before something else than bad luck is blamed
LOOK = 1.0  # seconds after which a waiting driver looks around
LAST = labeller.AIM  # seconds that a block in hand is waited for where the program was asked to end


class Worker:
    """What an actor does: open the run once, label block after block."""

    def __init__(self, run: str, options: dict):
        self.options = OpenOptions(**options)
        model, prompt = ready(RunFolder.open(run), self.options, [])
        self.labeller = Labeller(model, prompt, self.options.micro_tokens, repeats=Repeats(prefix=prompt.prefix_ids))

    def begin(self) -> dict:
        """The arithmetic that this actor computes in."""
        return arithmetic(self.labeller.model, self.options)

    def label(self, texts: list[str]) -> tuple[np.ndarray, int, int, int]:
        """Probabilities (n, C) float32 of n texts, and how many were cut, tokens computed, posts that came again."""
        windows = list(self.labeller.label(SimpleNamespace(text=text) for text in texts))
        return (np.concatenate([window.probabilities for window in windows]), sum(window.cut for window in windows),
                sum(window.tokens for window in windows), sum(window.repeats for window in windows))


class Fleet:
    """Stands where a `Labeller` would: `label` gives the same windows. Made once, `close`d at the end.

    run, options: as the program has them: `workers`, how many (0: one on each GPU, or on each `threads` cores), and
    `address`, of a cluster that runs (None: one is started on this machine alone). Ray itself tells its workers to be
    nice, and sets the threads of PyTorch by an actor's cores; here they are what the options say.
    """

    def __init__(self, run: RunFolder, options, show: Callable[[int], object], stop: Stop):
        if options.quicker is not None:
            raise UserError(f"--{options.quicker.option}: measures its price in one process; leave it or --engine ray "
                            "out, and divide the work by --shard")
        try:
            import ray
        except ImportError as error:
            raise UserError("--engine ray: needs Ray: pip install ray, or leave the option out") from error
        self.ray, self.show, self.halvings, self.lost, self._stop = ray, show, 0, 0, stop
        self.prompt: Prompt = run_prompt(run, base_folder(run, options.model, options.cache))
        threads, is_gpu = options.threads or 1, options.set_up()[0].type == "cuda"
        path = ":".join([str(ROOT), *filter(None, sys.path)])
        try:
            ray.init(address=options.address or "local", include_dashboard=None if options.address else False,
                     log_to_driver=False, logging_level="error", runtime_env={"env_vars": {"PYTHONPATH": path}})
        except Exception as error:  # Ray raises no narrower one where a node does not start in time
            where = f"--address {options.address}" if options.address else "--engine ray"
            raise UserError(f"{where}: no Ray cluster could be reached or started ({last_line(error)})") from error
        has = ray.cluster_resources()
        self.count = options.workers or max(1, int(has.get("GPU", 0) if is_gpu else has.get("CPU", 1) // threads))
        kind = ray.remote(num_cpus=1 if is_gpu else threads, num_gpus=1 if is_gpu else 0, max_restarts=0)(Worker)
        values = portable(options) | {"threads": 0 if is_gpu else threads}
        self._start = lambda: kind.remote(str(Path(run.path).resolve()), values)
        self._rate = labeller.LEAST / labeller.LOST  # posts a second of one actor, until that is measured
        self._idle: list = []
        self._busy: dict = {}  # of a promise: its actor, and the block that it works on or None while it starts
        for _ in range(self.count):
            self._hire()
        try:
            stop.take()  # Ray has taken SIGTERM for itself
            self.arithmetic = self._first(stop)
        except BaseException:
            self.close()
            raise
        print(f"  Ray: {self.count} worker{'s' * (self.count > 1)}, each on "
              + ("a GPU" if is_gpu else f"{threads} core{'s' * (threads > 1)}"))

    def label(self, posts: Iterable) -> Iterator[Labelled]:
        """Read, encode and label `posts`, block by block, in their order; see `Labeller.label`.

        Where the program was asked to end, no block is begun any more, and the next in order is waited for `LAST`
        seconds at most, if it is in hand: the workers may have been ended, too, and no others may come.
        """
        posts, blocks, waiting, done = iter(posts), {}, deque(), {}
        begun = given = 0
        asked = None  # when that was noticed
        while True:
            if self._stop.is_asked:
                asked = asked or time.monotonic()
                in_hand = any(number == given for _, number, _ in self._busy.values())
                if not in_hand or time.monotonic() - asked > LAST:
                    return
            size = labeller.window_size(self._rate)
            while asked is None and len(blocks) < AHEAD * self.count and (block := list(islice(posts, size))):
                blocks[begun] = block
                waiting.append(begun)
                begun += 1
            if not blocks:
                return
            while asked is None and self._idle and waiting:
                number = waiting.popleft()
                actor = self._idle.pop()
                promise = actor.label.remote([post.text for post in blocks[number]])
                self._busy[promise] = actor, number, time.monotonic()
            self._collect(waiting, done)
            while given in done:
                yield self._labelled(blocks.pop(given), *done.pop(given))
                given += 1

    def remark(self) -> str:
        """What to say at the end."""
        who = "1 worker was lost, and its" if self.lost == 1 else f"{self.lost} workers were lost, and their"
        return f"{who} posts computed by others" if self.lost else ""

    def close(self) -> None:
        """Let go of the cluster; one that was started here ends."""
        self.ray.shutdown()

    def _hire(self) -> None:
        actor = self._start()
        self._busy[actor.begin.remote()] = actor, None, time.monotonic()

    def _first(self, stop: Stop) -> dict:
        """Wait for the first actor; returns its arithmetic. Raises `UserError` where none can start."""
        facts = None
        while facts is None:
            stop.check()
            for promise in self._ready():
                actor, _, _ = self._busy.pop(promise)
                try:
                    facts = self.ray.get(promise)
                except self.ray.exceptions.RayError as error:
                    raise UserError(f"--engine ray: a worker could not start ({last_line(error)})") from error
                self._idle.append(actor)
        return facts

    def _ready(self) -> list:
        return self.ray.wait(list(self._busy), num_returns=1, timeout=LOOK)[0] if self._busy else []

    def _collect(self, waiting: deque, done: dict) -> None:
        """Take what is ready: answers, actors that have started, and actors that are gone."""
        for promise in self._ready():
            actor, number, since = self._busy.pop(promise)
            try:
                found = self.ray.get(promise)
            except self.ray.exceptions.RayTaskError as error:  # the block's own fault: it would be so anywhere
                raise UserError(f"--engine ray: {last_line(error)}") from error
            except self.ray.exceptions.RayError as error:
                self.lost += 1
                if number is not None:
                    waiting.appendleft(number)
                if self.lost > LOSSES * self.count:
                    raise UserError(f"--engine ray: {self.lost} workers were lost, the last since: {last_line(error)}"
                                    ) from error
                self._hire()
                continue
            self._idle.append(actor)
            if number is None:
                if found != self.arithmetic:
                    different = [key for key in found if found[key] != self.arithmetic.get(key)]
                    raise UserError(f"--engine ray: workers differ in their {', '.join(different)}; let them run on "
                                    "machines of one kind")
                continue
            done[number] = found
            self._rate = len(found[0]) / max(time.monotonic() - since, 1e-6)

    def _labelled(self, posts: list, probabilities: np.ndarray, cut: int, tokens: int, repeats: int) -> Labelled:
        self.show(int(np.isfinite(probabilities).all(1).sum()))
        return Labelled(posts, probabilities, cut, tokens, repeats)


def last_line(error: Exception) -> str:
    """What a worker's error says at its end, without the traceback above it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
