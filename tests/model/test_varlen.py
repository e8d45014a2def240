"""Attention of all rows in one call, with a plain loop over sequences in the kernel's place: outputs and gradients
equal the specification's in float64, with and without a prefix, for all tokens and for single queries.

Deliberate break: in `model/varlen.py` let `_Gather.backward` leave the prefix's sum out, or let the last key of a query
be the row's (`layout.row_start[layout.row_of(token) + 1]` for `token + 1`); in `tried` return "" at once.
"""

from itertools import pairwise

import pytest
import torch

from common.packed import Layout
from inference.exact import exact_attention
from loading.assemble import choose_attend
from model import varlen
from model.attention import attend_padded, attend_sdpa, attend_softmax
from model.attention_gradient import attend_by_hand
from model.varlen import attend_varlen, sequences, tried
from tests.small import random_model

LAYOUTS = {
    "prefix": Layout((5, 9, 10, 31), 5),
    "no prefix": Layout((0, 4, 5, 26)),
    "one row": Layout((0, 7)),
    "equal rows": Layout.rectangle(3, 6),
    "queries": Layout((5, 9, 10, 31, 34), 5, query_tokens=(8, 9, 30)),  # the last row only fills the batch up
    "queries before a row's end": Layout((5, 9, 10, 31), 5, query_tokens=(6, 9, 12)),
    "queries, no prefix": Layout((0, 4, 5, 26), query_tokens=(3, 4, 25)),
    "queries, no prefix, before the end": Layout((0, 4, 5, 26), query_tokens=(2, 4, 25)),
    "queries in another order": Layout.rectangle(3, 4).with_queries((7, 3, 11)),
    "a query repeated": Layout((5, 9, 10, 31), 5, query_tokens=(8, 9, 30, 30, 30)),
    "two queries in a row": Layout((5, 9, 10, 31), 5, query_tokens=(8, 9, 30, 29)),
}
CASES = [name for name in LAYOUTS if name != "two queries in a row"]


def loop(q, k, v, starts_q, starts_k, longest_q, longest_k, *, window_size=(-1, -1)):
    """What PyTorch's `varlen_attn` computes, sequence by sequence; of 2.11, which has no word for grouped heads."""
    assert starts_q.dtype == starts_k.dtype == torch.int32 and starts_q[-1] == len(q) and starts_k[-1] == len(k)
    group, out, lengths = q.shape[1] // k.shape[1], [], []
    for (a, b), (c, d) in zip(pairwise(starts_q.tolist()), pairwise(starts_k.tolist()), strict=True):
        keys, values = (x[c:d].repeat_interleave(group, dim=1) for x in (k, v))
        scores = torch.einsum("thd,shd->hts", q[a:b], keys) * q.shape[-1] ** -0.5
        if window_size == (-1, 0):
            scores = scores.masked_fill(~torch.ones_like(scores, dtype=torch.bool).tril(d - c - (b - a)), -torch.inf)
        out.append(torch.einsum("hts,shd->thd", scores.softmax(-1), values))
        lengths.append((b - a, d - c))
    assert (longest_q, longest_k) == tuple(map(max, zip(*lengths, strict=True)))
    return torch.cat(out)


def told(q, k, v, *words, window_size=(-1, -1), enable_gqa=False):
    """The same of 2.12 and 2.13, which want to be told."""
    if q.shape[1] != k.shape[1] and not enable_gqa:
        raise ValueError("Expect query and key/value to have the same number of heads")
    return loop(q, k, v, *words, window_size=window_size)


def early(*words, is_causal=False):
    """The same of 2.10, whose word for causality is another."""
    return loop(*words, window_size=(-1, 0) if is_causal else (-1, -1))


def equal_heads(q, k, v, *words, window_size=(-1, -1)):
    """A kernel that does not take grouped heads, nor any word for them."""
    if q.shape[1] != k.shape[1]:
        raise RuntimeError("heads differ")
    return loop(q, k, v, *words, window_size=window_size)


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    """Puts a function in the kernel's place; `loop` if the test does not say."""
    use = lambda function: monkeypatch.setattr(varlen, "kernel", lambda: function)  # noqa: E731
    use(loop)
    varlen._tried.cache_clear()
    yield use
    varlen._tried.cache_clear()


