"""A regression in which the outcome or a regressor is a machine's label, with the machine's errors taken out.

    python -m tools.regression --labels labels.csv --coded coded.csv --outcome label=anti-immigration --on month
    python -m tools.regression --labels labels.csv --coded coded.csv --outcome shares --on label=neutral,language

--labels and --coded are those of tools.prevalence: all posts with the machine's labels, as classify.py writes them, and
people's labels of a random sample, with inclusion_probability where chances differed. COLUMN=VALUE is 1 where the
column has the value and else 0; label=NAME is the machine's label, or the code of a coded post, and may be the outcome
or among --on, once on one side. Other columns come from --labels or, joined by id, from --posts (month also from a
date): numbers enter as they are, words as one column for each value but the most frequent.

Each coefficient is estimated four times: naive (the machine's labels taken as true), from the codes alone, and
corrected in two ways, PPI++ and DSL (stats/regression.py has the formulas), with 95 % intervals for the process behind
the posts. --clusters author allows for posts of one author that resemble each other.
"""

from dataclasses import dataclass
from math import floor, log10
from typing import ClassVar

import numpy

from common.errors import UserError, closest, run_program
from common.files import check_file, write_json
from common.options import option, parse_options
from common.terminal import table
from data.posts import ColumnOptions
from report.words import counted
from stats.logit import design
from stats.regression import MODELS, Coefficient, Question, Sample, regression
from stats.surrogate import answers
from tools.prevalence.read import Codes, Labels
from tools.prevalence.sample import checked, counts, read_all, sample_of
from tools.prevalence.words import ALIKE, caution, gain, narrowest

LABEL = "label"
MOST_VALUES = 100  # of a column of words: with more, it holds names
LARGEST = 1e15  # number of a column
FEW = 10  # coded posts for each coefficient, below which that is said


@dataclass
class RegressionOptions(ColumnOptions):
    """Options of one regression."""

    FIRST: ClassVar = ("labels", "coded", "outcome", "on", "model", "clusters")

    labels: str | None = option(None, "all posts with the machine's labels: .jsonl, .csv or .tsv, also .gz",
                                metavar="FILE")
    coded: str | None = option(None, "a random sample of them with people's labels", metavar="FILE")
    outcome: str | None = option(None, "what is explained: label=NAME, COLUMN=VALUE, or a column of numbers",
                                 metavar="label=NAME")
    on: list[str] = option((), "what explains it: columns, COLUMN=VALUE, and label=NAME if the outcome is none",
                           metavar="month,language")
    model: str = option("auto", "auto: logistic for an outcome of 0 and 1, else linear", choices=("auto", *MODELS))
    clusters: str | None = option(None, "column whose equal values belong together, such as author", metavar="COLUMN")
    words: list[str] = option((), "columns of --on whose numbers are names, such as year", metavar="NAME,NAME")
    reference: list[str] = option((), "values to compare with, instead of the most frequent",
                                  metavar="language=en,month=2024-01")
    run: str | None = option(None, "the run that labelled the posts: its codebook, and codes of its training posts are "
                             "refused", metavar="DIR")
    posts: str | None = option(None, "the posts, joined by id: texts, and columns for the regression", metavar="FILE")
    json: str | None = option(None, "write the coefficients there as well", metavar="FILE")
    seed: int = option(0, "seed for the folds of cross-fitting", minimum=0)


def main(argv: list[str]) -> None:
    """Read, check, fit, print, and write the JSON file."""
    options = parse_options(RegressionOptions, argv, program="python -m tools.regression", description=__doc__)
    for name in ("labels", "coded", "outcome", "on"):
        if not getattr(options, name):
            raise UserError(f"--{name}: is missing (--help tells what it takes)")
    check_sides(options)
    check_file(options.json, "--json", {"--labels": options.labels, "--coded": options.coded, "--posts": options.posts})
    run, codes, labels, posts = read_all(options, [], columns_of(options))
    coded, drawn = sample_of(codes, labels)
    asked = question(options, labels, codes)
    cluster = labels.columns[options.clusters][0] if options.clusters else None
    if cluster is not None:
        drawn += f"; {int(cluster.max()) + 1:,} clusters by {options.clusters}"
    print("\n".join([*codes.notes.lines(), *counts(labels, codes), f"  {drawn}", *caution(labels, coded, codes),
                     *checked(run, codes, labels, posts), ""]))
    found, tuned = regression(asked, Sample(coded.post, coded.probability, coded.stratum, cluster), seed=options.seed)
    print("\n".join([*table_of(found), "", *verdicts(found, asked, options)]))
    if options.json:
        write_json(options.json, as_dict(found, tuned, asked, options))
        print(f"coefficients: {options.json}")


def term_of(term: str) -> tuple[str, str | None]:
    """`"label=pro" -> ("label", "pro")`, `"month" -> ("month", None)`."""
    name, sign, value = (part.strip() for part in term.partition("="))
    if not name or (sign and not value):
        raise UserError(f"'{term[:40]}': write COLUMN, COLUMN=VALUE or label=NAME")
    return name, value if sign else None


