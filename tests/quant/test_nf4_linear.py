"""The 4-bit linear: its product and its gradient, what it keeps for backward, and the walk that puts it in a model.

A deliberate break that turns this red: save the shared buffer instead of the packed bytes in `_NF4Product.forward`
(the second layer then overwrites what the first one needs), or leave `_apply` out of `NF4Linear`.
"""

import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from common.errors import UserError
from common.product import linear
from model.layers import MLP, Linear
from quant import linear as nf4_linear
from quant.convert import inside_layers, model_bytes, replace_linears
from quant.double_quant import quantize_absmax
from quant.linear import NF4Linear
from quant.nf4 import dequantize_nf4, quantize_nf4

bitsandbytes = pytest.importorskip("bitsandbytes")
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def make(out_features=96, in_features=128, bias=True, double=False):
    weight, offset = torch.randn(out_features, in_features) * 0.05, torch.randn(out_features) * 0.1
    layer = NF4Linear(in_features, out_features, bias, double=double)
    layer.load_dense("weight", weight)
    if bias:
        layer.load_dense("bias", offset)
    return layer, weight


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("shape", [(128,), (7, 128), (2, 3, 128), (0, 128)])
def test_product_and_gradient_equal_the_dense_linear(dtype, double, shape):
    """Bit for bit: the same dense weight enters the same product."""
    layer, _ = make(double=double)
    x = torch.randn(shape, dtype=dtype, requires_grad=True)
    twin = x.detach().clone().requires_grad_()
    y, expected = layer(x), linear(twin, layer.dense_weight(dtype), layer.bias.to(dtype))
    assert torch.equal(y, expected) and y.dtype == dtype
    grad = torch.randn_like(y)
    y.backward(grad)
    expected.backward(grad)
    assert torch.equal(x.grad, twin.grad)
    assert layer.bias.grad is None and not any(p.requires_grad for p in layer.parameters())


@pytest.mark.parametrize("double", [False, True])
def test_as_bitsandbytes(double):
    """Against `Linear4bit` on the CPU with the same bytes; 1e-5 for sums taken in another order."""
    layer, weight = make(double=double)
    packed, state = bitsandbytes.functional.quantize_4bit(weight, quant_type="nf4", blocksize=64,
                                                          compress_statistics=double)
    if double:  # its compiled library picks a few other nested codes: give it ours
        state.absmax, state.state2.absmax, state.offset = layer.absmax_codes, layer.nested_absmax, layer.offset
    assert torch.equal(packed.view(-1), layer.packed)
    x = torch.randn(5, 128, requires_grad=True)
    twin = x.detach().clone().requires_grad_()
    y, theirs = layer(x), bitsandbytes.matmul_4bit(twin, packed, state, bias=layer.bias)
    grad = torch.randn_like(y)
    y.backward(grad)
    theirs.backward(grad)
    assert torch.allclose(y, theirs, atol=1e-5, rtol=1e-5) and torch.allclose(x.grad, twin.grad, atol=1e-5, rtol=1e-5)


def test_gradient_by_finite_differences():
    layer, _ = make(10, 13)
    assert torch.autograd.gradcheck(layer, torch.randn(3, 13, dtype=torch.float64, requires_grad=True))


def test_backward_keeps_packed_bytes_only():
    layer, _ = make(256, 256)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        layer(torch.randn(4, 256, requires_grad=True))
    assert {t.data_ptr() for t in kept} == {layer.packed.data_ptr(), layer.absmax.data_ptr()}
    kept.clear()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        layer(torch.randn(4, 256))
    assert not kept


def test_one_buffer_for_all_layers():
    nf4_linear._buffers.clear()
    layers = nn.Sequential(make(64, 128)[0], make(128, 64)[0], make(32, 128)[0])
    weights = [layer.dense_weight(torch.float64) for layer in layers]
    x = torch.randn(6, 128, requires_grad=True, dtype=torch.float64)
    twin = x.detach().clone().requires_grad_()
    y = expected = None
    for layer, weight in zip(layers, weights, strict=True):
        y = layer(x if y is None else y)
        expected = F.linear(twin if expected is None else expected, weight, layer.bias.double())
    y.sum().backward()
    expected.sum().backward()
    assert torch.equal(x.grad, twin.grad)
    assert {key: value.numel() for key, value in nf4_linear._buffers.items()} == {
        (torch.float64, torch.device("cpu")): 64 * 128}
    dense = layers[0].dense_weight(torch.float64)  # memory of its own: the next product must not change it
    layers[1](torch.randn(2, 64, dtype=torch.float64))
    assert torch.equal(dense, weights[0])


