"""The matrix product that every linear layer here is made of, forward and backward, and which library computes it.

    y = x W^T + b + z        dx = dy W        dW = dy^T x        db = sum over tokens of dy        dz = dy

On a CPU, PyTorch gives float32 products to MKL. Here oneDNN, which PyTorch also ships, computes them instead, for two
reasons: a row's bits do not depend on how many rows are multiplied with it, at any thread count and rank (MKL's do for
narrow products), and it was 1.1 to 1.4 times as fast on the AMD CPU where this was measured (LOG.md). Everything else
(other dtypes, other devices, builds without oneDNN) goes through `torch.nn.functional.linear`.

oneDNN compiles a product for each number of tokens that it meets and keeps what it made, as PyTorch does once more: a
thousand of each, hundreds of megabytes after some hundred batches of different lengths. A layer has a few dozen
products, so `KEPT` are enough for the next layer to find its own. Where the two variables are set, that counts.
"""

import os

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

KEPT = 64
for _cache in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):  # both are read at the first product
    os.environ.setdefault(_cache, str(KEPT))

_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def matmul(x, weight, bias=None, add=None) -> torch.Tensor:
    """y = x W^T + b + z without gradients: (..., in), (out, in), (out,), (..., out) -> (..., out), in x's dtype.

    `bias` or `add` (z), not both; z is added while y is written, which saves reading and writing y once more. Raises
    `ValueError` for an x that does not fit W, and for one of whole numbers, whose dtype W's numbers would be cut to.
    """
    if x.shape[-1:] != weight.shape[-1:] or not x.is_floating_point():
        raise ValueError(f"x is {tuple(x.shape)} of {x.dtype}; (..., {weight.shape[-1]}) of floating-point numbers was "
                         "expected")
    if _ONEDNN and x.device.type == "cpu" and x.dtype == torch.float32:
        if add is not None:
            return torch.ops.mkldnn._linear_pointwise.binary(x, add, weight, None, "add")
        bias = None if bias is None else bias.contiguous()  # the operation would read it as if it were
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return F.linear(x, weight, bias) if add is None else F.linear(x, weight).add_(add)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, add):
        needs_x, needs_weight, *_ = ctx.needs_input_grad
        ctx.save_for_backward(x if needs_weight else None, weight if needs_x else None)
        ctx.weight_dtype = weight.dtype
        return matmul(x, weight.to(x.dtype), bias, add)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        tokens = grad.reshape(-1, grad.shape[-1])  # (tokens, out)
        return (
            None if weight is None else matmul(grad, weight.to(grad.dtype).t()),
            None if x is None else matmul(tokens.t(), x.reshape(-1, x.shape[-1]).t()).to(ctx.weight_dtype),
            tokens.sum(0) if ctx.needs_input_grad[2] else None,
            grad if ctx.needs_input_grad[3] else None,
        )


def linear(x, weight, bias=None, add=None) -> torch.Tensor:
    """`matmul` with gradients for whichever of x, W, b and z require one; keeps x only if W does.

    A weight of another dtype is cast for the product in forward and again in backward: only the weight itself is kept.
    """
    if not torch.is_grad_enabled():  # the same, without autograd's share of the host's time
        return matmul(x, weight.to(x.dtype), bias, add)
    return _Linear.apply(x, weight, bias, add)
