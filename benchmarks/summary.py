"""What the turns mean: medians, the line through the depths, ratios, shares of the limit, memory.

A task takes `fixed + depth * per_layer` seconds: every layer costs the same, and embedding, head and optimiser do not
depend on the depth. Least squares over the medians at the measured depths gives both numbers, and with them the time
at the model's full depth. Peak memory is projected by the same line.
"""

from dataclasses import dataclass
from statistics import median

import numpy as np

from benchmarks.measure import FIRST, PAPER, Depth
from benchmarks.products import as_counter, dequantised_bytes, extrapolate, seconds_of


def line(points: dict[int, float]) -> tuple[float, float]:
    """(fixed, per layer) of the least-squares line: `line({2: 7.0, 4: 11.0}) -> (3.0, 2.0)`."""
    if len(points) < 2:
        raise ValueError("a line needs two depths")
    per_layer, fixed = np.polyfit(list(points), list(points.values()), 1)
    return float(fixed), float(per_layer)


def at(points: dict[int, float], depth: int) -> float:
    """The line's value at `depth`: `at({2: 7.0, 4: 11.0}, 28) -> 59.0`."""
    fixed, per_layer = line(points)
    return fixed + depth * per_layer


@dataclass(frozen=True)
class Ratio:
    """A claim: how many times longer a post takes on `side` than on ours, and the goal."""

    task: str
    ours: str  # our template; the way is always "packed"
    side: str
    way: str
    theirs: str  # their template
    target: float | None = None
    mine: str = "ours"  # or "ours in bf16", "ours in int8"

    @property
    def ours_job(self) -> str:
        return f"{self.mine}, {self.task}, {self.ours}, packed"

    @property
    def their_job(self) -> str:
        return f"{self.side}, {self.task}, {self.theirs}, {self.way}"


RATIOS = [
    Ratio("train", PAPER, "usual", "full logits", PAPER, 2),
    Ratio("train", FIRST, "usual", "full logits", PAPER, 4),  # the change of template is part of this one
    Ratio("train", FIRST, "usual", "full logits", FIRST),
    Ratio("train", PAPER, "usual", "answer logits", PAPER),
    Ratio("train", FIRST, "usual", "answer logits", FIRST),
    Ratio("label", PAPER, "usual", "generate", PAPER, 1.8),
    Ratio("label", FIRST, "usual", "generate", PAPER, 3.5),  # and of this one
    Ratio("label", FIRST, "usual", "generate", FIRST),
    Ratio("label", PAPER, "usual", "full logits", PAPER),
    Ratio("label", FIRST, "usual", "full logits", FIRST),
    Ratio("label", PAPER, "usual", "answer logits", PAPER),
    Ratio("label", FIRST, "usual", "answer logits", FIRST),
    *(Ratio("label", PAPER, "usual in bf16", way, PAPER, mine=mine)
      for way in ("generate", "answer logits") for mine in ("ours", "ours in bf16")),
    *(Ratio("label", template, "llama.cpp", way, template, 1, mine)  # which multiplies 8-bit numbers
      for mine in ("ours", "ours in bf16") for template in (PAPER, FIRST) for way in ("prefix kept", "reset")),
    *(Ratio("label", template, "ours", "packed", template, 2.8, "ours in int8") for template in (PAPER, FIRST)),
    *(Ratio("label", template, "llama.cpp", "prefix kept", template, 1.8, "ours in int8")
      for template in (PAPER, FIRST)),
]
SHARES = {"label": 0.8, "train": 0.7}  # of the time that the matrix products take by themselves, at full depth
MEMORY = 0.4  # of the usual stack's peak in training


def project(depths: dict[int, Depth], target: int) -> dict[str, dict]:
    """For each job seconds a post: medians by depth, fixed, per layer, at `target`; and peak memory there, in bytes."""
    found = {}
    for job in next(iter(depths.values())).jobs:
        measured = {depth: result.jobs[job] for depth, result in depths.items()}
        medians = {depth: one.median / one.posts for depth, one in measured.items()}
        fixed, per_layer = line(medians)
        peaks = {depth: one.peak for depth, one in measured.items()}
        found[job] = {"medians": medians, "fixed": fixed, "per_layer": per_layer, "projected": at(medians, target),
                      "peaks": peaks, "peak_projected": at(peaks, target)}
    return found


