"""A study's answers as the statistics need them: one table of rows, one `Predictions` per fit, recipes of several fits.

Each row of a cross-validated language is answered by the models of the fold that held it out; rows of other languages
by those of the round's first fold. Rounds count as further draws: their folds differ, and so do their training rows.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from common.errors import UserError, closest
from common.files import find_path
from data.languages import language_name, reduce_language
from data.readers import by_id, read_predictions
from inference.decide import decide
from inference.prices import load_prices
from report.words import counted
from stats.predictions import Predictions, Rows, figure_of
from stats.recipes import ALL_ROWS, Fits
from study.fits import TEST, Asked, Fit, asked_of
from study.inputs import Material, has_text
from study.plan import Plan
from study.runner import Runner


@dataclass(eq=False)
class Results:
    """All fits and their answers.

    `kept`: the rows from which figures are computed; `every`: those and the known ones, for the figures that include
    them.
    """

    runner: Runner
    fits: list[Fit]
    kept: Rows = field(init=False)
    every: Rows = field(init=False)

    def __post_init__(self):
        known = self.material.is_known
        self.kept, self.every = self.material.table(~known), self.material.table(np.ones_like(known))
        self._chosen = {id(self.kept): ~known, id(self.every): np.ones_like(known)}
        self._read: dict[tuple, Predictions] = {}
        self._outside: dict[tuple[str, bool], Predictions] = {}

    @property
    def plan(self) -> Plan:
        return self.runner.plan

    @property
    def material(self) -> Material:
        return self.runner.material

    def check(self) -> None:
        """Check what would otherwise fail only after all training: figures, languages and files that do not exist.

        Raises `UserError` with the plan's table.
        """
        path, grouping = self.plan.path, self.kept.grouping
        for number, one in enumerate(self.plan.contrasts, 1):
            try:
                figure_of(one.figure, np.zeros(grouping.width), grouping)
            except UserError as error:
                raise UserError(f"{path}: contrast[{number}]: {error}") from error
            self.languages_of(one)
        for name, one in self.plan.outside.items():
            self.outside(name)
            if one.translated:
                self.outside(name, translated=True)
            if unknown := [code for code in one.seen or [] if code != reduce_language(code)[0]]:
                raise UserError(f"{path}: [outside.{name}]: seen: '{unknown[0]}' is no language code such as 'en'")
        if self.plan.data.prices:
            load_prices(self.plan.data.prices)

    @property
    def groups(self) -> str:
        """`"89 groups, the largest of 19 rows"`, of the kept rows; "" where each is by itself."""
        sizes = np.unique(self.kept.clusters, return_counts=True)[1]
        return "" if len(sizes) == len(self.kept.ids) else \
            f"{counted(len(sizes), 'group')}, the largest of {sizes.max():,} rows"

    def posts(self, rows: Rows) -> list:
        """The posts behind the rows of a table."""
        return [post for post, wanted in zip(self.material.rows, self._chosen[id(rows)], strict=True) if wanted]

    def answers(self, fits: Fit | list[Fit], asked: Asked = TEST, rows: Rows | None = None) -> Predictions:
        """The answers of one fit, or of the fits of one round's folds together, to the rows of a table.

        A post without text to label (a missing translation) gets an index outside the labels.
        """
        rows, fits = self.kept if rows is None else rows, [fits] if isinstance(fits, Fit) else fits
        key = tuple(fit.key for fit in fits), fits[0].fold[0], asked, id(rows)
        if key not in self._read:
            self._read[key] = self._gather(fits, asked, rows)
        return self._read[key]

    def _gather(self, fits: list[Fit], asked: Asked, rows: Rows) -> Predictions:
        posts, labels = self.posts(rows), rows.grouping.labels
        by_fold = {fit.fold[1]: {(language, name): p for language, name, p in self.runner.read(fit, asked)["rows"]}
                   for fit in fits}
        first = min(by_fold)
        held = self.material.fold_of(fits[0].fold[0], self.plan.repeat.folds) if first else {}
        probabilities = np.zeros((len(posts), len(labels)))
        answered = np.zeros(len(posts), dtype=bool)
        for index, post in enumerate(posts):
            found = by_fold.get(held.get(id(post), first), {}).get((post.language, post.id))
            if found is not None:
                probabilities[index], answered[index] = found, True
        return Predictions(rows, np.where(answered, decide(probabilities), len(labels)), probabilities)

    def recipe(self, name: str, template: str | None = None, kind: str = "set", added: tuple[str, int] = ("", 0)
               ) -> Fits:
        """A recipe's fits by (draw, seed); rounds of cross-validation count as draws. Empty if there are none.

        Outside predictions are a recipe of one fit.
        """
        if kind == "set" and name in self.plan.outside:
            return {(ALL_ROWS, "as published"): self.outside(name)} if template is None else {}
        template = template or self.plan.repeat.templates[0]
        groups: dict[tuple, list[Fit]] = {}
        for fit in self.fits:
            if (fit.kind, fit.template, fit.added) == (kind, template, added) and (fit.name == name or added[1]):
                groups.setdefault((fit.drawn, fit.seed), []).append(fit)
        return {key: self.answers(fits) for key, fits in groups.items()}

    def first(self, name: str, asked: Asked = TEST, rows: Rows | None = None) -> Predictions:
        """The set's fit of the plan's first seed and draw (and round): the one that variants are asked of.

        Outside predictions are their own first fit; they answered the kept rows only.
        """
        if name in self.plan.outside:
            return self.outside(name)
        repeat = self.plan.repeat
        fits = [fit for fit in self.fits if (fit.name, fit.kind, fit.template, fit.seed, fit.draw) == (
            name, "set", repeat.templates[0], repeat.seeds[0], repeat.draws[0]) and fit.fold[0] <= 1]
        return self.answers(fits, asked, rows)

    def asked(self, name: str) -> list[Asked]:
        """What else the set's first fit was asked."""
        fit = next(fit for fit in self.fits if fit.name == name and fit.kind == "set")
        return asked_of(self.plan, fit)[1:]

    def seen(self, name: str) -> list[str]:
        """The languages of a set's rows, or those that an outside model is said to be trained on; [] if not known."""
        if name in self.plan.outside:
            return list(self.plan.outside[name].seen or [])
        return next((fit.languages for fit in self.fits if fit.name == name and fit.kind == "set"), [])

    def unseen(self, name: str) -> list[str]:
        """Test languages in which a model has no training rows; [] if its training is not known."""
        if name in self.plan.outside and self.plan.outside[name].seen is None:
            return []
        seen = self.seen(name)
        return [language for language in self.kept.languages if language not in seen]

    @property
    def names(self) -> list[str]:
        """The sets, then the outside models."""
        return [*self.plan.sets, *self.plan.outside]

    def languages_of(self, contrast) -> list[str]:
        """The languages that a declared contrast is about. Raises `UserError` if there are none."""
        wanted = list(contrast.languages) or self.kept.languages
        if wanted == ["unseen"]:
            wanted = self.unseen(contrast.second)
            if not wanted and contrast.second in self.plan.outside:
                raise UserError(f"{self.plan.path}: contrast '{contrast.name}': it is not known what {contrast.second} "
                                f"was trained on; say seen = [...] under [outside.{contrast.second}]")
        missing = [code for code in wanted if code not in self.kept.languages]
        if missing or not wanted:
            there = self.kept.languages
            word = (f"there is no test row in {language_name(missing[0])}{closest(missing[0], there)} that is not left "
                    f"out; there are {', '.join(there)}" if missing else "no test language is left")
            raise UserError(f"{self.plan.path}: contrast '{contrast.name}': {word}")
        return wanted

    def outside(self, name: str, translated: bool = False) -> Predictions:
        """Labels from a file of the plan's [outside], joined by language and id; `UserError` if a row has none.

        `translated`: those of its labels that it gave to the posts' translations; a post without one may be missing.
        """
        if (name, translated) in self._outside:
            return self._outside[name, translated]
        one, column = self.plan.outside[name], self.plan.data.translation
        rows, file = self.kept, find_path(one.translated if translated else one.file)
        found = by_id(read_predictions([file], self.plan.data.columns(), self.material.codebook)[0])
        labels, given = rows.grouping.labels, self.plan.data.predicted_column
        missing = [post for post in self.posts(rows) if (post.id, post.language) not in found
                   and not (translated and not has_text(post, column))]
        if missing:
            raise UserError(f"{file}: has no prediction for id '{missing[0].id}' ({missing[0].language}), one of "
                            f"{len(missing):,} test rows without one")
        words = [found[post.id, post.language].extra[given] if (post.id, post.language) in found else None
                 for post in self.posts(rows)]
        self._outside[name, translated] = Predictions(rows, np.array([
            labels.index(word) if word in labels else len(labels) for word in words]))
        return self._outside[name, translated]

    def models(self, names: Iterable[str] | None = None) -> dict[str, Predictions]:
        """One `Predictions` per set (its first fit) and per file of outside predictions."""
        every = [*self.plan.sets, *self.plan.outside] if names is None else list(names)
        return {name: self.first(name) if name in self.plan.sets else self.outside(name) for name in every}