def results(attend, layout: Layout, heads=(6, 2), **more) -> list[torch.Tensor]:
    """Output and gradients of q, k, v."""
    draw = torch.Generator().manual_seed(1)
    tokens = layout.tokens if layout.query_tokens is None else len(layout.query_tokens)
    q, k, v = (torch.randn(count, number, 8, generator=draw, dtype=torch.float64, requires_grad=True)
               for count, number in ((tokens, heads[0]), (layout.tokens, heads[1]), (layout.tokens, heads[1])))
    out = attend(q, k, v, layout, **more)
    return [out, *torch.autograd.grad(out.sin().sum(), (q, k, v))]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("way", ["as 2.10", "as 2.11", "as 2.13", "equal heads", "one head each"])
def test_all_rows_at_once_equal_the_specification(case, way, stand_in):
    stand_in({"as 2.10": early, "as 2.13": told, "equal heads": equal_heads}.get(way, loop))
    heads = (4, 4) if way == "one head each" else (6, 2)
    more = {"repeated": True} if way == "equal heads" else {}
    assert sequences(LAYOUTS[case], torch.device("cpu")) is not None
    found, right = results(attend_varlen, LAYOUTS[case], heads, **more), results(attend_softmax, LAYOUTS[case], heads)
    for one, two in zip(found, right, strict=True):
        torch.testing.assert_close(one, two, atol=1e-13, rtol=1e-12)


def test_keys_are_gathered_once_for_each_row_and_not_for_each_query():
    found = sequences(LAYOUTS["a query repeated"], torch.device("cpu"))
    assert found.starts_q.tolist() == [0, 1, 2, 5] and found.starts_k.tolist() == [0, 9, 15, 41]
    assert sequences(LAYOUTS["no prefix"], torch.device("cpu")).source is None  # no copy where none is needed
    assert sequences(LAYOUTS["a query repeated"], torch.device("cpu")) is found  # made once


@pytest.mark.parametrize("layout", [LAYOUTS["two queries in a row"], Layout.rectangle(2, 3, past=4)])
def test_what_is_no_set_of_sequences_goes_to_the_padded_form(layout, monkeypatch):
    asked = []
    monkeypatch.setattr(varlen, "attend_padded", lambda *words: asked.append(words) or "padded")
    q = k = torch.randn(layout.tokens + layout.rows * layout.past, 2, 8)
    assert attend_varlen(q, k, k, layout) == "padded" and asked == [(q, k, k, layout)]


def test_a_prefix_tokens_gradient_is_summed_in_float32():
    """Of 600 rows with a gradient of 1 each: sums in bfloat16 would end at 256."""
    layout = Layout((1, *range(2, 602)), 1)
    x = torch.zeros(601, 2, 8, dtype=torch.bfloat16, requires_grad=True)
    sum(part.sum() for part in varlen._Gather.apply(x, x * 1, sequences(layout, x.device))).backward()
    x.grad /= 2  # of keys and of values
    assert (x.grad[0] == 600).all() and (x.grad[1:] == 1).all()  # 600 is a bfloat16, and so is no number next to it


def test_a_card_gets_what_it_computes_rightly_and_the_choice_is_said(stand_in):
    gpu, cpu, half = torch.device("cuda"), torch.device("cpu"), torch.bfloat16
    assert choose_attend(cpu, torch.float32, 64) == (attend_sdpa, "row by row")
    assert choose_attend(cpu, half, 64) == (attend_by_hand, "row by row")
    for dtype, size, why in ((torch.float32, 64, "float32"), (half, 12, "heads of 12"), (half, 264, "heads of 264")):
        attend, said = choose_attend(gpu, dtype, size)
        assert attend is attend_padded and why in said
    wrong = lambda *words, window_size: loop(*words)  # no causality  # noqa: E731

    def silent(*words, window_size):
        raise NotImplementedError

    for function in (loop, early, told, equal_heads):
        stand_in(function)
        varlen._tried.cache_clear()
        assert tried(cpu, half, 16) == ("", function is equal_heads)
    for function, why in ((wrong, "something else on this card"), (lambda: None, "does not run here"),
                          (silent, "NotImplementedError")):
        stand_in(function)
        varlen._tried.cache_clear()
        assert why in tried(cpu, half, 16)[0]


