"""Training steps on a card: the host never waits, dtypes are as written, memory that runs out halves the step.

Each case is a step of `Trainer` as train.py makes it, walked forward and backward; without a card, on tensors that
compute nothing (tests/cuda/fake.py).

Deliberate break: in finetune/loop.py write `loss += part.detach().item()`; in lora/layer.py make lora_A bfloat16.
"""

from dataclasses import dataclass

import pytest
import torch

from lora.inject import trainable_parameters
from tests.cuda.fake import HostRead
from tests.cuda.models import load, posts, recipe_trainer, some_prompt


@dataclass(frozen=True)
class Case:
    """How the base is stored, and how a step is made."""

    quantize: str = "nf4"
    resident: bool = False
    dropout: float = 0.0
    loss: str = "label"
    checkpointing: bool = False
    micro_tokens: int = 8192
    template: str = "paper"


CASES = {
    "dense": Case("none"), "nf4": Case(), "nf4-double": Case("nf4-double"), "resident": Case(resident=True),
    "instruction first": Case(template="instruction-first"), "vocabulary": Case(loss="vocabulary"),
    "text": Case(loss="text"), "checkpointing": Case(checkpointing=True),
    "text, checkpointing": Case(loss="text", checkpointing=True), "dropout": Case(dropout=0.1),
    "vocabulary, dropout, checkpointing": Case(loss="vocabulary", dropout=0.1, checkpointing=True),
    "cut": Case(micro_tokens=400),
}  # fmt: skip


@pytest.fixture(scope="module")
def walked(one):
    """Case -> what was seen in its step, the trainer after it, and what the step returned; each is walked once."""
    models, steps = {}, {}

    def walk(case: Case):
        kind = (case.quantize, case.resident, case.dropout)
        if kind not in models:
            more = {"dropout": case.dropout} if case.dropout else {}
            models[kind] = load(one, layers=2, quantize=case.quantize, resident=case.resident, adapter=True, **more)
        if case not in steps:
            trainer = recipe_trainer(models[kind], some_prompt(case.template), posts(4), case.loss,
                                     micro_tokens=case.micro_tokens, checkpointing=case.checkpointing)
            with one.inside(strict=False) as seen:
                line = trainer.step()
            gradients = {name: p.grad for name, p in trainable_parameters(models[kind]).items()}
            steps[case] = seen, trainer, line, gradients
        return steps[case]

    return walk


@pytest.mark.parametrize("name", CASES)
def test_the_host_never_waits_inside_a_step(walked, name):
    seen, *_ = walked(CASES[name])
    assert seen.total > 100 and not seen.reads and not seen.pageable


@pytest.mark.parametrize("name", CASES)
def test_dtypes_are_as_written(walked, one, name):
    seen, trainer, line, gradients = walked(CASES[name])
    assert trainer.model.dtype == torch.bfloat16 and seen.products == {torch.bfloat16}
    assert {dtype for operation, dtype, _ in seen.sums if operation in ("mean", "_log_softmax")} == {torch.float32}
    assert gradients and all(p.dtype == p.grad.dtype == torch.float32 for p in trainer.named.values())
    moments = [part for state in trainer.optimizer.state.values() for part in state.values()]
    assert len(moments) == 3 * len(gradients) and all(part.dtype == torch.float32 for part in moments)
    assert line["loss"].dtype == line["grad_norm"].dtype == torch.float32
    assert {tensor.device for tensor in [*gradients.values(), *moments, line["loss"]]} == {one.device}


def test_a_cut_step_makes_more_batches_and_checkpointing_computes_twice(walked):
    products = {name: walked(CASES[name])[0].launches["mm"] for name in ("nf4", "cut", "checkpointing")}
    assert products["cut"] in [products["nf4"] * batches for batches in (2, 3, 4)]
    assert products["nf4"] < products["checkpointing"] < products["cut"]


def test_memory_that_runs_out_halves_the_step(one):
    model = load(one, layers=2, quantize="nf4", resident=False, adapter=True)
    trainer = recipe_trainer(model, some_prompt("paper"), posts(4), micro_tokens=1024)

    def full(module, args):
        if len(args[0]) > 400:
            raise torch.OutOfMemoryError("CUDA out of memory")

    whole = model.model.layers[0].mlp.register_forward_pre_hook(full)
    trainer.step()
    whole.remove()
    assert trainer.halvings >= 1 and trainer.micro_tokens == 1024 >> trainer.halvings and trainer.step_count == 1


def test_a_read_in_the_loop_ends_the_step(one):
    model = load(one, layers=2, quantize="none", resident=False, adapter=True)
    trainer = recipe_trainer(model, some_prompt("paper"), posts(4))
    with one.inside(), pytest.raises((HostRead, RuntimeError)):
        trainer.step()["loss"].item()
