"""How far annotators agree: Krippendorff's alpha with an interval, and what one annotator reaches against the others.

Alpha for nominal labels (data/annotators.py has the formula and its source) from counts: with u_c the labels c of a
post and m its labels, a post adds (m^2 - sum_c u_c^2) / (m - 1) to the observed disagreement O and u_c to the marginals
n_c,

    alpha = 1 - (n - 1) O / (n^2 - sum_c n_c^2),    n = sum_c n_c

so resampled posts need no second pass over them (K. Krippendorff, Bootstrapping Distributions for Krippendorff's Alpha,
2006, resamples pairs instead; whole posts are drawn here, since the pairs of a post are not independent, and those of
one cluster as a whole, since copies of a text are labelled alike).

The ceiling is the mean over all labels of posts with two or more of how often a label is the one that most of the
post's other annotators gave (of several such labels, each counts its share). A model whose accuracy is as high agrees
with people as well as one more of them would.
"""

from collections import Counter
from collections.abc import Sequence

import numpy

from report.intervals import percentiles


def alpha(units: Sequence[Sequence[str]], draws: int = 2000, seed: int = 0, clusters: Sequence[int] | None = None
          ) -> dict:
    """`alpha`, `low`, `high` (percentiles over posts), `ceiling` with its own ends, and `posts` with two labels.

    `units`: each post's labels; `clusters`: ids, equal for posts that belong together. None for what cannot be
    computed: alpha needs two different labels somewhere.
    """
    ids = [one for one, labels in zip(range(len(units)) if clusters is None else clusters, units, strict=True)
           if len(labels) > 1]
    units = [list(labels) for labels in units if len(labels) > 1]
    found = {"posts": len(units), **dict.fromkeys(("alpha", "low", "high", "ceiling", "ceiling_low", "ceiling_high"))}
    if not units:
        return found
    names = sorted({label for labels in units for label in labels})
    counts = numpy.array([[labels.count(name) for name in names] for labels in units], dtype=numpy.float64)
    size = counts.sum(1)
    observed = (size**2 - (counts**2).sum(1)) / (size - 1)
    right = numpy.array([sum(alone(labels)) for labels in units])
    kinds, cluster = numpy.unique(ids, return_inverse=True)
    weights = numpy.random.default_rng([seed, 0xA1]).multinomial(len(kinds), [1 / len(kinds)] * len(kinds), size=draws)
    weights = numpy.concatenate([numpy.ones((1, len(kinds))), weights])[:, cluster]
    marginals = weights @ counts
    n = marginals.sum(1)
    expected = n**2 - (marginals**2).sum(1)
    values = 1 - (n - 1) * (weights @ observed) / numpy.where(expected > 0, expected, numpy.nan)
    shares = (weights @ right) / (weights @ size)
    ends = percentiles(numpy.stack([values[1:], shares[1:]], 1))
    if not numpy.isnan(values[0]):
        found |= {"alpha": float(values[0]), "low": float(ends[0, 0]), "high": float(ends[1, 0])}
    return found | {"ceiling": float(shares[0]), "ceiling_low": float(ends[0, 1]), "ceiling_high": float(ends[1, 1])}


def alone(labels: Sequence[str]) -> list[float]:
    """For each label of a post, whether it is the commonest of the others; a share where several are as common."""
    found = []
    for index, label in enumerate(labels):
        others = Counter([*labels[:index], *labels[index + 1 :]])
        most = max(others.values())
        best = [name for name, count in others.items() if count == most]
        found.append((label in best) / len(best))
    return found
