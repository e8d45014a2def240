"""Recording what a model computes, from outside: hooks on its modules and a function in the place of its attention.

    with recording(model) as seen:
        model.answer_hidden(batch)
    seen.outputs["model.layers.0.mlp.gate_proj"], seen.attention[0].q

The model knows nothing of it. Every function returns the very tensor that it would have returned without, so no bit of
a result depends on whether it is watched; behind the block the hooks are gone and the attention is the one of before.
Kept is what passes by, not a copy: no module here writes into its input or, later, into its output, which a test holds.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

# Modules, by the last part of their names, of which input and output are kept.
WATCHED = ("embed_tokens", "input_layernorm", "q_proj", "k_proj", "v_proj", "o_proj", "post_attention_layernorm",
           "gate_proj", "up_proj", "down_proj", "norm")


@dataclass
class Attended:
    """What one call of attention was given and gave: q (Q, H, h), k and v (N, K, h), out (Q, H, h)."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    out: torch.Tensor


@dataclass
class Seen:
    """Inputs and outputs by the module's name, as in the checkpoint, and the calls of attention, layer by layer."""

    inputs: dict[str, torch.Tensor] = field(default_factory=dict)
    outputs: dict[str, torch.Tensor] = field(default_factory=dict)
    attention: list[Attended] = field(default_factory=list)


@contextmanager
def recording(model) -> Iterator[Seen]:
    """Within the block, what `model` computes is kept in the `Seen` that is given; one forward pass at a time."""
    seen, attend, handles = Seen(), model.attend, []

    def keep(name):
        def hook(module, inputs, output):
            # A norm that is given two parts of a sum gives the sum, which is what it norms, and the normed.
            seen.inputs[name], seen.outputs[name] = output if isinstance(output, tuple) else (inputs[0], output)
        return hook

    def watched_attend(q, k, v, layout):
        out = attend(q, k, v, layout)
        seen.attention.append(Attended(q, k, v, out))
        return out

    try:
        for name, module in model.named_modules():
            if name.rpartition(".")[2] in WATCHED:
                handles.append(module.register_forward_hook(keep(name)))
        model.attend = watched_attend
        yield seen
    finally:
        model.attend = attend
        for handle in handles:
            handle.remove()
