"""What a layer keeps for backward, by formula, against what autograd holds on to when a step has been walked.

The walk runs the product's own code on PyTorch's meta device, where tensors have shapes and no memory, at real widths.
What a card has kernels for stands in: fused attention and norms keep what those kernels keep, dropout a byte a number.

Deliberate break: in `kept.layer_terms` count `piece.filled` instead of `n` for the queries of one call, or leave the
norms' inputs out.
"""

import contextlib
import random
from functools import partial
from unittest import mock

import pytest
import torch
import torch.nn.functional as F

from data.batching import make_batch
from data.prompt import EncodedPost
from finetune.kept import Piece, activation_bytes, layer_bytes, layer_terms
from finetune.loop import batch_loss
from finetune.memory import plan_memory
from lora.inject import inject
from model.attention import attend_padded
from model.config import LlamaConfig
from model.layers import RMSNorm
from model.llama import LlamaForCausalLM
from model.varlen import attend_varlen
from quant.convert import replace_linears

WITHIN = 0.08  # at 4 layers; the first keeps no norm of its input, which needs no gradient
LLAMA = dict(model_type="llama", vocab_size=128256, intermediate_size=8192, num_key_value_heads=8, num_hidden_layers=4,
             tie_word_embeddings=True)
SIZES = {"1B": LLAMA | dict(hidden_size=2048, num_attention_heads=32, head_dim=64),
         "3B": LLAMA | dict(hidden_size=3072, num_attention_heads=24, head_dim=128)}
TEMPLATES = {"paper": (30, (110, 200)), "instruction-first": (110, (12, 90))}  # prefix, tokens of a post behind it
WAYS = {"padded": attend_padded, "one call": attend_varlen, "one call, keys repeated": partial(attend_varlen,
                                                                                            repeated=True)}


class FusedAttention(torch.autograd.Function):
    """Keeps what CUDA's fused kernels keep: queries, keys, values, an additive mask, output, log-sum-exps."""

    @staticmethod
    def forward(ctx, q, k, v, mask):
        out, sums = torch.empty_like(q), q.new_empty(q.shape[:3], dtype=torch.float32)
        ctx.save_for_backward(q, k, v, None if mask is None else mask.to(q.dtype), out, sums)
        return out

    @staticmethod
    def backward(ctx, grad):
        return (*map(torch.empty_like, ctx.saved_tensors[:3]), None)


class FusedNorm(torch.autograd.Function):
    """Keeps what a norm's kernel keeps: its input and a float32 a token."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x, x.new_empty(len(x), dtype=torch.float32))
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx, grad):
        return grad


@contextlib.contextmanager
def as_on_a_card(fused: bool):
    with contextlib.ExitStack() as stack:
        put = lambda owner, name, value: stack.enter_context(mock.patch.object(owner, name, value))  # noqa: E731
        put(F, "scaled_dot_product_attention", lambda q, k, v, attn_mask=None, **more: FusedAttention.apply(
            q, k, v, attn_mask))
        put(F, "dropout", lambda x, p, training: torch.native_dropout(x, p, training)[0])
        if fused:
            put(RMSNorm, "forward", lambda self, x, residual=None: FusedNorm.apply(x) if residual is None else (
                total := residual + x, FusedNorm.apply(total)))
        yield


def model_of(size: str, attend, dropout: float = 0.0, dtype=torch.bfloat16) -> LlamaForCausalLM:
    model = LlamaForCausalLM.empty(LlamaConfig.from_dict(SIZES[size]), attend).to(dtype).requires_grad_(False)
    replace_linears(model)
    inject(model, "all-linear", 16, 32, dropout)
    return model.to("meta").train()


def rows_of(template: str, shares: bool) -> tuple[list[EncodedPost], int, Piece]:
    draw, (prefix, own) = random.Random(1), TEMPLATES[template]
    lengths = [draw.randint(*own) for _ in range(16)]
    rows = [EncodedPost([*range(prefix), *(draw.randrange(1000) for _ in range(length))], prefix + length - 1, False)
            for length in lengths]
    shared = prefix if shares else 0
    return rows, shared, Piece.of([len(row.ids) - shared for row in rows], shared)


def kept_by(model, rows, prefix: int, fused: bool, checkpointing: bool = False, loss: str = "label") -> int:
    """Bytes of all storages that autograd holds when the loss is there, the model's own not among them."""
    own = {x.untyped_storage()._cdata for x in [*model.parameters(), *model.buffers()]}
    held = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            held[storage._cdata] = (storage.nbytes(), tensor)
        return tensor

    batch = make_batch(rows, list(range(len(rows))), prefix).to("meta")
    labels, ids = torch.zeros(len(rows), dtype=torch.int64, device="meta"), torch.zeros(4, dtype=torch.int64)
    with as_on_a_card(fused), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        batch_loss(model, batch, labels, labels.float(), ids.to("meta"), loss, checkpointing)
    return sum(size for size, _ in held.values())


