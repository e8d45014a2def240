"""Whether a run's losses tell its training posts from unseen ones, beyond what its base does.

A post's loss is that of its true label among the labels, -ln p(label), where the run learned labels; where it learned
whole texts, that of the second half of its text (`audit.memorisation`). Three attackers guess who was trained on:

    with       by the loss of the run: the smaller, the likelier
    without    by the loss of the base, with the adapter switched off, which cannot know
    relative   by the loss of the run minus that of the base (difficulty calibration: Watson et al. 2022, ICLR)

`above` is how often an attacker is right about a training post and an unseen one (1/2: chance; the area under the ROC
curve). Easy posts have small losses whether they were trained on or not, so `with` alone accuses a run that learned
nothing and clears one whose training posts were the harder ones. A run is judged beside its base: it tells the two sets
apart where `relative` is certainly above 1/2, or `with` certainly above `without`. That is memory only if both sets
come from one source: a run also gets better at all posts that are like those of its training.

Intervals, at 95 %, are percentiles over draws of groups (copies of a text, posts of one author where --group-by says
so), on each side by itself; the same draws for all three, so the difference of two is paired.
"""

from collections.abc import Sequence

import numpy as np

from report.intervals import percentiles

SIDES = ("training", "unseen")  # the posts
LEAST = 20  # groups of posts on each side, for a verdict
TOLD, NOT_TOLD, UNKNOWN = "told apart", "not told apart", "not judged"


def membership(run: Sequence[np.ndarray], base: Sequence[np.ndarray], groups: Sequence[np.ndarray], draws: int,
               seed: int) -> dict:
    """The figures of the module for audit.json. run, base: losses of the training and of the unseen posts, (n,) and
    (m,); groups: of the same posts, equal for those that belong together."""
    attackers = {"with_adapter": run, "without": base,
                 "relative": [after - before for after, before in zip(run, base, strict=True)]}
    drawn = {name: drawn_above(losses, groups, draws, seed) for name, losses in attackers.items()} if draws else {}
    found = {name: {"above": above(*losses), "above_ci": _interval(drawn.get(name))}
             for name, losses in attackers.items()}
    for name in ("with_adapter", "without"):
        found[name]["loss"] = {side: float(part.mean()) for side, part in zip(SIDES, attackers[name], strict=True)}
    found["difference"] = {"value": found["with_adapter"]["above"] - found["without"]["above"],
                           "ci": _interval(drawn["with_adapter"] - drawn["without"]) if draws else None}
    found["groups"] = dict(zip(SIDES, (len(np.unique(part)) for part in groups), strict=True))
    return found | {"verdict": verdict(found)}


def verdict(found: dict) -> str:
    """`TOLD`, `NOT_TOLD`, or `UNKNOWN` without an interval or with too few groups of posts."""
    pairs = found["relative"]["above_ci"], found["difference"]["ci"]
    if None in pairs or min(found["groups"].values()) < LEAST:
        return UNKNOWN
    return TOLD if pairs[0][0] > 0.5 or pairs[1][0] > 0 else NOT_TOLD


def _interval(drawn: np.ndarray | None) -> list[float] | None:
    return None if drawn is None else percentiles(drawn[:, None])[:, 0].tolist()


def above(training: np.ndarray, unseen: np.ndarray) -> float:
    """How often a training loss is the smaller of two; ties count half."""
    return float(((training[:, None] < unseen).mean() + (training[:, None] <= unseen).mean()) / 2)


def drawn_above(losses: Sequence[np.ndarray], groups: Sequence[np.ndarray], draws: int, seed: int) -> np.ndarray:
    """`above` in each of `draws` draws, (draws,) float64: on both sides, as many groups as there are, with replacement.

    losses, groups: of the training and of the unseen posts.
    """
    first, second = losses
    wins = ((first[:, None] < second).astype(np.float64) + (first[:, None] <= second)) / 2
    stream, times, rows = np.random.default_rng([seed, 0x3F]), [], []
    for axis, part in enumerate(groups):
        _, group, sizes = np.unique(part, return_inverse=True, return_counts=True)
        summed = np.zeros((len(sizes), wins.shape[1 - axis]))
        np.add.at(summed, group, wins if axis == 0 else wins.T)
        wins = summed if axis == 0 else summed.T
        times.append(stream.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=draws))
        rows.append(times[-1] @ sizes)
    return ((times[0] @ wins) * times[1]).sum(1) / (rows[0] * rows[1])
