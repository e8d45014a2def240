"""From the options to the regression's matrix and outcome, with the machine's labels and with the codes."""

import re

import numpy

from common.errors import UserError, closest
from report.words import counted
from stats.logit import design
from stats.regression import Question
from stats.surrogate import answers
from tools.prevalence.read import Codes, Labels
from tools.regression.options import RegressionOptions

LABEL = "label"
MOST_VALUES = 100  # of a column of words: with more, it holds names
LARGEST = 1e15  # number of a column
_COMMA = re.compile(r"[-+]?\d+(,\d+)?")
_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2},\d{3}")  # 1,234: no thousand begins with 0, nor has four digits before


def term_of(term: str) -> tuple[str, str | None]:
    """`"label=pro" -> ("label", "pro")`, `"month" -> ("month", None)`."""
    name, sign, value = (part.strip() for part in term.partition("="))
    if not name or (sign and not value):
        raise UserError(f"'{term[:40]}': write COLUMN, COLUMN=VALUE or label=NAME")
    return name, value if sign else None


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
    """A column as numbers, (N,) float64; None if it holds words. Raises `UserError` for numbers with gaps."""
    row, values = labels.columns[name]
    found, odd = numpy.full(len(values), numpy.nan), []
    commas = with_commas(values, f"{where} {name}")
    for n, value in enumerate(values):
        try:
            found[n] = float(value.replace(",", ".") if commas else value)
        except ValueError:
            odd.append(value)
    if odd and set(odd) != {"(none)"}:
        return None
    if len(odd) == len(values) or not (abs(found[[v not in odd for v in values]]) < LARGEST).all():
        raise UserError(f"{where} {name}: holds no numbers below {LARGEST:g}")
    if odd:
        count = int((row == values.index("(none)")).sum())
        raise UserError(f"{where} {name}: is empty for {counted(count, 'post')}, and else holds numbers; leave these "
                        "posts out of both files, or fill the column in")
    return found[row]


def with_commas(values: list[str], where: str) -> bool:
    """Whether a column's numbers have decimal commas, 1,6. Raises `UserError` where 1,234 could be two numbers."""
    written = [value for value in values if value != "(none)"]
    own = [value for value in written if "," in value]
    if not own or not all(_COMMA.fullmatch(value) for value in written):
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
