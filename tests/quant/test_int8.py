"""Products of 8-bit integers: their specification, the two libraries that compute it, and where they are refused.

Deliberate breaks: in `quant.int8.quantize_tokens` leave the largest of the negative numbers out (`x.amax` alone); in
`_multiply_int_mm` add the offset; let `Int8Linear.forward` begin its slices at 1; let `gain` skip the comparison with
`right` (the product that saturates is then taken).
"""

from functools import partial
from types import SimpleNamespace

import pytest
import torch

from common.errors import UserError
from lora.inject import adapters, inject
from model.layers import Linear
from quant import int8
from quant.convert import replace_linears
from quant.int8 import PRODUCTS, SLICE, Int8Linear, Product, int8_product_plain, parts_of, quantize_tokens
from tests.int8 import needs_int8
from tests.small import random_model

SHAPES = [(5, 3), (64, 96), (200, 70), (576, 192), (1536, 33)]


@pytest.fixture(params=PRODUCTS, ids=lambda product: product.name)
def product(request) -> Product:
    needs_int8()
    return request.param


def test_both_are_exact_here(product):
    assert int8.gain(product, size=512, rounds=1) > 0


def linear(shape, seed: int = 0, bias: bool = True) -> Linear:
    generator = torch.Generator().manual_seed(seed)
    layer = Linear(*shape, bias).requires_grad_(False)
    layer.weight.copy_(torch.randn(shape[1], shape[0], generator=generator) * 0.05)
    layer.weight[0] = 0
    if bias:
        layer.bias.copy_(torch.randn(shape[1], generator=generator))
    return layer


def tokens(count: int, size: int, seed: int = 1) -> torch.Tensor:
    """As after a norm: a few large numbers, a token of zeros, one with its largest number below zero."""
    x = torch.randn(count, size, generator=torch.Generator().manual_seed(seed))
    x[:, 1] *= 30
    x[0], x[1, 2] = 0, -500
    return x


@pytest.mark.parametrize("shape", SHAPES)
def test_both_libraries_give_the_bits_of_the_specification(shape, product, monkeypatch):
    monkeypatch.setattr(int8, "TILE", SLICE * shape[1])  # the last tokens are multiplied apart
    layer, x = linear(shape), tokens(SLICE + 37, shape[0])
    rounded = Int8Linear.from_base(layer, product)
    right = int8_product_plain(x, layer.weight, layer.bias)
    assert rounded(x).equal(right) and rounded(x[None, :, None]).shape == (1, len(x), 1, shape[1])
    assert rounded(x[:0]).shape == (0, shape[1])
    assert Int8Linear.from_base(linear(shape, bias=False), product)(x).equal(int8_product_plain(x, layer.weight))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_specification_is_as_near_as_its_steps_allow(shape):
    """Half a step of the weight times the token, half a step of the token times the rounded weight, part by part."""
    layer, x = linear(shape), tokens(50, shape[0]).double()
    weight, bound = layer.weight.double(), layer.bias.double() * 0
    for part in parts_of(shape[0]):
        w = weight[:, part].abs().amax(1) / 127
        a = x[:, part].abs().amax(1, keepdim=True) / 127
        bound = bound + x[:, part].abs().sum(1, keepdim=True) * w / 2 + a / 2 * (weight[:, part].abs().sum(1)
                                                                                + part.stop * w / 2)
    error = (int8_product_plain(x.float(), layer.weight, layer.bias) - (x @ weight.t() + layer.bias)).abs()
    assert (error <= bound * 1.001 + 1e-4).all() and error.max() > 0


@pytest.mark.parametrize("count", [100, SLICE, 3 * SLICE])
def test_a_token_alone_gets_the_bits_it_gets_among_others(product, count, monkeypatch):
    monkeypatch.setattr(int8, "TILE", count * 70)
    x, layer = tokens(3 * SLICE, 200), Int8Linear.from_base(linear((200, 70)), product)
    whole = layer(x)
    for rows in (1, 5, 16, SLICE + 1):
        for start in (0, 3, SLICE - 2, len(x) - rows):
            assert layer(x[start : start + rows]).equal(whole[start : start + rows])


