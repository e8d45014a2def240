"""GGUF exports read back, for the tests of them: fields, dequantised tensors, rows in llama.cpp's order."""

import json

import gguf
import numpy
import torch

from tests.small import write_base
from tests.tools.exports import ODD, WHOLE, make_run, train_run
from tools.export.tensors import MergedTensors

KINDS = ("f16", "q8_0", "q4_0")


def make_runs(root):
    """Runs on a base whose rows are no whole blocks, and on one whose rows are."""
    trained = train_run(root / "trained", **ODD)
    whole = write_base(root / "whole", **WHOLE)
    return {"odd": make_run(root / "odd", trained, root / "trained" / "base", "nf4"),
            "whole": make_run(root / "whole-run", trained, whole, "nf4", size=0.3), "base": whole, "trained": trained}


def merged(run):
    facts = json.loads((run / "run.json").read_text())["options"]
    return MergedTensors(facts["model"], adapter=run / "adapter", quantize=facts["quantize"])


def file_in(folder):
    return next(folder.glob("*.gguf"))


def read(path):
    """(fields, tensors), each by name; a tensor's numbers are dequantised to float32."""
    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    numbers = {name: torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)).reshape(
        tensor.shape.tolist()[::-1]) for name, tensor in tensors.items()}
    return fields, {name: (tensors[name].tensor_type.name, numbers[name]) for name in tensors}


def turned(name, tensor, config):
    """Rows of W_q and W_k put into pairs one by one, from the definition."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
    if heads is None:
        return tensor
    half, order = len(tensor) // heads // 2, []
    for head in range(heads):
        for pair in range(half):
            order += [head * 2 * half + pair, head * 2 * half + pair + half]
    return tensor[order]
