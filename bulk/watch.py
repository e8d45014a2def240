"""What is said while it labels: posts and tokens a second, how near the device's limit, time left, each label's share.

In a terminal it is a bar, elsewhere a line every 30 seconds, and with `--progress-json` a file for dashboards, one JSON
object that is written anew (whole or not at all) behind a window, `EVERY` seconds after the one before at the soonest:

    {"done", "total", "rows_wrong", "repeats", "cut", "posts_per_second", "tokens_per_second",
     "share_of_product_limit", "seconds", "seconds_left", "joules", "labels": {label: share of those so far}, "file"}

The limit is what the device's matrix products reach here on the shape of the model's MLP, in its arithmetic; labelling
takes 2 multiplications and additions for each weight and token. Energy is what the GPU reports, its power times the
time between two windows; null where it reports none.
"""

import time
from collections import Counter
from pathlib import Path

import torch

from common.files import write_json
from common.terminal import done_before, human_seconds, progress, three_digits
from inference.labeller import Labelled
from report.words import counted

EVERY = 5.0  # seconds between two files for dashboards
MANY = 1000  # posts from which the limit is measured, which takes as long as a few posts
TRIES, FEW, TOKENS = 3, 16, 1024  # of the product that is timed
SLOW = 0.1  # seconds of the product of `FEW` tokens from which the larger one is not waited for


class Watch:
    """Counts windows in a `with` block. total: posts with text of all inputs. path: the file for dashboards, or None.
    """

    def __init__(self, total: int, path: str | Path | None = None):
        self.total, self.done, self.path, self.device = total, 0, path, None
        self.counts, self.labels, self.tokens, self.joules = Counter(), Counter(), 0, None
        self.file, self._before, self._told = "", 0, 0.0
        self._limit, self._weights = None, 0

    def measure(self, model) -> None:
        """Measure what `model` is held against, for many posts and for a file for dashboards; else there is no share.
        """
        self.device = model.device
        if self.path is not None or self.total >= MANY:
            self._limit, self._weights = product_limit(model), model.config.linear_weights

    def __enter__(self) -> "Watch":
        self._bar = progress(self.total, "post", "labelling", initial=self.done)
        self._began = self._last = time.monotonic()
        return self

    def __exit__(self, *error) -> None:
        self._bar.close()
        if self.path is not None and error[0] is None:
            self._tell()

    def before(self, counts: Counter) -> None:
        """Count what a file holds from before a kill: its counts as `window` made them, and its posts with text."""
        self._before += counts["texts"]
        self.done += counts["texts"]
        done_before(self._bar, counts["texts"])
        self.labels.update({name.removeprefix("label:"): number for name, number in counts.items()
                            if name.startswith("label:")})
        self.counts.update({name: number for name, number in counts.items() if not name.startswith("label:")})

    def show(self, count: int) -> None:
        """So many more posts were given to the device."""
        self.done += count
        self._bar.update(count)

    def window(self, window: Labelled, labels: Counter, wrong: int) -> Counter:
        """Count one window whose rows are written; returns its counts, as the file's journal is to keep them."""
        found = Counter(cut=window.cut, repeats=window.repeats, wrong=wrong)
        self.counts += found
        self.labels += labels
        self.tokens += window.tokens
        now = time.monotonic()
        if self.device is not None and (watts := power(self.device)) is not None:
            self.joules = (self.joules or 0.0) + watts * (now - self._last)
        self._last = now
        self._bar.detail = self.detail()
        self._bar.set_postfix_str(self._bar.detail)
        if self.path is not None and now - self._told >= EVERY:
            self._told = now
            self._tell()
        return found + Counter({f"label:{label}": count for label, count in labels.items()})

    def seconds(self) -> float:
        """Since the block began."""
        return time.monotonic() - self._began

    def summary(self) -> str:
        """A line on all that was labelled here, for the end."""
        posts, seconds = self.done - self._before, self.seconds()
        rate = three_digits(posts / max(seconds, 1e-9))
        words = [f"{counted(posts, 'post')} in {human_seconds(seconds)}, {rate} a second", self.detail()]
        words += [f"{self.joules:,.0f} J"] if self.joules else []
        return "; ".join(words)

    def detail(self) -> str:
        """What a line adds to posts a second and the time left."""
        words = [f"{self.tokens / max(self.seconds(), 1e-9):,.0f} tokens a second"]
        share = self.share_of_limit()
        words += [f"{100 * share:.0f} % of what the device's matrix products reach"] if share else []
        first = list(self.shares().items())[:6]
        words += [", ".join(f"{label} {100 * share:.1f} %" for label, share in first)] if first else []
        return "; ".join(words)

    def shares(self) -> dict[str, float]:
        """Each label's share of the posts that got one so far, the most frequent first."""
        total = sum(self.labels.values())
        return {label: count / total for label, count in self.labels.most_common()}

    def share_of_limit(self) -> float | None:
        """2 * weights * tokens a second over the device's own rate; None where that was not measured."""
        if not self._limit:
            return None
        return 2 * self._weights * self.tokens / max(self.seconds(), 1e-9) / self._limit

    def _tell(self) -> None:
        seconds = self.seconds()
        rate = (self.done - self._before) / max(seconds, 1e-9)
        write_json(self.path, {
            "done": self.done, "total": self.total, "rows_wrong": self.counts["wrong"],
            "repeats": self.counts["repeats"], "cut": self.counts["cut"], "posts_per_second": rate,
            "tokens_per_second": self.tokens / max(seconds, 1e-9), "share_of_product_limit": self.share_of_limit(),
            "seconds": seconds, "seconds_left": (self.total - self.done) / rate if rate else None,
            "joules": self.joules, "labels": self.shares(), "file": self.file})


@torch.inference_mode()
def product_limit(model) -> float:
    """Operations a second of x W^T, x (TOKENS, D), W (F, D), in the model's dtype on its device; the best of `TRIES`.

    Of `FEW` tokens where these take `SLOW` seconds, as on a CPU that does not multiply this dtype by itself.
    """
    config, device = model.config, model.device
    weight = torch.ones(config.intermediate_size, config.hidden_size, dtype=model.dtype, device=device)
    best, took = 0.0, 0.0
    for count in (FEW, TOKENS):
        x = torch.ones(count, config.hidden_size, dtype=model.dtype, device=device)
        for _ in range(TRIES + 1 if took < SLOW else 0):  # the first may compile
            began = time.perf_counter()
            x @ weight.T
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            took = time.perf_counter() - began
            best = max(best, 2 * count * weight.numel() / took)
    return best


def power(device: torch.device) -> float | None:
    """Watts that a GPU says it draws; None on a CPU, and where the driver's library is not installed."""
    if device.type != "cuda":
        return None
    try:
        return torch.cuda.power_draw(device) / 1000
    except (ModuleNotFoundError, RuntimeError, AttributeError):
        return None
