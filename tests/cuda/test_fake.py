"""The card that is not there: it finds host reads, mixed devices and pageable copies, names their line, and counts.

Deliberate break: in tests/cuda/fake.py leave out the `raise` of `Watch._read`, or let `kernels` count views.
"""

import inspect
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.cuda.fake import HostRead
from tests.cuda.models import load, posts, recipe_trainer, some_prompt

READS = {
    "item": lambda x: x.sum().item(),
    "bool": lambda x: bool((x > 0).all()),
    "if": lambda x: 1 if x[0, 0] > 0 else 2,
    "float": lambda x: float(x[0, 0]),
    "tolist": lambda x: x[0].tolist(),
    "equal": lambda x: torch.equal(x, x),
    "nonzero": lambda x: (x > 0).nonzero(),
    "mask": lambda x: x[x > 0],
    "masked_select": lambda x: x.masked_select(x > 0),
    "unique": lambda x: x.unique(),
    "repeats": lambda x: x[0].repeat_interleave(x[0].long()),
    "cpu": lambda x: x.cpu(),
    "to": lambda x: x.to("cpu"),
    "from a list": lambda x: torch.tensor([1, 2], device=x.device),
    "from the host": lambda x: torch.ones(2).to(x.device),
    "copied into": lambda x: x[0].copy_(torch.ones(8)),
}


def here() -> str:
    """This file, as the harness names it."""
    return "tests/cuda/" + Path(__file__).name


@pytest.mark.parametrize("kind", READS)
def test_a_host_read_is_an_error_inside_a_step_and_listed_outside(one, kind):
    x, read = torch.ones(4, 8, device=one.device), READS[kind]
    with one.inside(), pytest.raises((HostRead, RuntimeError)) as caught:
        read(x)
    if not one.is_real:
        assert f"{here()}:{inspect.getsourcelines(read)[1]}: " in str(caught.value)
        if kind not in ("mask", "masked_select", "unique", "repeats"):  # whose size nobody knows
            with one.inside(strict=False) as seen:
                read(x)
            assert seen.reads and all(read.startswith(here()) for read in seen.reads)


def test_reads_in_backward_are_found_with_their_line(one):
    class Asks(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, grad):
            return grad * grad.sum().item()

    x = torch.ones(4, device=one.device, requires_grad=True)
    with one.inside(), pytest.raises((HostRead, RuntimeError)) as caught:
        Asks.apply(x).sum().backward()
    line = inspect.getsourcelines(Asks.backward)[1] + 2
    assert one.is_real or f"{here()}:{line}: " in str(caught.value)


def test_what_does_not_wait_is_allowed(one):
    x = torch.ones(4, 8, device=one.device)
    pinned = torch.ones(4, 8).pin_memory()
    with one.inside() as seen:
        x += pinned.to(x.device, non_blocking=True)
        x.to("cpu", non_blocking=True)
        assert torch.tensor([3]).item() == 3 and torch.ones(3).nonzero().shape == (3, 1)  # the host's own
        x.repeat_interleave(torch.tensor([2, 1, 0, 1]).pin_memory().to(x.device, non_blocking=True), 0, output_size=4)
    assert not seen.reads and not seen.pageable


def test_copies_from_pageable_memory_are_listed(one):
    with one.inside() as seen:
        torch.ones(4).to(one.device, non_blocking=True)
    assert len(seen.pageable) == 1 and seen.pageable[0].startswith(here())


@pytest.mark.parametrize("compute", [lambda x: x + torch.ones(8), lambda x: x @ torch.ones(8, 2),
                                     lambda x: torch.cat([x, torch.ones(1, 8)])])
def test_two_devices_are_an_error(one, compute):
    with pytest.raises((AssertionError, RuntimeError)):
        compute(torch.ones(4, 8, device=one.device))


def test_launches_are_counted_forward_and_backward(one):
    x = torch.ones(6, 64, device=one.device, dtype=torch.bfloat16)
    with one.inside() as seen:
        y = (x.float().square().mean(-1, keepdim=True) + 1e-5).rsqrt().to(x.dtype) * x
        y.view(2, 3, 64).transpose(0, 1)[:, 0].expand(3, 64).detach()
        torch.empty_like(x)
    assert seen.launches == {"_to_copy": 2, "pow": 1, "mean": 1, "add": 1, "rsqrt": 1, "mul": 1}
    weight = torch.ones(8, 64, device=one.device, dtype=torch.bfloat16, requires_grad=True)
    with one.inside() as seen:
        F.linear(x, weight).sum().backward()
    assert seen.launches["mm"] == 2 and seen.products == {torch.bfloat16} and ("sum", torch.bfloat16, "") in seen.sums
    assert {way for _, way, name in seen.parts if name == "mm"} == {"forward", "backward"}


def test_kept_bytes_are_those_of_the_memory_behind_what_is_saved(one):
    layer = nn.Linear(64, 8, bias=False, device="meta")
    layer.weight = nn.Parameter(torch.ones(8, 64, device=one.device))
    with one.kept(layer) as kept:
        x = torch.ones(6, 64, device=one.device)
        first = layer(x).exp()  # keeps x, exp's result
        (first.view(2, 24) * first.view(2, 24)).sum()  # keeps it twice more
    assert kept == [(6 * 64 + 6 * 8) * 4]


def test_an_item_planted_in_the_model_is_found(one):
    """As the first two tests, with the model's own code around the read, forward and backward."""
    model = load(one, layers=2, quantize="none", resident=False, adapter=True)
    trainer = recipe_trainer(model, some_prompt("paper"), posts(4))

    def plant(module, args, out):
        out.sum().item()
        if out.requires_grad:
            out.register_hook(lambda grad: grad.sum().item() and None)

    lines = {inspect.getsourcelines(plant)[1] + offset for offset in (1, 3)}
    assert not {line for line in lines if f"{here()}:{line}: " in " ".join(walked(one, trainer).reads)}
    planted = model.model.layers[0].mlp.register_forward_hook(plant)
    found = " ".join(walked(one, trainer).reads)
    assert one.is_real or all(f"{here()}:{line}: " in found for line in lines)
    with one.inside(), torch.no_grad(), pytest.raises((HostRead, RuntimeError)):
        model.model.layers[0].mlp(torch.ones(2, 3072, dtype=model.dtype, device=one.device))
    planted.remove()


def walked(one, trainer):
    with one.inside(strict=False) as seen:
        trainer.step()
    return seen
