"""What backward needs of a piece of a step: the bytes that a layer keeps, term by term.

A piece is N packed tokens, of R rows behind a shared prefix of P tokens, that see S keys in all. A layer keeps, in
numbers of the compute dtype:

    norms' inputs       2 N D in at least float32; in the compute dtype, and a float32 a token, where a kernel has them
    inputs of adapters  N D on q, k, v; N H h on o; N D on gate, up; N F on down. With dropout each adapter's own masked
                        input instead, and as much for the mask (on a GPU a byte a number)
    thin products       N r of each adapter
    gate and up         2 N F
    attention           by the way in which it is computed:
      row by row          queries N H h, output N H h, keys and values 2 K h N and the copies that rows see 2 K h S;
                          and the mask, the sum of T S over rows of T tokens, if there is a prefix
      padded              queries and output R T H h, T the longest row, keys and values 2 H h R (P + T), for each query
                          head; and if there is a prefix, its queries, keys and values as views of all N
      one call            queries N H h, output N H h (also o's input), keys and values 2 K h (P + S)

If only answers are read, the last layer keeps one norm's input, the inputs of adapters on q, k, v, and keys and values.
Another way to compute a layer changes its line in `layer_terms`, and nothing else; tests/finetune/test_kept.py holds
the lines against what autograd keeps.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lora.inject import adapters
from model.attention import attend_padded
from model.attention_gradient import attend_by_hand
from model.varlen import attend_varlen


@dataclass(frozen=True)
class Piece:
    """What goes through the model at once: N tokens, S keys over all rows, the sum of T S, and the padded sizes."""

    tokens: int
    keys: int = 0  # S, with a shared prefix counted for each row; 0 without one: rows then see no copies
    mask: int = 0
    padded: int = 0  # keys, with each row filled up to the longest
    filled: int = 0  # queries, with each row filled up to the longest
    prefix: int = 0  # P

    @classmethod
    def of(cls, lengths: Sequence[int], prefix: int) -> "Piece":
        """Rows with `lengths` tokens of their own (the T) behind a shared prefix."""
        tokens, longest, rows = prefix + sum(lengths), max(lengths), len(lengths)
        keys = sum(prefix + own for own in lengths)
        return cls(tokens, keys if prefix else 0, sum(own * (prefix + own) for own in lengths) if prefix else 0,
                   rows * (prefix + longest), rows * longest, prefix)


def norms_are_fused() -> bool:
    """Whether a GPU computes norms in a kernel of its own: where Triton is."""
    return importlib.util.find_spec("triton") is not None


def layer_terms(model, piece: Piece, dtype: torch.dtype, gpu: bool, fused: bool) -> dict[str, tuple[int, int]]:
    """Each term's bytes in a layer, and in the last one if only answers are read; of a model without adapters, those of
    adapters on all linears."""
    config, n, item = model.config, piece.tokens, dtype.itemsize
    size, inner, depth = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    heads, keys = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    there = adapters(model)
    names = {name.rsplit(".", 1)[-1] for name in there}
    on = lambda *some: not there or bool(names & set(some))  # noqa: E731
    norm = n * (size * item + 4 if fused else size * torch.promote_types(dtype, torch.float32).itemsize)
    first = n * size * item * on("q_proj", "k_proj", "v_proj")
    rest = n * item * (size * on("gate_proj", "up_proj") + inner * on("down_proj"))
    o_input = n * heads * item * on("o_proj")
    masked = {name: n * layer.in_features * (item + (1 if gpu else item)) for name, layer in there.items()
              if layer.dropout}
    if masked:  # of all layers, so a share of them
        rest, o_input = -(-sum(masked.values()) // depth), 0
        first, last = 0, -(-sum(masked[name] for name in masked if name.endswith(("k_proj", "v_proj"))) // depth)
    thin = -(-n * sum(layer.r for layer in there.values()) // depth) * item

    base, copies = _ways(model.attend)
    if base is attend_varlen:
        seen = (piece.prefix + piece.keys if piece.prefix else n) * 2 * (heads if copies else keys)
        queries, output, mask = n * heads, n * heads + n * config.num_attention_heads * 4 // item, 0
        o_input = 0
    elif base is attend_padded:
        whole = n if piece.prefix else 0
        seen = 2 * heads * (piece.padded or n) + 2 * keys * whole
        queries, output = heads * ((piece.filled or n) + whole), heads * (piece.filled or n)
        output += 0 if o_input or not whole else heads * piece.prefix
        mask = 0
    elif base is attend_by_hand:  # its output is kept as the input of o_proj's adapter
        seen, queries, output, mask = 2 * keys * n, n * heads, 0, 0
    else:
        seen, queries, output, mask = 2 * keys * (n + piece.keys), n * heads, n * heads, piece.mask
    return {
        "norms' inputs": (2 * norm, norm),
        "inputs of adapters": (first + rest + o_input, last if masked else first),
        "thin products": (thin, 0),
        "gate and up": (2 * n * inner * item, 0),
        "queries": (queries * item, 0),
        "attention's output": (output * item, 0),
        "keys and values": (seen * item, seen * item),
        "mask": (mask * item, mask * item),
    }


def _ways(attend) -> tuple:
    """The function behind `attend`, and whether it repeats keys for each query head."""
    return getattr(attend, "func", attend), bool(getattr(attend, "keywords", {}).get("repeated"))


def layer_bytes(model, piece: Piece, dtype: torch.dtype, gpu: bool, fused: bool | None = None) -> tuple[int, int]:
    """Bytes that a layer keeps for backward, and the last one if only answers are read: the sums of `layer_terms`."""
    fused = gpu and norms_are_fused() if fused is None else fused
    return tuple(map(sum, zip(*layer_terms(model, piece, dtype, gpu, fused).values(), strict=True)))


def activation_bytes(model, piece: Piece, dtype: torch.dtype, checkpointing: bool, answers_only: bool = True,
                     gpu: bool = False, fused: bool | None = None) -> int:
    """Bytes that a piece keeps for backward, without the gradients of backward itself.

    With checkpointing only each layer's input N D is kept, and one layer's activations at a time. On a GPU, adapters
    are kept in the compute dtype as well.
    """
    config = model.config
    layer, last = layer_bytes(model, piece, dtype, gpu, fused)
    cast = sum(part.r * (part.in_features + part.out_features) for part in adapters(model).values()) * dtype.itemsize
    cast = cast if gpu and dtype.itemsize < 4 else 0
    if checkpointing:
        return (config.num_hidden_layers * piece.tokens * config.hidden_size * dtype.itemsize + layer
                + cast // config.num_hidden_layers)
    return (config.num_hidden_layers - 1) * layer + (last if answers_only else layer) + cast
