"""Weights kept dequantised beside their four bits: the same bits out, nothing else to be seen.

A deliberate break that turns this red: let `.to(bfloat16)` cast the copy (leave it out of `kept` in
`NF4Linear._apply`), keep it in `load_packed`, or make it a persistent buffer.
"""

import copy

import pytest
import torch
from torch import nn

from model.layers import Linear
from quant import linear as nf4_linear
from quant.convert import make_resident, model_bytes, resident_bytes
from quant.linear import NF4Linear
from quant.nf4 import quantize_nf4

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def make(out_features=96, in_features=128, double=False):
    layer = NF4Linear(in_features, out_features, True, double=double)
    layer.load_dense("weight", torch.randn(out_features, in_features) * 0.05)
    layer.load_dense("bias", torch.randn(out_features) * 0.1)
    return layer


def both_ways(layer, x, grad):
    x = x.clone().requires_grad_()
    y = layer(x)
    y.backward(grad)
    return y.detach(), x.grad


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("shape", [(128,), (7, 128), (2, 3, 128), (0, 128)])
def test_same_bits_without_dequantising(dtype, double, shape, monkeypatch):
    layer = make(double=double)
    x, grad = torch.randn(shape, dtype=dtype), torch.randn(*shape[:-1], 96, dtype=dtype)
    expected = both_ways(layer, x, grad)
    make_resident(layer, dtype)
    monkeypatch.setattr(nf4_linear, "dequantize", None)
    for ours, theirs in zip(both_ways(layer, x, grad), expected, strict=True):
        assert torch.equal(ours, theirs) and ours.dtype == dtype


def test_another_dtype_dequantises():
    layer = make()
    x = torch.randn(5, 128)
    expected = {dtype: layer(x.to(dtype)) for dtype in DTYPES}
    make_resident(layer, torch.bfloat16)
    assert all(torch.equal(layer(x.to(dtype)), y) for dtype, y in expected.items())
    make_resident(layer, torch.float32)
    assert layer.resident.dtype == torch.float32
    assert all(torch.equal(layer(x.to(dtype)), y) for dtype, y in expected.items())


def test_moving_and_casting():
    layer = make()
    weight = layer.dense_weight(torch.float32)
    make_resident(layer, torch.float32)
    layer.to(torch.bfloat16).to(torch.float64)
    assert torch.equal(layer.resident, weight) and layer.resident.dtype == torch.float32
    twin = copy.deepcopy(layer)
    assert torch.equal(twin.resident, weight) and twin.resident.data_ptr() != layer.resident.data_ptr()
    assert layer.to("meta").resident.is_meta


def test_nothing_of_it_is_saved_and_new_bytes_drop_it():
    layer, other = make(), make()
    saved = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    make_resident(layer, torch.float32)
    assert layer.state_dict().keys() == saved.keys() == {"packed", "absmax", "bias"}
    x = torch.randn(3, 128)
    for load in (lambda: layer.load_state_dict(other.state_dict()),
                 lambda: nn.Sequential(layer).load_state_dict(nn.Sequential(other).state_dict()),
                 lambda: layer.load_packed(other.packed, other.absmax),
                 lambda: layer.load_packed(*quantize_nf4(other.dense_weight(torch.float32)))):
        layer.load_state_dict(saved)
        make_resident(layer, torch.float32)
        load()
        layer.bias.data.copy_(other.bias)
        assert layer.resident is None and torch.equal(layer(x), other(x))


def test_bytes_are_known_before():
    model = nn.Sequential(make(96, 128), nn.Sequential(make(64, 96, double=True)), Linear(64, 8))
    meta = copy.deepcopy(model).to("meta")
    for dtype in (torch.float32, torch.bfloat16):
        before, expected = model_bytes(model), resident_bytes(meta, dtype)
        assert expected == (96 * 128 + 64 * 96) * dtype.itemsize == resident_bytes(model, dtype)
        make_resident(model, dtype)
        assert model_bytes(model) - before == expected - (0 if dtype == torch.float32 else 2 * expected)


def test_training_after_inference():
    layer = make()
    x, grad = torch.randn(4, 128), torch.randn(4, 96)
    expected = both_ways(layer, x, grad)
    with torch.inference_mode():
        make_resident(layer, torch.float32)
        assert torch.equal(layer(x), expected[0])
    assert all(torch.equal(a, b) for a, b in zip(both_ways(layer, x, grad), expected, strict=True))
