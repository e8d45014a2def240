"""What the page is given of a trace: numbers rounded to six digits, each under the name of its stage.

Of tensors with a row for each token the page shows the row at which the label is read; the rest is in the file that
`--verify` writes.
"""

import math

import torch

from glass.bits import blocks_of, four_bit_linears
from glass.learning_shown import line_of, of_learning
from glass.stages import Stage, Trace

DIGITS = 6
WHOLE = ("ids", "positions", "frequencies")  # tensors of which all is shown


def shown(trace: Trace, learnt: int = 0) -> dict:
    """The overview: tokens, probabilities, a line a layer, and the stages without their numbers.

    learnt: how many steps of learning lie behind the model that it shows.
    """
    extra = {part: make(trace.by_name) for part, (stage, make) in EXTRA.items() if stage in trace.by_name}
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
        "learning": of_learning(trace, numbers), "learnt": learnt,
    } | extra | ({"matrices": {name: blocks_of(layer) for name, layer in four_bit_linears(trace.model).items()}}
                 if "bits" in extra else {})


def of_why(stages: dict[str, Stage]) -> dict:
    """Of each token: its place, p(label) without it, its slope; of each word: its place in the text, p(label)."""
    tokens, slopes, label = stages["without_tokens"], stages["gradient"], int(stages["gradient"].label)
    found = {"label": label, "tokens": [
        {"place": place, "without": without, "slope": slope} for place, without, slope in zip(
            numbers(tokens.places), numbers(tokens.probabilities[:, label]), numbers(slopes.values), strict=True)]}
    if "without_words" in stages:
        words = stages["without_words"]
        found["words"] = [{"start": start, "end": end, "without": without} for start, end, without in zip(
            numbers(words.starts), numbers(words.ends), numbers(words.probabilities[:, label]), strict=True)]
    return found


def of_adapter(stages: dict[str, Stage]) -> dict:
    """The labels' probabilities by the adapter's strength, and each linear's singular values."""
    factors, spectrum = stages["factors"], stages["spectrum"]
    names = [name.removeprefix("model.") for name in spectrum.steps[0].settings["names"]]
    return {"factors": numbers(factors.factors), "probabilities": [numbers(row) for row in factors.probabilities],
            "spectrum": [{"name": name, "values": numbers(row)} for name, row in
                         zip(names, spectrum.values, strict=True)]}


def of_bits(stages: dict[str, Stage]) -> dict:
    """The block's numbers, which block it is, and which there are."""
    stage = stages["bits"]
    return stage.steps[0].settings | {name: numbers(tensor) for name, tensor in stage.tensors.items()}


EXTRA = {"bits": ("bits", of_bits), "why": ("gradient", of_why), "adapter": ("factors", of_adapter)}


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
    if stage.name.startswith("learning."):
        return line_of(stage, name, tensor)
    way = stage.name.startswith("layers.") or stage.name in ("tokens", "embedding", "rotation")
    if name in WHOLE or not tensor.dim() or not way:
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
