"""The adapter, turned from nothing to twice its strength, and what its updates are made of.

    y = W x + f s B A x,   f = 0, 0.25 .. 2        probabilities of the labels for each f
    s B A = U diag(spectrum) V^T                   how many directions an update uses, and how strongly
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from common.device import best_threads
from data.prompt import EncodedPost
from glass.source import code
from glass.stages import Stage, Step, Trace
from inference.labeller import label_probabilities
from lora.inject import adapters
from lora.layer import LoRALinear, scaling_factor

FACTORS = tuple(step / 4 for step in range(9))


def adapter(trace: Trace) -> Trace:
    """The same trace with the stages `factors` and `spectrum`; unchanged if the model carries no adapter."""
    layers = adapters(trace.model)
    if not layers:
        return trace
    ids = [token.id for token in trace.tokens]
    row = EncodedPost(ids, len(ids) - 1, False)
    found = []
    with best_threads(trace.model.config):
        for factor in FACTORS:
            with scaled(trace.model, factor):
                found.append(torch.from_numpy(label_probabilities(trace.model, trace.prompt, [row])))
    probabilities = torch.cat(found)  # (9, C)
    return trace.extended([
        Stage("factors", "The adapter, weaker and stronger", "y = W x + f s B A x",
              {"factors": torch.tensor(FACTORS), "probabilities": probabilities},
              (code(LoRALinear.forward, "self.scaling", "self.lora_B"), code(scaled, "layer.scaling = ")),
              (Step("factors", "factors.probabilities", ("tokens.ids", "factors.factors")),)),
        Stage("spectrum", "What the updates are made of", "singular values of s B A, one row for each linear",
              {"values": spectra(layers)}, (code(spectra, "svdvals"), code(scaling_factor, "return")),
              (Step("spectrum", "spectrum.values", (), {"names": list(layers)}),))])


@contextmanager
def scaled(model, factor: float) -> Iterator[None]:
    """Within the block every adapter's scale is `factor` times its own."""
    before = {layer: layer.scaling for layer in adapters(model).values()}
    try:
        for layer, scaling in before.items():
            layer.scaling = factor * scaling
        yield
    finally:
        for layer, scaling in before.items():
            layer.scaling = scaling


@torch.no_grad()
def spectra(layers: dict[str, LoRALinear]) -> torch.Tensor:
    """Singular values of s B A: (linears, largest rank) float32, falling, zeros behind a smaller rank.

    Of the thin factors' triangles, in float64: B A = Q_B (R_B R_A^T) Q_A^T has those of the small matrix in the middle.
    """
    found = torch.zeros(len(layers), max(min(layer.r, *layer.lora_B.shape, layer.in_features)
                                         for layer in layers.values()))
    for row, layer in zip(found, layers.values(), strict=True):
        left = torch.linalg.qr(layer.lora_B.double().cpu()).R
        right = torch.linalg.qr(layer.lora_A.double().cpu().t()).R
        values = torch.linalg.svdvals(left @ right.t()) * layer.scaling
        row[: len(values)] = values[: len(row)]
    return found
