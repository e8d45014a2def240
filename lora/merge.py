"""Merging: the adapter's product added into a dense copy of the weight, W + s B A, after which no adapter is left.

The copy is dequantised where the base is in 4 bits. It is never quantised again: that would move every weight of the
block by up to half a step of the table, more than most adapters move it, and without a word.
"""

import torch
import torch.nn.functional as F
from torch import nn

from lora.inject import adapters, replace


class MergedLinear(nn.Module):
    """y = x W^T + b with a frozen dense W (out, in): (..., in) -> (..., out), in x's dtype."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None):
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))

    def dense_weight(self, dtype: torch.dtype) -> torch.Tensor:
        """W as a plain tensor (out, in) of `dtype`."""
        return self.weight.detach().to(dtype)


@torch.no_grad()
def merge(model: nn.Module, dtype: torch.dtype) -> list[str]:
    """Replace every LoRALinear by a dense linear with W + s B A, computed in at least float32 and rounded to `dtype`.

    One layer at a time. Returns the names; parameters keep the checkpoint's names (`NAME.weight`, `NAME.bias`).
    """
    names = list(adapters(model))
    for name in names:
        layer = model.get_submodule(name)
        bias = None if layer.bias is None else layer.bias.detach().to(dtype)
        replace(model, name, MergedLinear(layer.dense_weight(dtype), bias).train(layer.training))
    return names
