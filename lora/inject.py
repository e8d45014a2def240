"""Where adapters go: linears chosen by name, each replaced by a LoRALinear around itself.

Targets are read as PEFT reads them: `["q_proj", "v_proj"]` means every linear whose name is, or ends in, one of these
parts; a single target that is not such a name is a regular expression for the whole name; "all-linear" is every linear
of the model. The output head is never one of them: labels are read from its rows directly.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from common.errors import UserError, closest
from common.patterns import Matcher
from lora.layer import LoRALinear, check_numbers

ALL = "all-linear"
HEAD = "lm_head"


def linears(model: nn.Module) -> dict[str, nn.Module]:
    """Every linear that can carry an adapter, or carries one, by name; an adapter's own base is left out."""
    wrapped = {f"{name}.base" for name, module in model.named_modules() if isinstance(module, LoRALinear)}
    return {name: module for name, module in model.named_modules()
            if hasattr(module, "dense_weight") and name not in wrapped and name.rpartition(".")[2] != HEAD}


def match(names: Iterable[str], targets: str | Iterable[str], where: str = "LoRA target"
          ) -> tuple[list[str], list[str]]:
    """`match(["a.q_proj", "a.k_proj"], ["q_proj", "w"]) -> (["a.q_proj"], ["w"])`: names chosen, targets unmatched.

    Raises `UserError`, beginning with `where`, for what is neither a name nor a regular expression.
    """
    names = list(names)
    parts = [targets] if isinstance(targets, str) else list(targets)
    if len(parts) == 1 and parts[0].lower() == ALL:
        return names, []
    hits: dict[str, set[str]] = {part: set() for part in parts}
    for name in names:
        end = name
        while end:  # a.b.c, then b.c, then c
            if end in hits:
                hits[end].add(name)
            end = end.partition(".")[2]
    if len(parts) == 1 and not hits[parts[0]]:
        matcher = Matcher(where)
        hits[parts[0]] = {name for name in names if matcher.full(parts[0], name)}
    chosen = set().union(*hits.values())
    return [name for name in names if name in chosen], [part for part in parts if not hits[part]]


def resolve(model: nn.Module, targets: str | Iterable[str]) -> list[str]:
    """Names of the linears that `targets` selects, in the model's order; `UserError` names one that selects none."""
    targets = [targets] if isinstance(targets, str) else list(targets)
    chosen, unknown = match(linears(model), targets)
    if [target.lower() for target in targets] != [ALL] and match([HEAD], targets)[0]:
        raise UserError(f"LoRA targets {', '.join(targets)}: the output head {HEAD} carries no adapter, since labels "
                        "are read from its rows; leave it out")
    leaves = sorted({name.rpartition(".")[2] for name in linears(model)})
    if not leaves:
        raise UserError(f"LoRA: {type(model).__name__} has no linear that an adapter can wrap; it takes what "
                        "model.layers.Linear offers (dense_weight), and torch.nn.Linear does not")
    if unknown or not chosen:
        wrong = unknown[0] if unknown else ""
        raise UserError(f"LoRA target '{wrong}': no linear has this name{closest(wrong, leaves)}; there are "
                        f"{', '.join(leaves)}, or {ALL}")
    return chosen


def inject(model: nn.Module, targets: str | Iterable[str], r: int, alpha: float, dropout: float = 0.0,
           rslora: bool = False, generator: torch.Generator | None = None,
           rank_pattern: Mapping[str, int] | None = None, alpha_pattern: Mapping[str, float] | None = None
           ) -> list[str]:
    """Wrap the linears that `targets` selects and freeze all else; returns their names in the model's order.

    Gradients stop here: from now on only the A and B of the adapters require one, so backward carries dx through the
    frozen linears, computes no dW for them, and ends at the lowest adapter.

    `generator` draws every A in that order. `rank_pattern` and `alpha_pattern` give some modules numbers of their own,
    as in PEFT: a key is a name or its end, read as a regular expression. Raises `UserError` for a target that selects
    nothing, for numbers that no adapter can have, and for a model that already carries an adapter.
    """
    check_numbers(r, alpha, dropout)
    if adapters(model):
        raise UserError("LoRA: the model already carries an adapter; take it off with lora.inject.remove, or merge it")
    names = resolve(model, targets)
    model.requires_grad_(False)
    matcher = Matcher("LoRA: rank_pattern, alpha_pattern")
    for name in names:
        rank = by_pattern(rank_pattern, name, r, matcher)
        own_alpha = by_pattern(alpha_pattern, name, alpha, matcher)
        layer = LoRALinear.from_base(model.get_submodule(name), rank, own_alpha, dropout, rslora, generator)
        replace(model, name, layer)
    return names


def by_pattern(pattern: Mapping | None, name: str, default, matcher: Matcher):
    """PEFT's rule: the value of the first key that matches `name` from a dot or the start to the end, or `default`."""
    for key, value in (pattern or {}).items():
        if matcher.full(rf"(.*\.)?({key})", name):
            return value
    return default


def replace(model: nn.Module, name: str, module: nn.Module) -> None:
    """Replace the module called `name` by `module`."""
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)


def remove(model: nn.Module) -> list[str]:
    """Take every adapter off, so that another can come: the bases' own linears are back, frozen; returns their names.

    What the adapters learnt is gone unless `lora.adapter.save_adapter` wrote it.
    """
    found = adapters(model)
    for name, layer in found.items():
        replace(model, name, layer.base)
    return list(found)


def adapters(model: nn.Module) -> dict[str, LoRALinear]:
    """The model's adapters, by the name of the linear that each wraps."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoRALinear)}


@contextmanager
def cast_once(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Within the block the adapters have A and B at hand in `dtype`, cast in a few launches instead of two a product.

    On a card alone, and only where `dtype` is not theirs. Gradients go to the float32 masters as always; until the
    block ends, the products do not see it if the masters change. 2 bytes a parameter in 16 bits.
    """
    layers = [layer for layer in adapters(model).values()
              if layer.lora_A.device.type == "cuda" and layer.lora_A.dtype != dtype]
    masters = [part.detach() for layer in layers for part in (layer.lora_A, layer.lora_B)]
    copies = [torch.empty_like(master, dtype=dtype) for master in masters]
    before = [layer.at_hand for layer in layers]
    if masters:
        torch._foreach_copy_(copies, masters)
    try:
        for layer, *pair in zip(layers, copies[::2], copies[1::2], strict=True):
            layer.at_hand = tuple(pair)
        yield
    finally:
        for layer, pair in zip(layers, before, strict=True):
            layer.at_hand = pair


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter that requires a gradient, by name; after `inject` these are the adapters' A and B."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def expected_count(model: nn.Module, targets: str | Iterable[str], r: int) -> int:
    """The trainable count by formula: the sum of r * (in + out) over the linears that `targets` selects."""
    every = linears(model)
    return sum(r * (every[name].in_features + every[name].out_features) for name in resolve(model, targets))
