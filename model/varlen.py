"""Attention of all rows in one kernel call without padding: FlashAttention's form for rows of any length.

    attend_varlen(q (N, H, h), k (M, K, h), v (M, K, h), layout) -> (N, H, h)

The kernel (`torch.nn.attention.varlen`; Dao 2023, arXiv 2307.08691) takes sequences that lie end to end, and where each
begins. The shared prefix is one sequence more, and in front of each row's own keys come the prefix's, gathered by index
and not repeated for query heads. Rows a, b behind a prefix p:

    queries   p p p | a a | b b b b
    keys      p p p | p p p a a | p p p b b b b

Where the layout names query tokens, each is a sequence of one query, whose keys end with itself; equal ones that follow
one another (a filled-up batch repeats the last) share a sequence.

The alternative, attention over the prefix and over the row's own keys merged by their log-sum-exps, would gather
nothing, but the kernel gives the log-sum-exp no gradient. Here gradients come by way of the gathered keys: a prefix
token's is the sum over all rows, taken in float32 and in a fixed order, where `index_select`'s own backward would add
in 16 bits, in the order in which threads come.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import groupby, pairwise

import torch
from torch.autograd.function import once_differentiable

from common.errors import one_line
from common.kernels import DTYPES as KERNEL_DTYPES
from common.kernels import runs_kernel, works
from common.packed import Layout, sent
from model.attention import attend_padded, attend_softmax

DTYPES = (torch.float16, torch.bfloat16)  # that the kernel computes in
WIDEST = 256  # numbers of a head's vector that it takes at most, in steps of `STEP`
STEP = 8
NEAR = 0.03  # of the largest number: how far the kernel's 16-bit result may be from the specification's in `tried`


@dataclass(frozen=True)
class Sequences:
    """A layout as the kernel takes it, on the device, made once per batch: n sequences with P prefix tokens in each."""

    starts_q: torch.Tensor  # (n + 1,) int32 into the queries
    starts_k: torch.Tensor  # (n + 1,) int32 into the keys
    longest_q: int
    longest_k: int
    causal: bool  # whether a sequence's last query alone sees all of its keys
    source: torch.Tensor | None  # (M,) int64: the token of each key; None if these are the tokens as they are
    shared: torch.Tensor | None  # (n, P) int64: the prefix's tokens among the keys
    places: torch.Tensor | None  # (N - P,) int64: the place of each other token among the keys, or M if it has none
    complete: bool  # whether each has one


def sequences(layout: Layout, device) -> Sequences | None:
    """The sequences of a layout, or `None` for one that has other shapes: a cache, or two queries in one row."""
    return layout.once(("sequences", device), lambda: _sequences(layout, device))


def _sequences(layout: Layout, device) -> Sequences | None:
    prefix, causal = layout.prefix_len, layout.query_tokens is None
    if layout.past:
        return None
    if causal:
        spans = [(a, b) for a, b in pairwise((0, *layout.row_start)) if a < b]  # tokens: the prefix's, then each row's
        queries = [b - a for a, b in spans]
    else:
        groups = [(token, len(list(equal))) for token, equal in groupby(layout.query_tokens)]
        spans = [(layout.row_start[layout.row_of(token)], token + 1) for token, _ in groups]
        queries = [count for _, count in groups]
        if len({start for start, _ in spans}) < len(spans):
            return None
    keys = [b - a + (prefix if a else 0) for a, b in spans]
    starts_q, starts_k = _starts(queries), _starts(keys)
    numbers = [torch.tensor(starts, dtype=torch.int32) for starts in (starts_q, starts_k)]
    if prefix or spans != list(pairwise(layout.row_start)):
        first = torch.arange(prefix)
        source = torch.cat([part for a, b in spans for part in (first[: prefix if a else 0], torch.arange(a, b))])
        places = torch.full((layout.tokens - prefix,), len(source))
        own = (source >= prefix).nonzero()[:, 0]
        places[source[own] - prefix] = own
        numbers += [source, torch.tensor(starts_k[:-1])[:, None] + first, places]
    complete = len(numbers) == 2 or bool((places < len(source)).all())
    one, two, source, shared, places, *_ = (*sent(device, *numbers), *[None] * 3)
    return Sequences(one, two, max(queries), max(keys), causal, source, shared, places, complete)


def _starts(lengths: list[int]) -> list[int]:
    total = [0]
    for length in lengths:
        total.append(total[-1] + length)
    return total


class _Gather(torch.autograd.Function):
    """`gathered` with gradients; of k and v, nothing is kept for backward."""

    @staticmethod
    def forward(ctx, k, v, found: Sequences):
        ctx.found = found
        return gathered(k, v, found)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        found, grads = ctx.found, [grad.contiguous() for grad in grads]
        if _runs_kernel(*grads, found.source):
            from model.gather_triton import scatter_kernel

            return *scatter_kernel(*grads, found.shared, found.places), None
        return *(_scattered(grad, found) for grad in grads), None


def gathered(k: torch.Tensor, v: torch.Tensor, found: Sequences) -> tuple[torch.Tensor, torch.Tensor]:
    """k[source] and v[source], on a card in one kernel: 2 x (N, K, h) -> 2 x (M, K, h); no gradients."""
    if _runs_kernel(k, v, found.source):
        from model.gather_triton import gather_kernel

        return gather_kernel(k, v, found.source)
    return k.index_select(0, found.source), v.index_select(0, found.source)


def _scattered(grad: torch.Tensor, found: Sequences) -> torch.Tensor:
    """The specification of backward: (M, K, h) -> (N, K, h)."""
    prefix = found.shared.shape[1]
    out = grad.new_empty(prefix + len(found.places), *grad.shape[1:])
    if prefix:
        torch.sum(grad[found.shared], 0, out=out[:prefix])  # 16 bits are added in float32
    if not found.complete:
        grad = torch.cat([grad, torch.zeros_like(grad[:1])])
    torch.index_select(grad, 0, found.places, out=out[prefix:])
    return out


def _runs_kernel(k: torch.Tensor, v: torch.Tensor, source: torch.Tensor) -> bool:
    return (runs_kernel(k, v, source) and k.dtype in KERNEL_DTYPES and k.dtype == v.dtype and len(k) > 0
            and works("model.gather_triton", k, *k.shape[1:]))


def attend_varlen(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layout: Layout, repeated: bool = False,
                  alone: bool = False) -> torch.Tensor:
    """All rows in one call; a cached batch, or two different queries in one row, goes to `attend_padded`.

    repeated: repeat each key for the query heads that share it, where a kernel wants as many heads of both.
    alone: a row's bits shall not depend on the other rows. So the keys are not divided among programs, by a number that
    follows from the longest row; and a batch of single queries does not take the kernel's own way for them, which
    others would not take.
    """
    found = sequences(layout, q.device)
    if found is None:
        return attend_padded(q, k, v, layout)
    if found.source is not None:
        k, v = _Gather.apply(k, v, found) if torch.is_grad_enabled() else gathered(k, v, found)
    if repeated:
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
    run = kernel()
    more = words_for(run, found.causal, grouped=q.shape[1] != k.shape[1], alone=alone)
    longest = max(found.longest_q, 2) if alone else found.longest_q
    return run(q, k, v, found.starts_q, found.starts_k, longest, found.longest_k, **more)


@cache
def kernel() -> Callable:
    """PyTorch's `varlen_attn`; imported when it is first needed, since that takes time."""
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn


