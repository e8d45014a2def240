"""The family of contrasts that the plan names: every one a claim, in the plan's order, significant or not.

What is shown of a contrast is one estimate, the mean over all fits of both recipes, with the interval that holds for
the whole family at once and the Holm-adjusted p of the same estimate (stats/families.py). Whether it was declared
before the data is not the plan's word: it was if the plan was frozen with it before the first answer was written.
"""

import numpy as np

from report.intervals import LEVEL
from report.words import counted
from stats.families import THESE, family
from stats.families import Contrast as Compared
from study.preregistration import DECLARED, LATE, NAMED, Standing
from study.questions.compared import is_shown, notes_of, title_of
from study.questions.sentences import amount, compared, p_words, with_sign
from study.report.section import Claim, Column, FigureSpec, Section, Table
from study.results import Results

OLDER = ("In the plan, not declared: the answers of the models from outside existed before the plan was frozen, so a "
         "comparison with them may have been chosen after they were seen.")
OTHERS = ("that one tells the stance better, since each is scored on the related posts that it found itself, which are "
          "other posts, and those that the more thorough one adds may be harder")
SHOWN = ("value", "low", "high", "simultaneous_low", "simultaneous_high")


def contrasts(results: Results, standing: Standing | None = None) -> Section | None:
    """The plan's family: its simultaneous intervals, Holm over its tests, and a claim of each."""
    plan, standing = results.plan, standing or Standing()
    if not plan.contrasts:
        return None
    asked = [Compared(one.name, results.recipe(one.first), results.recipe(one.second), one.figure,
                      results.languages_of(one), one.weight) for one in plan.contrasts]
    found = family(asked, plan.statistics.draws, plan.statistics.seed, error=plan.statistics.p_error)
    statuses = [standing.of(one, plan) for one in plan.contrasts]
    rows = [{"contrast": one.name, "figure": title_of(one.figure), "languages": len(line["languages"]),
             **{key: line[key] for key in (*SHOWN, "first", "second", "test", "p", "p_holm", "holds")},
             "fits": f"{line['fits'][0]} and {line['fits'][1]}", "status": status}
            for one, line, status in zip(plan.contrasts, found, statuses, strict=True)]
    frozen = standing.is_frozen and not standing.reason
    claims = [claim_of(results, one, line, status, frozen)
              for one, line, status in zip(plan.contrasts, found, statuses, strict=True)]
    columns = [Column("contrast", "contrast"), *(Column(key, title, "difference") for key, title in (
        ("value", "difference"), ("simultaneous_low", "low, all at once"), ("simultaneous_high", "high, all at once"))),
        Column("p_holm", "p, Holm", "p"), Column("low", "low, alone", "difference"),
        Column("high", "high, alone", "difference"), Column("fits", "fits")]
    rest = [Column("contrast", "contrast"), Column("figure", "figure"), Column("languages", "languages", "count"),
            Column("first", "first", "rate"), Column("second", "second", "rate"), Column("p", "p", "p"),
            Column("test", "test"), Column("holds", "the intervals allow for"), Column("status", "status")]
    table, more = (Table(name, title, own, [{column.key: row[column.key] for column in own} for row in rows], notes)
                   for name, title, own, notes in (
        ("contrasts", "The plan's family of contrasts", columns,
         ["Every figure is the mean over all fits of both sides. 'All at once': all intervals of the family hold "
          "together as often as 95 per cent. 'p, Holm' is adjusted for the family as well."]),
        ("contrasts_tests", "What was compared, and how it was tested", rest, ["p: of one contrast alone."])))
    figure = FigureSpec("forest", "contrasts", "The thick interval is for one contrast alone, the thin one for all "
                        "contrasts of the family at once. The table says what they allow for.",
                        "That a contrast whose thin interval contains zero shows that the two are alike.",
                        name="contrasts", x="value", y="contrast", low="low", high="high",
                        wider_low="simultaneous_low", wider_high="simultaneous_high")
    stand = [row["contrast"] for row, line in zip(rows, found, strict=True) if is_shown(at_once(line))]
    answer = (f"Of {counted(len(rows), 'comparison')}, {len(stand) or 'none'} {'have' if len(stand) > 1 else 'has'} a "
              f"simultaneous interval that leaves out zero{': ' if stand else ''}{'; '.join(stand)}.")
    answer = answer if stand else f"All is undecided. {answer}" if rows[1:] else f"Undecided. {answer}"
    notes = [*standing.notes, *([OLDER] if {DECLARED, NAMED} <= set(statuses) else [])]
    return Section("contrasts", "The plan's comparisons", "Which of the comparisons that the plan names stand out?",
                   answer, claims, [table, more], [figure], notes,
                   exploratory=all(status == LATE for status in statuses))


