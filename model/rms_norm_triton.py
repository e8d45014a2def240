"""RMSNorm in one Triton kernel forward and one backward; `model.layers.RMSNorm` is the specification.

    r = 1 / sqrt(mean(x^2) + eps),    y = g (x r)

    dx = r (g dy) - x r^3 mean(g dy x)          (the gain g is frozen; training it goes through PyTorch's operations)

x r and g dy are rounded to x's dtype before they are used, as PyTorch's operations round them; all else is float32.
The sum over a token's D numbers runs in another order than PyTorch's, so r may differ in its last bit, and a result
then in its own. Forward keeps x and, for backward, r: 4 bytes a token.

A program handles one token: D numbers, filled up with zeros to a power of two, fit a program's registers, so they are
read once and the sum needs no second pass. Each thread holds at most 16 of them, 32 bytes in 16 bits.
"""

from functools import cache

import torch
import triton
import triton.language as tl
from torch.autograd.function import once_differentiable

from common.kernels import launch
from common.rounding_triton import rounded


@triton.jit
def _rms_norm_forward(x, weight, y, scale, eps, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    there = column < SIZE
    wide = tl.load(x + token * SIZE + column, mask=there, other=0.0).to(tl.float32)
    r = tl.rsqrt(tl.sum(wide * wide, 0) / SIZE + eps)
    tl.store(scale + token, r)
    normed = rounded(wide * r, y.dtype.element_ty).to(tl.float32)
    g = tl.load(weight + column, mask=there, other=0.0).to(tl.float32)
    tl.store(y + token * SIZE + column, rounded(g * normed, y.dtype.element_ty), mask=there)


@triton.jit
def _rms_norm_backward(grad, x, weight, scale, d_x, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    there = column < SIZE
    dy = tl.load(grad + token * SIZE + column, mask=there, other=0.0).to(tl.float32)
    wide = tl.load(x + token * SIZE + column, mask=there, other=0.0).to(tl.float32)
    g = tl.load(weight + column, mask=there, other=0.0).to(tl.float32)
    r = tl.load(scale + token)
    d_normed = rounded(g * dy, d_x.dtype.element_ty).to(tl.float32)
    mean = tl.sum(d_normed * wide, 0) / SIZE
    d_wide = d_normed * r - wide * (r * r * r * mean)
    tl.store(d_x + token * SIZE + column, rounded(d_wide, d_x.dtype.element_ty), mask=there)


@cache
def _block(size: int) -> dict[str, int]:
    block = triton.next_power_of_2(size)
    return {"SIZE": size, "BLOCK": block, "num_warps": min(max(block // 512, 1), 32)}


def rms_norm_forward(x, weight, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """y (..., D), and r as float32 (tokens,), without gradients; x contiguous, D at most `model.layers.MOST_NORMED`."""
    size = x.shape[-1]
    tokens = x.numel() // size
    y, scale = torch.empty_like(x), torch.empty(tokens, dtype=torch.float32, device=x.device)
    if tokens:
        launch(_rms_norm_forward, tokens, x, weight, y, scale, eps, **_block(size))
    return y, scale


class RMSNormKernel(torch.autograd.Function):
    """`rms_norm_forward`'s y with a gradient for x alone."""

    @staticmethod
    def forward(ctx, x, weight, eps):
        y, scale = rms_norm_forward(x, weight, eps)
        ctx.save_for_backward(x, weight, scale)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight, scale = ctx.saved_tensors
        d_x = torch.empty_like(x)
        if scale.numel():
            launch(_rms_norm_backward, scale.numel(), grad.contiguous(), x, weight, scale, d_x, **_block(x.shape[-1]))
        return d_x, None, None


def attempt(device: torch.device, dtype: torch.dtype, size: int) -> None:
    """Launch both kernels on one token of `size` numbers."""
    x, weight = (torch.ones(1, size, dtype=dtype, device=device) for _ in range(2))
    RMSNormKernel.apply(x.requires_grad_(), weight[0], 1e-5).backward(torch.ones_like(x))