def ratios(depths: dict[int, Depth], projected: dict[str, dict], target: int) -> list[dict]:
    """Every ratio of `RATIOS` that was measured: at each depth, at `target`, and its range over single turns."""
    rows = []
    for ratio in RATIOS:
        if ratio.their_job not in projected or ratio.ours_job not in projected:
            continue
        theirs, ours = projected[ratio.their_job], projected[ratio.ours_job]
        turns = min(len(result.jobs[ratio.ours_job].seconds) for result in depths.values())
        single = [turn_at(depths, ratio.their_job, turn, target) / turn_at(depths, ratio.ours_job, turn, target)
                  for turn in range(turns)]
        value = theirs["projected"] / ours["projected"]
        noisy = min(theirs["per_layer"], ours["per_layer"]) <= 0  # a layer cannot cost nothing
        rows.append({"ours": ratio.ours_job, "theirs": ratio.their_job, "target": ratio.target,
                     "template_changed": ratio.ours != ratio.theirs,
                     "by_depth": {depth: theirs["medians"][depth] / ours["medians"][depth] for depth in depths},
                     "projected": value, "range": [min(single), max(single)],
                     "noisy": noisy, "met": None if ratio.target is None or noisy else value >= ratio.target})
    return rows


def turn_at(depths: dict[int, Depth], job: str, turn: int, target: int) -> float:
    """Seconds a post at depth `target`, projected from one turn alone."""
    return at({depth: result.jobs[job].seconds[turn] / result.jobs[job].posts for depth, result in depths.items()},
              target)


def limits(depths: dict[int, Depth], projected: dict[str, dict], target: int, linears: set[tuple[int, int]]
           ) -> list[dict]:
    """For each of ours, at `target`: seconds a post, its matrix products' alone, and their share of the former.

    The products' shapes do not depend on the depth, only how often each occurs; so their times are medians over all
    turns at all depths, and nothing but counts is extrapolated. `with_bytes` adds the time in which the dequantised
    weights' bytes could be copied.
    """
    seconds: dict = {}
    for result in depths.values():
        for shape, times in result.products.items():
            seconds.setdefault(shape, []).extend(times)
    seconds = {shape: median(times) for shape, times in seconds.items()}
    bandwidth = median(value for result in depths.values() for value in result.bandwidth)
    rows = []
    for job in next(iter(depths.values())).counts:
        posts = next(iter(depths.values())).jobs[job].posts
        counts = extrapolate({depth: as_counter(result.counts[job]) for depth, result in depths.items()}, target)
        products = seconds_of(counts, seconds) / posts
        copied = dequantised_bytes(counts, linears) / bandwidth / posts
        whole, wanted = projected[job]["projected"], SHARES[job.split(", ")[1]]
        share = products / whole
        noisy = not 0 < share <= 1  # the whole cannot take less than its part
        rows.append({"job": job, "seconds": whole, "products": products, "bytes": copied, "share": share,
                     "share_with_bytes": (products + copied) / whole, "target": wanted, "noisy": noisy,
                     "met": None if noisy else share >= wanted})
    return rows


def memories(depths: dict[int, Depth], target: int, checkpointing: bool) -> list[dict]:
    """Peak memory in training at `target`, activations kept and computed twice; ours as a share of the usual stack's.

    `checkpointing`: whether the timed turns computed activations twice; the other way may have been run once as well.
    """
    rows = []
    for twice in (False, True):
        sources = {depth: result.jobs if twice == checkpointing else result.other_way for depth, result in
                   depths.items()}
        peaks = {job: {depth: source[job].peak for depth, source in sources.items()}
                 for job in next(iter(sources.values())) if ", train, " in job}
        for ratio in RATIOS:
            mine, other = ratio.ours_job, ratio.their_job
            if mine not in peaks or other not in peaks:
                continue
            ours, theirs = at(peaks[mine], target), at(peaks[other], target)
            rows.append({"ours": mine, "theirs": other, "checkpointing": twice, "share": ours / theirs,
                         "peaks_ours": peaks[mine], "peaks_theirs": peaks[other],
                         "projected_ours": ours, "projected_theirs": theirs,
                         "target": MEMORY if ratio.way == "full logits" else None,
                         "met": ours <= MEMORY * theirs if ratio.way == "full logits" else None})
    return rows
