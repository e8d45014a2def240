"""Logistic regression in float64 numpy: coefficients, average marginal effects, cluster and jackknife errors.

    P(y = 1 | x) = 1 / (1 + exp(-x b)),    Newton's step = (X' W X)^-1 X' (y - p),    W = diag(p (1 - p))

Iteratively reweighted least squares is this step (McCullagh and Nelder, Generalized Linear Models, 2nd edition, 2.5).

Why not statsmodels: it lacks the two things that matter here. Its marginal effect of one level of a factor leaves the
factor's other columns as they are, so that a row has two levels at once; and it has no jackknife over clusters. Nor is
pandas worth installing for thirty lines. statsmodels (extra `stats`) remains the reference against which coefficients
and covariances are tested.

The effects are differences in the fitted probability, averaged over the rows. They are usually called "average marginal
effects"; despite that name, nothing here claims that changing x would change y.

    factor    mean over rows of  p(row with this level) - p(row with the reference level)
    number    mean over rows of  b p (1 - p), per unit

Two covariances. `sandwich` allows for dependence among the rows of one cluster (a post that several models labelled):
A^-1 (sum_g s_g s_g') A^-1 * G / (G - 1) * (n - 1) / (n - p), as in statsmodels and Stata; the effects' errors follow
from gradients (delta method). It needs many clusters. `jackknife`: a dozen languages are not many, so each is left out
once, everything is fitted again, and the covariance is (G - 1) / G * sum_g (t_g - t)(t_g - t)', with G - 1 degrees of
freedom, the counterpart of CR3 in least squares (Bell and McCaffrey 2002; MacKinnon, Nielsen and Webb 2023, Journal of
Econometrics 232).

Nothing is dropped silently. A column that is a combination of others, and columns that separate the outcomes without
error (separation: the estimate is infinite; Albert and Anderson 1984, Biometrika 71, 1-10), raise errors that name
them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy

from common.errors import UserError, closest

MOST_STEPS = 50
CONVERGED = 1e-9  # largest change of any row's log odds in the last step; the step after it is below rounding
SEPARATED = 0.5  # under separation, every step adds about 1 to the log odds of the separated rows, without end


@dataclass(frozen=True, eq=False)
class Design:
    """A matrix (n, p) float64 whose first column is ones, the names of its columns, and the columns of each term.

    `factors`: name -> levels, the reference first; `columns`: (name, level) -> column, without the references; a
    number's level is "".
    """

    matrix: numpy.ndarray
    names: list[str]
    factors: dict[str, list[str]]
    columns: dict[tuple[str, str], int]


@dataclass(frozen=True, eq=False)
class Fit:
    """beta (p,), probability (n,), bread (p, p) = (X' W X)^-1, scores (n, p) = x (y - p), log_likelihood; float64."""

    beta: numpy.ndarray
    probability: numpy.ndarray
    bread: numpy.ndarray
    scores: numpy.ndarray
    log_likelihood: float


def design(factors: Mapping[str, Sequence[str]], numbers: Mapping[str, Sequence[float]] | None = None,
           references: Mapping[str, str] | None = None) -> Design:
    """A design of factors, each against its reference level (the most frequent unless named), and numbers.

    Raises `UserError` for an unknown reference, a factor with one level, a number that is not finite, a number that is
    a function of a factor (a share beside language effects), and a column that is a combination of others.
    """
    factors = {name: numpy.asarray(values, dtype=str) for name, values in factors.items()}
    numbers = {name: numpy.asarray(values, dtype=numpy.float64) for name, values in (numbers or {}).items()}
    lengths = {len(values) for values in (*factors.values(), *numbers.values())}
    if len(lengths) != 1:
        raise UserError(f"regression: terms of {', '.join(map(str, sorted(lengths))) or 'no'} rows; one length fits")
    matrix, names, columns, all_levels = [numpy.ones(lengths.pop())], ["(intercept)"], {}, {}
    for name, values in factors.items():
        levels, counts = numpy.unique(values, return_counts=True)
        first = (references or {}).get(name, str(levels[counts.argmax()]))
        if first not in levels:
            raise UserError(f"regression: '{name}' has no level '{first}'{closest(first, levels)}; it has "
                            f"{', '.join(levels)}")
        if len(levels) == 1:
            raise UserError(f"regression: '{name}' has only one level, '{first}'; a factor needs two")
        all_levels[name] = [first, *(str(level) for level in levels if level != first)]
        for level in all_levels[name][1:]:
            columns[name, level] = len(names)
            names.append(f"{name}: {level}")
            matrix.append((values == level).astype(numpy.float64))
    for name, values in numbers.items():
        if not numpy.isfinite(values).all():
            raise UserError(f"regression: '{name}' is not a finite number in {(~numpy.isfinite(values)).sum()} rows")
        for factor, of_row in factors.items():
            if numpy.ptp(values) > 0 and all(numpy.ptp(values[of_row == k]) == 0 for k in all_levels[factor]):
                raise UserError(f"regression: '{name}' is a function of '{factor}' (one value per {factor}), so both "
                                "cannot be in one model; keep one")
        columns[name, ""] = len(names)
        names.append(name)
        matrix.append(values)
    result = Design(numpy.stack(matrix, 1), names, all_levels, columns)
    check_columns(result.matrix, names)
    return result


def check_columns(matrix: numpy.ndarray, names: Sequence[str]) -> None:
    """Raise `UserError` naming the first column that is a combination of earlier ones."""
    basis = numpy.empty((len(matrix), 0))
    for index, name in enumerate(names):
        column = matrix[:, index]
        rest = column - basis @ (basis.T @ column)
        rest -= basis @ (basis.T @ rest)  # twice is enough: Kahan's rule for Gram-Schmidt
        size = numpy.linalg.norm(rest)
        if size <= 1e-9 * numpy.linalg.norm(column):
            parts = numpy.linalg.lstsq(matrix[:, :index], column, rcond=None)[0]
            used = [names[k] for k in numpy.flatnonzero(abs(parts) > 1e-6 * max(1.0, abs(parts).max()))]
            if used == [names[0]] and numpy.ptp(matrix[:, 0]) == 0:
                raise UserError(f"regression: column '{name}' is the same in all {len(matrix):,} rows; leave it out")
            raise UserError(f"regression: column '{name}' is made of {', '.join(map(repr, used)) or 'zeros'} and adds "
                            "nothing of its own; leave one out")
        basis = numpy.concatenate([basis, (rest / size)[:, None]], 1)


def fit(matrix: numpy.ndarray, outcome: numpy.ndarray, names: Sequence[str]) -> Fit:
    """The maximum-likelihood fit of `outcome` (n,) of 0 and 1 on `matrix` (n, p); `names` are for error messages.

    Raises `UserError` if a column is a combination of others, the estimate is infinite or Newton's steps do not end.
    """
    outcome = numpy.asarray(outcome, dtype=numpy.float64)
    if outcome.min() == outcome.max():
        raise UserError(f"regression: the outcome is {outcome.min():g} in all {len(outcome)} rows; nothing to compare")
    check_columns(matrix, names)
    sign, beta = 2 * outcome - 1, numpy.zeros(matrix.shape[1])

    def log_likelihood(b):
        return -numpy.logaddexp(0, -sign * (matrix @ b)).sum()

    for number in range(MOST_STEPS):
        probability = numpy.exp(-numpy.logaddexp(0, -(matrix @ beta)))
        information = (matrix * (probability * (1 - probability))[:, None]).T @ matrix
        step = numpy.linalg.solve(information, matrix.T @ (outcome - probability))
        while log_likelihood(beta + step) < log_likelihood(beta) - 1e-9:
            step = step / 2
        towards = sign * (matrix @ step)  # > 0: the row moves to its correct side
        if number >= 10 and towards.max() > SEPARATED and towards.min() > -1e-3:
            raise UserError(_separation(matrix, outcome, names, step, towards > SEPARATED))
        beta = beta + step
        if abs(towards).max() < CONVERGED:
            probability = numpy.exp(-numpy.logaddexp(0, -(matrix @ beta)))
            information = (matrix * (probability * (1 - probability))[:, None]).T @ matrix
            return Fit(beta, probability, numpy.linalg.inv(information), matrix * (outcome - probability)[:, None],
                       float(log_likelihood(beta)))
    raise UserError(f"regression: no estimate after {MOST_STEPS} steps; columns {', '.join(names)}")


def _separation(matrix, outcome, names, step, rows) -> str:
    """The message for separation: it names a level whose rows are all right or all wrong, else several columns."""
    alone = [f"'{name}' (all {int((column != 0).sum())} rows {outcome[column != 0][0]:g})"
             for name, column in zip(names, matrix.T, strict=True)
             if set(numpy.unique(column)) == {0, 1} and numpy.ptp(outcome[column != 0]) == 0]
    together = [repr(name) for name, size in zip(names, abs(step), strict=True) if size > 0.05 * abs(step).max()]
    return (f"regression: no finite estimate, {int(rows.sum())} of {len(outcome)} rows are told apart without error by "
            f"{', '.join(alone or together)}; leave that level out or merge it with another")


def sandwich(found: Fit, clusters: Sequence) -> numpy.ndarray:
    """The covariance (p, p) of the coefficients for rows that depend on each other in a cluster; `clusters` (n,) ids.
    """
    rows, width = found.scores.shape
    _, index = numpy.unique(numpy.asarray(clusters), return_inverse=True)
    groups = int(index.max()) + 1
    if groups <= width:
        raise UserError(f"regression: {groups} clusters for {width} coefficients; more clusters than that are needed")
    sums = numpy.zeros((groups, width))
    numpy.add.at(sums, index, found.scores)
    correction = groups / (groups - 1) * (rows - 1) / (rows - width)
    return correction * found.bread @ (sums.T @ sums) @ found.bread


def effects(of: Design, beta: numpy.ndarray, ranges: Mapping[str, tuple[float, float]] | None = None
            ) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Average marginal effects (K,) in the order of `of.columns`, and their gradients in the coefficients (K, p).

    `ranges`: number -> (from, to), whose effect is then the mean change in probability between the two values, as a
    level's is from its reference; another number's is the mean slope.
    """
    values, gradients = [], []
    for (name, level), column in of.columns.items():
        if level or name in (ranges or {}):
            none = of.matrix.copy()
            none[:, [of.columns[name, other] for other in of.factors[name][1:]] if level else column] = 0
            one = none.copy()
            none[:, column], one[:, column] = (0, 1) if level else ranges[name]
            (p1, slope1), (p0, slope0) = _curve(one, beta), _curve(none, beta)
            values.append((p1 - p0).mean())
            gradients.append((slope1[:, None] * one - slope0[:, None] * none).mean(0))
        else:
            p, slope = _curve(of.matrix, beta)
            values.append(beta[column] * slope.mean())
            gradient = beta[column] * ((slope * (1 - 2 * p))[:, None] * of.matrix).mean(0)
            gradient[column] += slope.mean()
            gradients.append(gradient)
    return numpy.array(values), numpy.array(gradients)


def _curve(matrix, beta) -> tuple[numpy.ndarray, numpy.ndarray]:
    p = numpy.exp(-numpy.logaddexp(0, -(matrix @ beta)))
    return p, p * (1 - p)


@dataclass(frozen=True, eq=False)
class Jackknife:
    """The effects without each of G groups, (G, K) float64; their covariance (K, K); notes on effects without one.

    An effect that disappears when a group is left out (the group's own level) is NaN in both.
    """

    groups: list[str]
    without: numpy.ndarray
    covariance: numpy.ndarray
    notes: list[str]


def jackknife(of: Design, outcome: numpy.ndarray, groups: Sequence[str], full: numpy.ndarray,
              ranges: Mapping[str, tuple[float, float]] | None = None) -> Jackknife:
    """Fit again without each group; `full` (K,): the effects with all groups. A fit that fails gives a note and NaN.

    `ranges` as for `effects`: the same two values, whichever group is left out.
    """
    groups = numpy.asarray(groups, dtype=str)
    names = sorted(set(groups.tolist()))
    if len(names) < 3:
        raise UserError(f"regression: {len(names)} groups to leave out; three are needed")
    inside = {name for name, levels in of.factors.items()
              if any(len(set(groups[_rows_of(of, name, level)].tolist())) == 1 for level in levels)}
    notes = [f"no jackknife error for '{name}': leaving out a group removes one of its levels"
             for name in sorted(inside)]
    without = numpy.full((len(names), len(full)), numpy.nan)
    for index, name in enumerate(names):
        kept = groups != name
        columns = _columns_left(of, kept, inside)
        part = Design(of.matrix[kept][:, columns], [of.names[c] for c in columns],
                      {k: v for k, v in of.factors.items() if k not in inside},
                      {key: columns.index(c) for key, c in of.columns.items() if key[0] not in inside})
        try:
            values, _ = effects(part, fit(part.matrix, numpy.asarray(outcome)[kept], part.names).beta, ranges)
        except UserError as error:
            notes.append(f"no jackknife errors: without '{name}', {error}")
            continue
        without[index, [k for k, key in enumerate(of.columns) if key[0] not in inside]] = values
    apart = without - full
    return Jackknife(names, without, (len(names) - 1) / len(names) * apart.T @ apart, notes)


def _rows_of(of: Design, name: str, level: str) -> numpy.ndarray:
    """(n,) bool: the rows with this level of a factor."""
    if (name, level) in of.columns:
        return of.matrix[:, of.columns[name, level]] == 1
    return of.matrix[:, [of.columns[name, other] for other in of.factors[name][1:]]].sum(1) == 0


def _columns_left(of: Design, kept: numpy.ndarray, inside: set[str]) -> list[int]:
    """The columns that still vary in the kept rows: a lost level is dropped, a lost reference is replaced."""
    left = list(range(of.matrix.shape[1]))
    for name in sorted(inside):
        there = [level for level in of.factors[name] if _rows_of(of, name, level)[kept].any()]
        reference = of.factors[name][0] if of.factors[name][0] in there else there[0]
        gone = {of.columns[name, level] for level in of.factors[name][1:] if level not in there or level == reference}
        left = [column for column in left if column not in gone]
    return left
