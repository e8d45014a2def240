"""Steps whose pieces are recorded as CUDA graphs: while one is recorded, nothing is read, and nothing comes from
the host; a replayed step is a few launches, and the host never waits. tests/finetune/test_graphs.py has the numbers.

Deliberate break: in finetune/graphs.py leave the layouts' `keep` out, so that the sequences are made, and sent, anew;
or in model/llama.py keep the state of random numbers in checkpointing.
"""

from dataclasses import replace

import pytest
import torch

from tests.cuda.models import load, posts, recipe_trainer, some_prompt

REPLAYED = 40  # launches of a step besides the graph's: zeros, inputs, norm and optimiser


@pytest.mark.parametrize("kind, more", [
    ("nf4", {}), ("resident", {}), ("nf4", {"checkpointing": True}), ("nf4", {"loss": "vocabulary"})])
@pytest.mark.parametrize("template", ["paper", "instruction-first"])
def test_a_step_is_computed_then_recorded_then_replayed(one, kind, more, template):
    model = load(one, layers=2, quantize="nf4", resident=kind == "resident", adapter=True)
    trainer = recipe_trainer(model, some_prompt(template), posts(4), graphs=True, **more)
    trainer.recipe = replace(trainer.recipe, learning_rate=0.0)  # each step then has the first one's numbers
    with one.inside() as computed:
        first = trainer.step()
    first = float(first["loss"])  # before another step is given the tensor's memory
    with one.inside(strict=not one.is_real) as recorded:  # PyTorch itself waits before it records
        trainer.step()
    with one.inside() as replayed:
        line = trainer.step()
    piece, = trainer.graphs.pieces.values()
    assert not (computed.pageable or recorded.pageable or replayed.pageable)
    if one.is_real:
        assert float(line["loss"]) == first
        return
    seen = piece.graph.seen
    assert computed.launches["addmm"] == seen.launches["addmm"] > 10 and not seen.launches["copy"]
    assert recorded.launches["replay"] == replayed.launches["replay"] == 1 and replayed.total <= REPLAYED
    assert seen.products == {torch.bfloat16} and not seen.pageable
    assert all(parameter.grad is total
               for parameter, total in zip(trainer.graphs.parameters, trainer.graphs.sums, strict=True))
