"""What four bits cost this run: each matrix's error beside what its four bits cost the task.

A matrix can be badly rounded and not matter, or the other way round. So beside `matrices` stands the answer of the
model itself: each matrix alone is put back to the 16 bits of the base's file (its adapter stays), and the same posts
are labelled again. In a run whose base was dense, each matrix alone is put into NF4 instead: what it would cost.

Where the base has no 16-bit file, only what the codes and scales tell can be said.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from audit.change import change
from audit.inputs import moments
from audit.matrices import code_figures, error_figures, weighted_error
from audit.subject import Subject, base_linears, level_of
from loading.weights import Weights, expected_shapes, read_weights
from lora.inject import replace
from lora.layer import LoRALinear
from model.layers import Linear
from model.llama import LlamaForCausalLM
from quant.linear import NF4Linear

FOUR_BITS, DENSE, PACKED = "nf4", "dense", "packed"


@contextmanager
def swapped(model: nn.Module, parts: Mapping[str, nn.Module]) -> Iterator[None]:
    """Within the block, the linears named in `parts` are these modules; adapters around them stay, and so do biases."""
    before = {}
    try:
        for name, part in parts.items():
            place = f"{name}.base" if isinstance(model.get_submodule(name), LoRALinear) else name
            before[place] = model.get_submodule(place)
            replace(model, place, part)
        yield
    finally:
        for place, module in before.items():
            replace(model, place, module)


def dense_linear(like: nn.Module, weight: torch.Tensor, dtype: torch.dtype, device: torch.device) -> Linear:
    """The linear `like`, bias included, with the 16-bit `weight` (out, in), cast as `load_model` casts it."""
    with torch.device("meta"):
        linear = Linear(like.in_features, like.out_features, like.bias is not None)
    linear.load_dense("weight", weight.to(device, dtype))
    if like.bias is not None:
        linear.load_dense("bias", like.bias.detach())
    return linear.eval()


def nf4_linear(like: nn.Module, weight: torch.Tensor, device: torch.device) -> NF4Linear:
    """The linear `like`, bias included, with the 16-bit `weight` (out, in) in NF4."""
    linear = NF4Linear(like.in_features, like.out_features, like.bias is not None, device=device,
                       dtype=None if like.bias is None else like.bias.dtype)
    linear.load_dense("weight", weight.to(device))
    if like.bias is not None:
        linear.load_dense("bias", like.bias.detach())
    return linear.eval()


def state_of(subject: Subject) -> str:
    """How the linears of the run's base are kept: in NF4 made from a 16-bit file, dense, or in 4 bits on disk."""
    if subject.model.config.quantization is not None:
        return PACKED
    return FOUR_BITS if any(isinstance(m, NF4Linear) for m in base_linears(subject.model).values()) else DENSE


def quantisation(subject: Subject, reference, *, level: str = "auto", draws: int = 2000, seed: int = 0,
                 progress: Callable[[int], object] = lambda total: lambda: None,
             rounded: Callable[[list], object] = lambda matrices: None) -> dict:
    """The section for audit.json; `reference`: the run's own probabilities (n, C).

    level: which parts are changed alone: "matrix", "layer" (all matrices of a decoder layer together), or "auto", by
    their number. progress(total) -> a function that is called after each run over the posts. rounded(matrices) is
    called with what needs no post, once that is known.
    """
    state, linears = state_of(subject), base_linears(subject.model)
    if state == PACKED:
        done = progress(1)
        rows = [{"name": name, "shape": [layer.out_features, layer.in_features],
                 **code_figures(layer.packed, layer.scales, layer.in_features * layer.out_features)}
                for name, layer in linears.items() if isinstance(layer, NF4Linear)]
        done()
        return {"state": state, "matrices": rows, "changed": [], "all": None, "level": None}
    level = level_of(subject.model) if level == "auto" else level
    weights, other = _weights(subject), {}
    parts = {name: [name] for name in linears} if level == "matrix" else _by_layer(list(linears))
    rows = {name: _figures(name, linears[name], weights) for name in linears}
    rounded(list(rows.values()))
    done = progress(len(parts) + 2)
    for name, moment in moments(subject, list(linears), done):
        row, weight = rows[name], weights.tensor(f"{name}.weight")
        layer = linears[name] if state == FOUR_BITS else nf4_linear(linears[name], weight, torch.device("cpu"))
        row["weighted_error"] = weighted_error(weight, layer.dense_weight(torch.float32).cpu(), moment.cpu())
        row["bits_by_weighted_error"] = _bits(row["weighted_error"])

    def replacement(name: str) -> nn.Module:
        weight, model = weights.tensor(f"{name}.weight"), subject.model
        return (dense_linear(linears[name], weight, model.dtype, model.device) if state == FOUR_BITS
                else nf4_linear(linears[name], weight, model.device))

    for title, names in {**parts, "all": list(linears)}.items():
        with swapped(subject.model, {name: replacement(name) for name in names}):
            other[title] = change(subject.table, reference, subject.probabilities(), draws, seed)
        done()
    whole = other.pop("all")
    changed = sorted(({"name": title, "matrices": len(parts[title]), **found} for title, found in other.items()),
                     key=lambda row: (-row["kl"], row["name"]))
    return {"state": state, "level": level, "matrices": list(rows.values()), "changed": changed, "all": whole}


def _weights(subject: Subject) -> Weights:
    """The base's files, which are read tensor by tensor."""
    config = subject.model.config
    return read_weights(subject.base, config, expected_shapes(LlamaForCausalLM.empty(config)))


def _figures(name: str, layer: nn.Module, weights: Weights) -> dict:
    weight = weights.tensor(f"{name}.weight")
    layer = layer if isinstance(layer, NF4Linear) else nf4_linear(layer, weight, torch.device("cpu"))
    packed, scales = layer.packed.cpu(), type(layer.scales)(part.cpu() for part in layer.scales)
    return {"name": name, "shape": list(weight.shape), **error_figures(weight, packed, scales),
            **code_figures(packed, scales, weight.numel())}


def _bits(error: float) -> float | None:
    return -float(torch.tensor(error, dtype=torch.float64).log2()) if error else None


def _by_layer(names: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(".".join(name.split(".")[:3]), []).append(name)
    return found
