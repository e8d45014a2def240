"""What the plan's contrasts can show, before the money is spent: `python -m study --power`, and part of `--freeze`.

The error over test posts and the spread over seeds come from a pilot: the answers that this study's folder already has,
for a contrast of outside models their own labels. Where there is none, an assumption takes its place and is named: on
`APART` of the posts one model is right and the other is not, and seeds and draws spread by `SPREAD`. Figures that are
no rates have somewhat larger errors than that.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from common.errors import UserError
from common.terminal import table
from report.words import counted
from stats.corrected import is_mean, of_sides
from stats.power import POWER, Design, chance, detectable, posts_needed, width
from stats.predictions import Predictions, figures_of, resampled
from stats.predictions import pooled as pooled_figure
from stats.recipes import ALL_ROWS, Fits, Grid
from study.fits import TEST
from study.results import Results

APART, SPREAD = 0.3, 0.02
WORTH = 0.1  # a difference that would matter, where the plan does not say
HOPELESS = 0.5  # of showing it
NARROW = 0.05  # half-width that a reader would call precise, where the plan does not say


@dataclass(frozen=True)
class Reach:
    """What one contrast can show: the smallest difference with 80 per cent, with what chance a difference of `worth`,
    and the posts that it takes to show that, and for an interval of `narrow` on each side."""

    contrast: str
    basis: str
    design: Design
    smallest: float
    for_worth: int | None
    for_narrow: int | None
    worth: float = WORTH
    narrow: float = NARROW
    unit: str = "posts"  # or groups of them, where the plan keeps some together

    @property
    def is_hopeless(self) -> bool:
        return self.chance < HOPELESS

    @cached_property  # of simulated studies
    def chance(self) -> float:
        """How likely a difference of `worth` is to be shown."""
        return chance(self.design, self.worth)

    def shortfall(self) -> str:
        """What is to be expected of a difference of `worth`, if it is shown less often than usual; else ""."""
        if self.smallest <= self.worth:
            return ""
        often = f"a difference of {self.worth} would be shown with a chance of {self.chance:.0%}"
        return f"hopeless: {often}" if self.is_hopeless else often

    def to_dict(self) -> dict:
        """For frozen.json."""
        return {"contrast": self.contrast, "basis": self.basis, "smallest_difference": round(self.smallest, 4),
                "power": POWER, "posts": self.design.clusters,
                "posts_for_a_difference_of": {str(self.worth): self.for_worth},
                "posts_for_a_half_width_of": {str(self.narrow): self.for_narrow},
                "chance_of_showing_it": round(self.chance, 2), "hopeless": self.is_hopeless}


def power(results: Results) -> list[Reach]:
    """The reach of every contrast of the plan."""
    found, given = [], results.plan.statistics
    worth, narrow = given.worth or WORTH, given.half_width or NARROW
    for one in results.plan.contrasts:
        design, basis = design_of(results, one)
        found.append(Reach(one.name, basis, design, detectable(design), posts_needed(design, worth),
                           posts_needed(design, narrow, of=width), worth, narrow,
                           "groups of posts" if results.material.group_by else "posts"))
    return found


def design_of(results: Results, one) -> tuple[Design, str]:
    """The contrast's design at the plan's rows, seeds and draws, and where its spreads come from."""
    plan, languages = results.plan, results.languages_of(one)
    kept = results.kept
    chosen = kept.where(languages)
    if one.figure.startswith("stance") or one.figure.endswith("recall"):  # related posts alone count there
        chosen = chosen & (kept.grouping.topic_of[kept.gold] == 0)
    clusters = len(np.unique(kept.clusters[chosen]))
    inside = {one.first, one.second} <= set(plan.sets)
    seeds = len(plan.repeat.seeds) if inside else 1
    whole = all(fit.whole for fit in results.fits if fit.kind == "set" and fit.name in (one.first, one.second))
    draws = 0 if whole or not inside else len(plan.repeat.draws)
    common = {"clusters": clusters, "seeds": seeds, "draws": draws, "family": len(plan.contrasts)}
    pilot = [answered(results, name) for name in (one.first, one.second)]
    sizes = [len(np.unique(kept.clusters[chosen & (kept.language == code)])) for code in languages]
    sizes = [size for size in sizes if size]
    assumed = (APART / clusters if one.weight == "rows" else sum(APART / n for n in sizes) / len(sizes) ** 2) ** 0.5
    if not all(pilot):
        return Design(assumed, seed=SPREAD, draw=SPREAD, **common), (
            f"assumed: one of the two right on {100 * APART:.0f} % of posts, a spread of {SPREAD} over seeds and over "
            "draws")
    fits = [fit for recipe in pilot for fit in recipe.values()]
    spreads = {name: spread(pilot, one, languages, k) for k, name in enumerate(("draw", "seed"))}
    known = {name: SPREAD if sd is None else sd for name, sd in spreads.items()}
    lack = [name for name, sd in spreads.items() if sd is None and (draws if name == "draw" else seeds > 1)]
    words = f"from {counted(len(fits), 'fit')} answered already" + (
        f"; a spread of {SPREAD} over {'s and '.join(lack)}s is assumed" if lack else "")
    error = posts_error(fits, len(pilot[0]), one, languages)
    if np.isnan(error):  # languages of one cluster
        return Design(assumed, **known, **common), (
            f"{words}; assumed: one of the two right on {100 * APART:.0f} % of posts")
    return Design(error, **known, **common), words


def answered(results: Results, name: str) -> Fits:
    """The model's fits that have been asked already; {} if there are none."""
    if name in results.plan.outside:
        return results.recipe(name)
    fits = [fit for fit in results.fits if (fit.name, fit.kind) == (name, "set")]
    there = {fit.key for fit in fits if results.runner.answers_path(fit, TEST).exists()}
    groups: dict[tuple, list] = {}
    for fit in fits:
        if fit.template == results.plan.repeat.templates[0]:
            groups.setdefault((fit.drawn, fit.seed), []).append(fit)
    return {key: results.answers(own) for key, own in groups.items() if all(fit.key in there for fit in own)}


