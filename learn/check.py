"""Judging an answer: is it right, is it one of the wrong answers that people give, or where does it first differ?

A `Task` has trials (arguments), the right function and wrong ones with words for each. The reader's function is called
on every trial. If a result differs from the right one, the wrong functions are tried on the same arguments; one that
does exactly what the reader's does, stopping where it stops, names the mistake. The right code is never printed.
"""

import importlib
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from learn import limit
from learn.answers import is_begun, line_of, read_answers, said
from learn.contents import Chapter
from learn.difference import call_of, difference, factor_of_all

RIGHT, WRONG, EMPTY = "right", "not yet", "not begun"
ROUNDING = 1e-5  # of a number: so far apart may be two ways to compute one wrong answer


@dataclass(frozen=True)
class Wrong:
    """A wrong answer that people give: what it computes, and what it is, in a sentence to the reader."""

    answer: Callable
    words: str


@dataclass(frozen=True)
class Task:
    """One function to fill in.

    trials() -> the arguments of each call; tolerance: how far a number may be from the right one, 0 for not at all;
    typed: whether the exercise names the type of its result's numbers.
    """

    name: str
    trials: Callable[[], list[tuple]]
    right: Callable
    wrong: tuple[Wrong, ...]
    tolerance: float = 0.0
    typed: bool = False


@dataclass(frozen=True)
class Verdict:
    """What was found of one task: RIGHT, WRONG or EMPTY, and words for the reader."""

    status: str
    words: str = ""


@dataclass(frozen=True)
class Outcome:
    """What came of one call: a result, or the error that it stopped with; and whether its arguments were changed."""

    result: object = None
    error: BaseException | None = None
    changed: bool = False


def judge(task: Task, answer: Callable | None, path: Path | None = None) -> Verdict:
    """Call `answer` on every trial and say what it is; path: the file that it stands in."""
    if answer is None:
        return Verdict(WRONG, f"there is no function {task.name} in the file any more; its name must stay")
    trials, found = task.trials(), []
    try:
        with limit.at_most(limit.SECONDS):
            for arguments in trials:
                found.append(_call(answer, arguments))
    except limit.OutOfTime as error:
        return Verdict(WRONG, f"it is still running after {limit.SECONDS:g} seconds, "
                              f"{_trial(task, trials, len(found))} ({line_of(error, path)}); is there a loop that "
                              "never ends?")
    empty = next((outcome.error for outcome in found if isinstance(outcome.error, NotImplementedError)), None)
    if empty is not None:
        if path is None or not is_begun(path, task.name):
            return Verdict(EMPTY, "nothing is written here yet")
        return Verdict(WRONG, f"there are lines, but a `raise NotImplementedError` is left ({line_of(empty, path)})")
    if any(outcome.changed for outcome in found):
        return Verdict(WRONG, "it changes the arguments that it is given; the caller still needs them, so work on "
                              "a copy (x = x * 2 makes one, x *= 2 does not)")
    return _compared(task, trials, found, path)


def _compared(task: Task, trials: list[tuple], found: list[Outcome], path: Path | None) -> Verdict:
    """The verdict on what a function gave."""
    wanted = [task.right(*deepcopy(arguments)) for arguments in trials]
    differences = ["" if outcome.error else difference(outcome.result, right, task.tolerance, typed=task.typed)
                   for outcome, right in zip(found, wanted, strict=True)]
    place = next((number for number, outcome in enumerate(found) if outcome.error or differences[number]), None)
    if place is None:
        return Verdict(RIGHT)
    for wrong in task.wrong:
        if _does(wrong.answer, trials, found, task):
            return Verdict(WRONG, wrong.words)
    where, error = _trial(task, trials, place), found[place].error
    if error:
        return Verdict(WRONG, f"it stops with {said(error)} ({line_of(error, path)}){_hint(error)}; {where}")
    times = factor_of_all([outcome.result for outcome in found], wanted)
    return Verdict(WRONG, f"{where}: {differences[place]}{'' if times in differences[place] else times}")


def _call(answer: Callable, arguments: tuple) -> Outcome:
    """One call, on a copy of the arguments."""
    given = deepcopy(arguments)
    try:
        result, error = answer(*given), None
    except (Exception, SystemExit) as stopped:  # an exit() would end the check with its own status
        result, error = None, stopped
    return Outcome(result, error, bool(difference(list(given), list(arguments), 0.0)))


def _does(answer: Callable, trials: list[tuple], found: list[Outcome], task: Task) -> bool:
    """Whether a wrong answer does what was found, on every trial: it gives the same, or stops with the same kind of
    error. Stopping alone names nothing: in at least one trial both have to give something."""
    compared = 0
    for arguments, mine in zip(trials, found, strict=True):
        its = _call(answer, arguments)
        if type(mine.error) is not type(its.error):
            return False
        if mine.error is None:
            compared += 1
            if difference(mine.result, its.result, task.tolerance, ROUNDING):
                return False
    return compared > 0


def _trial(task: Task, trials: list[tuple], place: int) -> str:
    """Which trial it is, and the call, where it is short enough to be read."""
    call = call_of(task.name, trials[place])
    return f"trial {place + 1} of {len(trials)}" + (f", {call}" if call else "")


def _hint(error: BaseException) -> str:
    """What the words of a few of PyTorch's errors mean."""
    if "cannot be multiplied" in str(error):
        return ("; in a product A @ B of matrices, A has as many columns as B has rows: which of the two has to be "
                "transposed, or do they stand in the wrong order?")
    if "must match the size of tensor" in str(error):
        return ("; entry by entry, a table goes with a row or with a column: does one number for each row have to be a "
                "column first (`keepdim=True`, or `[:, None]` behind it)?")
    if "shape of the mask" in str(error):
        return "; bytes (uint8) between square brackets are taken for yes and no; `.long()` makes places of them"
    return ""


def tasks_of(chapter: Chapter) -> tuple[Task, ...]:
    """The tasks of a chapter."""
    return importlib.import_module(f"learn.checks.chapter_{chapter.number}").TASKS


def verdicts(chapter: Chapter, path: Path | None = None) -> Iterator[tuple[str, Verdict]]:
    """Every task of a chapter by its name, judged one after the other; `path`: another file than `learn/exercises/`
    has. Raises `UserError` if the file is not there, and `Unreadable`."""
    path = path or chapter.exercise
    answers = read_answers(path)
    for task in tasks_of(chapter):
        if not limit.can_limit():
            print(f"  ({task.name} is being called, without a limit of time)", flush=True)
        yield task.name, judge(task, getattr(answers, task.name, None), path)
