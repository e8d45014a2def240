"""The gradient of attention by hand against autograd through the specification.

Break it and see: in `model/attention_gradient.py`, leave out `d_scores -= ...`, use `weights` for `weights.mT`, add the
prefix's part of `d_k` to the row's, or see one key too many in a block that is not the last.
"""

import pytest
import torch

from common.packed import Layout
from model import attention_gradient
from model.attention import attend_sdpa, attend_softmax
from model.attention_gradient import attend_by_hand

LAYOUTS = {
    "a prefix and rows": Layout((5, 9, 10, 17), 5),
    "no prefix": Layout((0, 3, 4, 11)),
    "equal rows": Layout.rectangle(3, 4),
    "one token": Layout((0, 1)),
    "answers only": Layout((5, 9, 10, 17), 5, query_tokens=(8, 9, 16)),
    "two queries in a row": Layout((5, 9, 17), 5, query_tokens=(6, 8, 16)),
    "a cached past": Layout.rectangle(2, 3, past=4),
}


def results(attend, layout: Layout, heads: int, dtype=torch.float64) -> list[torch.Tensor]:
    """Output and gradients of q, k, v, of values that do not depend on dtype."""
    draw = torch.Generator().manual_seed(1)
    asked = layout.tokens if layout.query_tokens is None else len(layout.query_tokens)
    there = layout.tokens + layout.rows * layout.past
    q, k, v, weight = (torch.randn(count, number, 8, generator=draw).bfloat16().to(dtype)
                       for count, number in ((asked, heads), (there, 2), (there, 2), (asked, heads)))
    inputs = [x.requires_grad_() for x in (q, k, v)]
    out = attend(*inputs, layout)
    return [out, *torch.autograd.grad((out * weight).sum(), inputs)]


@pytest.mark.parametrize("block", [1, 100, 2**20])
@pytest.mark.parametrize("heads", [2, 6])
@pytest.mark.parametrize("case", LAYOUTS)
def test_gradients_equal_those_of_the_specification(case, heads, block, monkeypatch):
    monkeypatch.setattr(attention_gradient, "BLOCK", block)  # a query at a time, a few, all
    found, right = (results(attend, LAYOUTS[case], heads) for attend in (attend_by_hand, attend_softmax))
    for ours, theirs in zip(found, right, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-13, rtol=1e-12)  # sums in another order, float64


@pytest.mark.parametrize("case", LAYOUTS)
def test_forward_keeps_the_bits_of_the_fused_kernel(case):
    assert results(attend_by_hand, LAYOUTS[case], 6, torch.bfloat16)[0].equal(
        results(attend_sdpa, LAYOUTS[case], 6, torch.bfloat16)[0])


@pytest.mark.parametrize("case", LAYOUTS)
def test_a_gradient_in_sixteen_bits_is_rounded_once(case):
    """bfloat16 has 8 bits: one rounding is an error of at most 2^-9 of the value; float32's own is far below."""
    right = results(attend_by_hand, LAYOUTS[case], 6)
    for ours, exact in zip(results(attend_by_hand, LAYOUTS[case], 6, torch.bfloat16)[1:], right[1:], strict=True):
        torch.testing.assert_close(ours.double(), exact, atol=1e-5, rtol=2**-8)
