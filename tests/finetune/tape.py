"""Stand-ins for what a CPU has not: a CUDA graph, as a tape of PyTorch's operations, and the attention kernel for rows
of any length, as one operation each way.

What a graph forgets, the tape forgets as well: a number of the host's is repeated, and so is a tensor that was made
outside; what is replayed is computed from the same tensors into the same memory.
"""

import contextlib
from itertools import pairwise
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

WITHOUT_VALUE = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.bernoulli_.float}


class Tape(TorchDispatchMode):
    """In the place of `torch.cuda.CUDAGraph`: what was computed under `taped` is computed again into the same memory.

    Unlike a card, it computes while it records; what that adds to the gradients is taken back by `taped`.
    """

    replays = 0

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func not in WITHOUT_VALUE, f"{func} cannot be recorded"
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out

    def replay(self) -> None:
        Tape.replays += 1
        with torch._C._AutoDispatchBelowAutograd():
            for func, args, kwargs, before in self.calls:
                now = func(*args, **kwargs)
                for old, new in zip(tensors(before), tensors(now) if before is not None else [], strict=True):
                    if old.data_ptr() != new.data_ptr():
                        old.copy_(new)

    def pool(self):
        return "the one pool"


def tensors(out) -> list[torch.Tensor]:
    return [x for x in (out if isinstance(out, tuple | list) else [out]) if isinstance(x, torch.Tensor)]


@contextlib.contextmanager
def taped(graph: Tape, pool=None):
    """In the place of `torch.cuda.graph`."""
    assert pool in (None, "the one pool")
    with mock.patch("torch._foreach_add_", lambda *lists: graph.calls.append((real_add, lists, {}, None))), graph:
        yield


real_add = torch._foreach_add_


def by_sequence(q, k, v, starts_q, starts_k, causal: bool):
    """For each sequence: places of queries and keys, weights (H, T, S), keys and values for each query head."""
    group = q.shape[1] // k.shape[1]
    for (a, b), (c, d) in zip(pairwise(starts_q.tolist()), pairwise(starts_k.tolist()), strict=True):
        keys, values = (x[c:d].repeat_interleave(group, dim=1) for x in (k, v))
        scores = torch.einsum("thd,shd->hts", q[a:b], keys) * q.shape[-1] ** -0.5
        if causal:
            scores = scores.masked_fill(~torch.ones_like(scores, dtype=torch.bool).tril(d - c - (b - a)), -torch.inf)
        yield slice(a, b), slice(c, d), scores.softmax(-1), keys, values


@torch.library.custom_op("tests::varlen", mutates_args=())
def varlen_op(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, starts_q: torch.Tensor, starts_k: torch.Tensor,
              causal: bool, longest: list[int]) -> torch.Tensor:
    for starts, bound in zip((starts_q, starts_k), longest, strict=True):
        assert int(starts.diff().max()) <= bound
    return torch.cat([torch.einsum("hts,shd->thd", weights, values)
                      for *_, weights, _, values in by_sequence(q, k, v, starts_q, starts_k, causal)])


@torch.library.custom_op("tests::varlen_backward", mutates_args=())
def varlen_backward(grad: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, starts_q: torch.Tensor,
                    starts_k: torch.Tensor, causal: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    d_q, d_k, d_v = (torch.zeros_like(x) for x in (q, k, v))
    for queries, own, weights, keys, values in by_sequence(q, k, v, starts_q, starts_k, causal):
        out = torch.einsum("thd,shd->hts", grad[queries], values)
        scores = weights * (out - (out * weights).sum(-1, keepdim=True)) * q.shape[-1] ** -0.5
        d_q[queries] = torch.einsum("hts,shd->thd", scores, keys)
        for d_x, full in ((d_k, torch.einsum("hts,thd->shd", scores, q[queries])),
                          (d_v, torch.einsum("hts,thd->shd", weights, grad[queries]))):
            d_x[own] = full.unflatten(1, (k.shape[1], -1)).sum(2)
    return d_q, d_k, d_v


def keep(ctx, inputs, output):
    *kept, ctx.causal, _ = inputs
    ctx.save_for_backward(*kept)


varlen_op.register_autograd(lambda ctx, grad: (*varlen_backward(grad, *ctx.saved_tensors, ctx.causal), *[None] * 4),
                            setup_context=keep)


def kernel(q, k, v, starts_q, starts_k, longest_q, longest_k, *, window_size=(-1, -1)):
    """In the kernel's place; the lengths are bounds."""
    return varlen_op(q, k, v, starts_q, starts_k, window_size == (-1, 0), [longest_q, longest_k])
