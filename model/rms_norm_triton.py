"""RMSNorm in one Triton kernel forward and one backward, without and with the residual sum before it;
`model.layers.RMSNorm` is the specification.

    s = residual + x,    r = 1 / sqrt(mean(s^2) + eps),    y = g (s r)        without a residual, s is x

    ds = r (g dy) - s r^3 mean(g dy s)  +  what comes back to s itself         (the gain g is frozen; training it goes
    dx = d residual = ds                                                        through PyTorch's operations)

s, s r, g dy and the slope through y are rounded to x's dtype before they are used, as PyTorch's operations round them;
all else is float32. The sum over a token's D numbers runs in another order than PyTorch's, so r may differ in its last
bits, and then s r, rounded, in its own. Forward keeps s and, for backward, r: 4 bytes a token.

A program handles one token: D numbers, filled up with zeros to a power of two, fit a program's registers, so they are
read once and the sum needs no second pass. Each thread holds at most 16 of them, 32 bytes in 16 bits. With a residual,
s goes from the sum to the norm in these registers: PyTorch writes it, and reads it again.
"""

from functools import cache

import torch
import triton
import triton.language as tl
from torch.autograd.function import once_differentiable

from common.kernels import launch
from common.rounding_triton import rounded


@triton.jit
def _wide(x, place, there):
    return tl.load(x + place, mask=there, other=0.0).to(tl.float32)


@triton.jit
def _write_norm(wide, weight, y, scale, eps, token, column, there, SIZE: tl.constexpr):
    dtype: tl.constexpr = y.dtype.element_ty
    r = tl.rsqrt(tl.sum(wide * wide, 0) / SIZE + eps)
    tl.store(scale + token, r)
    normed = rounded(wide * r, dtype).to(tl.float32)
    tl.store(y + token * SIZE + column, rounded(_wide(weight, column, there) * normed, dtype), mask=there)


@triton.jit
def _slope(grad, s, weight, scale, token, column, there, SIZE: tl.constexpr):
    place = token * SIZE + column
    wide, r = _wide(s, place, there), tl.load(scale + token)
    d_normed = rounded(_wide(weight, column, there) * _wide(grad, place, there), s.dtype.element_ty).to(tl.float32)
    mean = tl.sum(d_normed * wide, 0) / SIZE
    return rounded(d_normed * r - wide * (r * r * r * mean), s.dtype.element_ty)


@triton.jit
def _rms_norm_forward(x, weight, y, scale, eps, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    token, column = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    there = column < SIZE
    _write_norm(_wide(x, token * SIZE + column, there), weight, y, scale, eps, token, column, there, SIZE)


@triton.jit
def _add_rms_norm_forward(x, residual, weight, s, y, scale, eps, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    token, column = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    there, place = column < SIZE, token * SIZE + column
    total = rounded(_wide(residual, place, there) + _wide(x, place, there), s.dtype.element_ty)
    tl.store(s + place, total, mask=there)
    _write_norm(total.to(tl.float32), weight, y, scale, eps, token, column, there, SIZE)


@triton.jit
def _rms_norm_backward(grad, x, weight, scale, d_x, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    token, column = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    there = column < SIZE
    slope = _slope(grad, x, weight, scale, token, column, there, SIZE)
    tl.store(d_x + token * SIZE + column, slope, mask=there)


@triton.jit
def _add_rms_norm_backward(grad_s, grad, s, weight, scale, d_s, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    token, column = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    there, place = column < SIZE, token * SIZE + column
    slope = _slope(grad, s, weight, scale, token, column, there, SIZE).to(tl.float32)
    tl.store(d_s + place, rounded(_wide(grad_s, place, there) + slope, d_s.dtype.element_ty), mask=there)


@cache
def _block(size: int) -> dict[str, int]:
    block = triton.next_power_of_2(size)
    return {"SIZE": size, "BLOCK": block, "num_warps": min(max(block // 512, 1), 32)}


def rms_norm_forward(x, residual, weight, eps: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """s and y (..., D), and r as float32 (tokens,), without gradients; x and residual contiguous, of one dtype, D at
    most `model.layers.MOST_NORMED`; without a residual (None) s is x itself."""
    size = x.shape[-1]
    tokens = x.numel() // size
    s, y = x if residual is None else torch.empty_like(x), torch.empty_like(x)
    scale = torch.empty(tokens, dtype=torch.float32, device=x.device)
    if tokens and residual is None:
        launch(_rms_norm_forward, tokens, x, weight, y, scale, eps, **_block(size))
    elif tokens:
        launch(_add_rms_norm_forward, tokens, x, residual, weight, s, y, scale, eps, **_block(size))
    return s, y, scale


class RMSNormKernel(torch.autograd.Function):
    """`rms_norm_forward`'s y, or with a residual its s and y, with gradients for x and residual alone."""

    @staticmethod
    def forward(ctx, x, residual, weight, eps):
        s, y, scale = rms_norm_forward(x, residual, weight, eps)
        ctx.save_for_backward(s, weight, scale)
        return y if residual is None else (s, y)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        s, weight, scale = ctx.saved_tensors
        d_s, kernel = torch.empty_like(s), _rms_norm_backward if len(grads) == 1 else _add_rms_norm_backward
        if scale.numel():
            grads = [grad.contiguous() for grad in grads]
            launch(kernel, scale.numel(), *grads, s, weight, scale, d_s, **_block(s.shape[-1]))
        return d_s, None if len(grads) == 1 else d_s, None, None


def rms_norm(x, residual, weight, eps: float) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """`RMSNormKernel`; where nothing asks for a gradient, without its node of the graph."""
    if x.requires_grad or (residual is not None and residual.requires_grad):
        return RMSNormKernel.apply(x, residual, weight, eps)
    s, y, _ = rms_norm_forward(x, residual, weight, eps)
    return y if residual is None else (s, y)


def attempt(device: torch.device, dtype: torch.dtype, size: int) -> None:
    """Launch all four kernels on one token of `size` numbers."""
    x, weight = (torch.ones(1, size, dtype=dtype, device=device, requires_grad=True) for _ in range(2))
    for residual in (None, x):
        out = RMSNormKernel.apply(x, residual, weight.detach()[0], 1e-5)
        torch.autograd.backward(out, torch.ones_like(x) if residual is None else [torch.ones_like(x)] * 2)