@pytest.mark.parametrize(("size", "dropout", "fused", "template", "way"), [
    ("1B", 0.0, False, "paper", "padded"), ("1B", 0.0, True, "instruction-first", "one call"),
    ("3B", 0.0, True, "paper", "one call"), ("3B", 0.0, False, "instruction-first", "one call"),
    ("3B", 0.0, False, "instruction-first", "padded"),
    ("3B", 0.0, True, "instruction-first", "one call, keys repeated"),
    ("1B", 0.1, True, "paper", "one call"), ("3B", 0.1, False, "instruction-first", "padded"),
])  # fmt: skip
def test_the_formula_is_what_autograd_keeps_on_a_card(size, dropout, fused, template, way):
    model = model_of(size, WAYS[way], dropout)
    rows, prefix, piece = rows_of(template, not dropout)  # dropout rules out sharing
    kept = kept_by(model, rows, prefix, fused)
    expected = activation_bytes(model, piece, torch.bfloat16, False, gpu=True, fused=fused)
    assert (1 - WITHIN) * kept < expected < (1 + WITHIN) * kept, (kept, expected)


@pytest.mark.parametrize("way", ["padded", "one call"])
def test_also_of_float32_of_whole_texts_and_of_layers_that_are_computed_twice(way):
    rows, prefix, piece = rows_of("instruction-first", True)
    model = model_of("1B", WAYS[way], dtype=torch.float32)
    kept, expected = kept_by(model, rows, prefix, False), activation_bytes(model, piece, torch.float32, False, gpu=True,
                                                                           fused=False)
    assert (1 - WITHIN) * kept < expected < (1 + WITHIN) * kept, (kept, expected)
    model = model_of("1B", WAYS[way])
    plain, _, whole = rows_of("instruction-first", False)
    kept = kept_by(model, plain, 0, True, loss="text")
    expected = activation_bytes(model, whole, torch.bfloat16, False, answers_only=False, gpu=True, fused=True)
    assert (1 - WITHIN) * kept < expected < (1 + 2 * WITHIN) * kept, (kept, expected)
    again = activation_bytes(model, piece, torch.bfloat16, True, gpu=True, fused=True)
    inputs = again - layer_bytes(model, piece, torch.bfloat16, True, True)[0]  # but for the layer being computed again
    kept = kept_by(model, rows, prefix, True, True)
    assert (1 - 2 * WITHIN) * kept < inputs < (1 + 2 * WITHIN) * kept, (kept, inputs)


def test_one_call_keeps_less_than_padding_and_a_plan_says_so():
    piece = rows_of("instruction-first", True)[2]
    terms = {way: layer_terms(model_of("3B", attend), piece, torch.bfloat16, True, True)
             for way, attend in WAYS.items()}
    assert all(found["gate and up"] == (2 * piece.tokens * 8192 * 2, 0) for found in terms.values())
    names = "keys and values", "queries", "attention's output"
    sums = {way: sum(found[name][0] for name in names) for way, found in terms.items()}
    assert sums["one call"] < sums["one call, keys repeated"] < sums["padded"]
    plans = [plan_memory(model_of("3B", attend), 10**6, micro_tokens=8192, checkpointing=False, available=10**12,
                         piece=lambda tokens: piece, gpu=True, fused=True) for attend in (attend_varlen, attend_padded)]
    assert plans[0].activations < plans[1].activations and plans[0].program == 0