def test_training_after_a_first_inference():
    """A buffer first made in inference mode must serve training afterwards."""
    nf4_linear._buffers.clear()
    layer, _ = make()
    with torch.inference_mode():
        first = layer(torch.ones(2, 128))
    x = torch.ones(2, 128, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert torch.equal(first, y) and x.grad is not None


def test_threads_do_not_share_a_half_written_buffer():
    layers = [make(256, 256)[0] for _ in range(4)]
    x = torch.randn(3, 256)
    alone = [layer(x) for layer in layers]
    wrong = []

    def work(i):
        wrong.extend(i for _ in range(50) if not torch.equal(layers[i](x), alone[i]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_checkpointing_gives_the_same_gradient():
    layer, _ = make()
    x = torch.randn(3, 128, requires_grad=True)
    layer(x).square().sum().backward()
    twin = x.detach().clone().requires_grad_()
    torch.utils.checkpoint.checkpoint(lambda t: layer(t).square().sum(), twin, use_reentrant=False).backward()
    assert torch.equal(x.grad, twin.grad)


@pytest.mark.parametrize("double", [False, True])
def test_packed_bytes_in(double):
    layer, weight = make(bias=False)
    packed, absmax = quantize_nf4(weight)
    triple = quantize_absmax(absmax)
    for scales in (absmax, triple):
        other = NF4Linear(128, 96, double=double, device="meta")
        other.load_packed(packed[:, None], scales)
        exact = layer if scales is absmax and not double else make_double(weight)
        assert torch.equal(other.dense_weight(torch.float32), exact.dense_weight(torch.float32))
        assert not any(buffer.is_meta for buffer in other.buffers())


def make_double(weight):
    layer = NF4Linear(weight.shape[1], weight.shape[0], double=True)
    layer.load_dense("weight", weight)
    return layer


def test_scales_stay_float32_when_the_model_is_cast():
    for double in (False, True):
        layer, _ = make(double=double)
        before = layer.dense_weight(torch.float32)
        layer.to(torch.bfloat16)
        assert torch.equal(layer.dense_weight(torch.float32), before) and layer.bias.dtype == torch.bfloat16
        layer.to(torch.float64).half()
        assert torch.equal(layer.dense_weight(torch.float32), before)
        assert layer.to("meta").packed.is_meta


def test_state_dict_round_trip():
    for double in (False, True):
        layer, other = make(double=double)[0], make(double=double)[0]
        other.load_state_dict(layer.state_dict())
        assert torch.equal(other.dense_weight(torch.float32), layer.dense_weight(torch.float32))


def test_what_does_not_fit_is_refused():
    layer, weight = make(bias=False)
    packed, absmax = quantize_nf4(weight)
    for bad in (lambda: layer.load_dense("weight", weight.t()), lambda: layer.load_dense("bias", weight[0]),
                lambda: layer.load_dense("scale", weight), lambda: layer.load_packed(packed[:-1], absmax),
                lambda: layer.load_packed(packed, absmax[:-1]), lambda: layer.load_packed(packed, absmax.half())):
        with pytest.raises(ValueError):
            bad()
    weight[3, 4] = torch.nan
    with pytest.raises(UserError, match=r"^weight: element \[3, 4\] is nan"):
        layer.load_dense("weight", weight)
    with pytest.raises(UserError, match="scales"):
        layer.load_packed(packed, absmax * torch.inf)


class Tiny(nn.Module):
    """Names as in the decoder: an embedding, two feed-forward layers, a norm, a head."""

    def __init__(self, bias=False):
        super().__init__()
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(50, 64)
        self.model.layers = nn.ModuleList(nn.ModuleDict({"mlp": MLP(64, 96, bias)}) for _ in range(2))
        self.model.norm = nn.LayerNorm(64)
        self.lm_head = Linear(64, 50)


@pytest.mark.parametrize("double", [False, True])
def test_walk(double):
    model = Tiny(bias=True)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    weights = {name: module.dense_weight(torch.float32) for name, module in model.named_modules()
               if isinstance(module, Linear)}
    rest = model_bytes(model.model.embed_tokens) + model_bytes(model.model.norm) + model_bytes(model.lm_head)
    result = replace_linears(model, double=double)
    assert sorted(result.names) == sorted(name for name in weights if inside_layers(name)) and len(result.names) == 6
    assert isinstance(model.lm_head, Linear) and isinstance(model.model.embed_tokens, nn.Embedding)
    n, biases, blocks = 2 * 3 * 64 * 96, 2 * (96 + 96 + 64) * 4, 64 * 96 // 64
    scales = 6 * (blocks + 4 + 4) if double else 6 * blocks * 4  # 96 codes need one nested scale and one offset
    assert result.bytes_before == rest + n * 4 + biases and result.bytes_after == rest + n // 2 + scales + biases
    for name in result.names:
        packed, absmax = quantize_nf4(weights[name])
        layer = model.get_submodule(name)
        assert torch.equal(layer.packed, packed) and layer.double == double
        if not double:
            assert torch.equal(layer.dense_weight(torch.float32),
                               dequantize_nf4(packed, absmax, weights[name].shape, torch.float32))
    assert replace_linears(model).names == ()  # in NF4 already
    assert "6 linears to NF4" in str(result)


def test_walk_on_meta_and_with_targets():
    with torch.device("meta"):
        model = Tiny()
    result = replace_linears(model, targets=lambda name: name.endswith("up_proj"))
    assert len(result.names) == 2 and all(buffer.is_meta for buffer in model.buffers())
    assert result.bytes_after < result.bytes_before
    weight = torch.randn(96, 64)
    model.model.layers[0].mlp.up_proj.load_dense("weight", weight)
    assert torch.equal(model.model.layers[0].mlp.up_proj.packed, quantize_nf4(weight)[0])


def test_walk_names_the_tensor_that_is_not_finite():
    model = Tiny()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    model.model.layers[1].mlp.down_proj.weight.data[2, 5] = torch.inf
    with pytest.raises(UserError, match=r"^model.layers.1.mlp.down_proj.weight: element \[2, 5\] is inf"):
        replace_linears(model)
