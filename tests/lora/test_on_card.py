"""The LoRA linear as a card computes it, with scaling and sums inside the products: here its formulas, on the CPU.

Deliberate break: in `lora.layer._OnCard` leave `self.scaling` out of backward, add dt A to dx although there is a
`dropped`, or in `_Together` leave `onto` out. All turn red.
"""

import pytest
import torch
import torch.nn.functional as F

from lora.inject import cast_once, inject
from lora.layer import LoRALinear, _OnCard
from model.layers import Linear
from quant.linear import NF4Linear
from tests.small import random_model


def make(kind: str, dtype: torch.dtype, dropout: float = 0.0) -> LoRALinear:
    """24 x 40 with a bias, B no longer zero; 3 / 4 is its scaling."""
    base = Linear(40, 24, True) if kind == "dense" else NF4Linear(40, 24, True, double=kind == "double")
    base.load_dense("weight", torch.randn(24, 40).to(dtype if kind == "dense" else torch.float32))
    base.load_dense("bias", torch.randn(24).to(dtype))
    layer = LoRALinear.from_base(base, 4, 3, dropout)
    torch.nn.init.normal_(layer.lora_B)
    return layer


def on_card(layer: LoRALinear, x: torch.Tensor) -> torch.Tensor:
    dropped = F.dropout(x, layer.dropout, layer.training) if layer.dropout else None
    return _OnCard.apply(x, dropped, layer.lora_A, layer.lora_B, layer.scaling, layer.base, layer.at_hand)


def results(forward, layer: LoRALinear, x: torch.Tensor) -> list[torch.Tensor]:
    """y, and the gradients of x, A and B."""
    torch.manual_seed(1)
    y = forward(layer, x)
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(2)).to(y.dtype)
    return [y, *torch.autograd.grad(y, (x, layer.lora_A, layer.lora_B), grad)]


@pytest.mark.parametrize("kind", ["dense", "single", "double"])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("shape", [(60,), (2, 5), (0,)])
def test_as_the_steps_one_by_one(kind, dropout, shape):
    layer = make(kind, torch.float64, dropout)
    x = torch.randn(*shape, 40, dtype=torch.float64, requires_grad=True)
    for found, expected in zip(results(on_card, layer, x), results(LoRALinear.forward, layer, x), strict=True):
        assert found.dtype == expected.dtype and found.shape == expected.shape
        # the gradients of A and B are rounded to float32 once
        torch.testing.assert_close(found, expected, atol=1e-5 if found.dtype == torch.float32 else 1e-12, rtol=1e-6)


def joint(kind: str, dtype: torch.dtype):
    """Three adapters of one scale and different ranks and widths, and one x."""
    layers = []
    for rank, out in ((4, 24), (2, 16), (8, 24)):
        base = Linear(40, out, True) if kind == "dense" else NF4Linear(40, out, True, double=kind == "double")
        base.load_dense("weight", torch.randn(out, 40).to(dtype if kind == "dense" else torch.float32))
        base.load_dense("bias", torch.randn(out).to(dtype))
        layers.append(LoRALinear.from_base(base, rank, 0.75 * rank))
        torch.nn.init.normal_(layers[-1].lora_B)
    return layers, torch.randn(60, 40, dtype=dtype, requires_grad=True)


def joint_results(layers, x, together: bool) -> list[torch.Tensor]:
    """Every y, and the gradients of x and of every A and B."""
    out = layers[0].jointly(x, tuple(layers)) if together else [on_card(layer, x) for layer in layers]
    draw = torch.Generator().manual_seed(2)
    grads = [torch.randn(y.shape, generator=draw).to(y.dtype) for y in out]
    learned = [part for layer in layers for part in (layer.lora_A, layer.lora_B) if part.requires_grad]
    return [*out, *torch.autograd.grad(out, [x, *learned], grads)]


@pytest.mark.parametrize("kind", ["dense", "single", "double"])
@pytest.mark.parametrize("learn", ["all", "B alone", "one"])
def test_several_together_as_one_by_one(kind, learn):
    layers, x = joint(kind, torch.float64)
    for place, layer in enumerate(layers):
        layer.lora_A.requires_grad_(learn == "all" or (learn == "one" and place == 1))
        layer.lora_B.requires_grad_(learn != "one" or place == 1)
    for found, expected in zip(joint_results(layers, x, True), joint_results(layers, x, False), strict=True):
        assert found.dtype == expected.dtype and found.shape == expected.shape
        torch.testing.assert_close(found, expected, atol=1e-5 if found.dtype == torch.float32 else 1e-12, rtol=1e-6)


