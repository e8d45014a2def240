"""Grouped-query attention (Ainslie et al. 2023, arXiv 2305.13245), as a specification and as a fast path.

    attend(q (N, H, h), k (M, K, h), v (M, K, h), layout) -> (N, H, h)

Query head j reads key/value head j // (H / K). Within a row, a token sees the shared prefix, the row's cached past, its
own row's earlier tokens and itself; never another row:

    out = softmax(q k^T / sqrt(h) + mask) v

M is N, or more if a cache holds each row's past in front of its new tokens; q has fewer than N entries if the layout
names the query tokens. The three functions below compute the same: `attend_softmax` spells it out, `attend_sdpa` hands
the same pieces row by row to PyTorch's fused kernel, so that no row's bits depend on another row, and `attend_padded`
pads the rows into one call. `model/varlen.py` has a fourth, one call without padding, which suits a GPU best. Any other
function with this signature (one that records the weights, say) can be given to the model in their place.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from common.packed import Layout, causal_mask
from model.config import LlamaConfig
from model.kv_cache import KVCache
from model.layers import Linear, several
from model.rope import rotate, rotate_both

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Layout], torch.Tensor]
# Vectors that the fused kernel is given are filled up with zeros to a multiple of so many numbers. On processors for
# which MKL takes its older code, the last bits of a float32 product depend on where its rows lie within 16 bytes; with
# heads of 6 or 10 numbers, that follows from the row's place in the batch.
ALIGNED = 4


def pieces(layout: Layout) -> Iterator[tuple[slice, slice]]:
    """(queries, own keys) of the shared prefix, if there is one, and of every row; or of every query token.

    A single query token gets only the keys up to itself, so it needs no mask.
    """
    if layout.query_tokens is not None:
        for index, token in enumerate(layout.query_tokens):
            yield slice(index, index + 1), slice(layout.row_start[layout.row_of(token)], token + 1)
        return
    if layout.prefix_len:
        yield slice(0, layout.prefix_len), slice(0, layout.prefix_len)
    for row, (start, end) in enumerate(pairwise(layout.row_start)):
        yield slice(start, end), slice(start + row * layout.past, end + (row + 1) * layout.past)


def visible(x: torch.Tensor, own: slice, layout: Layout) -> torch.Tensor:
    """The keys (or values) that a piece sees: the shared prefix in front of its own, (S, K, h)."""
    if layout.prefix_len and own.start >= layout.prefix_len:
        return torch.cat([x[: layout.prefix_len], x[own]])
    return x[own]


def attend_softmax(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layout: Layout) -> torch.Tensor:
    """The specification: scores, mask and softmax written out; softmax in at least float32."""
    group = q.shape[1] // k.shape[1]  # H / K query heads share one key/value head
    out = []
    for queries, own in pieces(layout):
        keys = visible(k, own, layout).repeat_interleave(group, dim=1)  # (S, H, h)
        values = visible(v, own, layout).repeat_interleave(group, dim=1)  # (S, H, h)
        scores = torch.einsum("thd,shd->hts", q[queries], keys) * q.shape[-1] ** -0.5  # (H, T, S)
        seen = causal_mask(scores.shape[1], scores.shape[2], q.device)  # (T, S)
        scores = scores.masked_fill(~seen, float("-inf"))
        weights = scores.softmax(-1, dtype=torch.promote_types(q.dtype, torch.float32)).to(q.dtype)
        out.append(torch.einsum("hts,shd->thd", weights, values))  # (T, H, h)
    return torch.cat(out)


def attend_sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layout: Layout) -> torch.Tensor:
    """The fast path: the same pieces through `scaled_dot_product_attention`; equal rows without a prefix in one
    call."""
    if not layout.prefix_len and layout.query_tokens is None and len(set(layout.lengths)) == 1:
        rows = layout.rows
        split = [x.view(rows, -1, *x.shape[1:]).transpose(1, 2) for x in (q, k, v)]  # (R, heads, T or S, h)
        return _fused(*split, layout).transpose(1, 2).reshape(q.shape)
    out = []
    for queries, own in pieces(layout):
        parts = (q[queries], visible(k, own, layout), visible(v, own, layout))
        split = [x.transpose(0, 1)[None] for x in parts]  # (1, heads, T or S, h)
        out.append(_fused(*split, layout)[0].transpose(0, 1))  # (T, H, h)
    return torch.cat(out)


def attend_padded(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layout: Layout) -> torch.Tensor:
    """All rows at once: queries and keys padded to the longest row, one kernel call for them and one for the prefix.

    A pad key comes after its row's tokens, so causality hides it. The padding pays off when a call costs more than its
    arithmetic: on a GPU, and with many short rows.
    """
    if layout.past:
        return attend_sdpa(q, k, v, layout)
    prefix, group = layout.prefix_len, q.shape[1] // k.shape[1]
    source, index = layout.padded(q.device)  # (R, T), (N - prefix,)

    def by_row(x):  # (N, K, h) -> (R, H, S, h) with S = prefix + T
        own = torch.cat([x[:prefix].expand(layout.rows, -1, -1, -1), x[source]], dim=1)
        return own.repeat_interleave(group, dim=2).transpose(1, 2)

    keys, values = by_row(k), by_row(v)
    if layout.query_tokens is not None:
        row, last = layout.query_positions(q.device)
        seen = torch.arange(keys.shape[2], device=q.device) <= last[:, None]  # (Q, S)
        out = F.scaled_dot_product_attention(q[:, :, None], keys[row], values[row], attn_mask=seen[:, None, None])
        return out[:, :, 0]  # (Q, H, h)
    queries = q[source].transpose(1, 2)  # (R, H, T, h)
    seen = layout.mask(queries.shape[2], keys.shape[2], q.device)  # (T, S)
    out = F.scaled_dot_product_attention(queries, keys, values, attn_mask=seen)
    out = out.transpose(1, 2).reshape(-1, *q.shape[1:])[index]  # (N - prefix, H, h)
    if not prefix:
        return out
    first = _fused(*(x[None, :prefix].transpose(1, 2) for x in (q, k, v)), layout)[0].transpose(0, 1)
    return torch.cat([first, out])


def _fused(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layout: Layout) -> torch.Tensor:
    queries, keys, size = q.shape[2], k.shape[2], q.shape[3]
    rest = -size % ALIGNED
    if rest:
        q, k, v = (F.pad(x, (0, rest)) for x in (q, k, v))
    # PyTorch's own causal mask is right only where both lengths agree; a query alone sees all that it is given.
    causal = queries == keys and queries > 1
    mask = None if causal or queries == 1 else layout.mask(queries, keys, q.device)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=size**-0.5,
                                         enable_gqa=q.shape[1] != k.shape[1])
    return out[..., :size]


class Attention(nn.Module):
    """Project to queries, keys and values, rotate by position, attend, project back: (N, D) -> (N, D)."""

    def __init__(self, config: LlamaConfig, layer: int):
        super().__init__()
        self.layer, self.head_dim = layer, config.head_dim
        size, bias = config.hidden_size, config.attention_bias
        self.q_proj = Linear(size, config.num_attention_heads * config.head_dim, bias)
        self.k_proj = Linear(size, config.num_key_value_heads * config.head_dim, bias)
        self.v_proj = Linear(size, config.num_key_value_heads * config.head_dim, bias)
        self.o_proj = Linear(config.num_attention_heads * config.head_dim, size, bias)

    def keys_values(self, x: torch.Tensor, rope) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys, rotated by position, and values: (N, D) -> 2 x (N, K, h)."""
        k, v = (self._heads(y) for y in several(x, self.k_proj, self.v_proj))
        return rotate(k, rope), v

    def queries(self, x: torch.Tensor, rope) -> torch.Tensor:
        """Queries, rotated by position: (N, D) -> (N, H, h)."""
        return rotate(self._heads(self.q_proj(x)), rope)

    def forward(self, x, rope, layout: Layout, attend: Attend, kv_cache: KVCache | None = None) -> torch.Tensor:
        k, v, q = (self._heads(y) for y in several(x, self.k_proj, self.v_proj, self.q_proj))
        q, k = rotate_both(q, k, rope)  # (N, H, h), (N, K, h)
        if kv_cache is not None:
            k, v = kv_cache.extend(self.layer, k, v)  # (B * S, K, h)
        return self.o_proj(attend(q, k, v, layout).reshape(len(x), -1))  # (N, D)

    def _heads(self, y: torch.Tensor) -> torch.Tensor:
        return y.view(len(y), -1, self.head_dim)  # (N, heads * h) -> (N, heads, h)