def check_sides(options: RegressionOptions) -> None:
    """Raise `UserError` unless labels stand on one side, and nothing stands twice."""
    sides = [term_of(options.outcome)], [term_of(term) for term in options.on]
    bare = next((name for side in sides for name, value in side if name == LABEL and value is None), None)
    if bare:
        raise UserError("label: write which one, label=NAME; a regression compares posts that have it with the others")
    there = [any(name == LABEL for name, _ in side) for side in sides]
    if sum(there) != 1:
        raise UserError("--outcome and --on: labels stand on " + (
            "both sides; on one they can be corrected" if all(there) else
            "neither side, so there is nothing of the machine's to correct; write label=NAME on one"))
    if options.clusters == LABEL:
        raise UserError("--clusters label: labels are what is corrected; name a column such as author")
    odd = next((name for name in options.words if (name, None) not in sides[1]), None)
    if odd:
        raise UserError(f"--words {odd}: is not among --on{closest(odd, options.on)}")
    terms = [*sides[0], *sides[1]]
    twice = next((term for n, term in enumerate(terms) if term in terms[:n]), None)
    if twice:
        raise UserError(f"--on {twice[0]}{'' if twice[1] is None else '=' + twice[1]}: stands twice")


def columns_of(options: RegressionOptions) -> dict[str, str]:
    """The columns to keep, and the option that names each."""
    terms = [(options.outcome, "--outcome"), *((term, "--on") for term in options.on)]
    found = {term_of(term)[0]: where for term, where in terms}
    found |= {options.clusters: "--clusters"} if options.clusters else {}
    return {name: where for name, where in found.items() if name != LABEL}


def question(options: RegressionOptions, labels: Labels, codes: Codes) -> Question:
    """The regression's matrix and outcome, with the machine's labels and with the codes."""
    said, coded = labels.predicted, numpy.array([labels.labels.index(post.label) for post in codes.posts])
    post = numpy.array([labels.place[row] for row in range(len(codes.posts))], dtype=numpy.int64)
    factors, numbers, by_hand = {}, {}, {}
    for term in options.on:
        name, value = term_of(term)
        if name == LABEL:
            numbers[term], by_hand[term] = indicator(said, coded, value, labels)
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
    return Question(model, of.names, of.matrix, outcome, hand, own, tuple(of.columns[t, ""] for t in by_hand), x)


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
    for n, value in enumerate(values):
        try:
            found[n] = float(value)
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


def cells(one: Coefficient) -> list[str]:
    """The four estimates with their intervals; three decimals, or more where the widest interval calls for them."""
    ways = (one.naive, one.coded, one.ppi, one.dsl)
    widest = max(way.width for way in ways) / 2
    digits = min(9, max(3, 1 - floor(log10(widest)))) if widest > 0 else 3
    return [f"{way.estimate:z.{digits}f} [{way.low:z.{digits}f}, {way.high:z.{digits}f}]".replace("-", "−")
            for way in ways]


def table_of(found: list[Coefficient]) -> list[str]:
    """A line for each coefficient."""
    return [table(["", "naive", "codes alone", "PPI++", "DSL", "narrowest"],
                  [[one.name, *cells(one), narrowest(one)] for one in found])]


def verdicts(found: list[Coefficient], asked: Question, options: RegressionOptions) -> list[str]:
    """Sentences under the table."""
    n, width = asked.coded_matrix.shape
    share = term_of(options.outcome)[1] is not None
    of = "the log odds of " if asked.model == "logistic" else "the share of " if share else ""
    lines = [f"Coefficients of a {asked.model} regression: differences in {of}{options.outcome} per unit or from the "
             "value that is left out, with 95 % intervals for the process behind these posts. They compare posts; they "
             "do not say what would change if a post were changed."]
    useless = [one.name for one in found if gain(one)[1] > 1 - ALIKE]
    if useless:
        lines.append(f"The machine adds nothing for {', '.join(useless)}: no corrected interval is narrower than that "
                     "of the codes alone.")
    wrong = [one.name for one in found
             if not min(one.ppi.low, one.dsl.low) <= one.naive.estimate <= max(one.ppi.high, one.dsl.high)]
    lines.append(f"The naive coefficient lies outside both corrected intervals for {', '.join(wrong)} ({len(wrong)} of "
                 f"{len(found)}; at 95 % each, about one in twenty does by chance)." if wrong else
                 "No naive coefficient lies outside both corrected intervals; that does not make it right.")
    if n < FEW * width:
        lines.append(f"Only {n:,} coded posts for {width} coefficients: the intervals are then less sure than they "
                     f"say; code {FEW * width:,} or more, or name fewer columns.")
    return lines


def as_dict(found: list[Coefficient], tuned: float, asked: Question, options: RegressionOptions) -> dict:
    """The JSON file."""
    names = ("naive", "coded", "ppi", "dsl")
    return {"model": asked.model, "outcome": options.outcome, "on": list(options.on), "clusters": options.clusters,
            "n": len(asked.outcome), "n_coded": len(asked.coded_outcome), "tuned": tuned,
            "coefficients": [{"term": one.name} | {name: getattr(one, name).to_dict() for name in names}
                             for one in found]}


if __name__ == "__main__":
    run_program(main)
