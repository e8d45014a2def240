"""Four bits: one block of 64 weights, from the original values to bytes and back.

    scale = max |w|      code = the nearest of sixteen levels to w / scale      what comes back = level[code] * scale

With double quantisation the scale itself comes back from a byte, map[code] * nested + offset, and is no longer exactly
the largest of the original values. These are read from the base's own file, one tensor at a time, where that file is at
hand and holds them in 16 bits or more.
"""

import torch

from common.errors import UserError, closest
from glass.source import code
from glass.stages import Stage, Step
from loading.sources import find_base
from loading.weights import expected_shapes, read_config, read_weights
from lora.inject import linears
from lora.layer import LoRALinear
from model.llama import LlamaForCausalLM
from quant.double_quant import dequantize_absmax
from quant.linear import NF4Linear
from quant.nf4 import BLOCK, NF4_CODE, block_count, dequantize_nf4_plain, in_blocks, quantize_nf4_plain


def four_bit_linears(model) -> dict[str, NF4Linear]:
    """The 4-bit linears by name, those inside an adapter included."""
    inner = {name: module.base if isinstance(module, LoRALinear) else module for name, module in linears(model).items()}
    return {name: module for name, module in inner.items() if isinstance(module, NF4Linear)}


def blocks_of(layer: NF4Linear) -> int:
    """How many blocks of 64 a matrix has; a partial last one counts."""
    return block_count(layer.in_features * layer.out_features)


def original_of(folder, name: str) -> torch.Tensor | None:
    """The weight as the base's file has it; None if the file has it in 4 bits or is not there any more."""
    try:
        folder = find_base(folder)
        config = read_config(folder)
        if config.quantization is not None:
            return None
        weights = read_weights(folder, config, expected_shapes(LlamaForCausalLM.empty(config)))
        return weights.tensor(f"{name}.weight")
    except UserError:
        return None


@torch.no_grad()
def worst_block(layer: NF4Linear, original: torch.Tensor) -> int:
    """The block with the largest part of the matrix's squared error, argmax over blocks of sum (values - original)^2 in
    float64: the first of those that `audit` lists for the matrix.

    original: (out, in), the weights as the base's file has them.
    """
    error = layer.dense_weight(torch.float32).cpu().double() - original.cpu().double()
    return int(in_blocks(error).square().sum(1).argmax())


@torch.no_grad()
def bits(model, linear: str, block: int, original: torch.Tensor | None = None) -> Stage:
    """The stage `bits` for block number `block` of the matrix `linear`; `original`: the whole matrix, if at hand.

    Raises `UserError` for a matrix that is not there or not in 4 bits, and for a block that it does not have.
    """
    every = four_bit_linears(model)
    if linear not in every:
        raise UserError(f"matrix '{linear}': is not among those in 4 bits{closest(linear, every)}")
    layer = every[linear]
    if not 0 <= block < blocks_of(layer):
        raise UserError(f"block {block}: {linear} has blocks 0 to {blocks_of(layer) - 1}")
    first, last = block * BLOCK, min((block + 1) * BLOCK, layer.in_features * layer.out_features)
    packed = layer.packed.reshape(-1)[first // 2 : (last + 1) // 2].cpu()
    codes = torch.stack([packed >> 4, packed & 15], dim=1).view(-1)[: last - first]
    scale = layer.scales.absmax()[block].cpu()
    values = dequantize_nf4_plain(packed, scale[None], (last - first,), torch.float32)
    tensors = {"packed": packed, "codes": codes, "levels": NF4_CODE, "scale": scale, "values": values}
    place = {"linear": linear, "block": block}
    steps = [Step("block_packed", "bits.packed", (), place), Step("block_codes", "bits.codes", ("bits.packed",)),
             Step("block_scale", "bits.scale", (), place),
             Step("block_values", "bits.values", ("bits.codes", "bits.scale"))]
    if layer.double:
        names = ("scale_code", "nested_scale", "offset")
        parts = (layer.scales[0].reshape(-1)[block], layer.scales[1].reshape(-1)[block // 256], layer.scales[2])
        tensors |= {name: part.reshape(()).cpu() for name, part in zip(names, parts, strict=True)}
        steps.append(Step("nested_scale", "bits.scale", ("bits.scale_code", "bits.nested_scale", "bits.offset")))
    if original is not None:
        whole = original.reshape(-1)[first:last].float().cpu()
        tensors |= {"original": whole, "error": values - whole, "largest": whole.abs().max()}
        steps += [Step("subtract", "bits.error", ("bits.values", "bits.original")),
                  Step("largest", "bits.largest", ("bits.original",))]
        steps += [] if layer.double else [Step("largest", "bits.scale", ("bits.original",))]
    pieces = (code(quantize_nf4_plain, "absmax = blocks", "torch.bucketize", "return"),
              code(dequantize_nf4_plain, "codes = torch.stack", "NF4_CODE.to"))
    pieces += (code(dequantize_absmax, "return"),) if layer.double else ()
    return Stage("bits", f"Four bits: block {block} of {linear.removeprefix('model.')}",
                 "scale = max |w|;  code = nearest level to w / scale;  values = level[code] scale" + (
                     ";  here scale = map[scale_code] nested_scale + offset" if layer.double else ""),
                 tensors, pieces, tuple(steps))
