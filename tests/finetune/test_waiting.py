"""Nothing in a training step waits for the device: no value is read, and every copy to it is an asynchronous one.

PyTorch's meta device stands in for a GPU: it holds no values, so reading one raises.

Deliberate break: in finetune/loop.py make `own` of the text loss with `device=hidden.device`, send labels with `.to`,
or write `loss.item()` into `_accumulate`.
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from common.packed import sent
from finetune.loop import LOSSES
from model.attention import attend_padded
from model.varlen import attend_varlen
from tests.finetune.test_loop import make_model, make_rows, trainer


class Copies(TorchDispatchMode):
    """Notes for every copy from the CPU whether it was asynchronous."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and args[0].device.type == "cpu" and out.device.type != "cpu":
            self.found.append(bool((kwargs or {}).get("non_blocking")))
        return out


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("attend", [attend_padded, attend_varlen])
def test_a_step_waits_for_nothing(kind, attend):
    rows, prefix = make_rows(30, whole=kind == "text")
    model = make_model(torch.float32, quantize=True).to("meta")
    model.attend = attend
    some = trainer(model, rows, prefix, 200, loss=kind)
    some._accumulate([0])  # tables of constants go to the device once
    with Copies() as copies:
        loss = some._accumulate(list(range(9)))
    assert loss.is_meta and all(parameter.grad is not None for parameter in some.named.values())
    assert len(copies.found) >= 5 and all(copies.found)


def test_what_is_sent_to_a_gpu_goes_by_way_of_pinned_memory(monkeypatch):
    order = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda x: order.append("pinned") or x)
    monkeypatch.setattr(torch.Tensor, "to", lambda x, *words, **more: order.append((*words, more)) or x)
    one, two = torch.arange(3), torch.arange(4)
    assert sent("cuda:0", one, two) == (one, two)
    assert order == ["pinned", "pinned"] + [("cuda:0", {"non_blocking": True})] * 2
    order.clear()
    assert sent("cpu", one) == (one,) and "pinned" not in order
