"""`--int8`: labelling on a CPU by products of 8-bit integers, and what that changes, measured on the first posts.

    label KL   mean over posts of sum_c p_c ln (p_c / q_c), in nats; p as the model is, q in 8 bits, over the labels
    flips      posts whose most probable label is another one

The adapter, attention and everything else stay in float32; quant/int8.py has the arithmetic.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from common.device import MACHINE, available_memory
from common.errors import UserError
from common.options import option
from common.terminal import human_bytes
from data.visible import is_empty
from inference.decide import decide
from inference.labeller import label_probabilities
from loading.choice import is_small
from quant.int8 import choose_product, int8_bytes, make_int8

POSTS, FEW = 64, 16  # whose price is measured, with a small model and with others, which take long in float32


@dataclass(frozen=True)
class Int8Price:
    """Of 8-bit products, on `posts` posts: the label KL in nats, and how many labels they change."""

    posts: int
    label_kl: float
    flips: int

    def __str__(self) -> str:
        posts = f"{self.posts} posts" if self.posts > 1 else "post"
        return (f"price of 8-bit products on the first {posts}: label KL {self.label_kl:.1e} nats, "
                f"{self.flips} label{'s' * (self.flips != 1)} changed")


@dataclass
class Int8Options:
    """Whether to label in 8 bits."""

    int8: bool = option(False, "on a CPU, multiply 8-bit integers: sooner, and rounded; says what that changes on the "
                        "first posts (--resident adds nothing to it)", group=MACHINE)

    def check_int8(self, device: torch.device, dtype: torch.dtype) -> None:
        """Refuse `--int8`, before anything is loaded, where it cannot be or does not pay. Raises `UserError`."""
        if self.int8:
            check_int8(device, dtype)


def check_int8(device: torch.device, dtype: torch.dtype) -> None:
    """Raise `UserError` where labelling in 8 bits cannot be or does not pay."""
    if device.type != "cpu":
        raise UserError(f"--int8: is for CPUs, and the device is {device}; leave it out, or use --device cpu")
    if dtype != torch.float32:
        raise UserError(f"--int8: goes with --dtype float32, in which all but its products is computed, not with "
                        f"{str(dtype).removeprefix('torch.')}; leave one out")
    choose_product()


def to_int8(model, prompt, texts: Iterable[str], micro_tokens: int = 0) -> Int8Price | None:
    """Label the first of `texts` as the model is, make its products 8-bit, label them again; the price, also printed,
    with what it bought.

    Without any text (`None`) only the products change. Raises `UserError` if the 8-bit weights do not fit.
    """
    size, free = int8_bytes(model), available_memory(model.device)
    if size > free:
        raise UserError(f"--int8: the weights in 8 bits take {human_bytes(size)}, and {human_bytes(free)} is free; "
                        "leave it out")
    count = POSTS if is_small(model.config) else FEW
    rows = [prompt.encode(text) for text in islice((text for text in texts if not is_empty(text)), count)]
    before, slow = timed(model, prompt, rows, micro_tokens)
    make_int8(model)
    if not rows:
        return None
    after, quick = timed(model, prompt, rows, micro_tokens)
    found = price(before, after)
    print(f"  {found}; {slow / quick:.1f} times as fast" + ("" if quick < slow else ": leave --int8 out"))
    return found


def timed(model, prompt, rows: list, micro_tokens: int) -> tuple[np.ndarray, float]:
    """Probabilities (n, C) of `rows`, and the seconds they took."""
    began = time.perf_counter()
    return label_probabilities(model, prompt, rows, micro_tokens=micro_tokens), time.perf_counter() - began


def price(before: np.ndarray, after: np.ndarray) -> Int8Price:
    """The price from both ways' probabilities (n, C), computed in float64."""
    p, q = (np.maximum(values.astype(np.float64), np.finfo(np.float32).tiny) for values in (before, after))
    flips = sum(a != b for a, b in zip(decide(before), decide(after), strict=True))
    return Int8Price(len(p), float((p * np.log(p / q)).sum(1).mean()), int(flips))
