"""From a plan and its posts to fits: the models to train, each once, and what each is asked.

A fit is one run of train.py: rows, options, seed. Its key is the hash of all that determines its adapter (the rows'
texts and labels, every option, the base's bytes, the prompt), so a changed plan trains only what changed, and two parts
of the plan that need the same model share it. What a model is asked (the test rows as they are, a translation, another
prompt, other weights under the adapter) is hashed in the same way.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product

from common.errors import UserError, closest
from common.files import sha256_json
from data.checks import normalise
from data.languages import language_name
from data.posts import Post
from data.sampling import stratified_order
from data.splits import hash_order
from finetune.loop import steps_per_epoch
from stats.recipes import ALL_ROWS
from study.inputs import Key, Material, posts_hash, written_on
from study.plan import ALL, OTHERS, Plan

ENGLISH = "en"
PLAIN = "test"  # asked of every fit: the test rows as they are
NO_FOLD = (0, 0)
QUANTIZE = "nf4"  # the base's weights, where a plan does not say; train.py is told it, and no key holds it


@dataclass(frozen=True)
class Fit:
    """One model to train. `fold` is (0, 0) if nothing is held out for cross-validation."""

    name: str  # of the set, or what is added to it
    kind: str  # "set", "exposure", "english" or "steps" (placebos), "codebook", "earlier" or "mixed" (drift)
    template: str
    seed: int
    draw: int
    fold: tuple[int, int]  # (round, fold), from 1 on, or (0, 0)
    keys: tuple[Key, ...]  # of the training rows
    options: Mapping  # of train.py, beyond the rows
    added: tuple[str, int] = ("", 0)  # an exposure's language and its number of rows
    codebook: str | None = None
    key: str = ""
    whole: bool = False  # it takes every row of its languages, so any other draw would be the same model

    @property
    def drawn(self) -> tuple:
        """What its draw is called: its number, with the round of a cross-validation; `ALL_ROWS` if it is none."""
        own = ALL_ROWS if self.whole else self.draw
        return (own, self.fold[0]) if self.fold != NO_FOLD else own if self.whole else (own,)

    @property
    def languages(self) -> list[str]:
        """The languages of the training rows."""
        return sorted({language for language, _ in self.keys})

    @property
    def title(self) -> str:
        """For people: "multi, paper, seed 1, draw 2, fold 3 of round 1"."""
        words = [self.name if self.kind == "set" else f"{self.name} ({self.kind})", self.template, f"seed {self.seed}",
                 ALL_ROWS if self.whole else f"draw {self.draw}"]
        return ", ".join(words + ([f"fold {self.fold[1]} of round {self.fold[0]}"] if self.fold[1] else []))


@dataclass(frozen=True)
class Asked:
    """One pass over the test rows: the plain one, or one that changes the text, the prompt or the weights."""

    name: str  # "test", "translation", "prompt authors", "weights none"
    text: str | None = None  # the column that is labelled; None: the post's own text
    template: str | None = None  # None: the fit's own
    quantize: str | None = None  # None: the fit's own


TEST = Asked(PLAIN)


class Choice:
    """Which training rows a set takes, for one plan and its posts."""

    def __init__(self, plan: Plan, material: Material):
        self.plan, self.material = plan, material
        for name, rows in plan.sets.items():
            for language in rows:
                if language != OTHERS:
                    self._known(language, f"[sets]: {name}")
        for language in plan.exposure.languages:
            self._known(language, "[exposure]: languages")
        self._ordered = cache(self._ordered)
        self.folds = cache(lambda round: material.fold_of(round, plan.repeat.folds))
        self.texts = cache(lambda fold: material.texts_of(self.folds(fold[0]), fold[1]))

    def taken(self, name: str, draw: int, fold: tuple[int, int], more: Mapping[str, int] | None = None,
              mix: str = "own") -> dict:
        """`keys`, `draw` and `whole` of a fit. Where every row is taken, all draws are the plan's first one."""
        posts = self.rows(name, draw, fold, more, mix)
        there = sum(len(self._ordered(code, draw, fold, "own")) for code in {post.language for post in posts})
        whole = len(posts) == there
        if whole:
            draw = self.plan.repeat.draws[0]
            posts = self.rows(name, draw, fold, more)
        return {"keys": posts, "draw": draw, "whole": whole}

    def rows(self, name: str, draw: int, fold: tuple[int, int], more: Mapping[str, int] | None = None,
             mix: str = "own") -> list[Post]:
        """The rows of the set `name`, and `more` rows of some languages on top of the set's own."""
        wanted = dict(self.plan.sets[name])
        if OTHERS in wanted:
            count = wanted.pop(OTHERS)
            wanted |= {language: count for language in self.material.by_language if language not in wanted}
        chosen: list[Post] = []
        for language in sorted({*wanted, *(more or {})}):
            own = self._ordered(language, draw, fold, "own")
            base = wanted.get(language, 0)
            base = len(own) if base == ALL else base
            extra = (more or {}).get(language, 0)
            where = f"[sets]: {name}: {language}" if not extra else f"[exposure]: {extra} more rows of {language}"
            if base + extra > len(own):
                kept = " outside a fold" if fold != NO_FOLD and language in self.material.folded else ""
                raise UserError(f"{self.plan.path}: {where}: {base + extra:,} rows are asked for, but there are "
                                f"{len(own):,} in {language_name(language)}{kept}; ask for fewer")
            if extra and not base:
                own = self._ordered(language, draw, fold, mix)
                if extra > len(own):
                    raise UserError(f"{self.plan.path}: [exposure]: mix: with equally many rows of each label there "
                                    f"are only {len(own)} in {language_name(language)}; ask for fewer")
            chosen += own[: base + extra]
        return chosen

    def dated(self, name: str, draw: int) -> dict[str, dict]:
        """`keys`, `draw` and `whole` of the set's rows from before the plan's cut, or as many as there are ("earlier"),
        and of as many of each language from all days ("mixed"). Every earlier post: all draws are the first one.
        """
        cut, column = self.plan.drift.cut, self.plan.data.date
        held, sides = {"earlier": [], "mixed": []}, {False: 0, True: 0}
        wanted = Counter(post.language for post in self.rows(name, draw, NO_FOLD))
        for language, count in wanted.items():
            known = [post for post in self.material.by_language[language] if written_on(post, column)]
            early = [post for post in known if written_on(post, column) < cut]
            sides[True] += len(early)
            sides[False] += len(known) - len(early)
            for kind, posts in (("earlier", early), ("mixed", known)):
                own = self.plan.repeat.draws[0] if count >= len(posts) else draw  # all of them: no draw
                order = stratified_order(posts, own)[: min(count, len(early))] if early else []
                held[kind] += [posts[index] for index in order]
        if not all(sides.values()):
            raise UserError(f"{self.plan.path}: [drift]: cut: the training posts of {name} do not lie on both sides of "
                            f"{cut}; choose another day")
        whole = len(held["earlier"]) == sides[True]
        return {"earlier": {"keys": held["earlier"], "draw": self.plan.repeat.draws[0] if whole else draw,
                            "whole": whole}, "mixed": {"keys": held["mixed"], "draw": draw, "whole": False}}

    def _ordered(self, language: str, draw: int, fold: tuple[int, int], mix: str) -> list[Post]:
        """The language's training rows outside a fold, in a seeded order; a set takes the first ones."""
        posts = self.material.by_language[language]
        if fold != NO_FOLD and language in self.material.folded:
            held, texts = self.folds(fold[0]), self.texts(fold)
            tests = [post for post in self.material.rows if post.language == language and id(post) in held]
            posts = list({id(post): post for post in [*posts, *tests]
                          if held[id(post)] != fold[1] and normalise(post.text) not in texts}.values())
        if mix == "own":
            return [posts[index] for index in stratified_order(posts, draw)] if posts else []
        return evenly([post for post in sorted(posts, key=lambda post: hash_order(post, draw))])

    def _known(self, language: str, where: str) -> None:
        there = self.material.by_language
        if language not in there:
            raise UserError(f"{self.plan.path}: {where}: there is no training post in '{language}'"
                            f"{closest(language, there)}; there are {', '.join(there)}")


