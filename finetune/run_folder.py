"""What a run leaves behind, and how it is opened again.

    run.json        every resolved option, seeds, versions, device, commit, hashes, rows, prompt, scored test files, and
                    the hashes of what training left (`MADE`)
    adapter/        the adapter to use (best on the validation rows, or the last), in PEFT's layout
    adapter-last/   the adapter of the last step
    checkpoint/     state.pt: what resuming needs
    log.jsonl       one line per step and per evaluation
    report.html     and, after eval.py, metrics.json and predictions.jsonl in a folder of their own
    labels-*        and manifest.json, from classify.py where no --output was named
    .lock           who is training, while somebody is

A file is replaced whole or not at all. The checkpoint is read with `weights_only=True`: it holds only tensors and plain
values.
"""

import json
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from common.errors import UserError
from common.files import ROOT, atomic_write, check_place, making, sha256_file, write_json
from common.leftovers import clear_below, holds_nothing, remove
from common.lock import hold
from common.options import check_value
from common.reading import check_path, json_value, open_plain, open_to_write, whole_lines
from common.run_json import SCHEMA, read_run_json
from common.states import read_state
from finetune.checkpoint import check_parts
from finetune.options import TrainOptions
from lora.adapter import CONFIG, TENSORS

PATIENCE = 60  # seconds that a scoring waits to be counted, while another one is
# What a run is used by later, and cannot be told from its inputs: run.json has the SHA-256 of each, under "files".
MADE = (f"adapter/{CONFIG}", f"adapter/{TENSORS}", "training_texts.json", "log.jsonl")


