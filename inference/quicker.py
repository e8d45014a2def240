"""Labelling with a model that was made quicker, and what that changes, measured on the first posts.

    label KL   mean over posts of sum_c p_c ln (p_c / q_c), in nats; p as the model is, q as it is made, over the labels
    flips      posts whose most probable label is another one

`--int8` multiplies integers of 8 bits (inference/int8.py), `--merge` adds the adapter to the weights
(inference/merged.py).
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from itertools import islice

import numpy as np

from data.visible import is_empty
from inference.decide import decide
from inference.labeller import label_probabilities
from loading.choice import is_small

POSTS, FEW = 64, 16  # whose price is measured, with a small model and with others, which take long in float32
TIMED = 4  # posts from which on a ratio of times is told


@dataclass(frozen=True)
class Price:
    """Of a quicker way, on `posts` posts: the label KL in nats, and how many labels it changes."""

    posts: int
    label_kl: float
    flips: int

    def __str__(self) -> str:
        posts = f"{self.posts} posts" if self.posts > 1 else "post"
        return (f"on the first {posts}: label KL {self.label_kl:.1e} nats, "
                f"{self.flips} label{'s' * (self.flips != 1)} changed")


@dataclass(frozen=True)
class Quicker:
    """A quicker way: the option that asks for it, what it is in words, and change(model), which makes it."""

    option: str
    what: str
    change: Callable

    def make(self, model, prompt, texts: Iterable[str], micro_tokens: int = 0) -> Price | None:
        """Label the first of `texts` as the model is, change it, label them again; the price, also printed, with what
        it bought.

        Without any text (`None`) the model is only changed. Raises `UserError` if that does not fit.
        """
        count = POSTS if is_small(model.config) else FEW
        rows = [prompt.encode(text) for text in islice((text for text in texts if not is_empty(text)), count)]
        before, slow = timed(model, prompt, rows, micro_tokens)
        self.change(model)
        if not rows:
            return None
        after, quick = timed(model, prompt, rows, micro_tokens)
        found, gain = price(before, after), ""
        # A card's first batches compile and warm up, and a post or two are over too soon: their times say nothing.
        if model.device.type == "cpu" and len(rows) >= TIMED:
            gain = f"; {slow / quick:.1f} times as fast" + ("" if quick < slow else f": leave --{self.option} out")
        print(f"  price of {self.what} {found}{gain}")
        return found

    def figures(self, price: Price | None) -> dict:
        """The price by the option's name, for metrics.json; nothing without one."""
        return {} if price is None else {self.option: asdict(price)}


def timed(model, prompt, rows: list, micro_tokens: int) -> tuple[np.ndarray, float]:
    """Probabilities (n, C) of `rows`, and the seconds they took, after one that does not count."""
    label_probabilities(model, prompt, rows[:1], micro_tokens=micro_tokens)
    began = time.perf_counter()
    return label_probabilities(model, prompt, rows, micro_tokens=micro_tokens), time.perf_counter() - began


def price(before: np.ndarray, after: np.ndarray) -> Price:
    """The price from both ways' probabilities (n, C), computed in float64."""
    p, q = (np.maximum(values.astype(np.float64), np.finfo(np.float32).tiny) for values in (before, after))
    p, q = (values / values.sum(1, keepdims=True) for values in (p, q))  # rounded to float32 they do not sum to one
    flips = sum(a != b for a, b in zip(decide(before), decide(after), strict=True))
    return Price(len(p), max(0.0, float((p * np.log(p / q)).sum(1).mean())), int(flips))