def evenly(posts: list[Post]) -> list[Post]:
    """Posts, label by label in turn while each label has one left: in the first n, counts differ by at most one."""
    queues: dict[str, list[Post]] = {}
    for post in posts:
        queues.setdefault(post.label, []).append(post)
    return [post for turn in zip(*(queues[label] for label in sorted(queues)), strict=False) for post in turn]


def make_fits(plan: Plan, material: Material, hashes: Mapping[str, str]) -> list[Fit]:
    """Every model of the plan, each once, sets first; a draw that takes all rows is trained once for each seed.

    `hashes`, which enter the keys: "base", and "prompt TEMPLATE [CODEBOOK]" for each pair in use. Raises `UserError`
    if the plan needs more rows than there are.
    """
    choice, found = Choice(plan, material), {}
    for fit in (*_sets(plan, choice), *_exposures(plan, choice), *_codebooks(plan, choice), *_drift(plan, choice)):
        posts = fit.keys
        prompt = hashes[f"prompt {fit.template} {fit.codebook or ''}".strip()]
        determined_by = [posts_hash(posts), dict(fit.options), fit.seed, fit.template, prompt, hashes["base"]]
        fit = replace(fit, keys=tuple((post.language, post.id) for post in posts), key=sha256_json(determined_by)[:16])
        found.setdefault((fit.key, fit.name, fit.kind, fit.seed, fit.draw, fit.fold, fit.added), fit)
    return list(found.values())