def test_several_together_lose_no_more_than_one_by_one():
    """Outputs are the same bits; dx, whose sum is rounded less often, is nearer to that of float64."""
    layers, x = joint("dense", torch.bfloat16)
    for layer in layers:
        layer.lora_A.data, layer.lora_B.data = (part.bfloat16().float() for part in (layer.lora_A, layer.lora_B))
    found, steps = joint_results(layers, x, True), joint_results(layers, x, False)
    wide = [layer.to(torch.float64) for layer in layers]
    exact = joint_results(wide, x.detach().double().requires_grad_(), False)
    assert all(map(torch.equal, found[:3], steps[:3]))
    for one, two, truth in zip(found, steps, exact, strict=True):
        assert (one - truth).square().mean() <= 1.01 * (two - truth).square().mean()


def test_several_go_one_by_one_where_they_differ_or_somebody_watches():
    layers, x = joint("dense", torch.float32)
    assert layers[0].jointly(x, tuple(layers)) is not None
    hook = layers[1].register_forward_hook(lambda module, args, out: None)
    assert layers[0].jointly(x, tuple(layers)) is None
    hook.remove()
    assert layers[0].jointly(x[None], tuple(layers)) is None is layers[0].jointly(x, (layers[0], layers[1].base))
    layers[2].dropout = 0.1
    assert layers[0].jointly(x, tuple(layers)) is None
    assert layers[0].jointly(x, tuple(layer.eval() for layer in layers)) is not None
    layers[1].scaling = 2.0
    assert layers[0].jointly(x, tuple(layers)) is None


def test_16_bits_lose_less_than_the_steps_one_by_one():
    """Against float64 with the same numbers: fewer roundings, so a smaller error, in y and in every gradient."""
    layer = make("dense", torch.bfloat16)
    layer.lora_A.data, layer.lora_B.data = (part.bfloat16().float() for part in (layer.lora_A, layer.lora_B))
    x = torch.randn(400, 40, dtype=torch.bfloat16, requires_grad=True)
    wide = make("dense", torch.float64)
    wide.load_state_dict(layer.state_dict())
    exact = results(LoRALinear.forward, wide, x.detach().double().requires_grad_())
    for found, steps, truth in zip(results(on_card, layer, x), results(LoRALinear.forward, layer, x), exact,
                                   strict=True):
        assert (found - truth).square().mean() <= 1.01 * (steps - truth).square().mean()


@pytest.mark.parametrize("learns", [True, False])
def test_what_is_kept(learns):
    """x only if A learns; A and B in x's dtype; the thin product: nothing of the size of y."""
    layer = make("single", torch.bfloat16)
    layer.lora_A.requires_grad_(learns)
    layer.lora_B.requires_grad_(learns)
    x, kept = torch.randn(60, 40, dtype=torch.bfloat16, requires_grad=True), []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.shape) or tensor, lambda t: t):
        y = on_card(layer, x)
    assert kept == [x.shape] * learns + [(60, 4), (4, 40), (24, 4)]
    y.sum().backward()
    assert (layer.lora_A.grad is not None) == learns == (layer.lora_B.grad is not None) and x.grad is not None


def test_an_input_without_gradient_and_a_call_without_any():
    layer, x = make("dense", torch.float32), torch.randn(7, 40)
    on_card(layer, x).sum().backward()
    assert layer.lora_A.grad is not None and x.grad is None
    with torch.inference_mode():
        torch.testing.assert_close(on_card(layer, x), layer(x))


def test_a_and_b_cast_once_give_the_same_bits():
    layer, x = make("dense", torch.bfloat16), torch.randn(7, 40, dtype=torch.bfloat16, requires_grad=True)
    expected = results(on_card, layer, x)
    layer.at_hand = tuple(part.detach().bfloat16() for part in (layer.lora_A, layer.lora_B))
    assert all(map(torch.equal, results(on_card, layer, x), expected))


def test_on_a_cpu_nothing_is_cast_ahead():
    model = random_model()
    inject(model, "all-linear", 4, 8)
    with cast_once(model, torch.bfloat16):
        assert all(getattr(module, "at_hand", None) is None for module in model.modules())
