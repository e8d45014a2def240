"""What tools.regression says: the table, and which intervals there are and what they mean."""

from math import floor, log10

from common.terminal import table
from stats.regression import Coefficient, Question
from tools.prevalence.words import ALIKE, gain, narrowest
from tools.regression.options import RegressionOptions
from tools.regression.question import term_of

FEW = 10  # coded posts for each coefficient, below which that is said


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
