"""Which posts were labelled correctly: logistic regression of correctness on model, label, template and language.

The rows are test rows only, one per post and model; a post is one cluster, however many models labelled it. A
pre-training share has one value per language, so it cannot be combined with language effects: `stats.logit.design`
refuses the two together. Its effect is the mean change in probability from the smallest share among the rows to the
largest. Every effect has two standard errors: one with posts as clusters, and one from leaving out one
language at a time, which is the one to use for any claim about other languages.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy

from common.errors import UserError, closest
from report.intervals import EDGES, LEVEL
from report.student import t_cdf, t_quantile
from stats.logit import design, effects, fit, jackknife, sandwich
from stats.predictions import Predictions, rows_of

TERMS = ("model", "label", "template", "language", "share")
SHARE = "share (log10 of per cent)"


@dataclass(frozen=True)
class Cell:
    """One model's answers under one template."""

    model: str
    template: str
    answers: Predictions


@dataclass(frozen=True)
class Regression:
    """`effects` and `coefficients` as rows of tables; the numbers of rows (n), `posts` and `languages`; notes in words.

    An effect: term, level, reference (None for a number), effect, and two sets of error, low, high and p: `_posts`
    (normal) and `_languages` (t with `df` degrees of freedom), None if not available. A coefficient: name, value,
    error_posts.
    """

    effects: list[dict]
    coefficients: list[dict]
    n: int
    posts: int
    languages: int
    notes: list[str]


def regress(cells: Sequence[Cell], terms: Sequence[str] = TERMS[:4], *, shares: Mapping[str, float] | None = None,
            references: Mapping[str, str] | None = None, languages: Sequence[str] | None = None) -> Regression:
    """Regress correctness of the cells' rows on `terms`; `shares` are per cent, for the term "share".

    A term with one level is left out with a note, as are languages whose share is not listed. Raises `UserError` for
    unknown terms, different tables of posts, separation and collinearity (stats/logit.py).
    """
    for term in terms:
        if term not in TERMS:
            raise UserError(f"regression: term '{term}' is unknown{closest(term, TERMS)}; known are {', '.join(TERMS)}")
    rows, notes = rows_of([cell.answers for cell in cells]), []
    chosen = rows.where(languages or rows.languages)
    numbers, ranges = {}, {}
    if "share" in terms:
        known = [code for code in rows.languages if (shares or {}).get(code, 0) > 0]
        absent = sorted(set(rows.language[chosen].tolist()) - set(known))
        if absent:
            notes.append(f"left out, since their share is unknown, not zero: {', '.join(absent)}")
        chosen &= rows.where(known)
        numbers[SHARE] = numpy.tile([numpy.log10(shares[code]) for code in rows.language[chosen]], len(cells))
    count = int(chosen.sum())
    if not count:
        raise UserError("regression: no rows are left")
    language = numpy.tile(rows.language[chosen], len(cells))
    every = {"model": numpy.repeat([cell.model for cell in cells], count),
             "label": numpy.tile(numpy.array(rows.grouping.labels)[rows.gold[chosen]], len(cells)),
             "template": numpy.repeat([cell.template for cell in cells], count), "language": language}
    factors = {}
    for term in terms:
        if term in every and len(set(every[term].tolist())) > 1:
            factors[term] = every[term]
        elif term in every:
            notes.append(f"left out, since it has one level: {term} ({every[term][0]})")
    made = design(factors, numbers, {k: v for k, v in (references or {}).items() if k in factors})
    outcome = numpy.concatenate([cell.answers.correct[chosen] for cell in cells]).astype(numpy.float64)
    found = fit(made.matrix, outcome, made.names)
    if SHARE in numbers:
        ranges[SHARE] = float(numbers[SHARE].min()), float(numbers[SHARE].max())
    values, gradients = effects(made, found.beta, ranges)
    clusters = numpy.tile(rows.clusters[chosen], len(cells))
    covariance = sandwich(found, clusters)
    by_post = numpy.sqrt(numpy.diag(gradients @ covariance @ gradients.T))
    by_language, df = numpy.full(len(values), numpy.nan), len(set(language.tolist())) - 1
    if df >= 2:
        left_out = jackknife(made, outcome, language, values, ranges)
        by_language = numpy.sqrt(numpy.diag(left_out.covariance))
        notes += left_out.notes
    else:
        notes.append("no jackknife errors: three languages are needed")
    table = [{"term": name, "level": which or None, "reference": made.factors[name][0] if which else None,
              "effect": float(value), **_around(value, post, None, "posts"),
              **_around(value, over, df, "languages"), "df": df if numpy.isfinite(over) else None}
             for (name, which), value, post, over in zip(made.columns, values, by_post, by_language, strict=True)]
    errors = numpy.sqrt(numpy.diag(covariance))
    coefficients = [{"name": name, "value": float(value), "error_posts": float(error)}
                    for name, value, error in zip(made.names, found.beta, errors, strict=True)]
    return Regression(table, coefficients, len(outcome), len(numpy.unique(clusters)), df + 1, notes)


def _around(value: float, error: float, df: int | None, name: str) -> dict[str, float | None]:
    """Error, interval and two-sided p of one effect; by the normal distribution if `df` is None.

    Both ends are cut at -1 and 1, which no difference of two probabilities can leave.
    """
    keys = [f"{key}_{name}" for key in ("error", "low", "high", "p")]
    if not error > 0:
        return dict.fromkeys(keys)
    times = NormalDist().inv_cdf(EDGES[1]) if df is None else t_quantile(LEVEL, df)
    far = -abs(value / error)
    p = 2 * (NormalDist().cdf(far) if df is None else t_cdf(far, df))
    ends = max(-1.0, value - times * error), min(1.0, value + times * error)
    return dict(zip(keys, map(float, (error, *ends, p)), strict=True))
