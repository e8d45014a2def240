"""Labels for posts: probabilities over the codebook's labels, read at the answer position, in the input's order.

Posts go through the model in windows of at most `WINDOW` posts, which take some `AIM` seconds. While the device
computes one window, the next is read and encoded in a background thread, and on a GPU the one before is taken back and
used: between the windows nothing waits for anything but the device.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice

import numpy as np
import torch

from common.device import as_loaded, available_memory, or_halve
from common.errors import UserError
from data.batching import make_batch, plan, shared_prefix
from data.visible import is_empty
from inference.repeats import Repeats
from loading.choice import SHARE
from lora.inject import cast_once

MICRO_TOKENS = 4096  # packed tokens that go through the model at once where nobody says otherwise
LARGE = 16384  # the same on a GPU with room: more would win little, and the posts of a window would fill few batches
SIZES = 4  # of the batches of a large window: oneDNN compiles a kernel for every size of a product, and keeps it
WINDOW, LEAST = 1024, 16  # posts whose results come together, at most and at least
AIM = 20.0  # seconds that a window may take: what is labelled is kept window by window
LOST = 60.0  # seconds that it may take where `LEAST` posts need more than `AIM`
SPEED = {"cpu": 2e10, "cuda": 1e13}  # operations a second, a guess for the first window; then it is measured
TOKENS = 150  # of a post with its prompt, for that guess
AHEAD = 2  # windows that are read and encoded before they are asked for


@dataclass(frozen=True)
class Labelled:
    """One window of posts, in the input's order, with the model's probabilities."""

    posts: list
    probabilities: np.ndarray  # (len(posts), C) float32; NaN for a post without text
    cut: int  # posts that were too long and lost their end
    tokens: int = 0  # that were computed for them, without the prompt's beginning, which they share
    repeats: int = 0  # posts whose probabilities were known already


def unseen(count: int) -> None:
    """A `show` that nobody looks at; by its name, so that who holds it can be pickled."""


class Labeller:
    """A model that labels window after window.

    micro_tokens: packed tokens that go through the model at once; 0 means `choose_micro_tokens`. If memory runs out, it
    is halved, for that batch and all later ones; `halvings` counts how often. show(count) is called for each batch of
    posts that was given to the device. repeats: what is known of posts that came before; without it each is computed.
    """

    def __init__(self, model, prompt, micro_tokens: int = 0, show: Callable[[int], object] = unseen,
                 repeats: Repeats | None = None):
        self.model, self.prompt, self.show, self.repeats = model, prompt, show, repeats
        self.micro_tokens, self.halvings = micro_tokens or choose_micro_tokens(model), 0
        self._is_cuda = model.device.type == "cuda"
        # A GPU's products take any number of tokens, and attention there would pad every row to a long filling one.
        self._few_sizes = model.device.type == "cpu"
        # Posts a second, until that is measured.
        self._rate = SPEED.get(model.device.type, SPEED["cpu"]) / (2 * TOKENS * model.config.linear_weights)
        self._label_ids = torch.tensor(prompt.label_ids, device=model.device)

    def label(self, posts: Iterable) -> Iterator[Labelled]:
        """Read, encode and label `posts` (anything with a `text`), window by window.

        Errors in reading and encoding are raised after the last complete window before them, as without a thread.
        """
        given, began = deque(), time.monotonic()
        for window, rows in ahead(self._encoded(posts)):
            given.append((window, rows, self._given([row for row in rows if row is not None])))
            if len(given) > self._is_cuda:  # a GPU is given the next window before this one is waited for
                found = self._labelled(*given.popleft())
                began, before = time.monotonic(), began
                self._rate = len(found.posts) / max(began - before, 1e-6)
                yield found
        while given:
            yield self._labelled(*given.popleft())

    def give(self, rows) -> Callable[[], np.ndarray]:
        """Give encoded posts to the device without waiting; the function returned waits and gives their probabilities.

        They are (n, C) float32, softmax over the label tokens alone, in the order of `rows`. The ids that all prompts
        begin with go through the model once per batch. A logit that is not finite is a `UserError`: such a post has no
        label, and none is invented.
        """
        order, parts, step = [], [], self.model.fill_to
        with as_loaded(self.model):
            batches = self._plan(rows, range(len(rows)))
            while batches:
                large = self._few_sizes and (parts or len(batches) > 1)
                multiple = max(step, self.micro_tokens // SIZES // step * step) if large else step
                indices = batches[0]
                longest = max(len(rows[index].ids) for index in indices)
                failed = (f"one post of {longest} tokens does not fit into the device's memory; try --dtype bfloat16, "
                          "--device cpu, or --resident off")
                with cast_once(self.model, self.model.dtype):
                    part = or_halve(self, partial(self._logits, rows, indices, multiple), longest, failed)
                if part is None:  # the same posts again, in batches of half the size
                    batches = self._plan(rows, list(chain(*batches)))
                    continue
                batches.pop(0)
                order += indices
                parts.append(part)
                self.show(len(indices))
            logits = torch.cat(parts or [torch.empty(0, len(self._label_ids))])  # (n, C) in the batches' order
        logits = logits.to("cpu", non_blocking=self._is_cuda)  # into pinned memory
        copied = torch.cuda.Event() if self._is_cuda else None
        if copied is not None:
            # Of the model's card, which need not be the current one.
            copied.record(torch.cuda.current_stream(self.model.device))

        def probabilities() -> np.ndarray:
            if copied is not None:
                copied.synchronize()  # this window only: the next one may already be under way
            if not logits.isfinite().all():
                raise UserError("the model's logits are not finite; its weights are damaged, or float16 is too narrow "
                                "for them (try --dtype float32)")
            result = np.empty(logits.shape, dtype=np.float32)
            result[order] = logits.softmax(-1).float().numpy()
            return result

        return probabilities

    def remark(self) -> str:
        """What to say at the end: nothing, or that memory ran out."""
        if not self.halvings:
            return ""
        return ("memory ran out, so labelling went on in smaller batches; next time, --micro-tokens "
                f"{self.micro_tokens} starts with these")

    def _encoded(self, posts: Iterable) -> Iterator[tuple[list, list]]:
        posts = iter(posts)
        while window := list(islice(posts, window_size(self._rate))):
            yield window, [None if is_empty(post.text) else self.prompt.encode(post.text) for post in window]

    def _given(self, rows: list) -> tuple[Callable[[], np.ndarray], int, int]:
        """`give` for those of `rows` that are not known: (probabilities of all of them, tokens computed, repeats)."""
        if self.repeats is None:
            return self.give(rows), self._tokens(rows), 0
        fresh, keys, places, values = self.repeats.split(rows)
        self.show(len(rows) - len(fresh))
        waiting = self.give(fresh)

        def probabilities() -> np.ndarray:
            computed = waiting()
            self.repeats.keep(keys, computed)
            found = [computed[place] if place >= 0 else value for place, value in zip(places, values, strict=True)]
            return np.stack(found) if found else computed

        return probabilities, self._tokens(fresh), len(rows) - len(fresh)

    def _tokens(self, rows: list) -> int:
        return sum(len(row.ids) - len(self.prompt.prefix_ids) for row in rows)

    def _labelled(self, posts: list, rows: list, given: tuple[Callable[[], np.ndarray], int, int]) -> Labelled:
        probabilities, tokens, repeats = given
        filled = [index for index, row in enumerate(rows) if row is not None]
        result = np.full((len(posts), len(self._label_ids)), np.nan, dtype=np.float32)
        result[filled] = probabilities()
        return Labelled(posts, result, sum(rows[index].cut for index in filled), tokens, repeats)

    def _plan(self, rows, indices) -> list[list[int]]:
        """`indices` of `rows` in batches."""
        batches = plan([rows[index] for index in indices], self.micro_tokens, prefix=self.prompt.prefix_ids)
        return [[indices[number] for number in batch] for batch in batches]

    def _logits(self, rows, indices: list[int], multiple: int) -> torch.Tensor:
        """Label logits (R, C) of some rows."""
        shared = shared_prefix(self.prompt.prefix_ids, [rows[index] for index in indices])
        batch = make_batch(rows, indices, shared, multiple).to(self.model.device)
        return self.model.label_logits(self.model.answer_hidden(batch), self._label_ids, filled=True)


def window_size(rate: float) -> int:
    """Posts of a window at so many a second: `AIM` seconds of them, `LEAST` to `WINDOW`; fewer if these take `LOST`."""
    least = max(1, min(LEAST, WINDOW, int(LOST * rate)))
    return max(least, min(WINDOW, int(AIM * rate)))


def beside_bytes(model, tokens: int) -> int:
    """Bytes that labelling takes beside the model with so many tokens at once: a layer's tensors, of which those of the
    MLP (4 F) and of attention with copies of the prefix's keys (16 D) are the largest. A prefix many times as long as a
    post takes more."""
    config = model.config
    return tokens * (4 * config.intermediate_size + 16 * config.hidden_size) * model.dtype.itemsize


def choose_micro_tokens(model) -> int:
    """`MICRO_TOKENS`, or up to `LARGE` on a GPU that has room: the labels do not depend on it (but for rounding)."""
    if model.device.type != "cuda":
        return MICRO_TOKENS
    room = SHARE * available_memory(model.device)
    return next((size for size in (LARGE, LARGE // 2) if beside_bytes(model, size) <= room), MICRO_TOKENS)


def ahead(items: Iterator) -> Iterator:
    """The same items in the same order, made in a background thread, up to `AHEAD` of them before they are needed.

    An error is raised in place of its item. On a CPU there is little to gain, since encoding and the model compete for
    the same cores; a GPU would otherwise wait for every window's encoding. Whoever stops early, by Ctrl-C say, waits
    for the item that is being made and for no further one.
    """
    end = object()
    with ThreadPoolExecutor(1) as pool:
        waiting = deque(pool.submit(next, items, end) for _ in range(AHEAD))
        try:
            while (item := waiting.popleft().result()) is not end:
                waiting.append(pool.submit(next, items, end))
                yield item
        finally:
            for future in waiting:
                future.cancel()


def label_probabilities(model, prompt, rows, *, micro_tokens: int = 0) -> np.ndarray:
    """Probabilities (n, C) float32 of posts that are encoded already, in the order of `rows`; see `Labeller.give`.
    Raises `UserError` for texts."""
    rows = list(rows)
    if any(isinstance(row, str) for row in rows):
        raise UserError("rows: hold a string; encode each text first: [prompt.encode(text) for text in texts]")
    labeller = Labeller(model, prompt, micro_tokens)
    parts = [labeller.give(rows[start : start + WINDOW])() for start in range(0, len(rows), WINDOW)]
    return np.concatenate([np.empty((0, len(prompt.label_ids)), dtype=np.float32), *parts])
