"""Rotary position embedding in one Triton kernel, queries and keys together; `model.rope.rotate` is the specification.

    y[i]       = x[i] cos - x[i + h/2] sin
    y[i + h/2] = x[i + h/2] cos + x[i] sin

Products, sum and difference are each rounded to x's dtype, as PyTorch's operations round them, so the bits are those
of `rotate`. Backward is the rotation by minus the angle: the same kernel with -sin.

A program handles one token: it reads the token's cos and sin once, (1, h/2), and applies them to all of its heads, read
as two tensors (heads, h/2), the first and the second halves. Numbers of heads and pairs that are no powers of two are
filled up to the next one, and masked. PyTorch takes seven operations for queries and seven for keys.
"""

from functools import cache

import torch
import triton
import triton.language as tl
from torch.autograd.function import once_differentiable

from common.kernels import launch
from common.rounding_triton import rounded

WARPS = 2  # with few heads of keys, more threads would hold fewer neighbours each, and write less at once


@triton.jit
def _turn(x, out, token, c, s, HEADS: tl.constexpr, HALF: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """All HEADS of one token; c and s are float32 (1, COLUMNS)."""
    dtype: tl.constexpr = out.dtype.element_ty
    head, pair = tl.arange(0, ROWS)[:, None], tl.arange(0, COLUMNS)[None, :]
    place = token * (HEADS * 2 * HALF) + head * (2 * HALF) + pair
    there = (head < HEADS) & (pair < HALF)
    a = tl.load(x + place, mask=there, other=0.0).to(tl.float32)
    b = tl.load(x + place + HALF, mask=there, other=0.0).to(tl.float32)
    ac, bs = rounded(a * c, dtype).to(tl.float32), rounded(b * s, dtype).to(tl.float32)
    bc, as_ = rounded(b * c, dtype).to(tl.float32), rounded(a * s, dtype).to(tl.float32)
    tl.store(out + place, rounded(ac - bs, dtype), mask=there)
    tl.store(out + place + HALF, rounded(bc + as_, dtype), mask=there)


@triton.jit
def _rotate(q, k, cos, sin, q_out, k_out, SIGN: tl.constexpr, HALF: tl.constexpr, COLUMNS: tl.constexpr,
            Q_HEADS: tl.constexpr, Q_ROWS: tl.constexpr, K_HEADS: tl.constexpr, K_ROWS: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    pair = tl.arange(0, COLUMNS)[None, :]
    c = tl.load(cos + token * HALF + pair, mask=pair < HALF, other=0.0).to(tl.float32)
    s = tl.load(sin + token * HALF + pair, mask=pair < HALF, other=0.0).to(tl.float32) * SIGN
    _turn(q, q_out, token, c, s, Q_HEADS, HALF, Q_ROWS, COLUMNS)
    if K_HEADS:
        _turn(k, k_out, token, c, s, K_HEADS, HALF, K_ROWS, COLUMNS)


_power_of_two = cache(triton.next_power_of_2)


def _run(sign: float, cos, sin, q, k=None) -> tuple[torch.Tensor, ...]:
    tensors = (q,) if k is None else (q, k)
    out = [torch.empty_like(x) for x in tensors]
    tokens, half = cos.shape
    if tokens:
        heads = q.shape[1], 0 if k is None else k.shape[1]
        launch(_rotate, tokens, q, tensors[-1], cos, sin, out[0], out[-1], SIGN=sign, HALF=half,
               COLUMNS=_power_of_two(half), Q_HEADS=heads[0], Q_ROWS=_power_of_two(heads[0]), K_HEADS=heads[1],
               K_ROWS=_power_of_two(max(heads[1], 1)), num_warps=WARPS)
    return tuple(out)


class _Rotation(torch.autograd.Function):
    @staticmethod
    def forward(ctx, cos, sin, *tensors):
        ctx.save_for_backward(cos, sin)
        return _run(1.0, cos, sin, *tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        return None, None, *_run(-1.0, *ctx.saved_tensors, *(grad.contiguous() for grad in grads))


def rotate_kernel(rope: tuple[torch.Tensor, ...], *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """One or two tensors (N, heads, h), contiguous, rotated by the angles of their tokens: cos and sin (N, h/2)."""
    return _Rotation.apply(*rope, *tensors) if torch.is_grad_enabled() else _run(1.0, *rope, *tensors)


def attempt(device: torch.device, dtype: torch.dtype, half: int, *heads: int) -> None:
    """Launch the kernel for one token with so many pairs and heads, forward and backward."""
    cos, sin = (torch.ones(1, half, dtype=dtype, device=device) for _ in range(2))
    turned = [torch.ones(1, count, 2 * half, dtype=dtype, device=device, requires_grad=True) for count in heads]
    torch.autograd.backward(_Rotation.apply(cos, sin, *turned), [torch.ones_like(x) for x in turned])
