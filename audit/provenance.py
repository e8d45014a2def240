"""Where a run is from: bytes of weights, data, question and code beside what run.json recorded; steps done again.

`hashes` compares SHA-256 with what the run recorded when it began. `replay` trains the first N steps anew, as train.py
did (the same rows, order, adapters' start and cuts of a step), and compares each logged loss, norm and rate to the bit;
where all steps are done again, the adapter as well. Equal bits prove that the recorded data and settings made this run.
Other bits do not prove the contrary: another processor, another PyTorch or another number of threads rounds otherwise;
so what differs of these is named beside the first difference, and both values are.
"""

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import PurePath

import torch

from audit.subject import Subject
from common.errors import UserError
from common.files import ROOT, find_path, sha256_file, sha256_json
from finetune.build import choose_order, make_trainer
from finetune.loop import Trainer
from finetune.memory import MemoryPlan
from finetune.options import TrainOptions
from finetune.prepare import Prepared
from finetune.recorded import prepared_of, recorded_data
from finetune.run_folder import RunFolder, commit, environment
from loading import load_model
from loading.cache import weights_sha256
from lora.adapter import PREFIX, adapter_tensors
from lora.inject import inject

CODE = ("common", "data", "finetune", "inference", "loading", "lora", "model", "quant", "train.py")
COMPARED = ("loss", "grad_norm", "lr", "posts", "tokens")  # of a line of log.jsonl


def code_sha256() -> str:
    """One SHA-256 over names and bytes of every .py file that training and labelling may run."""
    whole = hashlib.sha256()
    for name in CODE:
        place = ROOT / name
        for inner, path in named(place.rglob("*.py") if place.is_dir() else [place], ROOT):
            whole.update(f"{inner}\0{sha256_file(path)}\n".encode())
    return whole.hexdigest()


def named(paths: Iterable[PurePath], root: PurePath) -> list[tuple[str, PurePath]]:
    """Each path under its name below `root`, in one order on every system: Windows has other slashes, and sorts `B`
    behind `a`."""
    return [(path.relative_to(root).as_posix(), path) for path in sorted(paths, key=lambda path: path.parts)]


def hashes(subject: Subject, cache: str | None = None) -> list[dict]:
    """One dict for each thing: `what`, `name`, `recorded`, `found` (None: it is not there), `same` (None: unknown)."""
    facts, rows = subject.run.facts, []

    def add(what: str, name: str, recorded, found) -> None:
        recorded = None if recorded is None else str(recorded)  # a file changed by hand may hold anything
        rows.append({"what": what, "name": name, "recorded": recorded, "found": found,
                     "same": None if recorded is None or found is None else recorded == found})

    recorded = facts["hashes"]
    for name, digest in weights_sha256(subject.base, cache).items():
        known = recorded["weights"].get(name) or (digest if digest in recorded["weights"].values() else None)
        add("weights", name, known, digest)
    for name, digest in recorded_data(subject.run).items():
        path = find_path(name)
        add("data", name, digest, sha256_file(path) if path.is_file() else None)
    add("question", "codebook", recorded.get("codebook"), subject.prompt.codebook.hash)
    add("question", "prompt", recorded.get("prompt"), sha256_json(subject.prompt.fingerprint()))
    add("run", "options and hashes", facts.get("run_hash"), sha256_json([facts["options"], recorded]))
    for path in sorted((subject.run.path / "adapter").glob("adapter_*")):
        add("run", f"adapter/{path.name}", None, sha256_file(path))
    add("code", "commit of the code", facts["environment"].get("commit"), commit())
    add("code", "training and labelling", None, code_sha256())
    return rows


