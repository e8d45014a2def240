"""NF4: sixteen values, blocks of 64 weights, one float32 scale per block; bit for bit what bitsandbytes 0.50 gives.

A weight is stored as the code (0..15) of the nearest of sixteen fixed values, after its block of 64 has been divided by
the block's largest magnitude `absmax`. The values are quantiles of a standard normal with an exact zero among them
(QLoRA, arXiv 2305.14314, appendix E), so weights that look normal use all sixteen codes about equally. Two codes share
a byte, the first one in the high half.

The arithmetic is that of bitsandbytes' pure-torch backend, and each of these details shows in the bits:

- every input is first converted to float32; float64 is rounded to it, since the scale is a float32 in the format;
- a full block is multiplied by `1 / max(absmax, 1e-38)`; dividing instead gives different bytes next to the thresholds;
- a partial last block is divided by `max(absmax, 1e-38)`, and the clamped value is what is stored;
- a value on a threshold goes to the lower code; an all-zero block is 0x77 bytes; an odd count ends in code 7;
- infinities and NaN, which bitsandbytes quantises to nonsense, are a `UserError` here.

`quantize_nf4_plain` and `dequantize_nf4_plain` are the specification. `quantize_nf4` and `dequantize_nf4` give the same
bits faster, in slices, so that on a CPU a weight of any size needs only one slice of extra memory. Dequantising costs
one of PyTorch's table look-ups per byte. bitsandbytes' compiled CPU kernel finds sixteen values with one instruction
and is quicker, unless it must write to fresh memory: `python -m benchmarks.kernels` shows both.
"""

import math
from functools import cache

import torch

from common.errors import UserError

BLOCK = 64
NF4_CODE = torch.tensor([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
])
TINY = 1e-38  # what bitsandbytes divides by if a block is all zeros, or nearly
_CELLS = 4096  # of the grid that finds a code; any count works as long as no two thresholds share a cell


