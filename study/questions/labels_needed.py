"""How many labels of a language are worth having: each added language's learning curve, a little beyond its end."""

import numpy as np

from report.intervals import LEVEL
from report.student import t_quantile
from stats.corrected import of_sides
from stats.learning_curve import FARTHEST, FEWEST_COUNTS, FEWEST_DRAWS, Curve, fit
from stats.predictions import figures_of
from stats.recipes import ALL_ROWS, Fits
from study.questions.compared import title_of
from study.report.section import Column, Table
from study.results import Results


def law_table(results: Results, by_language: dict[str, dict[int, Fits]], name: str) -> tuple[Table | None, list[str]]:
    """One row per language with a curve: its law, and the figure at its end, at twice and at four times that.

    `by_language`: code -> rows added -> that recipe. None, and why, where no curve can be fitted.
    """
    rows = []
    for code, recipes in by_language.items():
        found, spread = curve_of(recipes, code, name)
        if found is None:
            continue
        line = {"language": code, "most": found.most, "spread": spread, "limit": found.a, "exponent": found.c,
                "small": bool(results.kept.is_small(results.kept.language == code))}
        for key, times in (("end", 1), ("twice", 2), ("farthest", FARTHEST)):
            line |= dict(zip((key, f"{key}_low", f"{key}_high"), found.at(times * found.most), strict=True))
        line |= {"gain": line["farthest"] - line["end"], "half": found.rows_for((found.a + line["end"]) / 2)}
        line |= dict(zip(("rise", "rise_low", "rise_high"), rise(values_of(recipes, code, name)[1]),
                          strict=True))
        rows.append(line)
    if not rows:
        return None, [f"No learning curve is fitted: that takes {FEWEST_COUNTS} numbers of rows, {FEWEST_DRAWS} draws."]
    rate = [Column(f"{key}{end}", f"{words}{' ' + end[1:] if end else ''}", "rate") for key, words in (
        ("end", "at the end"), ("twice", "at twice that"), ("farthest", f"at {FARTHEST} times that"))
        for end in ("", "_low", "_high")]
    return Table("exposure_law", f"{title_of(name)} in a language by its rows: an inverse power law", [
        Column("language", "language", "language"), Column("most", "most rows tried", "count"), *rate,
        Column("rise", "measured from the fewest to the most rows", "difference"),
        Column("rise_low", "low", "difference"), Column("rise_high", "high", "difference"),
        Column("spread", "between draws, at the end", "number"),
        Column("gain", f"gain by {FARTHEST} times the rows", "difference"),
        Column("half", "rows for half of what is left", "count"), Column("limit", "the law's limit", "rate"),
        Column("exponent", "exponent", "number"), Column("small", "small cell", "flag")], rows,
        ["a − b·n^(−c) through the means over draws. Between draws: a standard deviation. Intervals: other draws of "
         "rows and other test posts, if the law holds. Beyond the most rows tried nothing tests the law, so nothing "
         f"is said beyond {FARTHEST} times that; and nothing about other languages, other ways of choosing the rows, "
         "or rows of several languages at once. A dash: not within that range. Measured: mean over draws, with an "
         "interval over other draws; where it holds zero, the curve was not shown to rise, and "
         "its law says nothing."]), []


def curve_of(recipes: dict[int, Fits], code: str, name: str) -> tuple[Curve | None, float | None]:
    """The law of one language, and the standard deviation between draws at its end; None with too few of either."""
    counts, values = values_of(recipes, code, name)
    if not counts:
        return None, None
    fits = list(recipes[counts[-1]].values())
    posts = of_sides(fits, len(fits), name, [code], "rows")[1]
    found = None if np.isnan(posts) else fit(counts, values, posts)
    return found, None if found is None else float(np.std(values[:, -1], ddof=1))


def values_of(recipes: dict[int, Fits], code: str, name: str) -> tuple[list[int], np.ndarray]:
    """The numbers of rows that were tried, in order, and the figure at each, mean over seeds: (draws, counts)."""
    counts = [count for count in sorted(recipes) if count and recipes[count]]
    keys = max((recipes[count] for count in counts), key=len, default=())
    values = [[np.mean([value_at(recipes[count], key, code, name) for key in keys if key[0] == draw])
               for count in counts] for draw in dict.fromkeys(key[0] for key in keys)]
    return counts, np.array(values)


def rise(values: np.ndarray) -> tuple[float, float, float]:
    """(mean, low, high) over draws of the figure with the most rows less that with the fewest, by Student's t; values
    (draws, counts)."""
    found = values[:, -1] - values[:, 0]
    half = t_quantile(LEVEL, len(found) - 1) * found.std(ddof=1) / len(found) ** 0.5
    return float(found.mean()), float(found.mean() - half), float(found.mean() + half)


def value_at(recipe: Fits, key: tuple, code: str, name: str) -> float:
    """The figure of the fit with this draw and seed, or of the one that takes all rows; NaN if there is none."""
    found = recipe.get(key) or recipe.get((ALL_ROWS, key[1]))
    return float(figures_of([found], name, [code], "rows")[0]) if found else np.nan
