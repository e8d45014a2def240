"""Where gradients stop: at the adapters' A and B, and nowhere below the lowest of them.

Deliberate break: leave `model.requires_grad_(False)` out of `lora.inject.inject`, or let `quant.linear._NF4Product`
save x for backward. Both turn red.
"""

import pytest
import torch

from common.packed import pack
from lora.inject import adapters, inject
from quant.convert import replace_linears
from tests.small import random_model

LABEL_IDS = torch.tensor([5, 6, 7])


def loss_of(model) -> torch.Tensor:
    batch = pack([[1, 2, 3, 4], [1, 2, 9]], [3, 2], [0, 1])
    logits = model.label_logits(model.answer_hidden(batch), LABEL_IDS)
    return torch.nn.functional.cross_entropy(logits, torch.tensor([0, 2]))


@pytest.mark.parametrize("quantise", [None, False, True])
@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj"], r"model\.layers\.1\..*"])
def test_only_a_and_b_learn(quantise, targets):
    model = random_model().requires_grad_(True)
    if quantise is not None:
        replace_linears(model, double=quantise)
    names = inject(model, targets, 4, 8)
    for layer in adapters(model).values():
        torch.nn.init.normal_(layer.lora_B)  # from zero, A's gradient would be zero as well
    loss_of(model).backward()
    learnt = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert learnt == {f"{name}.lora_{part}" for name in names for part in "AB"}
    assert all(parameter.grad.abs().sum() > 0 for name, parameter in model.named_parameters() if name in learnt)


def test_nothing_below_the_lowest_adapter_is_kept_for_backward():
    model = random_model()
    inject(model, r"model\.layers\.1\..*", 4, 8)
    outputs = {}
    for number, layer in enumerate(model.model.layers):
        layer.register_forward_hook(lambda module, given, out, number=number: outputs.__setitem__(number, out))
    hidden = model.hidden(pack([[1, 2, 3, 4], [1, 2, 9]], [3, 2], [0, 1]))
    assert not outputs[0].requires_grad and outputs[1].requires_grad and hidden.requires_grad


@pytest.mark.parametrize("double", [False, True])
def test_a_frozen_4_bit_linear_keeps_its_bytes_and_not_its_input(double):
    model = random_model()
    replace_linears(model, double=double)
    linear, kept = model.model.layers[0].self_attn.q_proj, []
    x = torch.randn(3, linear.in_features, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        linear(x).sum().backward()
    assert [id(tensor) for tensor in kept] == [id(tensor) for tensor in (linear.packed, *linear.scales)]
