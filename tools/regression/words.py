"""What tools.regression says: the table, and which intervals there are and what they mean."""

from collections.abc import Mapping
from math import floor, log10

from common.terminal import table
from report.intervals import LEVEL
from report.words import counted
from stats.regression import Coefficient, Question
from stats.sandwich import EVENTS, FEWEST, Fitted
from tools.prevalence.read import Codes, Labels
from tools.prevalence.words import ALIKE, CHANCE, gain, narrowest
from tools.regression.options import RegressionOptions, term_of

FEW = 10  # coded posts for each coefficient, below which that is said


def cells(one: Coefficient) -> list[str]:
    """The four estimates with their intervals, a dash for none; three decimals, or more where the widest interval calls
    for them."""
    ways = (one.naive, one.coded, one.ppi, one.dsl)
    widest = max((way.width for way in ways if way.low is not None), default=0.0) / 2
    digits = min(9, max(3, 1 - floor(log10(widest)))) if widest > 0 else 3

    def shown(way: Fitted) -> str | None:
        if way.estimate is None:
            return None
        ends = " –" if way.low is None else f" [{way.low:z.{digits}f}, {way.high:z.{digits}f}]"
        return f"{way.estimate:z.{digits}f}{ends}".replace("-", "−")

    return [shown(way) for way in ways]


def table_of(found: list[Coefficient]) -> list[str]:
    """A line for each coefficient."""
    return [table(["", "naive", "codes alone", "PPI++", "DSL", "narrowest"],
                  [[one.name, *cells(one), narrowest(one)] for one in found])]


def verdicts(found: list[Coefficient], asked: Question, references: Mapping[str, str], options: RegressionOptions
             ) -> list[str]:
    """Sentences under the table; references: each column of words and its value that is left out."""
    n, width = asked.coded_matrix.shape
    share = term_of(options.outcome)[1] is not None
    of = "the log odds of " if asked.model == "logistic" else "the share of " if share else ""
    left_out = "; ".join(f"{name}: {value}" for name, value in references.items())
    lines = [f"Coefficients of a {asked.model} regression: differences in {of}{options.outcome} per unit"
             + (f" or from the value that is left out ({left_out})" if left_out else "")
             + ", with 95 % intervals for the process behind these posts. They compare posts; they do not say what "
             "would change if a post were changed."]
    if none := [one for one in found if one.coded.low is None]:
        lines.append(f"– no interval, since too few codes stand behind it: {', '.join(map(behind, none))}. An interval "
                     f"takes {FEWEST} or more{clustered(options)}" + ("" if none[0].events is None else
                     f", and on either side {EVENTS} with the outcome and {EVENTS} without it")
                     + ": code more there, merge values, or leave it out.")
    there = [one for one in found if one.coded.low is not None]
    useless = [one.name for one in there if gain(one)[1] > 1 - ALIKE]
    if useless:
        lines.append(f"The machine adds nothing for {', '.join(useless)}: no corrected interval is narrower than that "
                     "of the codes alone.")
    if found[0].naive.estimate is None:
        lines.append("There is no naive regression: the machine's labels are all the same, or tell one of the columns "
                     "apart without error.")
    elif there:
        wrong = [one.name for one in there
                 if not min(one.ppi.low, one.dsl.low) <= one.naive.estimate <= max(one.ppi.high, one.dsl.high)]
        lines.append("The naive coefficient lies outside both corrected intervals for "
                     f"{', '.join(wrong)} ({len(wrong)} of {len(there)}; {CHANCE})." if wrong else
                     "No naive coefficient lies outside both corrected intervals; that does not make it right.")
    if n < FEW * width:
        lines.append(f"Only {n:,} coded posts for {width} coefficients: the intervals are then less sure than they "
                     f"say; code {FEW * width:,} or more, or name fewer columns.")
    return lines


def left_out(lacking: Mapping[str, int], before: tuple[Labels, Codes], after: tuple[Labels, Codes]) -> list[str]:
    """How many posts and codes are not in the regression, since they have no value in some column."""
    if not lacking:
        return []
    posts, coded = (len(old) - len(new) for old, new in ((before[0].predicted, after[0].predicted),
                                                         (before[1].posts, after[1].posts)))
    which = ", ".join(f"{name} ({count:,})" for name, count in lacking.items())
    return [f"  {counted(posts, 'post')} left out, {coded:,} of them coded, for want of a value in {which}: the "
            f"coefficients are of the other {len(after[0].predicted):,}, {len(after[1].posts):,} of them coded"]


def behind(one: Coefficient) -> str:
    """What stands behind a coefficient without an interval: "language: hi (2)", "x (12, 1 of them with the outcome or
    without it on one side)"."""
    few = "" if round(one.reach) < FEWEST else f", {one.events:.0f} with the outcome, or without it, on one side"
    return f"{one.name} ({one.reach:.0f}{few})"


def clustered(options: RegressionOptions) -> str:
    return f" groups by {options.clusters} with codes" if options.clusters else " codes"


def as_dict(found: list[Coefficient], tuned: float, asked: Question, references: Mapping[str, str], design: str,
            lacking: Mapping[str, int], options: RegressionOptions) -> dict:
    """The JSON file."""
    names = ("naive", "coded", "ppi", "dsl")
    return {"schema": 2, "model": asked.model, "outcome": options.outcome, "on": list(options.on),
            "references": dict(references), "clusters": options.clusters, "n": len(asked.outcome),
            "n_coded": len(asked.coded_outcome), "lacking": dict(lacking),
            "design": design, "level": LEVEL, "seed": options.seed, "tuned": tuned,
            "coefficients": [{"term": one.name} | {name: getattr(one, name).to_dict() for name in names}
                             | {"reach": one.reach, "events": one.events} for one in found]}