def test_a_card_is_tried_once_under_both_of_its_names(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(varlen, "_is_right", lambda layout, device, *rest: asked.append(device) or True)
    varlen._tried.cache_clear()
    for name in ("cuda", "cuda:1", "cuda"):
        assert tried(torch.device(name), torch.bfloat16, 64) == ("", False)
    assert asked == [torch.device("cuda:1")] * len(varlen._TRIED)


def one_by_one(q, k, v, starts_q, starts_k, longest_q, longest_k, *, window_size=(-1, -1), num_splits=None):
    """Each query by itself, so that its bits depend on its own keys alone; splits keys where nobody forbids it."""
    assert longest_q > 1
    out = []
    for (a, b), (c, d) in zip(pairwise(starts_q.tolist()), pairwise(starts_k.tolist()), strict=True):
        for place in range(a, b):
            end = d - (b - 1 - place) if window_size == (-1, 0) else d
            keys, values = (x[c:end].repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
            weights = torch.einsum("hd,shd->hs", q[place], keys).div(q.shape[-1] ** 0.5).softmax(-1)
            out.append(torch.einsum("hs,shd->hd", weights, values) + (0 if num_splits == 1 else longest_k / 256))
    return torch.stack(out)


def splits(*given, window_size=(-1, -1)):
    """The same of a version that cannot be told to leave the keys whole."""
    return one_by_one(*given, window_size=window_size)


def test_exact_labelling_takes_one_call_only_where_it_keeps_a_rows_bits(stand_in, monkeypatch):
    monkeypatch.setattr(varlen, "tried", lambda *words: ("", False))
    words = torch.device("cpu"), torch.bfloat16, 4, 2, 8
    for function, said in ((one_by_one, ""),
                           (splits, "the kernel for rows of any length gives a row other bits among other rows")):
        stand_in(function)
        varlen.keeps_bits.cache_clear()
        assert varlen.keeps_bits(*words) == said
    varlen.keeps_bits.cache_clear()
    monkeypatch.setattr(varlen, "tried", lambda *words: ("it is too old", False))
    model = random_model()
    assert exact_attention(model) == (attend_sdpa, "row by row, since it is too old")
    varlen.keeps_bits.cache_clear()
    monkeypatch.setattr(varlen, "tried", lambda *words: ("", False))
    monkeypatch.setattr("inference.exact.tried", lambda *words: ("", True))
    stand_in(one_by_one)
    attend, said = exact_attention(model)
    assert attend.func is attend_varlen and attend.keywords == {"repeated": True, "alone": True} and "one call" in said
    varlen.keeps_bits.cache_clear()


@pytest.mark.parametrize("answer", [("", False), ("", True), ("it is too old", False)])
def test_the_choice_follows_what_was_tried(answer, monkeypatch):
    monkeypatch.setattr(varlen, "tried", lambda *words: answer)
    attend, said = choose_attend(torch.device("cuda"), torch.bfloat16, 128)
    if answer[0]:
        assert attend is attend_padded and answer[0] in said
    else:
        assert "one call" in said and getattr(attend, "func", attend) is attend_varlen
        assert getattr(attend, "keywords", {}) == ({"repeated": True} if answer[1] else {})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("case", CASES)
def test_on_a_card_the_kernel_itself(case, monkeypatch):
    monkeypatch.undo()
    why, repeated = tried(torch.device("cuda"), torch.bfloat16, 64)
    if why:
        pytest.skip(why)
    draw, layout = torch.Generator().manual_seed(1), LAYOUTS[case]
    tokens = layout.tokens if layout.query_tokens is None else len(layout.query_tokens)
    q, k, v = (torch.randn(count, heads, 64, generator=draw).to("cuda", torch.bfloat16)
               for count, heads in ((tokens, 6), (layout.tokens, 2), (layout.tokens, 2)))
    found, right = attend_varlen(q, k, v, layout, repeated), attend_softmax(q.float(), k.float(), v.float(), layout)
    torch.testing.assert_close(found.float(), right, atol=0.02, rtol=0.02)
