"""The layers that own weights: linear, embedding, RMSNorm and the SwiGLU feed-forward part.

A linear of this project is any module with `in_features, out_features, bias, forward(x)`, `dense_weight(dtype)` and
`input_gradient(grad, onto)`, with which an adapter around it computes its own backward in one piece. `Linear` is the
plain one; the 4-bit and the LoRA linear keep the same contract, so nothing here knows about either.
Each owner of weights has `load_dense(leaf, tensor)`, through which the loader hands over one tensor of the checkpoint.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from common.kernels import DTYPES, runs_kernel, works
from common.product import linear, matmul

MOST_NORMED = 16384  # numbers a token for which the norm's 32 warps of 32 threads hold 16 each


class Owner(nn.Module):
    """A module that owns tensors of the checkpoint."""

    def load_dense(self, leaf: str, tensor: torch.Tensor) -> None:
        """Make `tensor` the frozen parameter `leaf`; the shape must be the one that was declared."""
        declared = getattr(self, leaf)
        if declared.shape != tensor.shape:
            raise ValueError(f"{leaf} has shape {tuple(tensor.shape)}, not {tuple(declared.shape)}")
        setattr(self, leaf, nn.Parameter(tensor, requires_grad=False))


class Linear(Owner):
    """y = x W^T + b with W (out, in): (..., in) -> (..., out), in x's dtype."""

    def __init__(self, in_features: int, out_features: int, bias: bool = False):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return linear(x, self.weight, self.bias)

    def input_gradient(self, grad: torch.Tensor, onto: torch.Tensor | None = None) -> torch.Tensor:
        """dx = dy W, in new memory, or added to `onto`, a matrix: (..., out) -> (..., in), in dy's dtype; without a
        graph."""
        weight = self.weight.to(grad.dtype)
        return matmul(grad, weight.t()) if onto is None else onto.addmm_(grad, weight)

    def dense_weight(self, dtype: torch.dtype) -> torch.Tensor:
        """W as a plain tensor (out, in) of `dtype`."""
        return self.weight.detach().to(dtype)


def several(x: torch.Tensor, *linears: nn.Module) -> tuple[torch.Tensor, ...]:
    """`linear(x)` of each; adapters that are alike do it together on a card (`jointly`), in fewer launches."""
    jointly = getattr(linears[0], "jointly", None)
    found = None if jointly is None or x.device.type != "cuda" else jointly(x, linears)
    return tuple(linear(x) for linear in linears) if found is None else found


class Embedding(Owner):
    """Rows of a table (V, D) by id: (N,) int64 -> (N, D), in the table's own dtype (the caller casts the few rows)."""

    def __init__(self, vocab_size: int, hidden_size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, hidden_size))

    def extra_repr(self) -> str:
        return ", ".join(map(str, self.weight.shape))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return F.embedding(ids, self.weight)


class RMSNorm(Owner):
    """y = g * x / sqrt(mean(x^2) + eps) (Zhang & Sennrich 2019, arXiv 1910.07467): (..., D) -> (..., D).

    The mean is taken in at least float32; the quotient is rounded to x's dtype before the gain g is applied, as in the
    reference implementation. With a `residual` of x's shape it gives two results: the sum s = residual + x, and y of s.
    `plain` spells both out; with a frozen gain a card computes them in one kernel.
    """

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, eps={self.eps:g}"

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None
                ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        weight, inputs = self.weight, (x,) if residual is None else (x, residual)
        if (not runs_kernel(*inputs, weight) or x.dtype not in DTYPES or weight.dtype != x.dtype
                or (torch.is_grad_enabled() and weight.requires_grad)):
            return self.plain(x, residual)
        if residual is not None and (residual.shape != x.shape or residual.dtype != x.dtype):
            return self.plain(x, residual)
        if x.shape[-1] > MOST_NORMED or not works("model.rms_norm_triton", x, x.shape[-1]):
            return self.plain(x, residual)
        from model.rms_norm_triton import rms_norm

        return rms_norm(x, residual, weight, self.eps)

    def plain(self, x: torch.Tensor, residual: torch.Tensor | None = None
              ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """The specification of `forward`."""
        if residual is not None:
            total = residual + x
            return total, self.plain(total)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * (wide * scale).to(x.dtype)


def silu(x: torch.Tensor) -> torch.Tensor:
    """x / (1 + e^-x), elementwise; written out for float32 and float64 on a CPU without gradients.

    PyTorch's fused kernel has two versions, one for full vectors and one for the remainder of a thread's share, which
    differ in the last bit: a post's bits would depend on where the share ends. `exp` has no such difference.
    """
    if x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and not torch.is_grad_enabled():
        return x / x.neg().exp_().add_(1)
    return F.silu(x)


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gate, up):
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        gate, up = ctx.saved_tensors
        return torch.ops.aten.silu_backward(grad * up, gate), F.silu(gate).mul_(grad)


def swiglu(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up, elementwise: (N, F), (N, F) -> (N, F); with gradients it keeps its two inputs and nothing else.

    PyTorch's own product would keep silu(gate) as well, a quarter of what the feed-forward part keeps for backward;
    here it is recomputed:  d gate = dy * up * silu'(gate),  d up = dy * silu(gate).
    """
    if (runs_kernel(gate, up) and gate.dtype in DTYPES and gate.dtype == up.dtype and gate.shape == up.shape
            and works("model.swiglu_triton", gate)):
        from model.swiglu_triton import SwiGLUKernel, swiglu_forward

        return SwiGLUKernel.apply(gate, up) if torch.is_grad_enabled() else swiglu_forward(gate, up)
    return _SwiGLU.apply(gate, up) if torch.is_grad_enabled() else silu(gate).mul_(up)


class MLP(nn.Module):
    """SwiGLU (Shazeer 2020, arXiv 2002.05202): down(silu(gate(x)) * up(x)), (N, D) -> (N, F) -> (N, D)."""

    def __init__(self, hidden_size: int, intermediate_size: int, bias: bool):
        super().__init__()
        self.gate_proj = Linear(hidden_size, intermediate_size, bias)
        self.up_proj = Linear(hidden_size, intermediate_size, bias)
        self.down_proj = Linear(intermediate_size, hidden_size, bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(swiglu(*several(x, self.gate_proj, self.up_proj)))
