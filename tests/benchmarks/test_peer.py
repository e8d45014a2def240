"""benchmarks.card.peer: transformers and peft compute what ours does, whichever linears carry an adapter and however it
is scaled.

Deliberate break: leave `use_rslora` out, or write "all-linear" for the names of our adapters.
"""

import pytest
import torch

from benchmarks.card.peer import peer
from benchmarks.worker import padded
from common.packed import pack
from lora.inject import adapters, inject
from tests.small import needs, random_model


@pytest.mark.slow  # importing the peers takes seconds
@pytest.mark.parametrize(("targets", "rslora"), [("all-linear", True), (["q_proj", "v_proj"], False)])
def test_the_same_logits(targets, rslora):
    needs("transformers", "peft")
    ours, stream = random_model(), torch.Generator().manual_seed(1)
    inject(ours, targets, 4, 6.0, rslora=rslora, generator=stream)
    for layer in adapters(ours).values():  # a fresh adapter adds nothing, however it is scaled
        layer.lora_B.data.normal_(generator=stream)
    rows, ids = [[5, 9, 200, 31], [7, 8, 300, 41, 2, 66]], torch.tensor([3, 70, 599])
    with torch.no_grad():
        mine = ours.label_logits(ours.answer_hidden(pack(rows, [len(row) - 1 for row in rows], [0, 1]), False), ids)
        theirs = peer(ours)(**padded(rows, "left"), use_cache=False, logits_to_keep=1).logits[:, -1][:, ids]
    assert torch.allclose(mine, theirs, atol=1e-4), (mine, theirs)
