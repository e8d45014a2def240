"""Two of anything: two traces beside each other, layer by layer, with the first place where they part.

    compared(trace(run, "a"), trace(other, "b"))        the first trace with the stages `against.*` at its end

The two may differ in their weights (NF4 or 16 bits), in their adapters, in their posts. What is compared stands at the
token at which the label is read, which is the last of every row:

    distance      |a - b| / |a|, Euclidean lengths, for each tensor of `COMPARED` in each layer
    attention     half the sum of |w_a - w_b| for each head: the total variation of two distributions over tokens
    reading       the labels' probabilities if reading stopped after the layer

Rows of two posts begin with the same ids and end with the same ids. Only there one token can be held against another,
and all that lies between counts as one; where all ids are the same, every token is compared. Computed in float64.

Of two adapters, the principal angles between what their updates read and between what they write (Bjorck and Golub
1973, Mathematics of Computation 27, 579-594): 0 degrees where a direction is in both, 90 where it is in one alone.
"""

import torch

from glass.source import code
from glass.stages import ANSWER, OTHER, Other, Stage, Step, Trace
from lora.inject import adapters
from lora.layer import LoRALinear
from lora.update import thin_svd

COMPARED = ("input_norm.out", "queries.q", "keys.k", "values.v", "attention.out", "attention_write.residual",
            "mlp_norm.out", "mlp.product", "mlp.residual")
CLOSE = 1e-12  # an angle of 8e-5 degrees
APART = 0.01  # share of the residual stream's length from which on two rows count as parted


@torch.inference_mode()
def compared(one: Trace, two: Trace, words: str = "another model") -> Trace:
    """`one` with the stages of the comparison, and `two` as its `other`; both models have the same shape.

    words: which model the second one is of, for the page.
    """
    ids = [trace.by_name["tokens"].ids for trace in (one, two)]
    shared = shared_ends(*ids)
    layers = [layer(one, two, number, shared) for number in range(len(one.layers))]
    stages = [
        Stage("against.tokens", "What both rows share", "first: ids that both begin with;  last: ids that both end "
              "with, behind those", {"others": ids[1], "shared": torch.tensor(shared)},
              (code(shared_ends, "first =", "last ="),),
              (Step("same", "against.tokens.others", (f"{OTHER}tokens.ids",)),
               Step("shared_ends", "against.tokens.shared", ("tokens.ids", f"{OTHER}tokens.ids")))),
        *layers, labels(one, two), parted(layers)]
    first, second = adapters(one.model), adapters(two.model)
    pairs = {name: (first[name], second[name]) for name in first if name in second}
    if any(not same_update(*pair) for pair in pairs.values()):
        stages.append(updates(pairs))
    return one.without("against").extended(stages, Other(two, words))


def shared_ends(one: torch.Tensor, two: torch.Tensor) -> tuple[int, int]:
    """How many ids two rows (T,) and (S,) both begin with, and how many, behind those, both end with."""
    a, b = one.tolist(), two.tolist()
    least = min(len(a), len(b))
    first = next((place for place in range(least) if a[place] != b[place]), least)
    last = next((place for place in range(least - first) if a[-1 - place] != b[-1 - place]), least - first)
    return first, last


def layer(one: Trace, two: Trace, number: int, shared: tuple[int, int]) -> Stage:
    """One layer: distances (9,), the heads' (H,), both readings (2, C), each shared token's (first + last,)."""
    stage = f"against.{number}"

    def both(part: str) -> tuple[list[str], list[torch.Tensor]]:
        name = f"layers.{number}.{part}"
        return [name, OTHER + name], [one.tensor(name), two.tensor(name)]

    names, found = zip(*(both(part) for part in COMPARED), strict=True)
    distances = torch.stack([distance(*(x[-1].flatten() for x in pair)) for pair in found])
    steps = [Step("distances", f"{stage}.distances", tuple(name + ANSWER for pair in names for name in pair))]
    names, weights = both("attention.weights")  # (H, Q, T)
    heads = variation(*(outside_as_one(x[:, -1], shared) for x in weights))
    steps.append(Step("heads_apart", f"{stage}.heads", (*names, "against.tokens.shared")))
    names, readings = both("lens.probabilities")
    steps.append(Step("pair", f"{stage}.reading", tuple(names)))
    tensors = {"distances": distances, "heads": heads, "reading": torch.cat(readings)}
    if number < len(one.layers) - 1:  # the last one computes the answer's row alone
        names, rows = both("mlp.residual")
        tensors["tokens"] = distance(*(ends(x, shared) for x in rows))
        steps.append(Step("tokens_apart", f"{stage}.tokens", (*names, "against.tokens.shared")))
    return Stage(stage, f"Layer {number}: how far apart", "distances, tokens = |a - b| / |a|;  heads = sum |w_a - w_b| "
                 "/ 2;  reading: the probabilities of both if reading stopped here",
                 {name: tensor.float() for name, tensor in tensors.items()},
                 (code(distance, "return"), code(variation, "return"), code(outside_as_one, "return"),
                  code(ends, "return")), tuple(steps))


def distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """|a - b| / |a| of each row: 2 x (..., D) -> (...) float64."""
    a, b = a.double().cpu(), b.double().cpu()
    return torch.linalg.vector_norm(a - b, dim=-1) / torch.linalg.vector_norm(a, dim=-1).clamp(min=1e-30)