def at_once(line: dict) -> dict:
    """The line with its simultaneous interval in the place of its own."""
    return line | {"low": line["simultaneous_low"], "high": line["simultaneous_high"]}


def disagreement(line: dict) -> str:
    """What to add where the family's interval and Holm's p fall on different sides of the level; else ""."""
    below, shown = line["p_holm"] <= 1 - LEVEL + 1e-9, is_shown(at_once(line))  # False for NaN
    if below and np.isnan(line["simultaneous_low"]):
        return f" Holm's p is not above {1 - LEVEL:.2f}, but there is no simultaneous interval."
    if below and not shown:
        return f" Holm's p is not above {1 - LEVEL:.2f}; the simultaneous interval, which is stricter, contains zero."
    if shown and line["p_holm"] > 1 - LEVEL + 1e-9:
        return f" The simultaneous interval leaves out zero; Holm's p, of another test, is above {1 - LEVEL:.2f}."
    return ""


def rows_of(results: Results, name: str) -> float:
    """Training rows of a set, mean over its fits, or those that an outside model is said to have; 0 if not known."""
    if name in results.plan.outside:
        return results.plan.outside[name].rows or 0
    return float(np.mean([len(fit.keys) for fit in results.fits if (fit.name, fit.kind) == (name, "set")]))


def claim_of(results: Results, one, line: dict, status: str, frozen: bool = False) -> Claim:
    """The claim of one contrast: the family's interval and its Holm p, both of the mean over all fits.

    frozen: whether the plan's other contrasts count as declared.
    """
    shown, languages = at_once(line), line["languages"]
    fits = f"{line['fits'][0]} of each" if line["fits"][0] == line["fits"][1] else "{} and {}".format(*line["fits"])
    these = line["holds"] == THESE
    about = f"in these fits, {fits}" if these else f"allowing for {line['holds']}"
    p = "no p can be computed" if np.isnan(line["p_holm"]) else f"{p_words(line['p_holm'])} after Holm's adjustment"
    sizes = [rows_of(results, name) for name in (one.first, one.second)]
    more = f"the {abs(sizes[0] - sizes[1]):,.0f} more training posts of the larger set" * (
        all(sizes) and max(sizes) > 1.02 * min(sizes))
    if {one.first, one.second} & set(results.plan.outside):
        more = f"another base or recipe{' or ' * bool(more)}{more}"
    rows = f"That the languages are the reason, and not {more}; that" if more else "That"
    counts = "each language counting the same" if one.weight == "languages" else "each post counting the same"
    what, limits = title_of(one.figure), f"({counts}; {about}): {p}"
    sides = "" if np.isnan(line["value"]) else f", {amount(line['first'])} beside {amount(line['second'])},"
    found = f"This difference in {what}{sides} is shown {limits}" if is_shown(shown) else \
        f"Whether {what} differs{sides} is undecided {limits}"
    several = len(results.plan.contrasts) > 1
    apart = f"; {OTHERS}" * ("given_detection" in one.figure)
    ends = "" if np.isnan(line["value"]) or np.isnan(shown["low"]) else \
        f": anything from {with_sign(shown['low'])} to {with_sign(shown['high'])} is compatible with the data"
    undeclared = {DECLARED: "", LATE: "added after the plan was frozen"}.get(
        status, "not declared before the first answer")
    if frozen and status == NAMED and {one.first, one.second} & set(results.plan.outside):
        undeclared = "in the plan, but not declared, since answers from outside existed before"
    weaker = "; ".join(words for words in (undeclared, "other training runs may differ" * these) if words)
    return Claim(
        compared(results, one.first, one.second, one.figure, languages, shown), shown["value"], shown["low"],
        shown["high"],
        f"{status}. {found} for {counted(len(results.plan.contrasts), 'comparison')}.{disagreement(line)}",
        f"{rows} it holds in each single language{apart}{'; that it is larger than another comparison' * several}."
        if is_shown(shown) else f"That the two are alike{ends}{apart}{'; that it is smaller than another' * several}.",
        languages=languages, notes=notes_of(results, languages, line), points=line["points"],
        holds=f"{line['holds']}, and for all comparisons of the plan at once", status=status, weaker=weaker,
        exploratory=status == LATE)
