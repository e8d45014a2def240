"""What the layers keep for backward, and their hand-written gradients.

Deliberate break: in model/layers.py give `silu_backward` the gradient without `up`, or let `_SwiGLU` save silu(gate).
"""

import re

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from model import llama
from model.kv_cache import KVCache
from model.layers import RMSNorm, silu, swiglu
from model.rope import inverse_frequencies, rotation
from tests.small import SHAPE, random_model


class Operations(TorchDispatchMode):
    """Notes the name of every operation within the block."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def inputs(dtype: torch.dtype, rows: int = 7) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [(4 * torch.randn(rows, 33, generator=generator)).to(dtype).requires_grad_() for _ in range(2)]


def test_gradients_of_swiglu_against_differences():
    assert torch.autograd.gradcheck(swiglu, inputs(torch.float64))


# The same formula in the same dtype: a rounding of each of three products apart.
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-14), (torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_swiglu_is_its_specification(dtype, tolerance):
    gate, up = inputs(dtype)
    expected, weight = F.silu(gate) * up, torch.randn(7, 33, generator=torch.Generator().manual_seed(4)).to(dtype)
    wanted = torch.autograd.grad((expected * weight).sum(), (gate, up))
    found = swiglu(gate, up)
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)
    for one, other in zip(torch.autograd.grad((found * weight).sum(), (gate, up)), wanted, strict=True):
        torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)
    with torch.no_grad():
        torch.testing.assert_close(swiglu(gate, up), silu(gate) * up, atol=0, rtol=0)


def test_swiglu_keeps_its_inputs_and_nothing_else():
    gate, up = inputs(torch.float32)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.data_ptr()) or x, lambda x: x):
        swiglu(gate, up)
    assert sorted(kept) == sorted([gate.data_ptr(), up.data_ptr()])


def test_an_input_without_gradient_stays_without():
    gate, up = inputs(torch.float32)
    swiglu(gate.detach(), up).sum().backward()
    assert gate.grad is None and up.grad is not None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_norm_in_16_bits_rounds_where_transformers_does(dtype):
    """Deliberate break: in `RMSNorm.plain` apply the gain before the rounding, or leave out the mean's float32."""
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    x, gain = (30 * torch.randn(rows, 96) for rows in (40, 1))  # squares beyond float16
    ours, theirs = RMSNorm(96, 1e-6), LlamaRMSNorm(96, 1e-6)
    for norm in (ours, theirs):
        norm.weight.data = gain[0].to(dtype)
    found = ours(x.to(dtype))
    assert found.dtype == dtype and torch.equal(found, theirs(x.to(dtype)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_angles_of_a_16_bit_model_are_float32(dtype):
    """At position 131,071, which no 16 bits hold. Deliberate break: in `rotation` compute the angles in `dtype`."""
    positions, frequencies = torch.tensor([0, 257, 4099, 131071]), inverse_frequencies(random_model().config)
    angles = positions.double()[:, None] * frequencies.double()
    for part, exact in zip(rotation(positions, frequencies, dtype), (angles.cos(), angles.sin()), strict=True):
        assert part.dtype == dtype
        torch.testing.assert_close(part.double(), exact, rtol=0, atol=0.01)  # 131,071 in float32 is .004 off


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_logits_are_made_once(monkeypatch, stored):
    """A head of another dtype is cast in slices; one of the model's own is read as it stands, and nothing is joined."""
    monkeypatch.setattr(llama, "HEAD_CHUNK", 128)
    model, hidden = random_model(), torch.randn(5, SHAPE["hidden_size"])
    model.model.embed_tokens.to(stored)
    with torch.no_grad(), Operations() as seen:
        found = model.logits(hidden)
    assert seen.names.count("aten.cat.default") == (stored != torch.float32)
    torch.testing.assert_close(found, hidden @ model.head_weight.float().t(), rtol=1e-5, atol=1e-5)


def test_a_printed_model_shows_its_sizes():
    """What a notebook shows where a cell ends in `model`."""
    shown = str(random_model(attention_bias=True, tie_word_embeddings=False))
    for line in ("(embed_tokens): Embedding(600, 32)", "(q_proj): Linear(32, 32, bias=True)",
                 "(k_proj): Linear(32, 16, bias=True)", "(up_proj): Linear(32, 48, bias=False)",
                 "(norm): RMSNorm(32, eps=1e-05)", "(lm_head): Linear(32, 600, bias=False)"):
        assert line in shown


@pytest.mark.parametrize("ids, given", [
    ([1, 2], "list"), (torch.tensor([1, 2]), "(2,)"), (torch.ones(2, 0, dtype=torch.long), "(2, 0)"),
    (torch.ones(0, 2, dtype=torch.long), "(0, 2)"), (torch.ones(1, 1, 2, dtype=torch.long), "(1, 1, 2)"),
])  # fmt: skip
def test_ids_in_another_shape_are_named(ids, given):
    with pytest.raises(ValueError, match=re.escape(f"input_ids is {given}; a tensor (B, T) of token ids was expected")):
        random_model()(ids)


def test_a_cache_of_other_rows_is_refused():
    """It took the two rows for one text of twice the length, and gave numbers."""
    model = random_model()
    with pytest.raises(ValueError, match="the cache is one of 1 rows, and input_ids has 2"):
        model(torch.ones(2, 3, dtype=torch.long), KVCache(model.config, 1, 8))
