"""SwiGLU's elementwise part in one Triton kernel forward and one backward; `model.layers.swiglu` is the specification.

    y = silu(g) u,    silu(g) = g s,    s = 1 / (1 + e^-g)

    dg = dy u s (1 + g (1 - s)),    du = dy silu(g)

Each intermediate result is rounded to the inputs' dtype exactly where PyTorch's operations round theirs. A program
handles BLOCK numbers of the (N, F) tensors, whatever row they are in; a thread gets eight neighbours (in 16 bits 16
bytes, the widest access there is) from each input. Backward reads three tensors and writes both gradients in one pass,
where PyTorch takes four operations and eleven passes.
"""

import torch
import triton
import triton.language as tl
from torch.autograd.function import once_differentiable

from common.kernels import launch
from common.rounding_triton import rounded

BLOCK = 1024
WARPS = 4


@triton.jit
def _wide(x, place, there):
    return tl.load(x + place, mask=there, other=0.0).to(tl.float32)


@triton.jit
def _swiglu_forward(gate, up, out, n, BLOCK: tl.constexpr):
    start = tl.program_id(0).to(tl.int64) * BLOCK  # N * F may pass 2^31
    place = start + tl.arange(0, BLOCK)
    there = place < n
    g, u = _wide(gate, place, there), _wide(up, place, there)
    silu = rounded(tl.div_rn(g, 1.0 + tl.exp(-g)), out.dtype.element_ty).to(tl.float32)
    tl.store(out + place, rounded(silu * u, out.dtype.element_ty), mask=there)


@triton.jit
def _swiglu_backward(grad, gate, up, d_gate, d_up, n, BLOCK: tl.constexpr):
    dtype: tl.constexpr = d_gate.dtype.element_ty
    start = tl.program_id(0).to(tl.int64) * BLOCK
    place = start + tl.arange(0, BLOCK)
    there = place < n
    dy, g, u = _wide(grad, place, there), _wide(gate, place, there), _wide(up, place, there)
    decay = tl.exp(-g)
    s = tl.div_rn(1.0, 1.0 + decay)
    d_silu = rounded(dy * u, dtype).to(tl.float32)
    tl.store(d_gate + place, rounded(d_silu * s * (1.0 + g * (1.0 - s)), dtype), mask=there)
    silu = rounded(tl.div_rn(g, 1.0 + decay), dtype).to(tl.float32)
    tl.store(d_up + place, rounded(silu * dy, dtype), mask=there)


class SwiGLUKernel(torch.autograd.Function):
    """silu(gate) * up: two contiguous tensors of one shape and dtype -> the same; keeps its two inputs."""

    @staticmethod
    def forward(ctx, gate, up):
        ctx.save_for_backward(gate, up)
        return swiglu_forward(gate, up)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        gate, up = ctx.saved_tensors
        d_gate, d_up, n = torch.empty_like(gate), torch.empty_like(up), gate.numel()
        if n:
            launch(_swiglu_backward, -(-n // BLOCK), grad.contiguous(), gate, up, d_gate, d_up, n, BLOCK=BLOCK,
                   num_warps=WARPS)
        return d_gate, d_up


def swiglu_forward(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """`SwiGLUKernel` without gradients."""
    out, n = torch.empty_like(gate), gate.numel()
    if n:
        launch(_swiglu_forward, -(-n // BLOCK), gate, up, out, n, BLOCK=BLOCK, num_warps=WARPS)
    return out


def attempt(device: torch.device, dtype: torch.dtype) -> None:
    """Launch both kernels on one number."""
    gate, up = (torch.ones(1, dtype=dtype, device=device, requires_grad=True) for _ in range(2))
    SwiGLUKernel.apply(gate, up).backward(torch.ones_like(gate))
