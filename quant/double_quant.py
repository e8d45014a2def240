"""Double quantisation: the scales of NF4 blocks are themselves quantised, as in bitsandbytes' pure-torch backend.

A float32 scale for each 64 weights costs half a bit a weight. Here the scales minus their mean become 8-bit codes into
a fixed map of 256 values, with one float32 scale for each 256 of them: 0.127 bits a weight instead of 0.5.

    codes, nested, offset = quantize_absmax(absmax);   absmax ~ DYNAMIC_MAP[codes] * nested[block] + offset

The map is bitsandbytes' signed "dynamic" one (arXiv 1511.04561): for each of seven decades 10^-6 .. 10^0 the midpoints
of 1, 2, 4 .. 64 equal parts of [0.1, 1] times the decade, both signs, and 0 and 1. It is dense near zero and has no -1.
The reference here is bitsandbytes' pure-torch backend, which rounds as its CUDA kernels do. Its compiled CPU library
looks codes up in a coarser table: 0.1 to 0.4 % of the scales get another code there, in near-ties, where the code found
is further off by at most 2^-15 of the block's nested scale. The arithmetic is that of NF4's: full blocks times a
reciprocal, a partial last block divided.
"""

import math
from collections.abc import Iterable
from functools import cache

import torch

from common.kernels import DTYPES, runs_kernel, works
from quant.nf4 import TINY, dequantize_nf4, output

NESTED_BLOCK = 256
MOST_IN_KERNEL = 2**31 - 2**13  # weights: the kernel counts them, and those of its last program, in 32 bits
CPU = torch.device("cpu")


@cache
def dynamic_map(device: torch.device = CPU) -> torch.Tensor:
    """The 256 values of the signed dynamic map, float32, rising from -0.99297 to 1; copied to a device only once."""
    with torch.inference_mode(False):  # a tensor made in inference mode could not be used outside it
        if device.type != "cpu":
            return dynamic_map().to(device)
        values = [0.0, 1.0]
        for exponent in range(7):
            edges = torch.linspace(0.1, 1, 2**exponent + 1, dtype=torch.float32)
            middles = (edges[:-1] + edges[1:]) / 2
            values += (10 ** (exponent - 6) * middles).tolist()
            values += (-(10 ** (exponent - 6)) * middles).tolist()
        return torch.tensor(sorted(values), dtype=torch.float32)


@torch.no_grad()
def quantize_absmax(absmax: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scales (n,) float32 to codes (n,) uint8, nested_absmax (ceil(n/256),) float32 and their mean `offset` () float32.

    Computed in float32: the index of (absmax - offset) / nested in `dynamic_map()`, by `bucketize` on its midpoints.
    """
    offset = absmax.mean()
    centred, n = absmax - offset, absmax.numel()
    full = n - n % NESTED_BLOCK
    blocks = centred[:full].view(-1, NESTED_BLOCK)
    nested = blocks.abs().amax(1)
    scaled = (blocks * (1.0 / nested.clamp(min=TINY))[:, None]).view(-1)
    if full < n:
        last = centred[full:].abs().amax().clamp(min=TINY)
        nested = torch.cat([nested, last[None]])
        scaled = torch.cat([scaled, centred[full:] / last])
    values = dynamic_map(absmax.device)
    codes = torch.bucketize(scaled.clamp(-1, 1), (values[:-1] + values[1:]) / 2).to(torch.uint8)
    return codes, nested, offset


@torch.no_grad()
def dequantize_absmax(codes: torch.Tensor, nested_absmax: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """The inverse: float32 scales (n,) = dynamic_map()[codes] * nested_absmax[block of 256] + offset."""
    codes = codes.reshape(-1)
    scales = nested_absmax.repeat_interleave(NESTED_BLOCK)[: codes.numel()]
    return dynamic_map(codes.device).index_select(0, codes.int()).mul_(scales).add_(offset)


class Scales(tuple):
    """The scales of an NF4 weight's blocks as they are stored: (absmax,), or (codes, nested_absmax, offset).

    The first is single: float32 (ceil(n/64),). The second is double: the result of `quantize_absmax` on the first.
    """

    @classmethod
    def of(cls, parts: torch.Tensor | Iterable[torch.Tensor]) -> "Scales":
        """From `absmax` alone, or from the parts of either kind."""
        return cls((parts,) if isinstance(parts, torch.Tensor) else parts)

    @property
    def is_double(self) -> bool:
        """Whether they are themselves quantised."""
        return len(self) == 3

    def absmax(self) -> torch.Tensor:
        """Float32 scales (ceil(n/64),), whichever way they are stored."""
        return dequantize_absmax(*self) if self.is_double else self[0]

    def kept(self, double: bool) -> "Scales":
        """The same scales, single or `double`. Making them single changes no weight; making them double rounds them."""
        if self.is_double == double:
            return self
        return Scales(quantize_absmax(self[0])) if double else Scales((self.absmax(),))


def dequantize(packed: torch.Tensor, scales: Scales, shape, dtype: torch.dtype, out: torch.Tensor | None = None
               ) -> torch.Tensor:
    """`dequantize_nf4(packed, scales.absmax(), shape, dtype, out)`; on a card in one kernel, scales included."""
    if (dtype not in DTYPES or not runs_kernel(packed, *scales) or packed.storage_offset() % 4
            or math.prod(shape) > MOST_IN_KERNEL or not works("quant.nf4_triton", packed, dtype, scales.is_double)):
        return dequantize_nf4(packed, scales.absmax(), shape, dtype, out)
    from quant.nf4_triton import dequantize_kernel

    return dequantize_kernel(packed, scales, output(packed, scales[0], shape, dtype, out))
