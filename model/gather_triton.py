"""Keys and values gathered by row in one Triton kernel, and one backward; `model.varlen.gathered` is the specification.

    k'[m] = k[source[m]]    v'[m] = v[source[m]]        dk[t] = sum over the places m of token t of dk'[m]

A token behind the prefix has one place among the keys, or none; a token of the prefix has one in every row. Forward
copies bits. Backward adds a prefix token's rows in their order, in float32, and rounds once, where PyTorch's sum takes
another order; for all other tokens it copies. PyTorch takes two operations forward and six backward, and writes the
prefix's rows out before it adds them.

A program handles one key forward and one token backward: the K h numbers of its key and those of its value.
"""

from functools import cache

import torch
import triton
import triton.language as tl

from common.kernels import launch
from common.rounding_triton import rounded


@triton.jit
def _gather(k, v, source, k_out, v_out, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    key = tl.program_id(0).to(tl.int64)
    token = tl.load(source + key)
    column = tl.arange(0, BLOCK)
    there = column < SIZE
    tl.store(k_out + key * SIZE + column, tl.load(k + token * SIZE + column, mask=there), mask=there)
    tl.store(v_out + key * SIZE + column, tl.load(v + token * SIZE + column, mask=there), mask=there)


@triton.jit
def _gather_backward(grad_k, grad_v, shared, places, d_k, d_v, keys, rows, prefix, SIZE: tl.constexpr,
                     BLOCK: tl.constexpr):
    dtype: tl.constexpr = d_k.dtype.element_ty
    token = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    there = column < SIZE
    if token < prefix:
        sum_k, sum_v = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
        row = 0
        while row < rows:  # not range(rows): with NumPy 2.4 Triton's interpreter fails there
            place = tl.load(shared + row * prefix + token) * SIZE + column
            sum_k += tl.load(grad_k + place, mask=there, other=0.0).to(tl.float32)
            sum_v += tl.load(grad_v + place, mask=there, other=0.0).to(tl.float32)
            row += 1
        tl.store(d_k + token * SIZE + column, rounded(sum_k, dtype), mask=there)
        tl.store(d_v + token * SIZE + column, rounded(sum_v, dtype), mask=there)
    else:
        key = tl.load(places + token - prefix)
        seen = column < tl.where(key < keys, SIZE, 0)  # else no key is this token's, and its gradient is zero
        place = key * SIZE + column
        tl.store(d_k + token * SIZE + column, tl.load(grad_k + place, mask=seen, other=0.0), mask=there)
        tl.store(d_v + token * SIZE + column, tl.load(grad_v + place, mask=seen, other=0.0), mask=there)


@cache
def _block(size: int) -> dict[str, int]:
    block = triton.next_power_of_2(size)
    return {"SIZE": size, "BLOCK": block, "num_warps": min(max(block // 512, 1), 8)}


def gather_kernel(k: torch.Tensor, v: torch.Tensor, source: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """k[source], v[source]: 2 x (N, K, h), contiguous, and (M,) int64 -> 2 x (M, K, h)."""
    k_out, v_out = (x.new_empty(len(source), *x.shape[1:]) for x in (k, v))
    launch(_gather, len(source), k, v, source, k_out, v_out, **_block(k[0].numel()))
    return k_out, v_out


def scatter_kernel(grad_k: torch.Tensor, grad_v: torch.Tensor, shared: torch.Tensor, places: torch.Tensor
                   ) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradients of k and v: 2 x (M, K, h), contiguous, (rows, P) and (N - P,) int64 -> 2 x (N, K, h)."""
    rows, prefix = shared.shape
    tokens = prefix + len(places)
    d_k, d_v = (x.new_empty(tokens, *x.shape[1:]) for x in (grad_k, grad_v))
    launch(_gather_backward, tokens, grad_k, grad_v, shared, places, d_k, d_v, len(grad_k), rows, prefix,
           **_block(grad_k[0].numel()))
    return d_k, d_v


def attempt(device: torch.device, dtype: torch.dtype, heads: int, size: int) -> None:
    """Launch both kernels for two tokens, one of them the prefix of the other's row."""
    x, source = torch.ones(2, heads, size, dtype=dtype, device=device), torch.zeros(2, dtype=torch.int64, device=device)
    gather_kernel(x, x, source)
    scatter_kernel(x, x, source[None, :1], source[1:])
