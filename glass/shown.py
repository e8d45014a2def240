"""What the page is given of a trace: numbers rounded to six digits, each under the name of its stage.

Of tensors with a row for each token the page shows the row at which the label is read; the rest is in the file that
`--verify` writes.
"""

import math

import torch

from glass.stages import Stage, Trace

DIGITS = 6
WHOLE = ("ids", "positions", "frequencies")  # tensors of which all is shown


def shown(trace: Trace) -> dict:
    """The overview: tokens, probabilities, a line a layer, and the stages without their numbers."""
    codes = list(dict.fromkeys(piece for stage in trace.stages for piece in stage.code))
    return {
        "text": trace.text, "cut": trace.cut, "label": trace.label, "labels": list(trace.probabilities),
        "probabilities": numbers(trace.by_name["probabilities"].probabilities),
        "tokens": [{"text": token.text, "bytes": token.bytes.hex(), "id": token.id, "part": token.part}
                   for token in trace.tokens],
        "layers": [{"lens": numbers(layer.lens.probabilities),
                    "attention_size": numbers(layer.attention_write.size[-1:])[0],
                    "mlp_size": numbers(layer.mlp.size[-1:])[0],
                    "attention": [numbers(head) for head in layer.attention.weights[:, -1]]} for layer in trace.layers],
        "stages": [{"name": stage.name, "title": stage.title, "formula": stage.formula,
                    "code": [codes.index(piece) for piece in stage.code]} for stage in trace.stages],
        "codes": [{"path": piece.path, "name": piece.name, "first": piece.first, "lines": piece.lines,
                   "marked": piece.marked} for piece in codes],
    }


def details(stage: Stage) -> list[dict]:
    """The stage's tensors: name, shape, dtype, the numbers of the answer's row, and words for which these are."""
    found = []
    for name, tensor in stage.tensors.items():
        row, words = answer_row(stage, name, tensor)
        found.append({"name": name, "shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch."),
                      "row": words, "values": numbers(row)})
    return found


def answer_row(stage: Stage, name: str, tensor: torch.Tensor) -> tuple[torch.Tensor, str]:
    """The part of a tensor that the page shows, and words for it; no words where it is all of it."""
    if name in WHOLE or not tensor.dim():
        return tensor, ""
    if name in ("scores", "weights"):  # (H, Q, T)
        return tensor[:, -1], "all heads, the answer's row"
    return tensor[-1], "" if len(tensor) == 1 else "the answer's row"


def numbers(tensor: torch.Tensor) -> list:
    """All entries in a row: whole ones as they are, others rounded to `DIGITS` digits, minus infinity as None."""
    values = tensor.detach().cpu().reshape(-1).tolist()
    if not tensor.is_floating_point():
        return values
    return [float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None for value in values]
