"""What the page is given of a trace: numbers rounded to six digits, each under the name of its stage.

Of tensors with a row for each token the page shows the row at which the label is read; the rest is in the file that
`--verify` writes.
"""

import math

import torch

from data.languages import language_name
from glass.adapter import PART_FACTORS, parts_of
from glass.against import APART, COMPARED
from glass.bits import blocks_of, four_bit_linears
from glass.learning_shown import line_of, of_learning
from glass.stages import Stage, Trace
from glass.tax import SENTENCES
from glass.why import MOST
from lora.inject import adapters

DIGITS = 6
WHOLE = ("ids", "positions", "frequencies")  # tensors of which all is shown


def shown(trace: Trace, learnt: int = 0) -> dict:
    """The overview: tokens, probabilities, a line a layer, and the stages without their numbers.

    learnt: how many steps of learning lie behind the model that it shows.
    """
    extra = {part: make(trace.by_name) for part, (stage, make) in EXTRA.items() if stage in trace.by_name}
    codes = list(dict.fromkeys(piece for stage in trace.stages for piece in stage.code))
    places = {piece: place for place, piece in enumerate(codes)}
    return {
        "about": about(trace.model), "text": trace.text, "cut": trace.cut, "label": trace.label,
        "labels": list(trace.probabilities),
        "probabilities": numbers(trace.by_name["probabilities"].probabilities),
        "tokens": listed(trace),
        "layers": [{"lens": numbers(layer.lens.probabilities),
                    "attention_size": numbers(layer.attention_write.size[-1:])[0],
                    "mlp_size": numbers(layer.mlp.size[-1:])[0],
                    "attention": [numbers(head) for head in layer.attention.weights[:, -1]]} for layer in trace.layers],
        "against": None if trace.other is None else of_against(trace),
        "stages": [{"name": stage.name, "title": stage.title, "formula": stage.formula,
                    "code": [places[piece] for piece in stage.code]} for stage in trace.stages],
        "codes": [{"path": piece.path, "name": piece.name, "first": piece.first, "lines": piece.lines,
                   "marked": piece.marked} for piece in codes],
        "learning": of_learning(trace, numbers), "learnt": learnt,
    } | extra | ({"matrices": {name: blocks_of(layer) for name, layer in four_bit_linears(trace.model).items()}}
                 if "bits" in extra else {})


def about(model) -> dict:
    """How the model's weights are kept, which linears carry an adapter, and the dtype of its arithmetic."""
    kinds = dict.fromkeys(name.rpartition(".")[2] for name in adapters(model))
    return {"four_bits": bool(four_bit_linears(model)), "adapted": list(kinds),
            "dtype": str(model.dtype).removeprefix("torch.")}


def listed(trace: Trace) -> list[dict]:
    """Each token of the row as text, its bytes, its id, and which part it is of."""
    return [{"text": token.text, "bytes": token.bytes.hex(), "id": token.id, "part": token.part}
            for token in trace.tokens]


def of_why(stages: dict[str, Stage]) -> dict:
    """Of each token: its place, the labels' probabilities without it, its slope; of each word: its place in the text,
    the probabilities. `label`: the one that the slopes are of; `most`: of how many tokens and words, where a post has
    more."""
    tokens, slopes = stages["without_tokens"], stages["gradient"]
    found = {"label": int(slopes.label), "most": MOST, "tokens": [
        {"place": place, "without": numbers(without), "slope": slope} for place, without, slope in zip(
            numbers(tokens.places), tokens.probabilities, numbers(slopes.values), strict=True)]}
    if "without_words" in stages:
        words = stages["without_words"]
        found["words"] = [{"start": start, "end": end, "without": numbers(without)} for start, end, without in zip(
            numbers(words.starts), numbers(words.ends), words.probabilities, strict=True)]
    return found


def of_adapter(stages: dict[str, Stage]) -> dict:
    """The labels' probabilities by the strength of the adapter and of its parts, and each linear's singular values."""
    factors, spectrum = stages["factors"], stages["spectrum"]
    names = [name.removeprefix("model.") for name in spectrum.steps[0].settings["names"]]
    parts = {name.removeprefix("factors."): [numbers(row) for row in stage.probabilities]
             for name, stage in stages.items() if name.startswith("factors.")}
    return {"factors": numbers(factors.factors), "probabilities": [numbers(row) for row in factors.probabilities],
            "parts": parts, "part_factors": PART_FACTORS, "names": list(parts_of(spectrum.steps[0].settings["names"])),
            "spectrum": [{"name": name, "values": numbers(row), "A": numbers(a), "B": numbers(b)} for name, row, a, b in
                         zip(names, spectrum.values, spectrum.A, spectrum.B, strict=True)]}


def of_bits(stages: dict[str, Stage]) -> dict:
    """The block's numbers, which block it is, and which there are."""
    stage = stages["bits"]
    return stage.steps[0].settings | {name: numbers(tensor) for name, tensor in stage.tensors.items()}


def of_against(trace: Trace) -> dict:
    """The other post and model, how far apart the two are, and where they part."""
    stages, other = trace.by_name, trace.other.trace
    layers = [stages[f"against.{number}"] for number in range(len(trace.layers))]
    parted = stages["against.parted"]
    found = {
        "words": trace.other.words, "text": other.text, "label": other.label, "names": list(COMPARED),
        "tokens": listed(other),
        "shared": numbers(stages["against.tokens"].shared),
        "probabilities": [numbers(row) for row in stages["against.labels"].probabilities],
        "layers": [{"distances": numbers(layer.distances), "heads": numbers(layer.heads),
                    "reading": [numbers(row) for row in layer.reading],
                    "tokens": numbers(layer.tokens) if "tokens" in layer.tensors else None} for layer in layers],
        "parted": {"differs": numbers(parted.differs), "residual": int(parted.residual),
                   "reading": int(parted.reading), "share": APART}}
    if "against.updates" in stages:
        updates = stages["against.updates"]
        names = [name.removeprefix("weights.model.").removesuffix(".lora_B") for name in updates.steps[0].args[::4]]
        found["updates"] = [
            {"name": name, "cosine": cosine, "writes": numbers(writes), "reads": numbers(reads),
             "spectra": [numbers(row) for row in spectra]} for name, cosine, writes, reads, spectra in zip(
                names, numbers(updates.cosine), updates.writes, updates.reads, updates.spectra.transpose(0, 1),
                strict=True)]
    return found


def of_tax(stages: dict[str, Stage]) -> dict:
    """Each language's name, sentence and counts."""
    stage = stages["tax"]
    counts = {name: numbers(stage.tensors[name]) for name in ("tokens", "bytes", "characters", "tax")}
    return {"languages": [{"name": language_name(language), "language": language, "text": text}
                          | {name: values[row] for name, values in counts.items()}
                          for row, (language, text) in enumerate(SENTENCES.items())]}


EXTRA = {"bits": ("bits", of_bits), "why": ("gradient", of_why), "adapter": ("factors", of_adapter),
         "tax": ("tax", of_tax)}


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
        return tensor[:, -1], "all heads, the row of the answer"
    return tensor[-1], "" if len(tensor) == 1 else "the row of the answer"


def numbers(tensor: torch.Tensor) -> list:
    """All entries in a row: whole ones as they are, others rounded to `DIGITS` digits, minus infinity as None."""
    values = tensor.detach().cpu().reshape(-1).tolist()
    if not tensor.is_floating_point():
        return values
    return [float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None for value in values]
