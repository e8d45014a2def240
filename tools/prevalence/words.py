"""What tools.prevalence says: the table, which interval is narrower, and what does not look like a random sample."""

from math import sqrt
from statistics import NormalDist

import numpy

from common.errors import UserError
from common.terminal import table
from data.annotators import SETTLED
from report.words import counted
from stats.prevalence import FIXED, Coded, Estimate, Share
from stats.regression import Coefficient
from tools.prevalence.read import PROBABILITY, STRATUM, Codes, Labels

FEW, FEWEST = 30, 10  # coded rows of a group, below which it is marked, and below which its intervals are too narrow
ALIKE = 0.02  # by which share an interval must be narrower to be called so
UNLIKELY = 1e-4  # chance below which the codes do not look like a random sample
SHOWN = 6
MOST_LINES, MOST_PANELS = 60, 8  # groups and labels of a picture
CHANCE = "at 95 % each, chance alone puts about one in twenty there, often several together"
HARD = "hard posts are not a random part of the sample, and no interval covers what that does to the estimates"
DESIGN = (STRATUM, "weight", "weights")  # columns that tell of a design, and say too little
NAMES = {"coded": "the codes alone", "ppi": "PPI++", "dsl": "DSL"}


def table_of(found: list[Share], labels: Labels, by: list[str]) -> str:
    """A line for each group and label."""
    header = [*([", ".join(by)] if by else []), "label", "posts", "coded", "naive", "codes alone", "PPI++", "DSL",
              "narrowest"]  # fmt: skip
    rows = []
    for share in found:
        few = "°" if share.n_coded < FEW else ""
        rows.append([*([labels.groups[share.group]] if by else []), labels.labels[share.label], f"{share.n:,}",
                     f"{share.n_coded:,}{few}", _percent(share.naive),
                     *map(_shown, (share.coded, share.ppi, share.dsl)), narrowest(share)])
    return table(header, rows)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _shown(one: Estimate) -> str | None:
    return None if one.low is None else f"{100 * one.estimate:.1f} [{100 * one.low:.1f}, {100 * one.high:.1f}]"


def gain(share: Share | Coefficient) -> tuple[str, float]:
    """The corrected estimate with the narrower interval, "ppi" or "dsl", and its width over that of the codes alone."""
    name = min(("ppi", "dsl"), key=lambda key: getattr(share, key).width)
    return name, getattr(share, name).width / share.coded.width if share.coded.width > 0 else 1.0


def narrowest(share: Share | Coefficient) -> str | None:
    if share.coded.low is None:
        return None
    name, ratio = gain(share)
    return "none: the machine adds nothing" if ratio > 1 - ALIKE else f"{NAMES[name]}, by {100 * (1 - ratio):.0f} %"


def check_size(labels: Labels) -> None:
    """Raise `UserError` for more groups or labels than a picture can hold, before anything is estimated."""
    if len(labels.groups) > 1 and (len(labels.groups) > MOST_LINES or len(labels.labels) > MOST_PANELS):
        raise UserError(f"--figure: {len(labels.groups)} groups and {len(labels.labels)} labels are more than a "
                        f"picture holds ({MOST_LINES} and {MOST_PANELS}); take fewer columns in --by, or leave it out")


def verdicts(found: list[Share], labels: Labels, options) -> list[str]:
    """Sentences under the table; options: `beyond` and `clusters` of tools.prevalence."""
    several = len(labels.groups) > 1

    def named(shares: list[Share]) -> str:
        words = [f"“{labels.labels[s.label]}”" + (f" in {labels.groups[s.group]}" if several else "") for s in shares]
        return ", ".join(words[:SHOWN]) + (f" and {len(words) - SHOWN} more" if len(words) > SHOWN else "")

    there = [share for share in found if share.n_coded]
    lines = ["Shares in per cent, intervals of 95 %. The last column says which corrected interval is narrower than "
             "that of the codes alone, and by how much.",
             "They are about " + ("these posts and no others." if not options.beyond else
             f"the process behind these posts, those of one {options.clusters} taken together." if options.clusters else
             "the process behind these posts, each of which is taken to be drawn for itself: where an author has many "
             "that resemble each other, name the column with --clusters.")]
    useless = [share for share in there if gain(share)[1] > 1 - ALIKE]
    if useless:
        lines.append(f"The machine adds nothing for {named(useless)}: no corrected interval is narrower than that of "
                     "the codes alone.")
    wrong = [share for share in there
             if not min(share.ppi.low, share.dsl.low) <= share.naive <= max(share.ppi.high, share.dsl.high)]
    lines.append(f"The naive share lies outside both corrected intervals for {named(wrong)} ({len(wrong)} of "
                 f"{counted(len(there), 'share')}; {CHANCE})." if wrong else
                 "No naive share lies outside both corrected intervals; that does not make it right.")
    if few := sorted({share.group for share in there if share.n_coded < FEW}):
        lines.append(f"° fewer than {FEW} coded posts ({counted(len(few), 'group')}).")
    if fewest := sorted({share.group for share in there
                         if share.n_coded < (FEWEST if options.beyond else min(FEWEST, share.n))}):
        lines.append(f"{counted(len(fewest), 'group')} with fewer than {FEWEST}: where posts had different chances of "
                     "being drawn, or a label is rare, these intervals are known to be too narrow.")
    if none := sorted({share.group for share in found if not share.n_coded}):
        lines.append(f"No coded posts, so no estimate: {', '.join(labels.groups[g] for g in none[:SHOWN])}"
                     + (f" and {len(none) - SHOWN} more" if len(none) > SHOWN else "") + ".")
    return lines


