"""What recomputes a trace: a folder with trace.safetensors, trace.json and verify.py, which needs numpy alone.

    write_verification(trace(run, "text"), "out/check");    python out/check/verify.py

verify.py is `glass/recompute/` as one file. The tensors are float32, integers or bytes; 4-bit weights stay the bytes
that they are, so that the file shows what was computed with, and of the embedding only the rows in use are stored.
"""

import json
import os
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from common.files import atomic_folder, check_place
from glass import recompute
from glass.recompute.check import limits
from glass.stages import Trace
from lora.inject import linears
from lora.layer import LoRALinear
from quant.double_quant import dynamic_map
from quant.linear import NF4Linear
from quant.nf4 import NF4_CODE


def write_verification(trace: Trace, folder: str | os.PathLike) -> None:
    """Write the three files, and those of the trace that it is compared with into against/; whole or not at all.

    Raises `UserError` where `folder` cannot be made.
    """
    check_place(folder, "--verify")
    with atomic_folder(folder) as new:
        write_files(trace, new)
        if trace.other is not None:
            (new / "against").mkdir()
            write_files(trace.other.trace, new / "against")


def write_files(trace: Trace, folder: Path) -> None:
    """trace.safetensors, trace.json and verify.py."""
    tensors, described = stored(trace)
    save_file(tensors, folder / "trace.safetensors")
    described = json.dumps(described, ensure_ascii=False, indent=1, allow_nan=False)
    for name, text in (("trace.json", f"{described}\n"), ("verify.py", recompute.program())):
        (folder / name).write_text(text, encoding="utf-8", newline="\n")


def stored(trace: Trace) -> tuple[dict[str, np.ndarray], dict]:
    """The tensors of trace.safetensors by name, and the contents of trace.json."""
    tensors = {name: plain(tensor) for name, tensor in trace.tensors().items()}
    tensors["tokens.bytes"] = np.frombuffer(b"".join(token.bytes for token in trace.tokens), np.uint8)
    tensors["tokens.lengths"] = np.array([len(token.bytes) for token in trace.tokens])
    weights, described = weights_of(trace)
    tensors |= {f"weights.{name}": plain(tensor) for name, tensor in weights.items()}
    tolerance, whole = tolerances(trace.model.dtype, len(trace.layers))
    return tensors, {
        "schema": 1, "text": trace.text, "cut": trace.cut, "label": trace.label, "probabilities": trace.probabilities,
        "dtype": str(trace.model.dtype).removeprefix("torch."), "tolerance": tolerance, "whole_tolerance": whole,
        "compared": trace.other is not None,
        "tokens": [{"id": token.id, "bytes": token.bytes.hex(), "part": token.part} for token in trace.tokens],
        "linears": described,
        "stages": [{"name": stage.name, "title": stage.title, "formula": stage.formula,
                    "tensors": {name: {"shape": list(t.shape), "dtype": str(t.dtype).removeprefix("torch.")}
                                for name, t in stage.tensors.items()},
                    "steps": [{"op": step.op, "out": step.out, "args": step.args, "settings": step.settings}
                              for step in stage.steps]} for stage in trace.stages],
    }


def tolerances(dtype: torch.dtype, layers: int) -> tuple[float, float]:
    """Of a stage and of the whole way, as verify.py has them; in trace.json they are told, and not read."""
    return limits(str(dtype).removeprefix("torch."), layers)


def weights_of(trace: Trace) -> tuple[dict[str, torch.Tensor], dict[str, dict]]:
    """What the stages were computed with: tensors by name, and how each linear is stored."""
    model = trace.model
    rows = [tensor for name, tensor in trace.tensors().items() if name.endswith(".ids")]
    ids = torch.cat(rows).unique()
    found = {"embedding_ids": ids, "embedding_rows": model.model.embed_tokens.weight[ids.to(model.device)],
             "label_rows": model.head_weight[torch.tensor(trace.prompt.label_ids, device=model.device)],
             "nf4_levels": NF4_CODE, "dynamic_map": dynamic_map()}
    for name, module in model.named_modules():
        if name.endswith("norm"):
            found[name] = module.weight
    described = {}
    for name, module in linears(model).items():
        base = module.base if isinstance(module, LoRALinear) else module
        nf4 = isinstance(base, NF4Linear)
        described[name] = {"shape": [base.out_features, base.in_features], "bias": base.bias is not None,
                           "nf4": nf4, "double": nf4 and base.double,
                           "scaling": module.scaling if isinstance(module, LoRALinear) else None}
        if nf4:
            found |= {f"{name}.{key}": tensor for key, tensor in base.named_buffers()}
        else:
            found[f"{name}.weight"] = base.dense_weight(model.dtype)
        if base.bias is not None:
            found[f"{name}.bias"] = base.bias
        if isinstance(module, LoRALinear):
            found |= {f"{name}.lora_A": module.lora_A, f"{name}.lora_B": module.lora_B}
    return found, described


def plain(tensor: torch.Tensor) -> np.ndarray:
    """As it is stored: float32 for all floating-point numbers, integers and bytes as they are; contiguous."""
    tensor = tensor.detach().cpu()
    return np.array((tensor.float() if tensor.is_floating_point() else tensor).numpy(), order="C")
