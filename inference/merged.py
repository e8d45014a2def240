"""`--merge`: the adapter added to the weights ahead of labelling, so that it costs no products of its own.

    y = x W'^T + b        W' = round(W + s B A)

Beside the weights, an adapter of every linear adds two thin products to each thick one, and reads and writes y once
more. Merged, they are gone. Every number of the sum is rounded once to the model's dtype: in float32 that moves
probabilities by no more than another order of additions, in 16 bits by about as much as the arithmetic itself. The
price is measured on the first posts (inference/quicker.py).

Weights in 4 bits become dense, since the sum is none of their levels; a merged model cannot be trained or taken apart.
"""

import torch
from torch import nn

from common.device import available_memory
from common.errors import UserError
from common.terminal import human_bytes
from inference.quicker import Quicker
from lora.inject import adapters, replace
from lora.layer import LoRALinear
from model.layers import Linear


@torch.no_grad()
def merged(layer: LoRALinear, dtype: torch.dtype) -> Linear:
    """A linear with W + s B A of `dtype` as its weight and the base's bias."""
    with torch.device("meta"):
        made = Linear(layer.in_features, layer.out_features)
    made.load_dense("weight", layer.dense_weight(dtype))
    made.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().to(dtype), requires_grad=False)
    return made.train(layer.training)


def added_bytes(model) -> int:
    """The most that merging takes beside this model: dense weights in the place of packed ones, and one layer's sum in
    float32 with what is added to it."""
    layers = adapters(model).values()
    sizes = [layer.in_features * layer.out_features for layer in layers]
    held = sum(tensor.nbytes for layer in layers for tensor in (*layer.base.parameters(), *layer.base.buffers()))
    wide = torch.promote_types(model.dtype, torch.float32).itemsize
    return max(0, sum(sizes) * model.dtype.itemsize - held) + 2 * wide * max(sizes, default=0)


def merge(model, dtype: torch.dtype) -> list[str]:
    """Put a plain linear of `dtype` in the place of every adapter, one after the other, so that memory never holds two
    models; returns their names."""
    layers = adapters(model)
    names = list(layers)
    for name in names:
        replace(model, name, merged(layers.pop(name), dtype))
    return names


def change(model) -> None:
    """`merge` in the model's own dtype. Raises `UserError` if the dense weights do not fit."""
    size, free = added_bytes(model), available_memory(model.device)
    if size > free:
        raise UserError(f"--merge: dense weights take {human_bytes(size)} more than these, and {human_bytes(free)} is "
                        "free; leave it out, or use --dtype bfloat16")
    merge(model, model.dtype)


MERGED = Quicker("merge", "a merged adapter", change)