def caution(labels: Labels, coded: Coded, codes: Codes) -> list[str]:
    """Signs that the codes are no random sample with these chances."""
    n, posts, lines = len(coded.post), len(labels.predicted), []
    weights = 1 / coded.probability
    apart = abs(weights.sum() - posts)
    ties = len(codes.agreement.ties) if codes.agreement is not None else 0
    # In strata of fixed sizes the sum is N itself; of rows that are drawn one by one, on average.
    chance = 0.0 if coded.stratum is not None else 4 * sqrt(float((1 - coded.probability) @ weights**2)) + 0.01 * posts
    if apart > chance + max(1.0, FIXED * posts):
        lines.append(f"  warning: by their inclusion_probability the coded rows stand for {weights.sum():,.0f} posts, "
                     f"and there are {posts:,}; " + (
                     "give the labels of all posts that they were drawn from; if two samples were joined, the chance "
                     "is that of being in either: in a stratum, its coded rows by its posts" if weights.sum() > posts
                     else ("settle the posts without a majority, code" if ties else "code") + " the whole sample, and "
                     "give the labels of those posts alone that it was drawn from (tools.sample --run leaves a run's "
                     "own posts out, and so does --run with --posts here)"))
    if len(set(coded.probability.tolist())) == 1 and n < posts:
        drawn = numpy.bincount(labels.predicted[coded.post], minlength=len(labels.labels) + 1)
        shares = numpy.bincount(labels.predicted, minlength=len(labels.labels) + 1) / posts
        there = shares > 0
        square = float(((drawn - n * shares)[there] ** 2 / (n * shares[there])).sum()) / (1 - n / posts)
        if _chi_square_tail(square, int(there.sum()) - 1) < UNLIKELY:
            lines.append("  warning: the coded rows' labels by the machine are spread otherwise than those of all "
                         "posts, as chance would hardly make them; if some posts were likelier to be drawn, add a "
                         "column inclusion_probability")
    values = {name: {post.extra.get(name, "").strip() for post in codes.posts} for name in (PROBABILITY, *DESIGN)}
    unused = [name for name in DESIGN if len(values[name]) > 1]
    if unused and values[PROBABILITY] == {""}:
        lines.append(f"  warning: column '{unused[0]}' is not used without a column {PROBABILITY}, each row's chance "
                     "of being drawn (1 / weight, if the weights add up to all posts); add it if chances differed")
    if lacking := codes.notes.counts["missing_label"] + codes.notes.counts["unknown_label"]:
        lines.append(f"  warning: {counted(lacking, 'coded row')} without a label of the question left out; "
                     + ("give each" if codes.agreement is None else "where nobody else coded the post, give it")
                     + f" the label that fits best: {HARD}")
    if ties:
        lines.append(f"  warning: {counted(ties, 'coded post')} of {ties + n:,} without a majority left out; settle "
                     f"them (python -m tools.code --coder {SETTLED}): {HARD}")
    return lines


def _chi_square_tail(square: float, df: int) -> float:
    """P(chi-square >= square), by Wilson and Hilferty's cube root (1931, PNAS 17, 684-688); 1 without freedom."""
    if df < 1:
        return 1.0
    z = ((square / df) ** (1 / 3) - (1 - 2 / (9 * df))) / sqrt(2 / (9 * df))
    return 1 - NormalDist().cdf(z)
