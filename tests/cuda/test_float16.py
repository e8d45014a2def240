"""A card without bfloat16, as a T4 is: float16, a scaled loss, padded rows and PyTorch's own operations, and still the
host waits for nothing inside a step or a window.

Deliberate break: in finetune/loop.py log `self.scaler.get_scale()` as the step's scale, or look for a scale in every
step.
"""

import pytest
import torch

from common.kernels import plain_kernels
from inference.labeller import Labeller
from lora.inject import trainable_parameters
from model.attention import attend_padded
from tests.cuda.models import load, posts, recipe_trainer, some_prompt

KINDS = {"dense": {"quantize": "none"}, "nf4": {}, "resident": {"resident": True}}


@pytest.fixture(scope="module", params=KINDS)
def old(one, request):
    """A model as such a card has it; its linears kept in one of several ways."""
    with plain_kernels():
        model = load(one, layers=2, adapter=True, dtype=torch.float16, **{"quantize": "nf4"} | KINDS[request.param])
        model.attend = attend_padded
        yield model


@pytest.mark.parametrize("template", ["paper", "instruction-first"])
def test_no_step_but_the_first_waits(one, old, template):
    """The first one looks for its scale, which takes a number from the card."""
    trainer = recipe_trainer(old, some_prompt(template), posts(4))
    trainer.step()
    with one.inside(strict=False) as seen:
        line = trainer.step()
    assert not seen.reads and not seen.pageable and seen.products == {torch.float16}
    assert {dtype for operation, dtype, _ in seen.sums if operation in ("mean", "_log_softmax")} == {torch.float32}
    assert line["loss"].dtype == line["grad_norm"].dtype == line["scale"].dtype == torch.float32
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in trainable_parameters(old).values())


def test_a_window_is_given_without_waiting(one, old):
    labeller, prompt = Labeller(old, some_prompt("paper")), some_prompt("paper")
    with one.inside(strict=False) as seen:
        waiting = labeller.give([prompt.encode(text) for text in posts(4)])
    assert not seen.reads and not seen.pageable and seen.products == {torch.float16}
    assert waiting().shape == (4, len(prompt.label_ids))