@cache
def words_for(run: Callable, causal: bool, grouped: bool, alone: bool = False) -> dict:
    """What the kernel is told beside the sequences, in the words of its version.

    grouped: whether several query heads share a key head; before PyTorch 2.12 there was no word for it, and no need.
    """
    known = inspect.signature(run).parameters
    window = (-1, 0) if causal else (-1, -1)  # how far a query sees to the left and to the right; -1: all
    words = {"window_size": window} if "window_size" in known else {"is_causal": causal}
    words |= {"num_splits": 1} if alone and "num_splits" in known else {}
    return words | ({"enable_gqa": True} if grouped and "enable_gqa" in known else {})


def tried(device: torch.device, dtype: torch.dtype, head_dim: int) -> tuple[str, bool]:
    """Whether the kernel computes what it should on this device: (why not, or "" if it does, whether keys must be
    repeated). A card is tried once, whether it is called "cuda" or "cuda:0".

    Three small batches, one with single queries, go through it forward and backward and are compared with
    `attend_softmax` in float32. What kernels take differs by card and by version, and they do not all say so.
    """
    if dtype not in DTYPES:
        return f"the kernel for rows of any length takes 16 bits, not {str(dtype).removeprefix('torch.')}", False
    if head_dim % STEP or head_dim > WIDEST:
        return f"the kernel for rows of any length takes no heads of {head_dim} numbers", False
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    return _tried(device, dtype, head_dim)


