"""What every question needs to compare models: figures with intervals, and differences that say what they allow for.

A difference of two sets is that of all their fits, never of the first ones alone. With three seeds or more, and three
draws of rows or more where there is anything to draw, its interval is the recipe's: it allows for other seeds, draws
and test posts, or for other seeds and test posts with these training posts where both sides take all rows. With fewer
there is no such interval: what is shown is over test posts, for these fits alone, and the fits' own points stand beside
it.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from report.intervals import percentiles
from report.words import signed
from stats import corrected
from stats.families import holds_for
from stats.predictions import Predictions, figure_of, figures_of, pooled, resampled
from stats.recipes import Fits, contrast, lacking
from study.report.section import Table
from study.results import Results


def main_figure(results: Results) -> str:
    """The topic's macro-F1, or that of all labels if a codebook has no topic."""
    return "macro_f1" if results.kept.grouping.topic_of is None else "topic.macro_f1"


def widest(results: Results) -> str:
    """The set with the most languages, or the largest of several such: the multilingual one."""
    sizes = {fit.name: len(fit.keys) for fit in results.fits if fit.kind == "set"}
    return max(results.plan.sets, key=lambda name: (len(results.seen(name)), sizes[name]))


def title_of(figure: str) -> str:
    """`title_of("topic.macro_f1") -> "topic macro-F1"`."""
    words = {"macro_f1": "macro-F1", "weighted_f1": "weighted F1"}
    return " ".join(words.get(part, part.replace("_", " ")) for part in figure.split("."))


def is_shown(found: Mapping) -> bool:
    """Whether an interval leaves out zero."""
    return found["low"] > 0 or found["high"] < 0


def in_words(found: Mapping) -> str:
    """`"+0.012 (−0.031 to +0.055), undecided"`: a difference in an answer, which says so if none is shown."""
    value, low, high = (found[key] for key in ("value", "low", "high"))
    if value is None or np.isnan(value):
        return "cannot be computed"
    if low is None or np.isnan(low):
        return f"{signed(value, 3)} (no interval)"
    return f"{signed(value, 3)} ({signed(low, 3)} to {signed(high, 3)})" + ", undecided" * (
        not is_shown(found))


def of_cells(table: Table) -> str:
    """What a matrix does not show: that small cells differ, if it has any; else that any two do."""
    if any(row["small"] for row in table.rows):
        return ("That two hatched cells differ: they hold fewer than 30 posts, or fewer than 10 posts or groups of a "
                "label.")
    return "That two cells differ: their intervals are in the table only."


def compare(first: Fits, second: Fits, figure: str, languages: Sequence[str], plan, weight: str = "languages"
            ) -> dict:
    """`stats.recipes.contrast` with the plan's draws (at most 2,000: of them it needs only the variance), and `holds`.

    `low` and `high` are the recipe's where there are fits enough, else those over test posts, with `lacking` in words.
    """
    found = contrast(first, second, figure, languages, weight, min(2000, plan.statistics.draws), plan.statistics.seed)
    lack = lacking(first, second)
    if lack:
        found |= {"low": found["posts_low"], "high": found["posts_high"]}
    return found | {"holds": holds_for(first, second), "lacking": lack}


def fits_words(first: Fits, second: Fits) -> str:
    """"In these fits (2 of each)" or "(3 and 1)"; what a claim is about where there are too few for a recipe."""
    one, two = len(first), len(second)
    return f"in these fits ({one} of each)" if one == two else f"in these fits ({one} and {two})"


def notes_of(results: Results, languages: Sequence[str], found: Mapping) -> list[str]:
    """What a claim carries from its cell: too few fits, and languages with few posts."""
    notes = []
    if found.get("lacking"):
        notes.append(f"Only {found['lacking']}: no interval for other fits.")
    kept = results.kept
    small = [code for code in languages if kept.is_small(kept.language == code)]
    if small:
        which = "Each language" if len(small) == len(languages) > 1 else \
            f"{len(small)} of {len(languages)} languages" if len(languages) > 1 else "The language"
        has = "has" if which.startswith(("Each", "The")) or len(small) == 1 else "have"
        notes.append(f"{which} {has} fewer than 30 posts, or fewer than 10 posts or groups with some label; "
                     f"no {'single ' * (len(languages) > 1)}language is judged alone.")
    return notes


def intervals(fits: Sequence[Predictions], figures: Sequence[str], languages: Sequence[str], draws: int, seed: int
              ) -> dict[tuple[str, str], tuple[float, float, float]]:
    """(figure, language) -> the fits' mean figure and its bootstrap interval over posts; NaN if there is none."""
    grouping, drawn = fits[0].rows.grouping, {}
    for parts in resampled(fits, languages, draws, seed):
        for code, name in ((code, name) for code in languages for name in figures):
            drawn.setdefault((name, code), []).append(figure_of(name, parts[code], grouping).mean(1))
    found = {}
    for (name, code), chunks in drawn.items():
        value = float(np.mean([fit.figure(name, [code]) for fit in fits]))
        low, high = percentiles(np.concatenate(chunks)[:, None])[:, 0]
        found[name, code] = (value, float(low), float(high))
    return found


def whole(fits: Sequence[Predictions], name: str, languages: Sequence[str], weight: str, draws: int, seed: int
          ) -> tuple[float, float, float]:
    """The fits' mean figure over some languages together, with its bootstrap interval over posts."""
    if not languages:
        return (np.nan, np.nan, np.nan)
    grouping = fits[0].rows.grouping
    drawn = np.concatenate([pooled(parts, name, grouping, weight).mean(1)
                            for parts in resampled(fits, languages, draws, seed)])
    value = float(figures_of(fits, name, languages, weight).mean())
    return value, *corrected.interval(value, drawn, fits, len(fits), name, languages, weight)
