"""A regression in which the outcome or regressors are machine labels, corrected by hand codes of a random sample.

Treating the machine's labels as true biases a regression even where the machine is right most of the time, since its
errors follow the other variables. N posts have all variables, labels by the machine; n of them, drawn with known
probabilities pi_i, have codes as well. With o_i = w_i / sum w, w_i = 1 / pi_i, and the estimating function of a
linear or logistic regression, psi_i(b) = x_i (y_i - mu(x_i b)), mu(t) = t or 1 / (1 + exp(-t)):

    naive    sum_i psi_i(machine) / N = 0                            all posts, the machine taken at its word
    coded    sum o_i psi_i(code) = 0                                 the coded posts alone
    PPI++    L sum_i psi_i(machine) / N + sum o_i (psi_i(code) - L psi_i(machine)) = 0
    DSL      sum_i psi_i(g) / N + sum o_i (psi_i(code) - psi_i(g)) = 0

PPI++ is Angelopoulos, Duchi and Zrnic 2023 (arXiv 2311.01453), their unlabelled rows being our others (stats/
prevalence.py); L in [0, 1] makes sum_j V_jj / V_jj(L = 0) of the centred variables smallest, so that no unit matters.
DSL is Egami, Hinck, Stewart and Wei 2023 (NeurIPS), with g the cross-fitted prediction of the code from the machine's
answers and all other variables of the regression (stats/surrogate.py), in the place of the label, be it outcome or
regressor; their weights are R_i / (N pi_i). Both are doubly robust: with known pi_i they are right however wrong the
machine and g are. What cannot be had is a coefficient that the coded posts alone do not have: a level without a code is
refused.

Variances, intervals and when there is none: stats/sandwich.py. float64 throughout.
"""

from dataclasses import dataclass, replace

import numpy

from common.errors import UserError
from stats.logit import check_columns, fit
from stats.sandwich import Draw, Fitted, Sample
from stats.surrogate import folds, predictions

MODELS = ("linear", "logistic")


@dataclass(frozen=True, eq=False)
class Question:
    """What is regressed on what, for N posts of which n are coded.

    matrix (N, p) and outcome (N,): with the machine's labels; the matrix begins with ones and its columns have `names`.
    coded_matrix (n, p) and coded_outcome (n,): the same rows with the codes. labelled: the columns that are labels, or
    none if the outcome is. answers (N, C): what the machine said of each post.
    """

    model: str
    names: list[str]
    matrix: numpy.ndarray
    outcome: numpy.ndarray
    coded_matrix: numpy.ndarray
    coded_outcome: numpy.ndarray
    labelled: tuple[int, ...]
    answers: numpy.ndarray


@dataclass(frozen=True)
class Coefficient:
    """One coefficient, estimated in four ways. reach: the clusters with codes that it rests on; events: the ones or
    zeros of the codes on its weaker side, None where the outcome has other values."""

    name: str
    naive: Fitted
    coded: Fitted
    ppi: Fitted
    dsl: Fitted
    reach: float = float("inf")
    events: float | None = None


def regression(asked: Question, sample: Sample, seed: int = 0) -> tuple[list[Coefficient], float]:
    """(the coefficients in the order of the columns, PPI++'s weight L). Formulas and sources: see the module.

    Raises `UserError` for a coefficient that the coded posts do not have (a level without a code, separation) or that
    rests on one of them, too few of them, and an equation without a solution. Where the machine's labels alone have no
    solution (a label that it never gives), the naive estimates are `None`.
    """
    if len(asked.coded_outcome) <= asked.matrix.shape[1]:
        raise UserError(f"regression: {len(asked.coded_outcome)} coded posts for {asked.matrix.shape[1]} coefficients; "
                        "code more, or name fewer variables")
    asked, back = _standardised(asked)
    naive_is_there = _check(asked)
    draw = Draw(asked.model == "logistic", len(asked.matrix), sample, back)
    hand = (asked.coded_matrix, asked.coded_outcome)
    machine = (asked.matrix, asked.outcome)
    alone = draw.solve([(*hand, draw.o)], numpy.zeros(asked.matrix.shape[1]))
    draw.look_behind(alone, hand, asked.names)
    coded = draw.estimates(alone, hand, machine, 0.0)
    naive = draw.naive(machine) if naive_is_there else [Fitted(None, None, None)] * len(asked.names)
    tuned = draw.tuned(alone, hand, machine)
    ppi = draw.corrected(alone, hand, machine, tuned)
    dsl = draw.corrected(alone, hand, _predicted(asked, sample, seed), 1.0)
    reach, events = draw.reach
    events = [None] * len(reach) if events is None else events.tolist()
    return [Coefficient(*row) for row in zip(asked.names, naive, coded, ppi, dsl, reach.tolist(), events, strict=True)
            ], tuned


def _standardised(asked: Question) -> tuple[Question, numpy.ndarray]:
    """The question with its columns centred and in units of their deviation, but for labels, so that no unit makes the
    arithmetic inexact; and the matrix (p, p) that turns its coefficients into those asked for."""
    centre, spread = asked.matrix.mean(0), asked.matrix.std(0)
    kept = [0, *asked.labelled, *numpy.flatnonzero(spread == 0).tolist()]
    centre[kept], spread[kept] = 0.0, 1.0
    back = numpy.diag(1 / spread)
    back[0, 1:] = -centre[1:] / spread[1:]
    return replace(asked, matrix=(asked.matrix - centre) / spread,
                   coded_matrix=(asked.coded_matrix - centre) / spread), back


def _check(asked: Question) -> bool:
    """Raise `UserError` for coefficients that cannot be had from the codes; whether they can from the machine's labels.
    """
    for name, whole, column in zip(asked.names[1:], asked.matrix.T[1:], asked.coded_matrix.T[1:], strict=True):
        if numpy.ptp(column) == 0 < numpy.ptp(whole):
            raise UserError(f"'{name}' is the same for all {len(column):,} coded posts, so they say nothing of it; "
                            "code others too, merge values, or leave it out")
    for x, y in ((asked.coded_matrix, asked.coded_outcome), (asked.matrix, asked.outcome)):
        try:
            fit(x, y, asked.names) if asked.model == "logistic" else check_columns(x, asked.names)
        except UserError as error:
            if y is asked.coded_outcome:
                raise UserError(f"the coded posts alone: {str(error).removeprefix('regression: ')}, "
                                "or code more posts") from error
            return False
    return True


def _predicted(asked: Question, sample: Sample, seed: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """(matrix, outcome) with g in the place of the labels."""
    others = [k for k in range(1, asked.matrix.shape[1]) if k not in asked.labelled]
    x = numpy.concatenate([asked.answers, asked.matrix[:, others],
                           *([asked.outcome[:, None]] if asked.labelled else [])], 1)
    if sample.cluster is None:
        fold = folds(len(sample.post), seed)
    else:  # a cluster lies in one fold
        number = numpy.unique(sample.cluster[sample.post], return_inverse=True)[1]
        fold = numpy.unique(folds(int(number.max()) + 1, seed)[number], return_inverse=True)[1]
    if not asked.labelled:
        return asked.matrix, predictions(x, asked.coded_outcome, sample.post, fold)
    matrix = asked.matrix.copy()
    for column in asked.labelled:
        matrix[:, column] = predictions(x, asked.coded_matrix[:, column], sample.post, fold)
    return matrix, asked.outcome
