"""What the blocks of a GGUF file mean: weights of ggml's types, dequantised to the bits of its reference.

A row is cut into blocks, each with scales of its own. d and m are float16, s and t small whole numbers, q a weight's
own number; all products and sums are float32, one rounding each.

    type   weights  formula              a block's bytes
    F32, F16, BF16  1    w = the number  4 or 2
    Q4_0   32       w = d (q - 8)        d 2, q 16
    Q4_1   32       w = d q + m          d 2, m 2, q 16
    Q5_0   32       w = d (q - 16)       d 2, fifth bits 4, q 16
    Q5_1   32       w = d q + m          d 2, m 2, fifth bits 4, q 16
    Q8_0   32       w = d q              d 2, q 32, signed
    Q4_K   256      w = (d s) q - m t    d 2, m 2, s and t 12, q 128; s and t for each 32 weights
    Q5_K   256      w = (d s) q - m t    d 2, m 2, s and t 12, fifth bits 32, q 128
    Q6_K   256      w = (d s) (q - 32)   q 128, fifth and sixth bits 64, s 16, signed, for each 16 weights, d 2

Two numbers of 4 bits share a byte, low bits first, but are no neighbours: of 16 bytes (in Q4_K and Q5_K 32, in Q6_K 64)
the low bits come first and then the high bits. Fifth and sixth bits lie likewise in bytes of 8 or 4 weights: those of
Q5_0 and Q5_1 belong to neighbours, the others to weights 32 apart. s and t of Q4_K and Q5_K have 6 bits; see
`_six_bits`. (Source: ggml's `ggml-quants.c` and `gguf.quants`, whose results these are bit for bit.)
"""

import math

import torch

from common.errors import UserError

_SLICE = 1 << 17  # weights at a time: few enough to stay in a CPU's cache, and whole blocks of every type


@torch.no_grad()
def dequantize_blocks(data: torch.Tensor, kind: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float32,
                      where: str = "weight") -> torch.Tensor:
    """A tensor's bytes, uint8 (nbytes,), of type `kind` to weights of `shape`; computed in float32, rounded to `dtype`.

    The result owns its memory; beside it a slice is all that is made. Infinite scales give infinite weights, for the
    caller to find. Raises `UserError`, beginning with `where`, for another type and for numbers beyond `dtype`, and
    `ValueError` if the sizes do not fit.
    """
    check_kind(kind, where)
    weights, size, read = KINDS[kind]
    n = math.prod(shape)
    if n % weights or data.numel() != n // weights * size:
        raise ValueError(f"{data.numel()} bytes do not hold {n} weights of {kind}")
    out = torch.empty(shape, dtype=dtype, device=data.device)
    flat, blocks = out.view(-1), data.view(-1, size)
    step = _SLICE // weights
    for start in range(0, len(blocks), step):
        values = read(blocks[start : start + step]).reshape(-1)  # float32
        written = flat[start * weights : start * weights + len(values)]
        written.copy_(values)
        if dtype == torch.float16 and not torch.equal(written.isfinite(), values.isfinite()):
            raise UserError(f"{where}: holds {float(values.abs().max()):g}, which float16 cannot; the file is damaged")
    return out


def check_kind(kind: str, where: str) -> None:
    """Raise `UserError`, beginning with `where`, unless weights of this type are read."""
    if kind not in KINDS:
        raise UserError(f"{where}: is of ggml's type {kind}, which is not read; take the file in another quantisation: "
                        f"{', '.join(KINDS)} are")


def _half(blocks: torch.Tensor, at: int) -> torch.Tensor:
    """The float16 at byte `at` of each block, as float32 (n, 1)."""
    return blocks[:, at : at + 2].view(torch.float16).float()


def _bits(data: torch.Tensor, bits: int, width: int) -> torch.Tensor:
    """Numbers of `bits` out of bytes (n, k), uint8 (n, k * 8 / bits): of each `width` bytes first all lowest bits."""
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=data.device)
    groups = data.reshape(len(data), -1, 1, width)  # (n, k / width, 1, width)
    return ((groups >> shifts[:, None]) & (2**bits - 1)).reshape(len(data), -1)  # from (n, k / width, 8 / bits, width)


