"""Samples of posts by the designs that tools.prevalence and tools.regression take, with the chances of each row."""

import numpy

from stats.prevalence import equal_probabilities, strata_of

DESIGNS = ("equal", "strata", "independent", "sizes")


def drawn(stream: numpy.random.Generator, design: str, posts: int, rows: int, unsure: numpy.ndarray, times: float = 5.0
          ) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray | None]:
    """(post, probability, stratum) of about `rows` of N = `posts` posts, (n,) each; strata as the tools see them.

    equal: together, with one chance. strata: half of them among `unsure` (N,) bool, half among the others. independent:
    each post for itself, the unsure ones `times` as often. sizes: the same, with chances that differ three-fold beside.
    """
    if design == "equal":
        return numpy.sort(stream.choice(posts, rows, replace=False)), *equal_probabilities(rows, posts)
    if design == "strata":
        parts = [numpy.flatnonzero(side) for side in (unsure, ~unsure)]
        taken = [stream.choice(part, min(len(part), rows // 2), replace=False) for part in parts]
        chance = numpy.concatenate([numpy.full(len(t), len(t) / len(p)) for t, p in zip(taken, parts, strict=True)])
        return numpy.concatenate(taken), chance, strata_of(chance, posts)
    size = numpy.where(unsure, times, 1.0) * (0.5 + stream.random(posts) if design == "sizes" else 1)
    chance = numpy.minimum(1, rows * size / size.sum())
    post = numpy.flatnonzero(stream.random(posts) < chance)
    return post, chance[post], strata_of(chance[post], posts)