def posts_error(fits: list[Predictions], cut: int, one, languages: list[str]) -> float:
    """The standard error over test posts of the difference of the pilot's means."""
    if is_mean(languages, one.weight):
        return of_sides(fits, cut, one.figure, languages, one.weight)[1]
    grouping = fits[0].rows.grouping
    drawn = np.concatenate([pooled_figure(parts, one.figure, grouping, one.weight)
                            for parts in resampled(fits, languages, 1000, 0)])
    return float(np.nanstd(drawn[:, :cut].mean(1) - drawn[:, cut:].mean(1), ddof=1))


def spread(pilot: list[Fits], one, languages: list[str], factor: int) -> float | None:
    """The standard deviation of the difference over a pilot's draws (0) or seeds (1); None with fewer than two."""
    squares = []
    for recipe in pilot:
        try:
            grid = Grid.of(recipe, "pilot's")
        except UserError:  # draws and seeds not all answered yet
            return None
        if grid.labels[factor] == [ALL_ROWS]:
            squares.append(0.0)
            continue
        values = figures_of(grid.fits, one.figure, languages, one.weight).reshape(grid.shape).mean(1 - factor)
        if len(values) < 2:
            return None
        squares.append(float(values.var(ddof=1)))
    return sum(squares) ** 0.5


def power_lines(found: list[Reach]) -> list[str]:
    """For the terminal: a line per contrast, and in words what it would miss; nothing without contrasts."""
    if not found:
        return []
    lines = [[reach.contrast, f"{reach.design.clusters:,}", f"{reach.smallest:.3f}", _posts(reach.for_worth),
              _posts(reach.for_narrow)] for reach in found]
    unit = found[0].unit
    header = ["contrast", unit, "shown with 80 %", f"{unit} for {found[0].worth}", f"{unit} for ±{found[0].narrow}"]
    text = [table(header, lines)]
    for reach in found:
        text.append(f"  {reach.contrast}: {reach.basis}" + (
            "" if reach.design.holds_for_others else "; too few seeds or draws, so for these fits only"))
        if missed := reach.shortfall():
            text.append(f"  {reach.contrast}: {missed}; "
                        + (f"more {unit} would not help, more seeds or draws might" if reach.for_worth is None else
                           f"{reach.for_worth:,} {unit} are needed for it"))
    return text


def _posts(count: int | None) -> str:
    return "none is enough" if count is None else f"{count:,}"
