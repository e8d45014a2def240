"""Judging an answer: is it right, is it one of the wrong answers that people give, or where does it first differ?

A `Task` has trials (arguments), the right function and wrong ones with words for each. The reader's function is called
on every trial. If a result differs from the right one, the wrong functions are tried on the same arguments; one that
gives exactly what the reader's gives names the mistake. The right code is never printed.
"""

import importlib
import importlib.util
import traceback
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch

from common.errors import UserError
from learn.contents import Chapter

RIGHT, WRONG, EMPTY = "right", "not yet", "not begun"


@dataclass(frozen=True)
class Wrong:
    """A wrong answer that people give: what it computes, and what it is, in a sentence to the reader."""

    answer: Callable
    words: str


@dataclass(frozen=True)
class Task:
    """One function to fill in.

    trials() -> the arguments of each call; tolerance: how far a number may be from the right one, 0 for not at all.
    """

    name: str
    trials: Callable[[], list[tuple]]
    right: Callable
    wrong: tuple[Wrong, ...]
    tolerance: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """What was found of one task: RIGHT, WRONG or EMPTY, and words for the reader."""

    status: str
    words: str = ""


def judge(task: Task, answer: Callable | None) -> Verdict:
    """Call `answer` on every trial and say what it is."""
    if answer is None:
        return Verdict(WRONG, f"there is no function {task.name} in the file any more; its name must stay")
    trials, found = task.trials(), []
    for arguments in trials:
        given = deepcopy(arguments)
        try:
            found.append(answer(*given))
        except NotImplementedError:
            return Verdict(EMPTY, "nothing is written here yet")
        except (Exception, SystemExit) as error:  # an exit() would end the check with its own status
            return Verdict(WRONG, f"it stops with {type(error).__name__}: {error} ({_line_of(error)}){_hint(error)}")
        if difference(list(given), list(arguments), 0.0):
            return Verdict(WRONG, "it changes the arguments that it is given; the caller still needs them, so work on "
                                  "a copy (x = x * 2 makes one, x *= 2 does not)")
    wanted = [task.right(*deepcopy(arguments)) for arguments in trials]
    differences = [difference(mine, right, task.tolerance) for mine, right in zip(found, wanted, strict=True)]
    if not any(differences):
        return Verdict(RIGHT)
    for wrong in task.wrong:
        if _gives(wrong.answer, trials, found, task.tolerance):
            return Verdict(WRONG, wrong.words)
    trial = next(number for number, words in enumerate(differences) if words)
    return Verdict(WRONG, f"trial {trial + 1} of {len(trials)}: {differences[trial]}")


def _gives(answer: Callable, trials: list[tuple], found: list, tolerance: float) -> bool:
    """Whether a wrong answer gives what was found, on every trial."""
    try:
        return not any(difference(mine, answer(*deepcopy(arguments)), max(tolerance, 1e-6))
                       for mine, arguments in zip(found, trials, strict=True))
    except (ValueError, RuntimeError, IndexError, ZeroDivisionError):  # it does not even fit these arguments
        return False


def difference(mine, right, tolerance: float) -> str:
    """How `mine` differs from `right`, in words; "" if it does not."""
    if mine is None and right is not None:
        return "it gives nothing back; is there a `return`?"
    if isinstance(right, tuple | list):
        if not isinstance(mine, tuple | list):
            return f"it gives one {type(mine).__name__} where {len(right)} results are wanted"
        if len(mine) != len(right):
            return f"it gives {len(mine)} results where {len(right)} are wanted"
        parts = (difference(a, b, tolerance) for a, b in zip(mine, right, strict=True))
        return next((f"result {number}: {words}" for number, words in enumerate(parts, 1) if words), "")
    if isinstance(right, torch.Tensor):
        return _tensors_differ(mine, right, tolerance)
    if isinstance(right, float) and isinstance(mine, int | float | torch.Tensor):
        mine = float(mine)
        return "" if abs(mine - right) <= tolerance else f"it gives {mine:.6g} where {right:.6g} is wanted"
    return "" if mine == right else f"it gives {_short(mine)} where {_short(right)} is wanted"


