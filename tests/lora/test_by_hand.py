"""Adapters in one's own loop: ten steps with torch.optim, saved, taken off and exchanged; and what is refused.

Deliberate breaks: let `lora.inject.remove` put a copy in the base's place, or leave out `int(r)` in `LoRALinear`.
"""

import numpy as np
import pytest
import torch
from torch import nn

from common.errors import UserError
from lora.adapter import load_adapter, save_adapter
from lora.inject import adapters, inject, remove, trainable_parameters
from lora.layer import LoRALinear
from model.layers import Linear
from quant.convert import replace_linears
from tests.small import random_model

IDS = torch.randint(0, 600, (3, 9), generator=torch.Generator().manual_seed(1))


def trained(model, steps: int, **settings) -> list[float]:
    """The losses of a loop of one's own: next tokens of `IDS`."""
    inject(model, "all-linear", generator=torch.Generator().manual_seed(2), **settings)
    optimizer, losses = torch.optim.AdamW(trainable_parameters(model).values(), lr=1e-2), []
    for _ in range(steps):
        loss = nn.functional.cross_entropy(model(IDS[:, :-1]).flatten(0, 1), IDS[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("quantize", [False, True])
def test_adapters_learn_come_off_and_are_exchanged(quantize, tmp_path):
    model = random_model()
    if quantize:
        replace_linears(model)
    with torch.no_grad():
        before, own = model(IDS), dict(model.named_modules())
    losses = trained(model, 10, r=4, alpha=8)
    assert losses[-1] < 0.8 * losses[0]
    save_adapter(model, tmp_path / "one")
    with torch.no_grad():
        learnt = model(IDS)
        names = list(adapters(model))
        with pytest.raises(UserError, match=r"take it off with lora\.inject\.remove"):
            load_adapter(model, tmp_path / "one")
        assert remove(model) == names and not adapters(model) and remove(model) == []
        assert torch.equal(model(IDS), before)
        assert all(own[name] is module for name, module in model.named_modules())
        assert load_adapter(model, tmp_path / "one") == names
        assert torch.equal(model(IDS), learnt)


def test_numbers_of_numpy_are_numbers(tmp_path):
    """A rank that came from `np.arange` was refused, although the message named it as right."""
    model = random_model()
    trained(model, 1, r=np.int64(2), alpha=np.int64(4), dropout=np.float32(0))
    save_adapter(model, tmp_path / "one")
    assert (tmp_path / "one" / "adapter_config.json").read_text().count('"r": 2') == 1


@pytest.mark.parametrize("settings, says", [({"r": 2, "alpha": "8"}, "LoRA alpha = 8: must be a positive number"),
                                            ({"r": 2, "alpha": 8, "dropout": None}, "LoRA dropout = None: must be"),
                                            ({"r": 2.0, "alpha": 8}, "LoRA rank r = 2.0: must be a whole number")])
def test_numbers_that_are_none(settings, says):
    with pytest.raises(UserError, match=says):
        LoRALinear.from_base(Linear(3, 4), **settings)


def test_a_linear_of_pytorch_s_is_refused_by_name():
    """It lacks what merging and a card need; an adapter around it would fail much later."""
    with pytest.raises(UserError, match=r"the base is of type torch.nn.modules.linear.Linear; it must offer"):
        LoRALinear.from_base(nn.Linear(3, 4), 2, 4)
    with pytest.raises(UserError, match="LoRA: Sequential has no linear that an adapter can wrap"):
        inject(nn.Sequential(nn.Linear(3, 4)), "all-linear", 2, 4)
