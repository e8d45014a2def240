"""Bitwise batch invariance: a post's probabilities are the same bits whatever else is labelled with it.

A sum of floating-point numbers depends on its order, and a library chooses the order by the shape of a product. So a
post's bits do not depend on the other posts if every product has one of few shapes. On a CPU, filling a batch up to a
multiple of sixteen tokens is enough (`common.packed.ROWS`), costs nothing, and is always done. On a GPU the kernel
depends on the whole shape: here every product gets exactly `TILE` tokens at a time, and attention goes in one call
without splits where that was seen to keep a row's bits (`model.varlen.keeps_bits`), else row by row. That is slower and
therefore optional (`--exact`); with `--resident`, weights are not dequantised again for every tile.
"""

from functools import partial

import torch
from torch import nn

from lora.inject import linears, replace
from model.attention import Attend, attend_sdpa
from model.varlen import attend_varlen, keeps_bits, tried

TILE = 512  # tokens of one product: enough to keep a GPU busy, few enough that the last tile wastes little


class Tiled(nn.Module):
    """The same linear, given `rows` tokens at a time: (tokens, in) -> (tokens, out), tokens a multiple of `rows`."""

    def __init__(self, base: nn.Module, rows: int):
        super().__init__()
        self.base, self.rows = base, rows
        self.in_features, self.out_features, self.bias = base.in_features, base.out_features, base.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.base(part) for part in x.split(self.rows)])

    def dense_weight(self, dtype: torch.dtype) -> torch.Tensor:
        """The base's weight (out, in) as a plain tensor of `dtype`."""
        return self.base.dense_weight(dtype)


def make_exact(model: nn.Module) -> str:
    """Make labelling with `model` batch-invariant to the bit; on a CPU it already is. For labelling only. Returns how
    attention goes, in words, or "" on a CPU."""
    if model.device.type == "cpu":
        return ""
    tile_products(model, TILE)
    model.attend, said = exact_attention(model)
    return said


def exact_attention(model) -> tuple[Attend, str]:
    """The quickest attention that gives a row the same bits whatever the other rows are, and why it is that one."""
    config = model.config
    why = keeps_bits(model.device, model.dtype, config.num_attention_heads, config.num_key_value_heads, config.head_dim)
    if why:
        return attend_sdpa, f"row by row, since {why}"
    _, repeated = tried(model.device, model.dtype, config.head_dim)
    return partial(attend_varlen, repeated=repeated, alone=True), "one call for all rows, each with bits of its own"


def tile_products(model: nn.Module, rows: int) -> None:
    """Every linear in tiles of `rows` tokens, batches filled up to a multiple of them, attention row by row."""
    model.fill_to, model.attend = rows, attend_sdpa
    for name, module in linears(model).items():
        replace(model, name, Tiled(module, rows))
