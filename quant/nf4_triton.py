"""NF4 dequantising in one Triton kernel; `quant.nf4.dequantize_nf4_plain` is the specification, bit for bit.

    w[i] = round(NF4_CODE[code[i]] * absmax[i // 64]),    i = 0 .. n - 1

With double quantisation the kernel computes the scale itself, rather than reading one that another kernel has written:

    absmax[b] = dynamic_map[absmax_codes[b]] * nested_absmax[b // 256] + offset

It reads half a byte a weight and its share of the scales, and writes the weight: 2.6 bytes a weight in 16 bits, of
which 2 are the result. Nothing else can be saved, so what matters is that the card's memory is kept busy:

- A program handles WORDS words of 32 bits, each of them eight codes. Its tensors are (WORDS, 8): a thread holds some
  rows, so it writes eight weights at once, 16 bytes in 16 bits, and neighbouring threads write neighbouring bytes.
  With 128 threads each reads four words before it needs the first, so that several reads are under way at a time.
- The sixteen values are read from memory by code. They share one line of the first cache, which is quicker than
  choosing among registers: that would take fifteen selections a weight.
- A block of 64 weights is eight words, so the eight threads that hold them read the same scale, at the same time.
"""

import torch
import triton
import triton.language as tl

from common.kernels import launch
from common.rounding_triton import rounded
from quant.double_quant import Scales, dynamic_map
from quant.nf4 import code

WORDS = 512
WARPS = 4


@triton.jit
def _write(packed, word, scale, values, out, n, WHOLE: tl.constexpr):
    """out[8 w + j] = values[code j of word w] * scale[w] for the words `word` (WORDS,) with their scales (WORDS,)."""
    words = packed.to(tl.pointer_type(tl.int32))
    bits = tl.load(words + word, mask=word < n // 8, other=0)
    if not WHOLE:  # the last word is not all there: its bytes one at a time, the first in the lowest bits
        for byte in tl.static_range(4):
            place = 4 * word + byte
            there = (word >= n // 8) & (place < (n + 1) // 2)
            bits |= tl.load(packed + place, mask=there, other=0).to(tl.int32) << (8 * byte)
    eighth = tl.arange(0, 8)
    shift = (eighth ^ 1) * 4  # the first weight of a byte is its high half
    codes = (bits[:, None] >> shift[None, :]) & 15  # (WORDS, 8)
    weights = tl.load(values + codes) * scale[:, None]
    place = word[:, None] * 8 + eighth[None, :]
    tl.store(out + place, rounded(weights, out.dtype.element_ty), mask=place < n)


@triton.jit
def _nf4_single(packed, absmax, values, out, n, WHOLE: tl.constexpr, WORDS: tl.constexpr):
    word = tl.program_id(0) * WORDS + tl.arange(0, WORDS)
    scale = tl.load(absmax + word // 8, mask=8 * word < n, other=0.0)
    _write(packed, word, scale, values, out, n, WHOLE)


@triton.jit
def _nf4_double(packed, absmax_codes, nested_absmax, offset, levels, values, out, n,
            WHOLE: tl.constexpr, WORDS: tl.constexpr):
    word = tl.program_id(0) * WORDS + tl.arange(0, WORDS)
    block, there = word // 8, 8 * word < n
    level = tl.load(levels + tl.load(absmax_codes + block, mask=there, other=0))
    scale = level * tl.load(nested_absmax + block // 256, mask=there, other=0.0) + tl.load(offset)
    _write(packed, word, scale, values, out, n, WHOLE)


def dequantize_kernel(packed: torch.Tensor, scales: Scales, out: torch.Tensor) -> torch.Tensor:
    """`out`, contiguous, of n weights in one of `common.kernels.DTYPES`, filled from `packed` (ceil(n/2),).

    n is at most `quant.double_quant.MOST_IN_KERNEL`; `packed` begins at a multiple of 4 bytes, as whatever PyTorch
    allocates does.
    """
    n = out.numel()
    if n == 0:
        return out
    values, levels = code(out.device), dynamic_map(out.device)
    programs = triton.cdiv(n, 8 * WORDS)
    constants = {"WHOLE": n % 8 == 0, "WORDS": WORDS, "num_warps": WARPS}
    if scales.is_double:
        launch(_nf4_double, programs, packed, *scales, levels, values, out, n, **constants)
    else:
        launch(_nf4_single, programs, packed, *scales, values, out, n, **constants)
    return out


def attempt(device: torch.device, kind: torch.dtype, dtype: torch.dtype, double: bool) -> None:
    """Launch the kernel that writes `dtype` for eight weights of one kind of scales."""
    packed = torch.zeros(4, dtype=kind, device=device)
    one = torch.ones(1, device=device)
    scales = Scales((torch.zeros(1, dtype=torch.uint8, device=device), one, one[0]) if double else (one,))
    dequantize_kernel(packed, scales, torch.empty(8, dtype=dtype, device=device))