class RunFolder:
    """One run's folder: `facts` is run.json; every method that changes a file leaves it whole."""

    def __init__(self, path: Path, facts: dict):
        self.path, self.facts = path, facts
        self.kept_steps = 0  # of the checkpoint that was last written here

    def __repr__(self) -> str:
        return f"RunFolder({self.path}: {'finished' if self.facts['finished'] else 'not finished'})"

    @staticmethod
    def check_free(path: str | Path) -> None:
        """Raise `UserError` unless a run can begin in `path`: an empty folder, or a new one."""
        path = Path(path)
        check_path(path / "run.json")
        if path.exists() and not path.is_dir():
            raise UserError(f"--out {path}: is a file; give a folder")
        if path.exists() and not holds_nothing(path):
            hint = "; --resume continues it" if (path / "run.json").exists() else ""
            raise UserError(f"--out {path}: is not empty{hint}; choose another folder")
        check_place(path / "run.json", "--out")

    @classmethod
    @contextmanager
    def create(cls, path: str | Path, facts: dict) -> Iterator["RunFolder"]:
        """Begin a run in an empty or new folder, and hold it until the block ends.

        Raises `UserError` where something is already there, or another process is at work.
        """
        path = Path(path)
        cls.check_free(path)
        with making(path), hold(path):
            cls.check_free(path)  # once more: another process may have begun here meanwhile
            clear_below(path, locked=True)
            run = cls(path, {"schema": SCHEMA, **facts, "finished": False, "scored": []})
            run.save()
            yield run

    @classmethod
    def open(cls, path: str | Path) -> "RunFolder":
        """Open what `create` began. Raises `UserError` if there is no run, or one of another schema or version."""
        path = Path(path)
        check_path(path / "run.json")
        if not path.is_dir():
            raise UserError(f"{path}: there is no such run folder; train.py --out makes one")
        if not (path / "run.json").exists():
            raise UserError(f"{path}: has no run.json; give a folder that train.py --out made")
        facts = read_run_json(path)
        for name in {field.name for field in fields(TrainOptions)} & facts["options"].keys():
            try:
                check_value(TrainOptions, name, facts["options"][name], f"{path / 'run.json'}: options")
            except UserError as error:
                raise UserError(f"{error}; {another_version(facts)} made it, which reads it, or it was changed by hand"
                                ) from error
        return cls(path, facts)

    def save(self) -> None:
        write_json(self.path / "run.json", self.facts)

    @property
    def log_path(self) -> Path:
        return self.path / "log.jsonl"

    def append_log(self, line: dict) -> None:
        """Add one line to log.jsonl."""
        try:
            with open_to_write(self.log_path, "a") as handle:
                handle.write(json.dumps(line) + "\n")
        except OSError as error:
            raise UserError(f"{self.log_path}: cannot be written ({error.strerror}); free some space, then "
                            "continue with --resume") from error

    @property
    def split(self) -> dict:
        """Which posts chose the adapter, as run.json says (`data.splits.Split.to_dict`); {} where it does not."""
        rows = self.facts.get("rows")
        found = rows.get("split") if isinstance(rows, dict) else None
        return found if isinstance(found, dict) else {}

    def read_log(self, up_to: int | None = None) -> list[dict]:
        """The log's lines, up to a step if one is given; a last line torn by a kill is left out."""
        if not self.log_path.exists():
            return []
        lines = []
        try:
            with open_plain(self.log_path) as handle:
                for line in whole_lines(handle):
                    lines.append(_log_line(json_value(line)))
        except (ValueError, OSError) as error:
            raise UserError(f"{self.log_path}: line {len(lines) + 1}: is not a log's; take the line out"
                            ) from error
        return [line for line in lines if up_to is None or line["step"] <= up_to]

    def cut_log(self, step: int) -> None:
        """Drop what was logged after `step`: a resumed run does those steps again."""
        kept = self.read_log(step)
        with atomic_write(self.log_path) as handle:
            handle.writelines(json.dumps(line) + "\n" for line in kept)

    def file_hashes(self) -> dict[str, str]:
        """Name -> SHA-256 of each of `MADE` that is there, as it is now."""
        return {name: sha256_file(self.path / name) for name in MADE if (self.path / name).exists()}

    def write_state(self, state: dict) -> None:
        """Write the checkpoint, whole or not at all."""
        with atomic_write(self.path / "checkpoint" / "state.pt", "wb") as handle:
            torch.save(state, handle)
        self.kept_steps = state["trainer"]["step"]

    def read_state(self) -> dict | None:
        """The last checkpoint, or `None` if the run was stopped before its first."""
        path = self.path / "checkpoint" / "state.pt"
        if not path.exists():
            return None
        try:
            state = read_state(path)
            check_parts(state)
            return state
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{path}: is not a whole checkpoint ({type(error).__name__}); train anew into another "
                            "folder") from error

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from writing until the block ends, and clear up what one that was killed left.

        Raises `UserError` where another process is at work. The facts are read anew: it may have just finished.
        """
        with hold(self.path):
            self.facts = read_run_json(self.path)
            clear_below(self.path, locked=True)
            yield

    def discard(self) -> None:
        """Remove what `create` and the steps behind it made: nothing in it is worth going on with."""
        for name in ("adapter", "adapter-last", "checkpoint", "log.jsonl", "run.json"):
            with suppress(OSError):
                remove(self.path / name)

    def note_scored(self, entry: dict) -> int:
        """Write down that a labelled file was scored; returns how often this very file (by hash) now was."""
        with hold(self.path, wait=PATIENCE):  # two scorings at a time are both counted
            self.facts["scored"] = [*read_run_json(self.path)["scored"], entry]
            self.save()
        return self.times_scored(entry["data_sha256"])

    def times_scored(self, data_sha256: str) -> int:
        """How often a labelled file (by hash) was scored with this run so far."""
        return sum(past["data_sha256"] == data_sha256 for past in self.facts["scored"])


def _log_line(value) -> dict:
    """A line of log.jsonl as its readers take it: a step, numbers, and the figures of an evaluation.

    A step with a scale of the loss may have None for `grad_norm`: it overflowed (`finetune.fit.figures`). What
    `calibration` holds is checked where it is used (stats/calibration.py).
    """
    if not isinstance(value, dict) or type(value.get("step")) is not int or value["step"] < 0:
        raise ValueError("not a step")
    figures = value.get("validation", {})
    counts = figures.get("answers", {}) if isinstance(figures, dict) else None
    rest = {**figures, "answers": None, "calibration": None} if isinstance(counts, dict) else {}
    if not isinstance(counts, dict) or not all(_is_number(number) or number is None for number in
                                               [*counts.values(), *rest.values()]):
        raise ValueError("not the figures of an evaluation")
    overflowed = "scale" in value and value.get("grad_norm", 0.0) is None
    if not all(_is_number(number) or (overflowed and key == "grad_norm") for key, number in value.items()
               if key != "validation"):
        raise ValueError("not a number")
    return value


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**1000


def environment(device: torch.device) -> dict:
    """Versions, machine and commit, for run.json."""
    packages = {}
    for name in ("torch", "numpy", "safetensors", "sentencepiece", "tiktoken"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    system = f"{platform.system()} {platform.machine()}"
    return {"python": sys.version.split()[0], "packages": packages, "platform": system, "device": str(device),
            "device_name": device_name(device), "threads": torch.get_num_threads(), "commit": commit()}


def device_name(device: torch.device) -> str:
    """The GPU's own name, or the processor's kind."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()


def commit() -> str | None:
    """This checkout's commit, with a plus sign if tracked files differ from it; `None` outside a checkout."""
    def git(*words):
        return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, check=True).stdout.decode().strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def another_version(facts: dict) -> str:
    """What made a run that this version does not know, in words; an archive that was unpacked has no commit."""
    made = facts["environment"].get("commit")
    return "another version of the project" + (f" (commit {str(made)[:9]})" if made else "")


def next_run(languages: list[str]) -> Path:
    """The first free name in runs/, such as runs/en-es-2."""
    name = "-".join(languages) if len(languages) <= 4 else f"{len(languages)}-languages"
    name = re.sub(r"[^\w-]", "-", name)  # an unknown tag may hold a slash
    return next(path for number in range(1, 10**6) if not (path := Path("runs") / f"{name}-{number}").exists())
