"""What labelling all of it would take here, before it starts: hours, memory, price; and what a sample would give.

`SAMPLE` posts are drawn at random from strata of length (powers of two of their characters), from each in proportion
to its posts and at least one, and labelled. With N_h posts in stratum h at m_h tokens each, F_h of them with a text
that did not come before (`inference.repeats`):

    tokens of all posts    sum over h of N_h m_h;  of those that are computed: sum over h of F_h m_h
    seconds                seconds of the model on the sample * tokens that are computed / tokens of the sample
                           + seconds of encoding the sample * all posts / posts of the sample (on a CPU; a GPU computes
                           meanwhile, and the longer of the two counts)
    price                  hours * price of an hour of such a machine (inference/prices.toml, or --prices)
    an API                 N * (tokens of a post with its whole prompt * price of one read + price of one written)

The seconds of the model's start, of reading and of writing are not in it. Of a random sample of n out of N posts, a
share that is one half has the 95 % interval +- 1.96 sqrt(1/(4n) (N - n)/(N - 1)), the widest that any share has.
"""

import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path
from random import Random

import torch

from bulk.check import READING
from bulk.watch import product_limit
from common.errors import UserError
from common.terminal import human_bytes, human_seconds, table, three_digits
from data.prompt import Prompt
from data.readers import iter_posts
from data.visible import is_empty
from inference.labeller import Labeller
from inference.prices import Prices, load_prices
from inference.repeats import Last
from report.words import counted

SAMPLE, WARM = 256, 16  # posts that are timed, and posts ahead of them that are not
INSTEAD = 20_000  # a random sample of so many, whose interval is said
SEED = 0


@dataclass
class Stratum:
    """Posts of one length, of which up to `SAMPLE` are kept at random (reservoir sampling)."""

    count: int = 0
    fresh: int = 0  # of those, with a text that is computed
    texts: list[str] = field(default_factory=list)

    def add(self, text: str, is_fresh: bool, draw: Random) -> None:
        self.count += 1
        self.fresh += is_fresh
        if len(self.texts) < SAMPLE:
            self.texts.append(text)
        elif (place := draw.randrange(self.count)) < SAMPLE:
            self.texts[place] = text


def strata(texts: Iterable[str], draw: Random) -> dict[int, Stratum]:
    """The texts by the power of two of their characters, those without anything to see left out."""
    found: dict[int, Stratum] = {}
    last = Last()
    for text in texts:
        if not is_empty(text):
            found.setdefault(len(text).bit_length(), Stratum()).add(text, last.add(text), draw)
    return dict(sorted(found.items()))


def allocate(counts: list[int], size: int) -> list[int]:
    """How many of a sample of `size` come from each stratum: in proportion, at least one, at most all it has."""
    total = sum(counts)
    return [min(count, max(1, round(size * count / total))) for count in counts]