def trainer_of(run: RunFolder, options: TrainOptions, prepared: Prepared, device: str = "cpu") -> Trainer:
    """The run's trainer before its first step, as train.py made it; `UserError` where that is not recorded.
    """
    facts, planned = run.facts, run.facts.get("memory_expected")
    kinds = {"micro_tokens": int, "checkpointing": bool}
    if not isinstance(planned, dict) or any(type(planned.get(key)) is not kind for key, kind in kinds.items()) or (
            planned["micro_tokens"] < 1):
        raise UserError(f"{run.path / 'run.json'}: does not say how steps were cut (memory_expected)")
    loaded = load_model(prepared.base, device=device, dtype=facts["environment"]["dtype"], quantize=options.quantize)
    inject(loaded, options.lora_targets, options.rank, options.alpha, options.dropout, rslora=options.rslora,
           generator=torch.Generator().manual_seed(options.seed))
    plan = MemoryPlan(**{field.name: planned.get(field.name, 0) for field in fields(MemoryPlan)})
    return make_trainer(options, prepared, loaded, plan, choose_order(options, prepared))


def replay(run: RunFolder, steps: int, *, model: str | None = None,
           progress: Callable[[int], object] = lambda total: lambda: None) -> dict:
    """The first `steps` recorded steps done again: how many are equal, the first difference, and what may explain it.

    `why` is None, or says why nothing could be done again; `adapter` is None unless all steps were done again.
    """
    found = {"steps": 0, "recorded": run.facts.get("step"), "equal": 0, "difference": None, "adapter": None,
             "elsewhere": elsewhere(run), "why": None}
    device = run.facts["environment"].get("device", "cpu")
    if not str(device).startswith("cpu"):
        return found | {"why": f"the run was trained on {device}, and steps are done again on a CPU alone"}
    before = torch.get_num_threads()
    try:
        lines = [line for line in run.read_log() if "loss" in line][:steps]
        if not lines:
            return found | {"why": "log.jsonl holds no step"}
        options, prepared = prepared_of(run, model)
        trainer = trainer_of(run, options, prepared)
        torch.set_num_threads(run.facts["environment"]["threads"])
        torch.manual_seed(options.seed)  # dropout draws from here on, as in train.py
        done = progress(len(lines))
        for line in lines:
            made = {key: plain(value) for key, value in trainer.step().items()}
            found["steps"] += 1
            done()
            wrong = [key for key in COMPARED if made.get(key) != line.get(key)]
            if wrong and found["difference"] is None:
                found["difference"] = {"step": line["step"], "figure": wrong[0], "recorded": line.get(wrong[0]),
                                       "found": made.get(wrong[0])}
            found["equal"] += found["difference"] is None
        if found["steps"] == run.facts.get("step"):
            found["adapter"] = same_adapter(run, trainer)
    except UserError as error:
        return found | {"why": str(error)}
    finally:
        torch.set_num_threads(before)
    return found


def plain(value):
    """A figure of a step as log.jsonl has it; what JSON has no number for, as text."""
    value = value.item() if isinstance(value, torch.Tensor) else value
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def same_adapter(run: RunFolder, trainer: Trainer) -> dict:
    """Whether the last step's adapter on disk is, to the bit, that of `trainer`; else the first tensor that is not."""
    from safetensors.torch import load_file

    folder = run.path / ("adapter-last" if (run.path / "adapter-last").is_dir() else "adapter")
    kept, made = load_file(folder / "adapter_model.safetensors"), adapter_tensors(trainer.model)
    for name in made:
        if name not in kept or not torch.equal(kept[name], made[name].cpu()):
            far = float((kept[name] - made[name].cpu()).abs().max()) if name in kept else None
            return {"same": False, "tensor": name.removeprefix(PREFIX), "largest_difference": far}
    return {"same": True, "tensor": None, "largest_difference": 0.0}


def elsewhere(run: RunFolder) -> list[str]:
    """What of this machine and its packages is not as it was recorded, in words."""
    before, now = run.facts["environment"], environment(torch.device("cpu"))
    found = [f"{name} {before['packages'].get(name)} then, {version} now" for name, version in now["packages"].items()
             if before["packages"].get(name) != version]
    found += [f"{key} {before.get(key)} then, {now[key]} now" for key in ("device_name", "platform", "python")
              if before.get(key) != now[key]]
    if before.get("commit") != now["commit"]:
        then, today = (f"{str(made)[:9]}{'+' * str(made).endswith('+')}" for made in (before.get("commit"),
                                                                                      now["commit"]))
        found.append(f"commit of the code {then} then, {today} now")
    return found
