"""Recorded steps done again, and whether they lead to the adapter that is audited.

`replay` trains the first N steps anew, as train.py did (the same rows, order, adapters' start and cuts of a step), and
compares each logged loss, norm and rate to the bit. Where it comes to the step that chose the adapter (the best
evaluation's, else the last), it compares the adapter of the audited model with the one that was just made: on which
linears it lies, rank, alpha, rsLoRA, and every number of A and B to the bit.

Equal bits say that the recorded data and settings lead to these figures, and to this adapter where that was compared.
They say nothing about steps that were not done again. Other bits do not show the contrary: another processor, another
PyTorch or another number of threads rounds otherwise; so what differs of these is named beside the first difference,
and both values are.
"""

import math
from collections.abc import Callable
from dataclasses import fields

import torch
from torch import nn

from audit.trained import Trained
from common.errors import UserError, line_of
from finetune.build import choose_order, make_trainer
from finetune.fit import figures
from finetune.loop import Trainer
from finetune.memory import MemoryPlan
from finetune.options import TrainOptions
from finetune.prepare import Prepared
from finetune.run_folder import RunFolder, environment
from loading import load_model
from lora.inject import adapters, inject

COMPARED = ("step", "loss", "grad_norm", "lr", "posts", "tokens")  # of a line of log.jsonl


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


def replay(run: RunFolder, audited: nn.Module, trained: Trained, steps: int, *,
           progress: Callable[[int], object] = lambda total: lambda: None) -> dict:
    """The first `steps` recorded steps done again: how many are equal, the first difference, and what may explain it.

    `why` is None, or says why nothing could be done again. `adapter` is None unless the steps came to the one that
    chose the adapter, `chosen`; `posts` counts the training posts that the steps done again learned from, of all.
    """
    found = {"steps": 0, "recorded": run.facts.get("step"), "equal": 0, "difference": None, "adapter": None,
             "chosen": chosen_step(run), "posts": None, "elsewhere": elsewhere(run), "why": None}
    device = run.facts["environment"].get("device", "cpu")
    if not str(device).startswith("cpu"):
        return found | {"why": f"the run was trained on {device}, and steps are done again on a CPU alone"}
    if trained.prepared is None:
        return found | {"why": trained.why}
    before = torch.get_num_threads()
    try:
        logged = [line for line in run.read_log() if "loss" in line]
        if not logged:
            return found | {"why": "log.jsonl holds no step"}
        found["recorded"] = len(logged)
        trainer, seen = trainer_of(run, trained.options, trained.prepared), set()
        torch.set_num_threads(run.facts["environment"]["threads"])
        torch.manual_seed(trained.options.seed)  # dropout draws from here on, as in train.py
        done = progress(len(logged[:steps]))
        for line in logged[:steps]:
            seen.update(trainer.indices(trainer.step_count))
            made = {key: plain(value) for key, value in figures(trainer.step()).items()}
            found["steps"] += 1
            done()
            wrong = [key for key in COMPARED if made.get(key) != line.get(key)]
            if wrong and found["difference"] is None:
                found["difference"] = {"step": line["step"], "figure": wrong[0], "recorded": line.get(wrong[0]),
                                       "found": made.get(wrong[0])}
            found["equal"] += found["difference"] is None
            if found["steps"] == found["chosen"]:
                found["adapter"] = same_adapter(audited, trainer.model)
        found["posts"] = {"done": len(seen), "all": len(trained.prepared.train)}
    except Exception as error:
        if (line := line_of(error)) is None:
            raise
        return found | {"why": line}
    finally:
        torch.set_num_threads(before)
    return found


def chosen_step(run: RunFolder) -> int | None:
    """The step whose adapter the run kept in adapter/, as run.json says: of the best evaluation, else the last."""
    best = run.facts.get("best")
    step = best.get("step") if isinstance(best, dict) else run.facts.get("step")
    return step if type(step) is int else None


def plain(value):
    """A figure of a step as log.jsonl has it; what JSON has no number for, as text."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def same_adapter(audited: nn.Module, made: nn.Module) -> dict:
    """Whether two models carry the same adapter to the bit; else `what` differs first, and how far if it is a tensor.
    """
    ours, theirs = adapters(audited), adapters(made)
    for name in [*theirs, *(name for name in ours if name not in theirs)]:
        short = name.removeprefix("model.")
        if name not in ours or name not in theirs:
            where = "training" if name in theirs else "adapter/"
            return {"same": False, "what": f"{short} carries one in {where} alone", "largest_difference": None}
        for key in ("r", "alpha", "rslora"):
            pair = [getattr(layers[name], key) for layers in (ours, theirs)]
            if pair[0] != pair[1]:
                return {"same": False, "what": f"{key} of {short} is {pair[0]} and was {pair[1]} in training",
                        "largest_difference": None}
        for key in ("lora_A", "lora_B"):
            first, second = (getattr(layers[name], key).detach().cpu() for layers in (ours, theirs))
            if not torch.equal(first, second):
                return {"same": False, "what": f"{short}.{key}",
                        "largest_difference": float((first - second).abs().max())}
    return {"same": True, "what": None, "largest_difference": 0.0}


def elsewhere(run: RunFolder) -> list[str]:
    """What of this machine and its packages is not as it was recorded, in words."""
    before, now = run.facts["environment"], environment(torch.device("cpu"))
    found = [f"{name} {before['packages'].get(name)} then, {version} now" for name, version in now["packages"].items()
             if before["packages"].get(name) != version]
    found += [f"{key} {before.get(key)} then, {now[key]} now" for key in ("device_name", "platform", "python")
              if before.get(key) != now[key]]
    if before.get("processes", 1) != 1:
        found.append(f"{before['processes']} processes then, 1 now")
    if before.get("commit") != now["commit"]:
        then, today = (f"{str(made)[:9]}{'+' * str(made).endswith('+')}" for made in (before.get("commit"),
                                                                                      now["commit"]))
        found.append(f"commit of the code {then} then, {today} now")
    return found
