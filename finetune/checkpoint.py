"""What a checkpoint may hold: compared with what the trainer, before its first step, would have written itself.

A state.pt that was damaged or made by hand may have any value in any place. Whatever `Trainer.load_state` and the next
step rely on is asked for here: kinds, ranges, the adapters' names and shapes, AdamW's settings and moments.
"""

import math
from collections.abc import Mapping

import torch

from common.states import is_plain

WATCH = {"best": (float, type(None)), "best_step": (int,), "without_gain": (int,)}
MOMENTS = {"step", "exp_avg", "exp_avg_sq"}


def check_parts(state) -> None:
    """Raise `ValueError` unless `state` has trainer, watch and seconds, the last two as train.py writes them."""
    if not isinstance(state, dict) or not {"trainer", "watch", "seconds"} <= state.keys():
        raise ValueError("a part is missing")
    watch, seconds = state["watch"], state["seconds"]
    if not isinstance(watch, dict) or watch.keys() != WATCH.keys() or not all(
            type(watch[key]) in kinds and math.isfinite(watch[key] or 0) for key, kinds in WATCH.items()):
        raise ValueError("watch is of another kind")
    if type(seconds) not in (int, float) or not 0 <= seconds < math.inf:
        raise ValueError("seconds is no time")


def check_trainer(found, fresh: Mapping, total_steps: int) -> None:
    """Raise `ValueError` unless `found` is a state that the trainer, whose state now is `fresh`, could have left."""
    if not isinstance(found, dict):
        raise ValueError("trainer is of another kind")
    if "scaler" not in found:  # of a run that began in another dtype, on another machine
        fresh = {key: value for key, value in fresh.items() if key != "scaler"}
    for key, value in fresh.items():
        if type(found.get(key)) is not type(value):
            raise ValueError(f"{key} is missing or of another kind")
    if not 0 <= found["step"] <= total_steps or found["micro_tokens"] < 1 or found["halvings"] < 0:
        raise ValueError(f"step {found['step']:,} of {total_steps:,}, {found['micro_tokens']:,} tokens at once and "
                         f"{found['halvings']:,} halvings cannot be")
    parameters = fresh["parameters"]
    if found["parameters"].keys() != parameters.keys() or not all(
            _is_like(found["parameters"][name], tensor) for name, tensor in parameters.items()):
        raise ValueError("the checkpoint is of another set of adapters")
    _check_optimizer(found["optimizer"], fresh["optimizer"], list(parameters.values()), found["step"])
    if "scaler" in fresh and not _is_scaler(found["scaler"], fresh["scaler"]):
        raise ValueError("the scale of the loss is of another kind")
    if not _is_like(found["rng"], fresh["rng"]) or not all(map(is_plain, found["cuda_rng"])):
        raise ValueError("the state of the random numbers is of another kind")
    try:
        torch.Generator().set_state(found["rng"])
    except RuntimeError as error:
        raise ValueError("the state of the random numbers cannot be") from error


def _check_optimizer(found: dict, fresh: dict, parameters: list[torch.Tensor], step: int) -> None:
    """AdamW with the same settings (the rate alone is set anew at each step), and moments for every parameter."""
    groups = found.get("param_groups")
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups) or not _is_same(
            [{**group, "lr": 0.0} for group in groups], [{**group, "lr": 0.0} for group in fresh["param_groups"]]):
        raise ValueError("the optimiser has other settings")
    moments = found.get("state")
    numbers = set(range(len(parameters))) if step else set()
    if not isinstance(moments, dict) or moments.keys() != numbers:
        raise ValueError("the optimiser has moments of other parameters")
    for number, part in moments.items():
        if not isinstance(part, dict) or part.keys() != MOMENTS or not all(
                _is_like(part[name], parameters[number]) for name in MOMENTS - {"step"}) or not (
                is_plain(part["step"]) and part["step"].numel() == 1 and part["step"].is_floating_point()):
            raise ValueError("the optimiser's moments are of another kind")


def _is_scaler(found: dict, fresh: dict) -> bool:
    """A scale of the loss above 0, and how many steps it has held, in the settings of the fresh one."""
    own = {"scale": fresh["scale"], "_growth_tracker": fresh["_growth_tracker"]}
    return _is_same(found | own, fresh) and found.keys() == fresh.keys() and (
        type(found["scale"]) is float and 0 < found["scale"] < math.inf) and (
        type(found["_growth_tracker"]) is int and 0 <= found["_growth_tracker"] <= fresh["growth_interval"])


def _is_same(found, value) -> bool:
    """Whether plain values are equal, kinds included; a tensor among them is no plain value and not asked."""
    if type(found) is not type(value):
        return False
    if isinstance(value, dict):
        return found.keys() == value.keys() and all(_is_same(found[key], value[key]) for key in value)
    if isinstance(value, list | tuple):
        return len(found) == len(value) and all(map(_is_same, found, value))
    return found == value


def _is_like(found, tensor: torch.Tensor) -> bool:
    return is_plain(found) and found.shape == tensor.shape and found.dtype == tensor.dtype
