"""A finished run, opened again for labelling: which one, its base, its prompt, its model."""

import re
import shutil
from datetime import datetime
from pathlib import Path

import torch

from common.device import MachineOptions
from common.errors import UserError
from common.files import ROOT, atomic_folder, making, place_key
from common.leftovers import clear
from common.lock import hold
from common.reading import check_path
from common.run_json import RUN_JSON, check_adapter, check_finished
from data.codebook import Codebook
from data.prompt import Prompt, check_fingerprint
from finetune.run_folder import PATIENCE, RunFolder
from loading import load_model
from loading.sources import Source, check_base, find_base, find_place
from loading.weights import read_config
from model.tokenizer import load_tokenizer

SHIPPED_RUN = ROOT / "base" / "run"
COPY = "shipped"  # its copy's name in runs/


def newest_run() -> Path | None:
    """The finished run in runs/ that was begun last; one that cannot be read is skipped, and a line says so."""
    finished = []
    for path in sorted(Path("runs").glob("[!.]*/run.json")):  # a name with a dot is half of a run
        try:
            run = RunFolder.open(path.parent)
            finished += [(begun(run), run.path)] if run.facts["finished"] and not is_former_copy(run) else []
        except UserError as error:
            print(f"skipped: {error}")
    return max(finished)[1] if finished else None


def begun(run: RunFolder) -> datetime:
    """The instant at which a run began, whatever the time zone it is written in; without one, it is this machine's."""
    try:
        return datetime.fromisoformat(run.facts["created"]).astimezone()
    except (ValueError, OverflowError) as error:
        raise UserError(f"{run.path / RUN_JSON}: created: '{run.facts['created']}' is no date and time; the file was "
                        "changed by hand, so train anew") from error


def finished_run(path: str | None) -> RunFolder:
    """The run to use: the one named, the newest in runs/, or a copy of the shipped one (a line says so).

    The shipped run itself is never written to, so it is copied even when it is named. Raises `UserError` for a run that
    was stopped early.
    """
    chosen = Path(path) if path else newest_run()
    if chosen is not None:
        check_path(chosen)
    if chosen is None or place_key(chosen) == place_key(SHIPPED_RUN):
        if not (SHIPPED_RUN / "run.json").exists():
            raise UserError("there is no run in runs/ yet; `python train.py` makes one")
        chosen = place_of_copy()
        if not (chosen / "run.json").exists():
            copy_shipped(chosen)
        print(f"{chosen} is a copy of the run that comes with the project")
    run = RunFolder.open(chosen)
    check_finished(run.path, run.facts)
    clear(run.path)  # an evaluation that a killed program had moved aside is back for whoever looks for it
    return run


def place_of_copy() -> Path:
    """Where the copy of the shipped run is or will be: runs/shipped, or runs/shipped-2 and so on if an earlier version
    of the project left a copy of its own there, which may hold a user's evaluations.
    """
    names = (COPY, *(f"{COPY}-{number}" for number in range(2, 1000)))
    return next(place for place in (Path("runs") / name for name in names)
                if not (place / "run.json").exists() or not is_former_copy(RunFolder.open(place)))


def is_former_copy(run: RunFolder) -> bool:
    """Whether a run is a copy of one that the project shipped before: named as copies are, and not the shipped one."""
    return bool(re.fullmatch(rf"{COPY}(-\d+)?", run.path.name)) and (SHIPPED_RUN / "run.json").exists() and (
        run.facts["run_hash"] != RunFolder.open(SHIPPED_RUN).facts["run_hash"])


def copy_shipped(to: Path) -> None:
    """A copy of the shipped run that may be written to, wherever the project lies; one at a time makes it."""
    with making(to.parent), hold(to.parent, wait=PATIENCE):
        if not (to / "run.json").exists():
            with atomic_folder(to) as folder:
                shutil.copytree(SHIPPED_RUN, folder, dirs_exist_ok=True, copy_function=shutil.copyfile)
                for inner in (folder, *folder.rglob("*/")):
                    inner.chmod(0o755)


def base_folder(run: RunFolder, model: str | None = None, cache: str | None = None) -> Path:
    """The folder or GGUF file of a run's base; `model` says where it now is, `cache` is `load_model`'s.

    Raises `UserError` if the base or the run's adapter is missing, or if the base's bytes are not those that the run
    was made with.
    """
    check_adapter(run.path)
    name = model or run.facts["options"]["model"]
    if not find_place(name).exists():
        raise UserError(f"{run.path / 'run.json'}: the base model {name} is not there; --model says where it is now")
    folder = find_base(name)
    check_base(folder, run.facts["hashes"]["weights"], run.path, cache)
    return folder


def run_prompt(run: RunFolder, folder: Path) -> Prompt:
    """The run's prompt with the tokenizer in the base's folder. Raises `UserError` if it is not the run's own."""
    facts = run.facts
    prompt = Prompt(Codebook.from_dict(facts["codebook"]), load_tokenizer(Source(folder).tokenizer),
                    template=facts["options"]["template"], max_tokens=facts["options"]["max_tokens"],
                    layout=facts["prompt"].get("layout"))
    check_fingerprint(facts["prompt"], prompt.fingerprint(), str(run.path / RUN_JSON))
    return prompt


def open_model(run: RunFolder, *, model: str | None, device: torch.device, dtype, cache: str | None = None,
               machine: MachineOptions | None = None):
    """The fine-tuned model and the prompt of a run: (model, prompt).

    `model` says where the base now is, if it has moved; `cache` is `load_model`'s; `machine` are a program's options,
    which choose the CPU's threads before weights are read. Raises `UserError` if the base's bytes or the prompt are not
    those that the run was made with.
    """
    folder = base_folder(run, model, cache)
    if machine is not None:
        machine.choose_threads(device, read_config(folder))
    prompt = run_prompt(run, folder)
    loaded = load_model(folder, device=device, dtype=dtype, quantize=run.facts["options"]["quantize"],
                        adapter=run.path / "adapter", cache=cache)
    return loaded, prompt
