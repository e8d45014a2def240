"""From the options to the regression's matrix and outcome, with the machine's labels and with the codes."""

import re
from dataclasses import replace

import numpy

from common.errors import UserError, closest
from data.damage import is_missing
from stats.logit import design
from stats.prevalence import Coded
from stats.regression import Question
from stats.sandwich import Sample
from stats.surrogate import answers
from tools.prevalence.read import NOTHING, Codes, Labels
from tools.regression.options import LABEL, RegressionOptions, term_of

MOST_VALUES = 100  # of a column of words: with more, it holds names
LARGEST = 1e15  # number of a column
_COMMA = re.compile(r"[-+]?\d+(,\d+)?")
_GAP = re.compile(r"\.[A-Za-z_]?")  # SAS and Stata write a missing number as . or .a
_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2},\d{3}")  # 1,234: no thousand begins with 0, nor has four digits before


def complete(options: RegressionOptions, labels: Labels, codes: Codes, coded: Coded
             ) -> tuple[Labels, Codes, Sample, dict[str, int]]:
    """The posts that have a value in every column of the regression, their codes, and what of the sample `coded` they
    are; and how many posts lack one, column by column. Raises `UserError` where no coded post is left."""
    gaps = {}
    for term, where in ((options.outcome, "--outcome"), *((term, "--on") for term in options.on)):
        name, value = term_of(term)
        if name != LABEL and value is None:
            numbers = None if name in options.words else numbers_of(labels, name, where)
            row, values = labels.columns[name]
            gaps[name] = numpy.array(values)[row] == NOTHING if numbers is None else numpy.isnan(numbers)
    there = ~numpy.any([*gaps.values(), numpy.zeros(len(labels.predicted), dtype=bool)], 0)
    lacking = {name: int(gap.sum()) for name, gap in gaps.items() if gap.any()}
    if not lacking:
        return labels, codes, Sample(coded.post, coded.probability, coded.stratum), {}
    rows = [row for row in range(len(codes.posts)) if there[labels.place[row]]]
    if not rows:
        raise UserError(f"no coded post has a value in {' and in '.join(lacking)}; name columns that coded posts have")
    at = numpy.cumsum(there) - 1
    kept = replace(
        labels, predicted=labels.predicted[there], group=labels.group[there],
        probabilities=None if labels.probabilities is None else labels.probabilities[there],
        place={number: int(at[labels.place[row]]) for number, row in enumerate(rows)}, texts={},
        columns={name: (row[there], values) for name, (row, values) in labels.columns.items()})
    fixed = coded.stratum is not None
    sample = Sample(at[coded.post[rows]], coded.probability[rows], coded.stratum[rows] if fixed else None,
                    drawn=numpy.bincount(coded.stratum) if fixed else None)
    return kept, replace(codes, posts=[codes.posts[row] for row in rows]), sample, lacking


def question(options: RegressionOptions, labels: Labels, codes: Codes) -> tuple[Question, dict[str, str]]:
    """The regression's matrix and outcome, with the machine's labels and with the codes; and the value of each column
    of words that the others are compared with."""
    said, coded = labels.predicted, numpy.array([labels.labels.index(post.label) for post in codes.posts])
    post = numpy.array([labels.place[row] for row in range(len(codes.posts))], dtype=numpy.int64)
    factors, numbers, by_hand = {}, {}, {}
    for term in options.on:
        name, value = term_of(term)
        if name == LABEL:
            numbers[term], by_hand[term] = indicator(said, coded, value, labels)
            if not numpy.ptp(numbers[term]):
                raise UserError(f"--on {term}: the machine gave this label to {'every' if numbers[term][0] else 'no'} "
                                "post, so there is nothing of its to correct; a regression on the codes alone needs no "
                                "machine")
        elif value is not None:
            numbers[term] = equal_to(labels, name, value, "--on")
        elif name in options.words or (found := numbers_of(labels, name, "--on")) is None:
            factors[name] = words_of(labels, name)
        else:
            numbers[name] = found
    of = design(factors, numbers, references(options, factors)) if factors or numbers else None
    name, value = term_of(options.outcome)
    hand = of.matrix[post]
    for term, column in by_hand.items():
        hand[:, of.columns[term, ""]] = column
    if name == LABEL:
        outcome, own = indicator(said, coded, value, labels)
        if not numpy.ptp(own):
            raise UserError(f"--outcome label={value}: people gave it to {'all' if own[0] else 'none'} of the "
                            f"{len(own):,} coded posts, so there is nothing to compare; code more posts")
    else:
        outcome = equal_to(labels, name, value, "--outcome") if value is not None else \
            numbers_of(labels, name, "--outcome")
        if outcome is None:
            raise UserError(f"--outcome {name}: '{labels.columns[name][1][0][:20]}' is no number; name a value, {name}="
                            f"{labels.columns[name][1][0][:20]}")
        own = outcome[post]
    binary = bool(numpy.isin(outcome, (0, 1)).all())
    model = options.model if options.model != "auto" else "logistic" if binary else "linear"
    if model == "logistic" and not binary:
        raise UserError(f"--model logistic: --outcome {name} has other values than 0 and 1; take --model linear")
    x = answers(said, len(labels.labels), labels.probabilities)
    asked = Question(model, of.names, of.matrix, outcome, hand, own, tuple(of.columns[t, ""] for t in by_hand), x)
    return asked, {name: levels[0] for name, levels in of.factors.items()}


