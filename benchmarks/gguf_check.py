"""An exported GGUF file against the run that it was made from, tensor by tensor, in steps of its blocks of 32 weights.

    Q8_0    w = d q,        d = |w|max / 127                               at most half a step apart
    Q4_0    w = d (q - 8),  d = w / -8 of the w that is farthest from 0    the same, for w cut at 7 d: q ends at 15

The gguf package dequantises the numbers; names are mapped, and the order of rows is undone, by our own code.
"""

from pathlib import Path

import gguf
import torch

from common.errors import UserError
from loading import load_model
from loading.weights import expected_shapes
from model.llama import LlamaForCausalLM
from tools.export.gguf_file import gguf_name

# Half a step, what rounding d to float16 moves the largest whole number by, and float32's rounding.
LIMITS = {"F32": 0.0, "F16": 0.0, "Q8_0": 0.5 + 127 * 2**-11 + 1e-4, "Q4_0": 0.5 + 8 * 2**-11 + 1e-4}
ROWS = 4096  # of a matrix, compared at once


def steps_apart(found: torch.Tensor, right: torch.Tensor, kind: str) -> float:
    """Largest distance of stored weights from the right ones, float32, in steps (F32, F16: 0 where equal, else inf)."""
    if kind in ("F32", "F16"):
        return 0.0 if torch.equal(found, right.half().float() if kind == "F16" else right) else float("inf")
    found, right = found.reshape(-1, 32), right.reshape(-1, 32)
    farthest = right.gather(1, right.abs().argmax(1, keepdim=True))
    step = farthest / {"Q8_0": 127, "Q4_0": -8}[kind]
    step = torch.where(step == 0, 1.0, step)
    wanted = right / step
    return float((found / step - (wanted.clamp(max=7) if kind == "Q4_0" else wanted)).abs().max())


@torch.inference_mode()
def gguf_apart(path: Path, run: Path, kind: str) -> dict[str, float]:
    """Type -> `steps_apart` over all tensors that a file of `kind` has in it; the model's output matrix is tied.

    Raises `UserError` if a tensor is missing, unknown, or stored as another type than it should be.
    """
    model = load_model(run, dtype=torch.float32)
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    shapes = expected_shapes(LlamaForCausalLM.empty(model.config))
    differ = set(stored) - {"rope_freqs.weight"} ^ set(map(gguf_name, shapes))
    if differ:
        raise UserError(f"{path}: {min(differ)} is in the file or in the model, not in both")
    apart = {}
    for name, shape in shapes.items():
        owner, tensor = model.get_submodule(name.rpartition(".")[0]), stored[gguf_name(name)]
        right = owner.dense_weight(torch.float32) if hasattr(owner, "dense_weight") else owner.weight
        matrix = "Q8_0" if kind == "Q4_0" and name == "model.embed_tokens.weight" else kind  # it makes the logits
        if tensor.tensor_type.name != (stored_as := "F32" if len(shape) == 1 else matrix):
            raise UserError(f"{path}: {tensor.name} is stored as {tensor.tensor_type.name}, not {stored_as}")
        order = torch.arange(shape[0])
        if name.split(".")[-2] in ("q_proj", "k_proj"):  # rows lie in rotary pairs, no longer in halves
            order = order.view(-1, 2, model.config.head_dim // 2).transpose(1, 2).reshape(-1)
        for begin in range(0, shape[0], ROWS):
            numbers = gguf.dequantize(tensor.data[begin : begin + ROWS], tensor.tensor_type)
            found = steps_apart(torch.tensor(numbers), right[order[begin : begin + ROWS]].float(), stored_as)
            apart[stored_as] = max(apart.get(stored_as, 0.0), found)
    return apart