def variation(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """sum |p - q| / 2 of each row: 2 x (..., n) -> (...) float64, between 0 and 1."""
    return (p.double().cpu() - q.double().cpu()).abs().sum(-1) / 2


def ends(x: torch.Tensor, shared: tuple[int, int]) -> torch.Tensor:
    """The rows of the tokens that both have: (T, D) -> (first + last, D)."""
    return torch.cat([x[: shared[0]], x[len(x) - shared[1] :]])


def outside_as_one(weights: torch.Tensor, shared: tuple[int, int]) -> torch.Tensor:
    """Attention weights, those of the tokens between the shared ones summed: (H, T) -> (H, first + 1 + last)."""
    first, last = shared[0], weights.shape[-1] - shared[1]
    return torch.cat([weights[:, :first], weights[:, first:last].sum(-1, keepdim=True), weights[:, last:]], dim=-1)


def labels(one: Trace, two: Trace) -> Stage:
    """Both's probabilities (2, C) and their difference (C,)."""
    name = "probabilities.probabilities"
    pair = torch.cat([one.tensor(name), two.tensor(name)])
    return Stage("against.labels", "The probabilities of both", "difference = p_b - p_a",
                 {"probabilities": pair, "difference": pair[1] - pair[0]}, (code(labels, "pair[1] - pair[0]"),),
                 (Step("pair", "against.labels.probabilities", (name, OTHER + name)),
                  Step("difference", "against.labels.difference", ("against.labels.probabilities",))))


def parted(layers: list[Stage]) -> Stage:
    """Where the two part: the first tensor that differs at all (layer and place in `COMPARED`), the first layer behind
    which the residual stream is `APART`, and the first behind which another label would be read; -1 for nowhere."""
    distances = torch.stack([stage.distances for stage in layers])  # (L, 9)
    differs = first_true((distances > 0).flatten())
    residual = first_true(distances[:, -1] > APART)
    reading = first_true(torch.stack([stage.reading[0].argmax() != stage.reading[1].argmax() for stage in layers]))
    every = tuple(f"{stage.name}.distances" for stage in layers)
    readings = tuple(f"{stage.name}.reading" for stage in layers)
    return Stage("against.parted", "Where they part",
                 f"differs: the first distance above 0;  residual: the first layer with a distance above {APART};  "
                 "reading: the first layer with another largest probability",
                 {"differs": torch.tensor(divmod(differs, len(COMPARED)) if differs >= 0 else (-1, -1)),
                  "residual": torch.tensor(residual), "reading": torch.tensor(reading)},
                 (code(parted, "differs =", "residual =", "reading ="),),
                 (Step("first_difference", "against.parted.differs", every),
                  Step("first_apart", "against.parted.residual", every, {"share": APART}),
                  Step("first_other_reading", "against.parted.reading", readings)))


def first_true(found: torch.Tensor) -> int:
    """The place of the first True; -1 if there is none."""
    return int(found.long().argmax()) if bool(found.any()) else -1


def same_update(one: LoRALinear, two: LoRALinear) -> bool:
    """Whether two adapters of one linear are the same numbers."""
    return (one.scaling == two.scaling and torch.equal(one.lora_A.cpu(), two.lora_A.cpu())
            and torch.equal(one.lora_B.cpu(), two.lora_B.cpu()))


def updates(pairs: dict[str, tuple[LoRALinear, LoRALinear]]) -> Stage:
    """Two adapters on the same n linears: both spectra (2, n, r), the angles between the spaces that they write into
    and read from (n, r), in degrees, rising, minus infinity behind the last, and the updates' cosines (n,)."""
    rank = max(layer.r for pair in pairs.values() for layer in pair)
    values, cosines = torch.zeros(2, len(pairs), rank).double(), torch.zeros(len(pairs)).double()
    writes, reads = (torch.full((len(pairs), rank), float("-inf")).double() for _ in range(2))
    for row, (one, two) in enumerate(pairs.values()):
        (left, size, right), (left2, size2, right2) = thin_svd(one), thin_svd(two)
        values[0, row, : len(size)], values[1, row, : len(size2)] = size, size2
        for angles, p, q in ((writes[row], left, left2), (reads[row], right, right2)):
            found = principal_angles(p, q)
            angles[: len(found)] = found
        inner = ((left * size).T @ (left2 * size2)) * (right.T @ right2)  # <U, V> is the sum of its entries
        cosines[row] = inner.sum() / (size.norm() * size2.norm()).clamp(min=1e-30)
    tensors = {"spectra": values, "writes": writes, "reads": reads, "cosine": cosines}
    factors = tuple(f"{where}weights.{name}.{part}" for name in pairs for where in ("", OTHER)
                    for part in ("lora_B", "lora_A"))
    scalings = {"scalings": [layer.scaling for pair in pairs.values() for layer in pair]}
    return Stage("against.updates", "Two adapters", "spectra: singular values of U = s B A of both;  writes, reads: "
                 "arccos of the singular values of P^T Q;  cosine = <U, V> / (|U| |V|)",
                 {name: tensor.float() for name, tensor in tensors.items()},
                 (code(thin_svd, "svd("), code(principal_angles, "return"), code(updates, "inner =", "cosines[row] =")),
                 (Step("both_spectra", "against.updates.spectra", factors, scalings | {"rank": rank}),
                  *(Step("update_angles", f"against.updates.{side}", factors, {"side": side, "rank": rank})
                    for side in ("writes", "reads")),
                  Step("cosines", "against.updates.cosine", factors, scalings)))


def principal_angles(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Degrees between two spaces given by orthonormal columns: (d, k), (d, l) -> (min(k, l),) float64, rising.

    An arccosine near 1 turns rounding into angles: what is closer to 1 than `CLOSE` counts as 1.
    """
    cosines = torch.linalg.svdvals(p.T @ q)
    return torch.rad2deg(torch.arccos(torch.where(cosines > 1 - CLOSE, 1.0, cosines)))
