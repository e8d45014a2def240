"""The files that a study keeps between starts, read back: answers of models and baselines, and runs.

They are trusted as far as their shapes: probabilities for every label, a name for every row, times that can be divided
by. Whatever is of another kind is one line with the file, which may be removed: it is made again.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common.errors import UserError
from common.reading import LARGE, read_json
from common.run_json import RUN_JSON
from finetune.defaults import fill_in
from finetune.options import PRESETS, TrainOptions
from finetune.run_folder import another_version
from study.fits import QUANTIZE, Fit, unique

RECIPE = sorted({key for preset in PRESETS.values() for key in preset} - {"checkpointing", "template", "validation"})
AGAIN = "remove it, and they are made again"
TIMES = ("seconds", "posts", "tokens")


def read_answers(path: Path, labels: int) -> dict:
    """One pass over the test rows: `rows` of language, id and `labels` probabilities, and what it took.

    Raises `UserError` for a file that is damaged.
    """
    found = read_json(path, LARGE)
    if not isinstance(found, dict) or not isinstance(found.get("rows"), list):
        raise UserError(f"{path}: holds no answers; {AGAIN}")
    for number, row in enumerate(found["rows"], 1):
        if not (isinstance(row, list) and len(row) == 3 and all(isinstance(part, str) for part in row[:2])
                and _are_numbers(row[2], labels)):
            raise UserError(f"{path}: row {number}: is not language, id and {labels} probabilities; {AGAIN}")
    if not _are_numbers([found.get(key) for key in TIMES], len(TIMES)):
        raise UserError(f"{path}: {', '.join(TIMES)}: a number each was expected; {AGAIN}")
    if not isinstance(found.get("made", ""), str) or not isinstance(found.get("frozen") or "", str):
        raise UserError(f"{path}: made or frozen is of another kind; {AGAIN}")
    if not isinstance(found.get("machine", {}), dict) or not isinstance(found.get("dtype", ""), str):
        raise UserError(f"{path}: machine or dtype is of another kind; {AGAIN}")
    return found


def read_probabilities(path: Path, rows: int, labels: int) -> np.ndarray:
    """A baseline's answers (rows, labels) float64. Raises `UserError` for a file that holds no such."""
    found = read_json(path, LARGE)
    values = found.get("rows") if isinstance(found, dict) else None
    if not isinstance(values, list) or len(values) != rows or not all(_are_numbers(row, labels) for row in values):
        raise UserError(f"{path}: holds no answers to the study's {rows:,} rows; {AGAIN}")
    return np.array(values, dtype=np.float64).reshape(rows, labels)


def is_finished(path: Path) -> bool:
    """Whether a run.json says that its training came to its end; `False` where there is none."""
    if not path.exists():
        return False
    found = read_json(path)
    return isinstance(found, dict) and found.get("finished") is True


def check_recipes(runner, fits: Sequence[Fit]) -> None:
    """Raise `UserError` where some of a study's models were trained by train.py's defaults of another version, and
    others were not, or would not be: they would differ in more than their posts. runner: `study.runner.Runner`.
    """
    now, other, said = {}, 0, ""
    for fit in unique(fits):
        path = runner.folder(fit) / "run"
        if not (path / RUN_JSON).exists():
            continue
        facts, own = runner.facts(fit), repr(sorted(fit.options.items()))
        if own not in now:
            now[own] = recipe(runner.model, fit)
        told = [f"{key} {facts['options'][key]} ({value} now)" for key, value in now[own].items()
                if facts["options"].get(key, value) != value]
        if told:
            other += 1
            said = f"{path}: {another_version(facts)} trained it with {', '.join(told)}"
    if 0 < other < len(unique(fits)):
        raise UserError(f"{said}, and other models of the study would differ in that; finish the study with that "
                        "version, or begin anew with another --out")


def recipe(model: str, fit: Fit) -> dict:
    """What train.py makes of a fit's options, as run.json has it; without epochs where these depend on the posts."""
    given = {"quantize": QUANTIZE, **fit.options, "model": model}
    options = TrainOptions(**given)
    options.given = frozenset({*given, "data", "rows"})
    fill_in(options)
    values = {key: getattr(options, key) for key in RECIPE if not (key == "epochs" and options.least_steps)}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def _are_numbers(values, count: int) -> bool:
    return isinstance(values, list) and len(values) == count and all(
        isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf for value in values)