def _q4_0(blocks: torch.Tensor) -> torch.Tensor:
    return _half(blocks, 0) * (_bits(blocks[:, 2:], 4, 16).float() - 8)


def _q4_1(blocks: torch.Tensor) -> torch.Tensor:
    return _half(blocks, 0) * _bits(blocks[:, 4:], 4, 16).float() + _half(blocks, 2)


def _q5_0(blocks: torch.Tensor) -> torch.Tensor:
    q = _bits(blocks[:, 6:], 4, 16) | (_bits(blocks[:, 2:6], 1, 1) << 4)
    return _half(blocks, 0) * (q.float() - 16)


def _q5_1(blocks: torch.Tensor) -> torch.Tensor:
    q = _bits(blocks[:, 8:], 4, 16) | (_bits(blocks[:, 4:8], 1, 1) << 4)
    return _half(blocks, 0) * q.float() + _half(blocks, 2)


def _q8_0(blocks: torch.Tensor) -> torch.Tensor:
    return blocks[:, 2:].view(torch.int8).float() * _half(blocks, 0)


def _q4_k(blocks: torch.Tensor) -> torch.Tensor:
    return _scaled(blocks, _bits(blocks[:, 16:], 4, 32))


def _q5_k(blocks: torch.Tensor) -> torch.Tensor:
    return _scaled(blocks, _bits(blocks[:, 48:], 4, 32) | (_bits(blocks[:, 16:48], 1, 32) << 4))


def _scaled(blocks: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """(d s) q - m t for q (n, 256), with what Q4_K and Q5_K begin with."""
    s, t = _six_bits(blocks[:, 4:16])  # (n, 8) each
    scale, less = _half(blocks, 0) * s.float(), _half(blocks, 2) * t.float()
    return scale[:, :, None] * q.view(-1, 8, 32).float() - less[:, :, None]


def _six_bits(data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """s and t of a block, uint8 (n, 8) each, out of 12 bytes (n, 12).

    Bytes 0 to 3 hold s[0:4] in their low six bits, 4 to 7 t[0:4], and 8 to 11 the low four bits of s[4:8] (low) and of
    t[4:8] (high), whose upper two are the highest of bytes 0 to 3 and 4 to 7.
    """
    first, second, third = data[:, :4], data[:, 4:8], data[:, 8:]
    s = torch.cat([first & 63, (third & 15) | (first >> 6 << 4)], dim=1)
    t = torch.cat([second & 63, (third >> 4) | (second >> 6 << 4)], dim=1)
    return s, t


def _q6_k(blocks: torch.Tensor) -> torch.Tensor:
    q = _bits(blocks[:, :128], 4, 64) | (_bits(blocks[:, 128:192], 2, 32) << 4)  # (n, 256)
    scale = _half(blocks, 208) * blocks[:, 192:208].view(torch.int8).float()  # (n, 16)
    return scale[:, :, None] * (q.view(-1, 16, 16).float() - 32)


# Type -> weights in a block, its bytes, and bytes (n, size) to float32 (n, weights) or a shape with as many.
KINDS = {
    "F32": (1, 4, lambda blocks: blocks.view(torch.float32)), "F16": (1, 2, lambda blocks: _half(blocks, 0)),
    "BF16": (1, 2, lambda blocks: blocks.view(torch.bfloat16).float()), "Q4_0": (32, 18, _q4_0),
    "Q4_1": (32, 20, _q4_1), "Q5_0": (32, 22, _q5_0), "Q5_1": (32, 24, _q5_1), "Q8_0": (32, 34, _q8_0),
    "Q4_K": (256, 144, _q4_k), "Q5_K": (256, 176, _q5_k), "Q6_K": (256, 210, _q6_k),
}  # fmt: skip