def unique(fits: Sequence[Fit]) -> list[Fit]:
    """Each model once, in order, as the first part of the plan that needs it."""
    found: dict[str, Fit] = {}
    for fit in fits:
        found.setdefault(fit.key, fit)
    return list(found.values())


def _folds(plan: Plan) -> list[tuple[int, int]]:
    if not plan.repeat.folds:
        return [NO_FOLD]
    return list(product(range(1, plan.repeat.rounds + 1), range(1, plan.repeat.folds + 1)))


def _sets(plan: Plan, choice: Choice) -> Iterator[Fit]:
    repeat = plan.repeat
    for template, seed, draw, name, fold in product(repeat.templates, repeat.seeds, repeat.draws, plan.sets,
                                                    _folds(plan)):
        yield Fit(name, "set", template, seed, fold=fold, options=plan.train, **choice.taken(name, draw, fold))


def _exposures(plan: Plan, choice: Choice) -> Iterator[Fit]:
    """An added language with growing, nested numbers of rows, and the placebos for each number."""
    arm, template = plan.exposure, plan.repeat.templates[0]
    if not arm.languages:
        return
    for seed, draw, fold in product(arm.seeds or plan.repeat.seeds[:1], arm.draws, _folds(plan)):
        base = choice.taken(arm.base, draw, fold)
        common = {"template": template, "seed": seed, "fold": fold}
        yield Fit(arm.base, "exposure", options=plan.train, **base, **common)
        for count in sorted(arm.rows):
            for language in arm.languages:
                rows = choice.taken(arm.base, draw, fold, {language: count}, arm.mix)
                yield Fit(f"{arm.base} + {count} {language}", "exposure", options=plan.train, added=(language, count),
                          **rows, **common)
            if "english" in arm.placebos:
                rows = choice.taken(arm.base, draw, fold, {ENGLISH: count})
                yield Fit(f"{arm.base} + {count} {ENGLISH}", "english", options=plan.train, added=(ENGLISH, count),
                          **rows, **common)
            if "steps" in arm.placebos:
                options = equal_steps(plan.train, len(base["keys"]), len(base["keys"]) + count)
                yield Fit(f"{arm.base}, steps of + {count}", "steps", options=options, added=("", count), **base,
                          **common)


def _codebooks(plan: Plan, choice: Choice) -> Iterator[Fit]:
    """The named sets once more, each with a codebook that has other words for the same labels."""
    repeat = plan.repeat
    for file, name, fold in product(plan.variants.codebooks, plan.variants.sets or plan.sets, _folds(plan)):
        rows = choice.taken(name, repeat.draws[0], fold)
        yield Fit(name, "codebook", repeat.templates[0], repeat.seeds[0], fold=fold, options=plan.train, codebook=file,
                  **rows)


def _drift(plan: Plan, choice: Choice) -> Iterator[Fit]:
    """The named sets twice more: from earlier posts alone, and from as many of all days."""
    repeat = plan.repeat
    if plan.drift.cut is None:
        return
    for seed, draw, name in product(repeat.seeds, repeat.draws, plan.drift.sets or plan.sets):
        for kind, rows in choice.dated(name, draw).items():
            yield Fit(name, kind, repeat.templates[0], seed, fold=NO_FOLD, options=plan.train, **rows)


def equal_steps(options: Mapping, rows: int, as_many_as: int) -> dict:
    """Options that give `rows` posts as many optimiser steps as `as_many_as` posts would get."""
    from finetune.options import TrainOptions

    def given(name: str):
        return options.get(name, getattr(TrainOptions, name))

    steps = steps_per_epoch(as_many_as, given("batch_size")) * given("epochs")
    steps = min(steps, given("max_steps")) if given("max_steps") else steps
    epochs = -(-steps // steps_per_epoch(rows, given("batch_size")))
    return {**options, "epochs": epochs, "max_steps": steps}


def asked_of(plan: Plan, fit: Fit) -> list[Asked]:
    """What a fit is asked: the test rows and, for the first seed and draw, the plan's variants."""
    asked = [TEST]
    first = (fit.kind, fit.seed, fit.draw, fit.template) == (
        "set", plan.repeat.seeds[0], plan.repeat.draws[0], plan.repeat.templates[0])
    if not first or (plan.variants.sets and fit.name not in plan.variants.sets):
        return asked
    if plan.data.translation:
        asked.append(Asked("translation", text=plan.data.translation))
    asked += [Asked(f"prompt {name}", template=name) for name in plan.variants.prompts if name != fit.template]
    own = fit.options.get("quantize", QUANTIZE)
    asked += [Asked(f"weights {name}", quantize=name) for name in plan.variants.quantize if name != own]
    return asked
