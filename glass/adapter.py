"""The adapter, turned from nothing to twice its strength, all of it or a part, and what its updates are made of.

    y = W x + f s B A x,   f = 0, 0.25 .. 2        probabilities of the labels for each f
    s B A = U diag(spectrum) V^T                   how many directions an update uses, and how strongly; A and B alike
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch

from common.device import best_threads
from common.errors import UserError, closest
from data.prompt import EncodedPost
from glass.source import code
from glass.stages import Stage, Step, Trace
from inference.labeller import label_probabilities
from lora.inject import adapters
from lora.layer import LoRALinear, scaling_factor
from lora.update import thin_svd

FACTORS = tuple(step / 4 for step in range(9))
PART_FACTORS = FACTORS[::2]
MOST_PARTS = 40  # of which a page that is kept holds the strengths; of a larger model it leaves out single linears


def adapter(trace: Trace) -> Trace:
    """The same trace with the stages `factors` and `spectrum`; unchanged if the model carries no adapter."""
    layers = adapters(trace.model)
    if not layers:
        return trace
    return trace.extended([
        strengths(trace),
        Stage("spectrum", "What the updates are made of", "singular values of s B A, of A and of B, one row for each "
              "linear", {"values": spectra(layers), "A": factor_spectra(layers, "lora_A"),
                         "B": factor_spectra(layers, "lora_B")},
              (code(thin_svd, "svd("), code(scaling_factor, "return"), code(factor_spectra, "svdvals")),
              (Step("spectrum", "spectrum.values", (), {"names": list(layers)}),
               *(Step("factor_spectra", f"spectrum.{part}", (), {"names": list(layers), "part": part})
                 for part in "AB")))])


def parts_of(names: Iterable[str]) -> dict[str, list[str]]:
    """What can be turned alone: each layer ("layers.1"), each kind ("q_proj"), each linear without its "model."."""
    names, found = list(names), {}
    for part_of in (lambda name: ".".join(name.split(".")[1:3]), lambda name: name.rpartition(".")[2],
                    lambda name: name.removeprefix("model.")):
        for name in names:
            found.setdefault(part_of(name), []).append(name)
    return found


def kept_parts(model) -> list[str]:
    """The parts of which a kept page holds the strengths: each, or each layer and kind where there are many."""
    names = list(adapters(model))
    parts = list(parts_of(names))
    return parts if len(parts) <= MOST_PARTS else parts[: len(parts) - len(names)]


def every_part(trace: Trace, done: Callable[[], object] = lambda: None) -> Trace:
    """The same trace with a stage `factors.PART` for each of `kept_parts`; `done` is called after each."""
    stages = []
    for part in kept_parts(trace.model):
        if f"factors.{part}" not in trace.by_name:
            stages.append(strengths(trace, part))
        done()
    return trace.extended(stages)


def strengths(trace: Trace, part: str | None = None) -> Stage:
    """The stage `factors` (9, C), or `factors.PART` with that part alone turned (5, C).

    Raises `UserError` for a part that the adapter does not have.
    """
    layers = adapters(trace.model)
    parts = parts_of(layers)
    if part is not None and part not in parts:
        raise UserError(f"part '{part}': is no layer, kind or linear with an adapter{closest(part, parts)}")
    name, names, factors = ("factors", list(layers), FACTORS) if part is None else (
        f"factors.{part}", parts[part], PART_FACTORS)
    ids = [token.id for token in trace.tokens]
    row, found = EncodedPost(ids, len(ids) - 1, False), []
    with best_threads(trace.model.config, trace.threads):
        for factor in factors:
            with scaled(trace.model, factor, names):
                found.append(torch.from_numpy(label_probabilities(trace.model, trace.prompt, [row])))
    title = "The adapter, weaker and stronger" if part is None else f"The adapter of {part}, weaker and stronger"
    return Stage(name, title, "y = W x + f s B A x" + ("" if part is None else f" in {part}, f = 1 elsewhere"),
                 {"factors": torch.tensor(factors), "probabilities": torch.cat(found)},
                 (code(LoRALinear.forward, "self.scaling", "self.lora_B"), code(scaled, ".scaling = factor")),
                 (Step("factors", f"{name}.probabilities", ("tokens.ids", f"{name}.factors"), {"names": names}),))


@contextmanager
def scaled(model, factor: float, names: Iterable[str]) -> Iterator[None]:
    """Within the block the adapters of the linears `names` are `factor` times as strong."""
    layers = adapters(model)
    before = {name: layers[name].scaling for name in names}
    try:
        for name, scaling in before.items():
            layers[name].scaling = factor * scaling
        yield
    finally:
        for name, scaling in before.items():
            layers[name].scaling = scaling


def factor_spectra(layers: dict[str, LoRALinear], part: str) -> torch.Tensor:
    """Singular values of each A or B (`part`: lora_A, lora_B): (linears, largest rank) float32, as in `spectra`."""
    found = [torch.linalg.svdvals(getattr(layer, part).detach().double().cpu()) for layer in layers.values()]
    return torch.nn.utils.rnn.pad_sequence(found, batch_first=True).float()


def spectra(layers: dict[str, LoRALinear]) -> torch.Tensor:
    """Singular values of s B A: (linears, largest rank) float32, falling, zeros behind a smaller rank."""
    found = torch.zeros(len(layers), max(min(layer.r, *layer.lora_B.shape, layer.in_features)
                                         for layer in layers.values()))
    for row, layer in zip(found, layers.values(), strict=True):
        values = thin_svd(layer)[1]
        row[: len(values)] = values
    return found
