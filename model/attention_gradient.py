"""The gradient of attention by hand, for training in 16 bits on a CPU.

    attend_by_hand(q (N, H, h), k (N, K, h), v (N, K, h), layout) -> (N, H, h)

Forward is `attend_sdpa`, bit for bit. PyTorch's own way back through it takes two to three times as long in bfloat16 as
the products below take in float32, for rows as long as a post. With s = q k^T / sqrt(h) + mask, w = softmax(s) and
out = w v,

    dv = w^T dout
    dw = dout v^T
    ds = w * (dw - sum(w * dw, over keys)) / sqrt(h)
    dq = ds k
    dk = ds^T q

(Dao et al. 2022, arXiv 2205.14135, appendix B). The G = H / K query heads that share a key/value head stand below each
other in one product, so their gradients of k and v add up by themselves. Only q, k and v are kept; the weights w are
computed again, for a block of queries at a time.
"""

import torch

from common.packed import Layout
from model.attention import attend_sdpa, pieces

# Weights (heads x queries x keys) that a block computes at a time: 4 MB in float32, about what a core's cache holds.
BLOCK = 2**20


def attend_by_hand(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layout: Layout) -> torch.Tensor:
    """`attend_sdpa` with the gradient of this file: (N, H, h), (M, K, h) twice -> (N, H, h); see `model.attention`.

    The gradient is computed in at least float32 and rounded once, to the inputs' dtype.
    """
    return _ByHand.apply(q, k, v, layout)


class _ByHand(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, layout):
        ctx.save_for_backward(q, k, v)
        ctx.layout = layout
        return attend_sdpa(q, k, v, layout)

    @staticmethod
    def backward(ctx, d_out):
        q, k, v = ctx.saved_tensors
        layout, dtype, shared = ctx.layout, q.dtype, k.shape[1]
        wide = torch.promote_types(dtype, torch.float32)
        # One matrix for each key/value head: (N, H, h) -> (K, N, G, h), (M, K, h) -> (K, M, h)
        q, d_out = (x.to(wide).unflatten(1, (shared, -1)).transpose(0, 1) for x in (q, d_out))
        k, v = (x.to(wide).transpose(0, 1).contiguous() for x in (k, v))
        d_q, d_k, d_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for queries, own in pieces(layout):
            prefix = slice(0, layout.prefix_len if own.start >= layout.prefix_len else 0)
            keys, values = (torch.cat([x[:, prefix], x[:, own]], dim=1) for x in (k, v))  # (K, S, h)
            d_q[:, queries], d_keys, d_values = _gradients(q[:, queries], keys, values, d_out[:, queries], layout)
            for whole, part in ((d_k, d_keys), (d_v, d_values)):
                whole[:, prefix] += part[:, prefix]
                whole[:, own] += part[:, prefix.stop:]
        return d_q.transpose(0, 1).flatten(1, 2).to(dtype), *(x.transpose(0, 1).to(dtype) for x in (d_k, d_v)), None


def _gradients(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, d_out: torch.Tensor, layout: Layout
               ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """dq (K, T, G, h), dk and dv (K, S, h) of the last T of S tokens, from q and d_out (K, T, G, h) and all keys."""
    shared, count, group, size = q.shape
    d_q, d_k, d_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
    step = max(1, BLOCK // (shared * group * k.shape[1]))
    for start in range(0, count, step):
        end = min(count, start + step)
        seen = k.shape[1] - count + end  # what the block's last query sees
        block_q, block_out = (x[:, start:end].flatten(1, 2) for x in (q, d_out))  # (K, T * G, h)
        keys, values = k[:, :seen], v[:, :seen]
        scores = (block_q @ keys.mT).mul_(size**-0.5).view(shared, end - start, group, seen)
        scores.masked_fill_(~layout.mask(end - start, seen, k.device)[:, None], float("-inf"))
        weights = scores.softmax(-1).flatten(1, 2)  # (K, T * G, S)
        d_v[:, :seen] += weights.mT @ block_out
        d_scores = block_out @ values.mT  # of the weights, until the next two lines
        d_scores -= (weights * d_scores).sum(-1, keepdim=True)
        d_scores.mul_(weights).mul_(size**-0.5)
        d_k[:, :seen] += d_scores.mT @ block_q
        d_q[:, start:end] = (d_scores @ keys).unflatten(1, (end - start, group))
    return d_q, d_k, d_v
