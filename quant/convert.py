"""Replacing dense linears with 4-bit ones, with a count of what that saves; and dense copies beside them in memory.

It replaces the linears of the decoder's layers (`model.layers.*`) and nothing else. Embedding, norms and the output
head keep their dtype: they are a small part of a large model, and an error in them reaches every token. A linear is
whatever has `dense_weight` (the contract of all linears here), so nothing here depends on the model's classes. When a
model is loaded its linears are empty, so that here only their kind changes; `NF4Linear.load_dense` then quantises.

Labelling many posts multiplies by the same weights again and again. If there is enough memory, `make_resident` keeps
them dequantised: the same weights and the same results bit for bit, without the time that dequantising takes.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from common.errors import UserError
from common.terminal import human_bytes
from quant.linear import NF4Linear


@dataclass(frozen=True)
class Conversion:
    """Names of the linears now in NF4, and the bytes of the whole model's tensors before and after."""

    names: tuple[str, ...]
    bytes_before: int
    bytes_after: int

    def __str__(self) -> str:
        return (f"{len(self.names)} linears to NF4: {human_bytes(self.bytes_before)} before, "
                f"{human_bytes(self.bytes_after)} after")


def inside_layers(name: str) -> bool:
    """`inside_layers("model.layers.0.mlp.up_proj")`: is the module part of a decoder layer?"""
    return re.search(r"(^|\.)layers\.\d+\.", name) is not None


def model_bytes(model: nn.Module) -> int:
    """Bytes of all parameters and buffers, shared ones once; on the meta device, what they would take."""
    return sum(tensor.numel() * tensor.element_size() for tensor in [*model.parameters(), *model.buffers()])


def dense_linears(model: nn.Module, targets: Callable[[str], bool] = inside_layers) -> dict[str, nn.Module]:
    """The linears that are not in 4 bits and whose name `targets` accepts, by name."""
    return {name: module for name, module in model.named_modules() if _is_dense_linear(module) and targets(name)}


@torch.no_grad()
def replace_linears(model: nn.Module, *, double: bool = False, targets: Callable[[str], bool] = inside_layers
                    ) -> Conversion:
    """Replace each dense linear whose name `targets` accepts by an `NF4Linear`; empty on meta, else quantised.

    One weight at a time, so that memory falls as it goes. Linears already in NF4 are left alone. Raises `UserError`,
    naming the tensor, if a weight is not finite.
    """
    before = model_bytes(model)
    chosen = dense_linears(model, targets)
    names = tuple(chosen)
    for name in names:
        old = chosen.pop(name)
        device = next(old.parameters()).device
        new = NF4Linear(old.in_features, old.out_features, old.bias is not None, double=double, device=device,
                        dtype=None if old.bias is None else old.bias.dtype)
        new.train(old.training)
        if device.type != "meta":
            try:
                new.load_dense("weight", old.dense_weight(next(old.parameters()).dtype))
            except UserError as error:
                raise UserError(f"{name}.{error}") from error
            if old.bias is not None:
                new.load_dense("bias", old.bias.detach())
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, new)
    return Conversion(names, before, model_bytes(model))


def resident_bytes(model: nn.Module, dtype: torch.dtype) -> int:
    """Bytes that `make_resident(model, dtype)` adds to the model, copies that it already holds included."""
    return sum(layer.in_features * layer.out_features * dtype.itemsize for layer in _nf4_linears(model))


def make_resident(model: nn.Module, dtype: torch.dtype) -> None:
    """Keep W of every `NF4Linear` in `dtype` beside its bytes; products in that dtype, also in backward, then read it.

    Nothing else changes, neither a bit of a result nor what is saved; products in other dtypes dequantise as before. A
    layer that gets new bytes drops its copy.
    """
    with torch.inference_mode(False):  # else training could not use a copy made during inference
        for layer in _nf4_linears(model):
            layer.resident = None  # free the old copy before making the new one
            layer.resident = layer.dense_weight(dtype)


def _nf4_linears(model: nn.Module) -> list[NF4Linear]:
    return [module for module in model.modules() if isinstance(module, NF4Linear)]


def _is_dense_linear(module: nn.Module) -> bool:
    """A linear of the contract that holds its own dense weight: not yet in NF4, and not a wrapper around another."""
    return (hasattr(module, "dense_weight") and not isinstance(module, NF4Linear)
            and not any(hasattr(child, "dense_weight") for child in module.children()))