def _tensors_differ(mine, right: torch.Tensor, tolerance: float) -> str:
    if not isinstance(mine, torch.Tensor):
        return f"it gives a {type(mine).__name__}, not a tensor"
    if mine.shape != right.shape:
        turned = "; rows and columns have changed places" if mine.dim() == 2 and mine.T.shape == right.shape else ""
        return f"it gives shape {tuple(mine.shape)}; {tuple(right.shape)} is wanted{turned}"
    if mine.is_floating_point() != right.is_floating_point() or mine.is_complex():
        return f"it gives numbers of type {mine.dtype}; {right.dtype} is wanted"
    if right.dtype == torch.uint8 and mine.dtype != torch.uint8:
        return f"it gives numbers of type {mine.dtype}, which take more than a byte each; torch.uint8 is wanted"
    if mine.isnan().any() and not right.isnan().any():
        return "it gives NaN, which is no number: somewhere 0 is divided by 0, or infinities are subtracted"
    apart = ~torch.isclose(mine.double(), right.double(), rtol=0.0, atol=tolerance, equal_nan=True)
    if not apart.any():
        return ""
    place = tuple(apart.nonzero()[0].tolist())
    where = f"at {list(place)} " if place else ""
    return (f"{where}it gives {mine[place].item():.6g} where {right[place].item():.6g} is wanted; "
            f"{int(apart.sum())} of {apart.numel()} numbers differ{_factor(mine.double(), right.double())}")


def _factor(mine: torch.Tensor, right: torch.Tensor) -> str:
    """Words for a result that is the right one times one number; "" for any other, and for a single number."""
    ratio = mine[right != 0] / right[right != 0]
    if len(ratio) < 2 or mine[right == 0].any() or not torch.allclose(ratio, ratio.mean().expand_as(ratio), rtol=1e-3):
        return ""
    return f"; every number is {float(ratio.mean()):.4g} times the one that is wanted" if ratio.mean() else ""


def _hint(error: Exception) -> str:
    """What the words of a few of PyTorch's errors mean."""
    if "cannot be multiplied" in str(error):
        return ("; in a product A @ B of matrices, A has as many columns as B has rows: which of the two has to be "
                "transposed, or do they stand in the wrong order?")
    if "shape of the mask" in str(error):
        return "; bytes (uint8) between square brackets are taken for yes and no; `.long()` makes places of them"
    return ""


def _short(value) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _line_of(error: Exception) -> str:
    """The last line of the reader's file on the way to an error."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "chapter_" in Path(frame.filename).name]
    return f"line {frames[-1].lineno} of {Path(frames[-1].filename).name}" if frames else "inside the call"


def tasks_of(chapter: Chapter) -> tuple[Task, ...]:
    """The tasks of a chapter."""
    return importlib.import_module(f"learn.checks.chapter_{chapter.number}").TASKS


def read_answers(path: Path) -> ModuleType:
    """The reader's file as a module. Raises `UserError` with the line where Python cannot read it."""
    if not path.is_file():
        raise UserError(f"{path}: is not there")
    spec = importlib.util.spec_from_file_location(f"answers_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise UserError(f"{path}: Python cannot read line {error.lineno}: {error.msg}") from error
    except (Exception, SystemExit) as error:
        raise UserError(f"{path}: stops with {type(error).__name__}: {error}, before any function is called") from error
    return module


def verdicts(chapter: Chapter, path: Path | None = None) -> dict[str, Verdict]:
    """Every task of a chapter judged, by its name; `path`: another file than `learn/exercises/` has."""
    answers = read_answers(path or chapter.exercise)
    return {task.name: judge(task, getattr(answers, task.name, None)) for task in tasks_of(chapter)}
