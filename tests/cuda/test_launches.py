"""How many kernels a training step of 16 posts and a batch to label launch on a card.

A kernel of a small batch takes a few microseconds, and so does launching one: where a step launches thousands, the card
waits for the host. Counted with Llama 3.2-3B's widths in 2 and 4 layers, every further layer launching as many as one
more of these. `python -m tests.cuda.parts` says what they are.

Deliberate break: in model/llama.py norm `x + self.self_attn(...)` in `Block.forward`, without a residual.
"""

import re
from collections import Counter
from contextlib import nullcontext

import pytest
import torch

from common.kernels import plain_kernels
from data.batching import plan
from inference.labeller import MICRO_TOKENS, Labeller
from lora.inject import trainable_parameters
from tests.cuda.fake import Seen
from tests.cuda.launches import of_many
from tests.cuda.models import LAYERS, batch_rows, load, posts, recipe_trainer, some_prompt
from tests.cuda.parts import named, table
from tests.small import needs

FEW, MORE = 2, 4  # layers
# Kernels of one layer, and of everything else with the 28 layers' optimiser: what may not be exceeded.
BUDGET = {("training", "nf4"): (84, 102), ("training", "resident"): (70, 105),
          ("labelling", "nf4"): (35, 44), ("labelling", "resident"): (28, 44),
          ("labelling", "merged"): (15, 35)}  # fmt: skip
GOAL = {"training": 2500, "labelling": 1050}


def of_layers(few: Seen, more: Seen) -> tuple[float, float]:
    """Kernels of one layer, and of a model of 28 without its layers, from what models of FEW and MORE layers launch."""
    single = [seen.total - sum(seen.launches[name] for name in seen.many) for seen in (few, more)]
    layer = (single[1] - single[0]) / (MORE - FEW)
    lists = sum(of_many(name, count // MORE * LAYERS) for name, count in more.many.items())
    return layer, single[0] - FEW * layer + lists


@pytest.fixture(scope="module")
def counted(one):
    """(work, kind of weights) -> kernels of a layer, and of the rest; each counted once."""
    needs("triton")
    models, found = {}, {}

    def model_of(layers: int, kind: str):
        if (layers, kind) not in models:
            models[layers, kind] = load(one, layers=layers, quantize="nf4", resident=kind == "resident", adapter=True,
                                        merged=kind == "merged")
        return models[layers, kind]

    def seen(work: str, kind: str, layers: int) -> Seen:
        model, prompt = model_of(layers, kind), some_prompt("paper")
        if work == "training":
            trainer = recipe_trainer(model, prompt, posts(16), micro_tokens=2**15)  # at once, whatever the tokenizer
            trainer.step()  # the first one makes the optimiser's moments
            with one.inside(strict=False) as seen:
                trainer.step()
            assert seen.many["_fused_adamw_"] == len(trainable_parameters(model)) == 14 * layers
            return seen
        rows = batch_rows(prompt)
        assert len(plan(rows, MICRO_TOKENS, prefix=prompt.prefix_ids)) == 1
        labeller = Labeller(model, prompt, MICRO_TOKENS)
        labeller.give(rows)  # at the first one kernels are tried
        with one.inside(strict=False) as seen:
            labeller.give(rows)
        return seen

    def count(work: str, kind: str) -> tuple[float, float]:
        if (work, kind) not in found:
            found[work, kind] = of_layers(*(seen(work, kind, layers) for layers in (FEW, MORE)))
        return found[work, kind]

    count.seen = seen
    return count


@pytest.mark.parametrize("work, kind", BUDGET)
def test_a_layer_launches_no_more_than_its_budget(counted, work, kind):
    layer, rest = counted(work, kind)
    assert layer <= BUDGET[work, kind][0] and rest <= BUDGET[work, kind][1]


def test_every_kernel_is_launched_by_a_part_of_the_model(one):
    prompt, model = some_prompt("paper"), load(one, layers=FEW, quantize="nf4", resident=False, adapter=True)
    trainer = recipe_trainer(model, prompt, posts(4))
    plain = plain_kernels() if one.is_real else nullcontext()  # PyTorch, which counts there, sees no kernel of Triton's
    with plain, named(one, model), one.inside(strict=False) as seen:
        trainer.step()
    parts = {part for part, _, _ in seen.parts}
    assert seen.parts.total() == seen.total and {"norms", "RoPE", "SwiGLU", "attend", "down: adapter"} <= parts
    assert {way for part, way, _ in seen.parts if part == "SwiGLU"} == {"forward", "backward"}
    assert f"{seen.total:,} launches" in table(seen) and "SwiGLU" in table(seen)


@pytest.mark.parametrize("work", GOAL)
def test_the_card_launches_about_as_many_as_are_counted(one, work):
    """Of the table in launches.py, which nothing else here holds against a card."""
    if not one.is_real:
        pytest.skip("needs a CUDA device")
    prompt, model = some_prompt("paper"), load(one, layers=FEW, quantize="nf4", resident=False, adapter=True)
    trainer, labeller, rows = recipe_trainer(model, prompt, posts(16)), Labeller(model, prompt), batch_rows(prompt)
    run = trainer.step if work == "training" else lambda: labeller.give(rows)
    run()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=list(torch.profiler.supported_activities())) as profiled:
        run()
        torch.cuda.synchronize()
    ran = Counter(event.name for event in profiled.events() if event.device_type == torch.autograd.DeviceType.CUDA)
    # How many parts cuBLAS splits a thin product into, and adds up afterwards, is its choice for each size and card.
    launched = sum(count for name, count in ran.items() if not re.search("splitK|Memset", name, re.IGNORECASE))
    layer, rest = BUDGET[work, "nf4"]
    assert 0 < launched <= 1.15 * (FEW * layer + rest), ran.most_common(40)


@pytest.mark.slow
@pytest.mark.parametrize("work", GOAL)
def test_28_layers_launch_what_follows_from_a_few(counted, work):
    layer, rest = counted(work, "nf4")
    assert counted.seen(work, "nf4", LAYERS).total == LAYERS * layer + rest


@pytest.mark.parametrize("work", GOAL)
def test_a_model_of_3b_reaches_the_goal(counted, work):
    layer, rest = counted(work, "nf4")
    assert LAYERS * layer + rest < GOAL[work]