def packed_bytes(count: int) -> int:
    """Bytes that hold `count` weights: two per byte, an odd last one alone."""
    return -(-count // 2)


def block_count(count: int) -> int:
    """Scales that `count` weights need: one for each 64, a partial last block included."""
    return -(-count // BLOCK)


def in_blocks(w: torch.Tensor) -> torch.Tensor:
    """The numbers of `w`, row-major, as blocks: any shape -> (blocks, 64), a partial last one filled up with zeros."""
    flat = w.reshape(-1)
    return torch.nn.functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)


@torch.no_grad()
def quantize_nf4(w: torch.Tensor, name: str = "weight") -> tuple[torch.Tensor, torch.Tensor]:
    """Weights to NF4: `packed` uint8 (ceil(n/2),) and `absmax` float32 (ceil(n/64),), row-major over `w` of any shape.

    Computed in float32. Raises `UserError`, beginning with `name`, if `w` holds an infinity or NaN, or a float64 too
    large for float32. Equals `quantize_nf4_plain`; faster because codes are found in a table, `_grid`.
    """
    flat, n = _flat(w, name), w.numel()
    packed = torch.empty(packed_bytes(n), dtype=torch.uint8, device=w.device)
    absmax = torch.empty(block_count(n), dtype=torch.float32, device=w.device)
    full, step = n - n % BLOCK, _slice_size(w.device)
    below, threshold = _grid(w.device)
    for start in range(0, full, step):
        blocks = flat[start : min(start + step, full)].float().view(-1, BLOCK)  # (blocks, 64)
        largest = blocks.abs().amax(1)  # (blocks,)
        _check_finite(largest, w, name)
        scaled = (blocks * (1.0 / largest.clamp(min=TINY))[:, None]).clamp_(-1, 1).view(-1)
        cell = _cell(scaled)
        codes = below.index_select(0, cell).add_(scaled > threshold.index_select(0, cell))
        # Two codes side by side, read as one little-endian int16, hold the first in the low byte.
        pairs = codes.view(torch.int16)
        packed[start // 2 : start // 2 + len(pairs)] = ((pairs << 4) | (pairs >> 8)).to(torch.uint8)
        absmax[start // BLOCK : start // BLOCK + len(largest)] = largest
    if full < n:
        _check_finite(flat[full:], w, name)
        packed[full // 2 :], absmax[full // BLOCK :] = quantize_nf4_plain(flat[full:])
    return packed, absmax


@torch.no_grad()
def quantize_nf4_plain(w: torch.Tensor, name: str = "weight") -> tuple[torch.Tensor, torch.Tensor]:
    """The specification of `quantize_nf4`: the same result, each step as the format defines it."""
    flat, n = _flat(w, name).float(), w.numel()
    full = n - n % BLOCK
    blocks = flat[:full].view(-1, BLOCK)
    absmax = blocks.abs().amax(1)
    scaled = (blocks * (1.0 / absmax.clamp(min=TINY))[:, None]).view(-1)
    if full < n:
        last = flat[full:].abs().amax().clamp(min=TINY)
        absmax = torch.cat([absmax, last[None]])
        scaled = torch.cat([scaled, flat[full:] / last])
    _check_finite(absmax, w, name)
    if n % 2:
        scaled = torch.cat([scaled, scaled.new_zeros(1)])
    codes = torch.bucketize(scaled.clamp(-1, 1), _thresholds().to(w.device)).to(torch.uint8)
    return (codes[::2] << 4) | codes[1::2], absmax


@torch.no_grad()
def dequantize_nf4(packed, absmax, shape, dtype: torch.dtype, out: torch.Tensor | None = None) -> torch.Tensor:
    """NF4 to weights of `shape`: NF4_CODE[code] * absmax[block], multiplied in float32, then rounded to `dtype`.

    `out`, contiguous and of that shape and dtype, is written to and returned. Raises `ValueError` if the sizes do not
    fit. Equals `dequantize_nf4_plain`; faster because one look-up gives both values of a byte.
    """
    n = math.prod(shape)
    out = output(packed, absmax, shape, dtype, out)
    packed, absmax, flat = packed.reshape(-1), absmax.reshape(-1), out.view(-1)
    full, step = n - n % BLOCK, _slice_size(packed.device)
    direct = dtype == torch.float32 and out.storage_offset() % 2 == 0  # pairs of float32 land on whole int64 entries
    scratch = None if direct else torch.empty(min(step, full), dtype=torch.float32, device=packed.device)
    threads = packed.device.type == "cpu" and torch.get_num_threads() > 1
    index = torch.empty(min(step, full) // 2, dtype=torch.int64 if threads else torch.int32, device=packed.device)
    for start in range(0, full, step):
        end = min(start + step, full)
        values = flat[start:end] if direct else scratch[: end - start]
        pairs = index[: (end - start) // 2].copy_(packed[start // 2 : end // 2])
        if threads:  # index_select would use one thread; gather gives each thread some rows, of any length
            pairs = pairs.view(-1, math.gcd(len(pairs), 4096))
            rows = _pairs(packed.device).expand(len(pairs), -1)
            torch.gather(rows, 1, pairs, out=values.view(torch.int64).view_as(pairs))
        else:
            torch.index_select(_pairs(packed.device), 0, pairs, out=values.view(torch.int64))
        values.view(-1, BLOCK).mul_(absmax[start // BLOCK : end // BLOCK, None])
        if not direct:
            flat[start:end].copy_(values)
    if full < n:
        last = dequantize_nf4_plain(packed[full // 2 :], absmax[full // BLOCK :], (n - full,), dtype)
        flat[full:].copy_(last)
    return out


@torch.no_grad()
def dequantize_nf4_plain(packed, absmax, shape, dtype: torch.dtype) -> torch.Tensor:
    """The specification of `dequantize_nf4`: the same result, each step as the format defines it."""
    n = math.prod(shape)
    _check_sizes(packed, absmax, n)
    packed, absmax = packed.reshape(-1), absmax.reshape(-1)
    codes = torch.stack([packed >> 4, packed & 15], dim=1).view(-1)[:n].long()
    block = torch.arange(n, device=packed.device) // BLOCK
    return (NF4_CODE.to(packed.device)[codes] * absmax[block]).to(dtype).view(tuple(shape))


def _thresholds() -> torch.Tensor:
    """The fifteen midpoints between neighbours of NF4_CODE, float32 (15,)."""
    return (NF4_CODE[:-1] + NF4_CODE[1:]) / 2


def _cell(scaled: torch.Tensor) -> torch.Tensor:
    """The cell, int32, of each value in [-1, 1] on a grid of `_CELLS`; never falls as the value rises."""
    return scaled.add(1.0).mul_((_CELLS - 1) / 2).to(torch.int32)


@cache
def code(device: torch.device) -> torch.Tensor:
    """NF4_CODE on the device, copied there only once; (16,)."""
    with torch.inference_mode(False):  # a tensor made in inference mode could not be used outside it
        return NF4_CODE.to(device)


@cache
def _grid(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """For each cell: how many thresholds lie in lower cells, uint8, and the one threshold in it (else infinity).

    `_cell` never falls as its argument rises, so a threshold in a lower cell is below the value, one in a higher cell
    is above it, and only the cell's own threshold must be compared. The code is exact, however coarse the grid.
    """
    with torch.inference_mode(False):
        thresholds = _thresholds()
        cells = _cell(thresholds)
        own = torch.full((_CELLS,), math.inf)
        own[cells.long()] = thresholds
        below = torch.bucketize(torch.arange(_CELLS, dtype=torch.int32), cells).to(torch.uint8)
        return below.to(device), own.to(device)


@cache
def _pairs(device: torch.device) -> torch.Tensor:
    """For each byte, the two float32 values it stands for, as the bits of one int64; (256,)."""
    with torch.inference_mode(False):
        byte = torch.arange(256)
        return torch.stack([NF4_CODE[byte >> 4], NF4_CODE[byte & 15]], dim=1).view(torch.int64).view(-1).to(device)


def _slice_size(device: torch.device) -> int:
    """Weights per slice: on a CPU few enough to stay in its cache, elsewhere enough to need few launches.

    Still smaller slices would make threads wait for one another more often, which is costly on a busy machine.
    """
    return 1 << 19 if device.type == "cpu" else 1 << 24


def _flat(w: torch.Tensor, name: str) -> torch.Tensor:
    if not isinstance(w, torch.Tensor) or w.device.type == "meta":
        what = "has no numbers on the meta device" if isinstance(w, torch.Tensor) else f"is of type {type(w).__name__}"
        raise UserError(f"{name}: {what}; NF4 quantises a tensor of floating-point weights")
    if not w.is_floating_point():
        raise UserError(f"{name}: is {w.dtype}; NF4 quantises floating-point weights")
    return w.reshape(-1)


def _check_finite(part: torch.Tensor, w: torch.Tensor, name: str) -> None:
    """Raise if `part` is not finite: weights of `w`, or scales of its blocks, in which any such weight shows."""
    if bool(torch.isfinite(part.float()).all()):
        return
    bad = int((~torch.isfinite(w.reshape(-1).float())).nonzero()[0])
    index = [int(i) for i in torch.unravel_index(torch.tensor(bad), w.shape)]
    raise UserError(f"{name}: element {index} is {w.reshape(-1)[bad].item()}; weights must be finite float32 numbers")


def output(packed, absmax, shape, dtype: torch.dtype, out: torch.Tensor | None) -> torch.Tensor:
    """`out`, or a new tensor in its place; raises `ValueError` if it, the bytes or the scales do not fit `shape`."""
    _check_sizes(packed, absmax, math.prod(shape))
    if not dtype.is_floating_point:
        raise ValueError(f"dtype is {dtype}; weights are floating-point numbers")
    if out is None:
        out = torch.empty(tuple(shape), dtype=dtype, device=packed.device)
    if out.shape != tuple(shape) or out.dtype != dtype or not out.is_contiguous():
        raise ValueError(f"out is {tuple(out.shape)} {out.dtype}; a contiguous {tuple(shape)} {dtype} was expected")
    return out


def _check_sizes(packed: torch.Tensor, absmax: torch.Tensor, n: int) -> None:
    if packed.dtype != torch.uint8:
        raise ValueError(f"packed is {packed.dtype}; bytes of torch.uint8 were expected")
    if packed.numel() != packed_bytes(n) or absmax.numel() != block_count(n):
        raise ValueError(f"{packed.numel()} bytes and {absmax.numel()} scales do not hold {n} weights: "
                         f"{packed_bytes(n)} and {block_count(n)} would")
