"""How many kernels a training step of 16 posts and a batch to label launch on a card.

A kernel of a small batch takes a few microseconds, and so does launching one: where a step launches thousands, the card
waits for the host. Counted with Llama 3.2-3B's widths in 2 and 4 layers, every further layer launching as many as one
more of these. `python -m tests.cuda.parts` says what they are.

Deliberate break: in lora/layer.py multiply by `self.scaling` twice; in model/layers.py write `x * 1`.
"""

import pytest

from data.batching import plan
from inference.labeller import MICRO_TOKENS, Labeller
from lora.inject import trainable_parameters
from tests.cuda.fake import Seen
from tests.cuda.launches import of_many
from tests.cuda.models import LAYERS, batch_rows, load, posts, recipe_trainer, some_prompt
from tests.small import needs

FEW, MORE = 2, 4  # layers
# Kernels of one layer, and of everything else with the 28 layers' optimiser: what may not be exceeded.
BUDGET = {("training", "nf4"): (111, 111), ("training", "resident"): (97, 114),
          ("labelling", "nf4"): (51, 61), ("labelling", "resident"): (44, 61)}  # fmt: skip
GOAL = {"training": 4000, "labelling": 1500}


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
            models[layers, kind] = load(one, layers=layers, resident=kind == "resident", adapter=True)
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
        with one.inside(strict=False) as seen:
            Labeller(model, prompt, MICRO_TOKENS).give(rows)
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


@pytest.mark.slow
@pytest.mark.parametrize("work", GOAL)
def test_28_layers_launch_what_follows_from_a_few(counted, work):
    layer, rest = counted(work, "nf4")
    assert counted.seen(work, "nf4", LAYERS).total == LAYERS * layer + rest


@pytest.mark.parametrize("work", GOAL)
def test_a_model_of_3b_reaches_the_goal(counted, work):
    layer, rest = counted(work, "nf4")
    assert LAYERS * layer + rest < GOAL[work]