def test_parts_are_of_whole_instructions_and_cover_k():
    assert parts_of(3072) == [slice(0, 1024), slice(1024, 2048), slice(2048, 3072)]
    assert parts_of(64) == [slice(0, 64)] and parts_of(5) == [slice(0, 5)]
    for size in (100, 192, 576, 1000, 1536, 8192):
        parts = parts_of(size)
        assert [i for part in parts for i in range(size)[part]] == list(range(size)) and len(parts) <= int8.PARTS
        assert all(part.start % 64 == 0 for part in parts)


def test_tokens_keep_their_signs_and_zero():
    unsigned, a = quantize_tokens(torch.tensor([[-2.0, 0.0, 1.0, 2.0], [0.0, 0.0, 0.0, 0.0], [-3.0, 1.0, 0.0, 0.0]]))
    assert unsigned.tolist() == [[1, 128, 192, 255], [128] * 4, [1, 170, 128, 128]]
    assert a[:, 0].tolist() == pytest.approx([2 / 127, 0, 3 / 127])


def test_what_is_not_finite_stays_visible(product):
    x = tokens(20, 64)
    x[3, 5], x[4, 6] = float("nan"), float("inf")
    found = Int8Linear.from_base(linear((64, 96), bias=False), product)(x).isfinite()
    assert not found[3].any() and not found[4].all() and found[5:].all()


def test_the_rounded_weight_can_be_read(product):
    layer = linear((200, 70))
    read = Int8Linear.from_base(layer, product).dense_weight(torch.float32)
    assert read.shape == (70, 200)
    for part in parts_of(200):
        codes, w = int8.quantize_weight(layer.weight[:, part])
        assert read[:, part].equal(codes.float() * w[:, None])


@pytest.mark.parametrize("quantize", [False, True])
def test_a_model_changes_in_its_layers_and_inside_its_adapters(product, quantize, monkeypatch):
    model = random_model()
    if quantize:
        replace_linears(model)
    inject(model, ["q_proj", "down_proj"], 4, 8)
    dense = {name: module.dense_weight(torch.float32) for name, module in model.named_modules()
             if name.startswith("model.layers.") and hasattr(module, "dense_weight") and ".lora" not in name}
    monkeypatch.setattr(int8, "choose_product", lambda: product)
    assert int8.int8_bytes(model) == 2 * (32 * 32 * 2 + 32 * 16 * 2 + 32 * 48 * 3)
    int8.make_int8(model)
    found = {name: module for name, module in model.named_modules() if isinstance(module, Int8Linear)}
    assert len(found) == 14 and len(adapters(model)) == 4 and "model.layers.0.self_attn.q_proj.base" in found
    for name, module in found.items():
        step = dense[name].abs().amax(1, keepdim=True) / 127
        assert ((module.dense_weight(torch.float32) - dense[name]).abs() <= step * 0.501).all()


def saturating(unsigned: torch.Tensor, held: tuple) -> torch.Tensor:
    """As processors before VNNI multiply: sums of two products in 16 bits."""
    codes, scale, offset = held
    pairs = (unsigned.int()[:, None, :] * codes.t().int()[None]).view(len(unsigned), codes.shape[1], -1, 2).sum(-1)
    return (pairs.clamp(-32768, 32767).sum(-1) - offset).float() * scale


def missing(*_):
    raise AttributeError("no such operator")


def test_a_product_that_is_missing_or_saturates_or_does_not_pay_is_refused_by_name(product, monkeypatch):
    packed = PRODUCTS[1].pack
    bad = [Product("missing", missing, missing), Product("narrow", packed, saturating)]
    assert [int8.gain(one, size=256, rounds=1) for one in bad] == [0, 0]
    monkeypatch.setattr(int8, "PRODUCTS", bad)
    int8.choose_product.cache_clear()
    monkeypatch.setattr(int8, "gain", partial(int8.gain, size=256, rounds=1))
    with pytest.raises(UserError, match=r"--int8: does not pay .*missing is missing or not exact, narrow is missing"):
        int8.choose_product()
    assert not int8.pays()
    monkeypatch.setattr(int8, "PRODUCTS", [SimpleNamespace(name="slow"), SimpleNamespace(name="quick")])
    monkeypatch.setattr(int8, "gain", lambda one: {"slow": 0.5, "quick": 3.0}[one.name])
    assert int8.choose_product().name == "quick"
    int8.choose_product.cache_clear()
    monkeypatch.setattr(int8, "PRODUCTS", [SimpleNamespace(name="slow")])
    with pytest.raises(UserError, match=r"slow 0.5 times float32\); leave it out"):
        int8.choose_product()