def indicator(said, coded, value: str, labels: Labels) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Whether the machine, and people, gave a label: (N,), (n,) float64."""
    if value not in labels.labels:
        raise UserError(f"label={value}: no post has that label{closest(value, labels.labels)}; there are "
                        f"{', '.join(labels.labels[:12])}")
    number = labels.labels.index(value)
    return (said == number).astype(numpy.float64), (coded == number).astype(numpy.float64)


def equal_to(labels: Labels, name: str, value: str, where: str) -> numpy.ndarray:
    """Whether a column has a value, (N,) float64."""
    row, values = labels.columns[name]
    if value not in values:
        raise UserError(f"{where} {name}={value}: no post has that value{closest(value, values)}; there are "
                        f"{', '.join(values[:12])}")
    return (row == values.index(value)).astype(numpy.float64)


def numbers_of(labels: Labels, name: str, where: str) -> numpy.ndarray | None:
    """A column as numbers, (N,) float64, NaN where there is none; None if it holds words."""
    row, values = labels.columns[name]
    found, odd = numpy.full(len(values), numpy.nan), False
    there = [n for n, value in enumerate(values) if not is_gap(value)]
    commas = with_commas([values[n] for n in there], f"{where} {name}")
    for n in there:
        try:
            found[n] = float(values[n].replace(",", ".") if commas else values[n])
        except ValueError:
            odd = True
    if odd:
        return None
    if not there or not (abs(found[there]) < LARGEST).all():
        raise UserError(f"{where} {name}: holds no numbers below {LARGEST:g}")
    return found[row]


def is_gap(value: str) -> bool:
    """Whether a cell of a column of numbers says that there is none."""
    return value == NOTHING or is_missing(value) or bool(_GAP.fullmatch(value))


def with_commas(values: list[str], where: str) -> bool:
    """Whether a column's numbers have decimal commas, 1,6. Raises `UserError` where 1,234 could be two numbers."""
    own = [value for value in values if "," in value]
    if not own or not all(_COMMA.fullmatch(value) for value in values):
        return False
    if all(_THOUSANDS.fullmatch(value) for value in own):
        raise UserError(f"{where}: '{own[0][:20]}' could be one and a part, or a thousand and more; write numbers with "
                        "a point and no comma, or name the column in --words, too, if these are names")
    return True


def words_of(labels: Labels, name: str) -> list[str]:
    """A column as words."""
    row, values = labels.columns[name]
    if len(values) > MOST_VALUES:
        raise UserError(f"--on {name}: has {len(values):,} different values, such as '{values[0][:20]}' and "
                        f"'{values[1][:20]}'; name a column with up to {MOST_VALUES}, or one of numbers")
    return numpy.array(values)[row]


def references(options: RegressionOptions, factors) -> dict[str, str]:
    """--reference as pairs."""
    found = dict(term_of(term) for term in options.reference)
    for name, value in found.items():
        if name not in factors or value is None:
            raise UserError(f"--reference {name}: write COLUMN=VALUE with a column of words in --on"
                            f"{closest(name, factors)}")
    return found
