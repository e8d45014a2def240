"""What the adapter does: how large its updates are, how many directions they use, which of them carry the task.

For a linear with base weight W (out, in) and the update U = s B A of rank r, computed in float64:

    norm ratio       ||U|| / ||W||, Frobenius norms
    effective rank   exp(-sum_k p_k ln p_k),  p_k = sigma_k / sum_j sigma_j  over U's singular values (Roy and Vetterli
                     2007, EUSIPCO, 606-610): between 1 and r
    off              the same posts with this update left out and all others kept (`audit.change`)

Against another adapter with update V on the same linear, where P and Q are orthonormal bases of the directions that U
and V write into (their columns), or read from (their rows):

    cosine           <U, V> / (||U|| ||V||)
    overlap          ||P^T Q||^2 / min(r_U, r_V), the mean squared cosine of their principal angles (Bjorck and Golub
                     1973, Mathematics of Computation 27, 579-594); subspaces drawn at random in a space of d dimensions
                     have max(r_U, r_V) / d on average
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from audit.change import change
from audit.subject import Subject
from common.errors import UserError
from lora.inject import adapters
from lora.layer import LoRALinear
from lora.update import thin_svd


@contextmanager
def switched_off(model: nn.Module, names: Iterable[str]) -> Iterator[None]:
    """Within the block, the adapters on the linears `names` add zeros."""
    layers = adapters(model)
    before = {name: layers[name].scaling for name in names}
    try:
        for name in before:
            layers[name].scaling = 0.0
        yield
    finally:
        for name, scaling in before.items():
            layers[name].scaling = scaling


def effective_rank(values: torch.Tensor) -> float:
    """exp of the entropy of values / sum(values), (k,) float64; 0 without any."""
    if not len(values):
        return 0.0
    shares = values / values.sum()
    return math.exp(-float(torch.special.xlogy(shares, shares).sum()))


def norms(model: nn.Module) -> list[dict]:
    """One dict for each adapter, in the model's order."""
    rows = []
    for name, layer in adapters(model).items():
        values = thin_svd(layer)[1]
        weight = float(layer.base.dense_weight(torch.float32).double().norm())
        update = float(values.norm())
        rows.append({"name": name, "rank": layer.r, "weight_norm": weight, "update_norm": update,
                     "ratio": update / weight if weight else 0.0, "effective_rank": effective_rank(values),
                     "singular_values": values.tolist()})
    return rows


def angles(layer: LoRALinear, other: LoRALinear) -> dict:
    """The module's cosine and overlaps of two adapters on one linear; None where one of them adds nothing."""
    (left, values, right), (left2, values2, right2) = thin_svd(layer), thin_svd(other)
    if not len(values) or not len(values2):
        return {"cosine": None, "writes": None, "reads": None, "writes_by_chance": None, "reads_by_chance": None}
    least, most = sorted((len(values), len(values2)))
    inner = ((left * values).T @ (left2 * values2)) * (right.T @ right2)  # <U, V> is the sum of its entries
    return {"cosine": float(inner.sum() / (values.norm() * values2.norm())),
            "writes": float((left.T @ left2).square().sum() / least), "writes_by_chance": most / layer.out_features,
            "reads": float((right.T @ right2).square().sum() / least), "reads_by_chance": most / layer.in_features}


def compare(model: nn.Module, other: nn.Module, where: str) -> list[dict]:
    """`angles` for each linear that both models adapt. Raises `UserError`, beginning with `where`, if there is none, or
    if one of them has another shape."""
    first, second = adapters(model), adapters(other)
    both = [name for name in first if name in second]
    if not both:
        raise UserError(f"{where}: its adapter is on no linear that this run's is on; give a run with the same targets")
    for name in both:
        shapes = [(layer.out_features, layer.in_features) for layer in (first[name], second[name])]
        if shapes[0] != shapes[1]:
            raise UserError(f"{where}: {name} has the shape {shapes[1]}, not {shapes[0]}; give a run on the same base")
    return [{"name": name, **angles(first[name], second[name])} for name in both]


def adapter(subject: Subject, reference, *, level: str = "matrix", draws: int = 2000, seed: int = 0,
            progress: Callable[[int], object] = lambda total: lambda: None) -> dict:
    """The section for audit.json: norms, and each update (`level` "matrix") or each layer's updates left out alone."""
    names = list(adapters(subject.model))
    parts = {name: [name] for name in names} if level == "matrix" else {}
    if level == "layer":
        for name in names:
            parts.setdefault(".".join(name.split(".")[:3]), []).append(name)
    done, rows = progress(len(parts) + 1), []
    for title, inside in {**parts, "all": names}.items():
        with switched_off(subject.model, inside):
            found = change(subject.table, reference, subject.probabilities(), draws, seed)
        rows.append({"name": title, "matrices": len(inside), **found})
        done()
    whole = rows.pop()
    return {"level": level, "matrices": norms(subject.model), "all": whole,
            "off": sorted(rows, key=lambda row: (-row["kl"], row["name"]))}