@cache
def _tried(device: torch.device, dtype: torch.dtype, head_dim: int) -> tuple[str, bool]:
    why = ""
    for repeated in (False, True):
        try:
            if all(_is_right(layout, device, dtype, head_dim, repeated) for layout in _TRIED):
                return "", repeated
            why = "the kernel for rows of any length computes something else on this card"
        except (RuntimeError, ValueError, TypeError, ImportError, AttributeError) as error:
            said = one_line((str(error).splitlines() or [type(error).__name__])[0], 100)
            why = f"the kernel for rows of any length does not run here ({said})"
    return why, False


_TRIED = (Layout((5, 12, 13, 40), 5), Layout((5, 12, 13, 40), 5, query_tokens=(11, 12, 39)), Layout((0, 9, 40)))


@torch.inference_mode(False)
@torch.enable_grad()
def _is_right(layout: Layout, device, dtype: torch.dtype, head_dim: int, repeated: bool) -> bool:
    draw, results = torch.Generator().manual_seed(0), []
    tokens = layout.tokens if layout.query_tokens is None else len(layout.query_tokens)
    given = [torch.randn(count, heads, head_dim, generator=draw).to(device, dtype)
             for count, heads in ((tokens, 4), (layout.tokens, 2), (layout.tokens, 2), (tokens, 4))]
    for attend, width in ((attend_softmax, torch.float32), (attend_varlen, dtype)):
        q, k, v = (x.to(width, copy=True).requires_grad_() for x in given[:3])
        more = {"repeated": repeated} if attend is attend_varlen else {}
        out = attend(q, k, v, layout, **more)
        results.append([out, *torch.autograd.grad(out, (q, k, v), given[3].to(width))])
    return all(bool((one - two).abs().max() <= NEAR * one.abs().max()) for one, two in zip(*results, strict=True))


@cache
def keeps_bits(device: torch.device, dtype: torch.dtype, heads: int, key_heads: int, head_dim: int) -> str:
    """Why `attend_varlen(alone=True)` cannot be had here, or ""; if "", rows were tried by themselves, among others and
    in another order, all tokens and single queries, and had the same bits each time."""
    why, repeated = tried(device, dtype, head_dim)
    if why:
        return why
    draw, prefix = torch.Generator().manual_seed(0), 20
    shared, *rows = ([torch.randn(length, count, head_dim, generator=draw).to(device, dtype)
                      for count in (heads, key_heads, key_heads)] for length in (prefix, 5, 130, 1, 64, 300))
    found: dict[tuple[int, bool], torch.Tensor] = {}
    for chosen in ((0, 1, 2, 3, 4), *((row,) for row in range(5)), (4, 2), (3, 0, 1)):
        q, k, v = (torch.cat([parts[0], *parts[1:]]) for parts in zip(shared, *(rows[row] for row in chosen),
                                                                     strict=True))
        layout = Layout(tuple(_starts([prefix, *(len(rows[row][0]) for row in chosen)])[1:]), prefix)
        ends = [end - 1 for end in layout.row_start[1:]]
        asked = layout.with_queries(ends + ends[-1:] * (3 if len(chosen) > 1 else 0))
        with torch.no_grad():
            whole = attend_varlen(q, k, v, layout, repeated, alone=True)
            last = attend_varlen(q[list(asked.query_tokens)], k, v, asked, repeated, alone=True)
        for place, (row, (start, end)) in enumerate(zip(chosen, pairwise(layout.row_start), strict=True)):
            for single, out in ((False, whole[start:end]), (True, last[place])):
                if not torch.equal(found.setdefault((row, single), out), out):
                    return "the kernel for rows of any length gives a row other bits among other rows"
    return ""