def dry_run(model, prompt: Prompt, sources: list[Path], options) -> None:
    """Print what labelling `sources` would take. Raises `UserError` where they hold no post with text."""
    draw, book = Random(SEED), load_prices(options.prices)
    layers = list(strata((post.text for post in iter_posts(sources, options.columns(), check_ids=False, **READING)),
                         draw).values())
    if not layers:
        raise UserError("--dry-run: no post has text, so nothing would be labelled")
    sizes = allocate([layer.count for layer in layers], SAMPLE)
    drawn = [draw.sample(layer.texts, size) for layer, size in zip(layers, sizes, strict=True)]
    began = time.perf_counter()
    rows = [[prompt.encode(text) for text in texts] for texts in drawn]
    encoding = time.perf_counter() - began
    flat = [row for stratum in rows for row in stratum]
    labeller = Labeller(model, prompt, options.micro_tokens)
    labeller.give(flat[:WARM])()
    began = time.perf_counter()
    labeller.give(flat)()
    seconds = time.perf_counter() - began
    shared = len(prompt.prefix_ids)

    def of_all(count, kept: str = "count") -> float:
        return sum(getattr(layer, kept) * sum(map(count, stratum)) / len(stratum)
                   for layer, stratum in zip(layers, rows, strict=True))

    def own_tokens(row) -> int:
        return len(row.ids) - shared

    posts, fresh = sum(layer.count for layer in layers), sum(layer.fresh for layer in layers)
    own, computed = of_all(own_tokens), of_all(own_tokens, "fresh")
    each = seconds / sum(map(own_tokens, flat)), encoding / len(flat)  # token, post
    both = sum if model.device.type == "cpu" else max
    whole, apart = (both([each[0] * tokens, each[1] * posts]) for tokens in (computed, own))
    print(f"\n{posts:,} posts with text, {own / posts:.0f} tokens each besides the {shared} that all prompts begin "
          f"with; {len(flat):,} were drawn and labelled, from {len(layers)} strata of length")
    print(f"  time here    {human_seconds(whole)}, {three_digits(posts / whole)} posts a second, besides reading, "
          "writing and the model's start")
    if fresh < posts:
        print(f"  repeats      {counted(posts - fresh, 'post')} come again and are computed once; if all differed, "
              f"it would take {human_seconds(apart)}")
    limit = product_limit(model)
    share = 2 * model.config.linear_weights * computed / whole / limit
    print(f"  of the limit {100 * share:.0f} % of what this device's matrix products reach")
    peak = peak_memory(model)
    print("  memory       " + (f"{human_bytes(peak)}, the most until now" if peak else "this system does not tell"))
    print("\n".join(prices(book, model, whole, posts, of_all(lambda row: len(row.ids)), options.api_seconds)))
    print(instead(posts, min(whole, apart * INSTEAD / posts)))


def prices(book: Prices, model, seconds: float, posts: int, tokens: float, api_seconds: float | None) -> list[str]:
    """Lines on what it costs here and on the models behind APIs in the table."""
    environment = {"device": str(model.device), "device_name":
                   torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else ""}
    hours = seconds / 3600
    rows = [[machine.name, f"{hours * machine.per_hour:,.4g}", f"{machine.per_hour:g} an hour", machine.date]
            for machine in book.machines if machine.is_for(environment)]
    cheapest = min((hours * machine.per_hour for machine in book.machines if machine.is_for(environment)), default=None)
    for api in book.apis:
        cost = posts / 1e6 * api.per_million(tokens / posts)
        rows.append([api.name, f"{cost:,.4g}" + (f" ({three_digits(cost / cheapest)} times)" if cheapest else ""),
                     f"{api.input:g} and {api.output:g} a million tokens", api.date])
    lines = [f"  price        in {book.currency}, of {book.path.name} (edit it, or name another with --prices):",
             table(["", "all of it", "at", "of"], rows, indent="    ")] if rows else [
                 f"  price        {book.path.name} has no row for this device"]
    unchecked = sum(not row.checked for row in (*book.machines, *book.apis))
    if rows and unchecked:
        lines.append(f"    {unchecked} of the table's rows were never compared with their source")
    if api_seconds:
        lines.append(f"    at {api_seconds:g} s a post, an API would take {human_seconds(api_seconds * posts)}, "
                     f"{three_digits(api_seconds * posts / seconds)} times as long")
    return lines


def half_width(size: int, total: int) -> float:
    """Half the 95 % interval of a share of one half, from `size` of `total` posts at random without replacement."""
    return 1.96 * sqrt(0.25 / size * (total - size) / max(total - 1, 1))


def instead(posts: int, seconds: float) -> str:
    """What a random sample of `INSTEAD` posts would give, and the seconds that it takes."""
    if posts <= INSTEAD:
        return f"  instead      {posts:,} posts are few enough to label all"
    return (f"  instead      a random {INSTEAD:,} would take {human_seconds(seconds)} and give each "
            f"label's share to within {100 * half_width(INSTEAD, posts):.2f} points (95 %), besides the labels' own "
            "errors, which more posts do not mend")


def peak_memory(model) -> int:
    """Bytes that the process, or on a GPU its tensors, have taken at most; 0 if unknown."""
    if model.device.type == "cuda":
        return torch.cuda.max_memory_allocated(model.device)
    try:
        from resource import RUSAGE_SELF, getrusage
    except ImportError:  # Windows
        return 0
    return getrusage(RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)  # kilobytes except on macOS


