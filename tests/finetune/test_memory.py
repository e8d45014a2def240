"""The memory plan: its formula against what autograd really keeps, and sensible, monotone choices.

Deliberate break: in `kept.layer_terms` leave `masked` out; the comparison with what autograd keeps turns red.
"""

import pytest
import torch

from common.device import available_memory
from data.batching import make_batch
from data.prompt import EncodedPost
from finetune.kept import Piece, activation_bytes
from finetune.loop import LOGIT_CHUNK, batch_loss
from finetune.memory import LARGEST_ON_GPU, MICRO_TOKEN_CHOICES, SHARE, fullest, logit_bytes, plan_memory
from lora.inject import inject
from model.config import LlamaConfig
from model.llama import LlamaForCausalLM
from quant.convert import replace_linears
from tests.small import random_model

WIDE = dict(hidden_size=256, intermediate_size=688, num_attention_heads=8, head_dim=32, num_hidden_layers=4)
LLAMA_3B = dict(model_type="llama", vocab_size=128256, hidden_size=3072, intermediate_size=8192, num_hidden_layers=28,
                num_attention_heads=24, num_key_value_heads=8, head_dim=128, tie_word_embeddings=True)


def kept_for_backward(model, batch, checkpointing: bool) -> int:
    """Bytes of all tensors that autograd holds when the loss is there, the model's own and shared ones not twice."""
    own = {x.untyped_storage().data_ptr() for x in [*model.parameters(), *model.buffers()]}
    held = {}

    def pack(tensor):
        storage, tensor = tensor.untyped_storage(), tensor.detach()  # its graph would hold it, and it its graph
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    labels = torch.zeros(batch.layout.rows, dtype=torch.int64)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        batch_loss(model, batch, labels, torch.ones(len(labels)), torch.tensor([1, 2, 3, 4]), "label", checkpointing)
    return sum(size for size, _ in held.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("prefix", [0, 94])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_the_estimate_is_near_what_autograd_keeps(dtype, prefix, dropout):
    model = random_model(0, dtype, **WIDE)
    replace_linears(model)
    inject(model, "all-linear", 8, 16, dropout)
    model.train()
    rows = [EncodedPost(list(range(prefix)) + [(7 * n + i) % 600 for n in range(60)], prefix + 59, False)
            for i in range(12)]
    batch = make_batch(rows, list(range(12)), prefix)
    expected = activation_bytes(model, Piece.of([60] * 12, prefix), dtype, False)
    kept = kept_for_backward(model, batch, False)
    assert 0.85 * expected < kept < 1.1 * expected
    again = activation_bytes(model, Piece.of([60] * 12, prefix), dtype, True)
    assert kept_for_backward(model, batch, True) < again < 0.6 * kept  # and one layer's at a time in backward


@pytest.fixture(scope="module")
def three_billion():
    model = LlamaForCausalLM.empty(LlamaConfig.from_dict(LLAMA_3B)).to(torch.bfloat16)
    replace_linears(model)
    return model


def plan(model, gigabytes: float, micro_tokens=None, checkpointing=None, **more):
    return plan_memory(model, 24_000_000, micro_tokens=micro_tokens, checkpointing=checkpointing,
                       available=int(gigabytes * 1e9), **more)


def test_more_memory_never_means_a_slower_plan(three_billion):
    order = [(tokens, False) for tokens in MICRO_TOKEN_CHOICES[:4]] + [(tokens, True) for tokens in MICRO_TOKEN_CHOICES]
    sizes = [0, *(1.3**n for n in range(-6, 20))]
    plans = [plan(three_billion, size) for size in sizes]
    ranks = [order.index((found.micro_tokens, found.checkpointing)) for found in plans]
    assert ranks == sorted(ranks, reverse=True) and ranks[0] == len(order) - 1 and ranks[-1] == 0
    assert len(set(ranks)) >= 6
    for found in plans:
        fits = found.adapter + found.activations <= SHARE * found.available
        assert fits or (found.micro_tokens, found.checkpointing) == order[-1]


def test_a_gpu_with_room_takes_larger_pieces(three_billion):
    assert plan(three_billion, 500, gpu=True).micro_tokens == LARGEST_ON_GPU
    assert plan(three_billion, 500).micro_tokens == MICRO_TOKEN_CHOICES[0]
    assert plan(three_billion, 0, gpu=True).micro_tokens == MICRO_TOKEN_CHOICES[-1]


def test_what_the_user_sets_stands(three_billion):
    assert plan(three_billion, 500, 300).micro_tokens == 300
    assert not plan(three_billion, 0, 300, False).checkpointing and plan(three_billion, 0, 300).checkpointing
    assert plan(three_billion, 500, None, True).checkpointing
    assert plan(three_billion, 0, None, False).micro_tokens == MICRO_TOKEN_CHOICES[-1]


def test_bytes_by_hand(three_billion):
    found = plan(three_billion, 100, 1000, False)
    layer = 2 * (2 * 8192 + 2 * 3072 + (3 * 3072 + 8192) + 2 * 1024) + 4 * 2 * 3072  # bfloat16; norms in float32
    last = 2 * (3072 + 2 * 1024) + 4 * 3072  # only answers go past its keys and values
    backward = 2 * (4 * 8192 + 4 * 3072)
    assert found.activations == 1000 * (27 * layer + last + backward)
    assert plan(three_billion, 100, 1000, True).activations == 1000 * (28 * 3072 * 2 + layer + backward)
    assert found.adapter == 16 * 24_000_000 + 3072 * 8192 * 2
    four_bits = 28 * (3072 * (3072 + 2 * 1024 + 3072) + 3 * 3072 * 8192) * (0.5 + 4 / 64)
    rest = (128256 * 3072 + 57 * 3072) * 2  # embedding and norms
    assert found.model == four_bits + rest
    assert found.total == found.program + found.model + found.adapter + found.activations
    assert "free" in str(found) and "kept for backward" in str(found)
    whole = plan(three_billion, 100, 1000, False, loss="text")
    assert whole.activations - found.activations == 3 * LOGIT_CHUNK * 128256 * 4 + 1000 * (layer - last)


def test_a_piece_is_no_larger_than_the_posts_make_it(three_billion):
    rows = [EncodedPost(list(range(40)) + [7] * own, 39 + own, False) for own in (5, 30, 10, 20, 8, 9)]
    piece = fullest(rows, [0, 1, 2, 3, 4, 5], 3, list(range(40)))
    assert piece(8192) == Piece.of([5, 30, 10], 40) == Piece(85, 165, 5 * 45 + 30 * 70 + 10 * 50, 3 * 70, 90, 40)
    assert piece(70).tokens == 70 and fullest(rows, range(6), 3, [])(8192).keys == 0
    few, many = (plan(three_billion, 500, piece=one) for one in (piece, Piece))
    assert (few.micro_tokens, few.tokens, many.tokens) == (8192, 85, 8192) and few.activations < many.activations / 80
    assert plan(three_billion, 3, piece=piece).checkpointing is False is not plan(three_billion, 3).checkpointing


def test_a_gpu_has_no_program_of_ours(three_billion):
    assert plan(three_billion, 500, 8192, False, gpu=True).program == 0 < plan(three_billion, 500, 8192, False).program


def test_a_head_of_another_dtype_is_counted_where_it_is_cast():
    model = random_model()
    assert logit_bytes(model, "label") == 0 and logit_bytes(model, "text") == 3 * 256 * 600 * 4
    model.model.embed_tokens.to(torch.bfloat16)
    assert logit_bytes(model, "vocabulary") == 3 * 256 * 600 * 4 + 600 * 32 * 4


def test_available_memory_is_that_of_this_machine():
    assert 2**26 < available_memory(torch.device("cpu")) < 2**50


def test_the_fullest_piece_need_not_be_of_the_step_with_the_most_tokens():
    """Three rows of 60 tokens make three pieces of at most 100; two of 50 and one of 49 make pieces of 50 and 99."""
    rows = [EncodedPost([1] * length, length - 1, False) for length in (60, 60, 60, 50, 50, 49)]
    assert fullest(rows, range(6), 3, [])(100).tokens == 99
