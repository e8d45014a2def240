"""What is computed beside the way: the row without a token or a word, slopes, the adapter's strength, one block."""

import numpy as np

from glass.recompute.way import answer
from glass.recompute.weights import BLOCK

STEP = 1e-4  # of central differences, in float64


def without_tokens(weights, ids, places):
    """The labels' probabilities of the row without the token at each place."""
    return np.concatenate([answer(weights, np.delete(ids, place)) for place in places])


def of_rows(weights, ids, lengths):
    """The labels' probabilities of several rows, whose ids stand one after another."""
    return np.concatenate([answer(weights, row) for row in np.split(ids, np.cumsum(lengths)[:-1])])


def slope(weights, ids, places, label):
    """d log p(label) / d f at f = 1, with f times the embedding of one token: by a central difference."""
    found = []
    for place in places:
        factors = np.ones((2, len(ids)))
        factors[:, place] += STEP, -STEP
        more, less = (np.log(answer(weights, ids, one)[0, label]) for one in factors)
        found.append((more - less) / (2 * STEP))
    return np.array(found)


def factors(weights, ids, factors, *, names):
    """The labels' probabilities with the adapters of the linears `names` f times as strong."""
    stored, found = {name: weights.linears[name]["scaling"] for name in names}, []
    for factor in factors:
        for name, scaling in stored.items():
            weights.linears[name]["scaling"] = factor * scaling
        found.append(answer(weights, ids))
    for name, scaling in stored.items():
        weights.linears[name]["scaling"] = scaling
    return np.concatenate(found)


def spectrum(weights, names):
    """Singular values of s B A, a row for each linear, zeros behind a smaller rank."""
    found = [weights.linears[name]["scaling"] * np.linalg.svd(
        weights.wide(f"{name}.lora_B") @ weights.wide(f"{name}.lora_A"), compute_uv=False) for name in names]
    most = max(min(weights.wide(f"{name}.lora_A").shape[0], len(row)) for name, row in zip(names, found, strict=True))
    return np.stack([np.pad(row[:most], (0, most - len(row[:most]))) for row in found])


def factor_spectra(weights, names, part):
    """Singular values of each A or B, zeros behind a smaller rank."""
    found = [np.linalg.svd(weights.wide(f"{name}.lora_{part}"), compute_uv=False) for name in names]
    return np.stack([np.pad(row, (0, max(map(len, found)) - len(row))) for row in found])


def block_packed(weights, linear, block):
    """The bytes of one block, two codes in each."""
    return weights.tensors[f"weights.{linear}.packed"].reshape(-1)[block * BLOCK // 2 : (block + 1) * BLOCK // 2]


def block_codes(weights, packed):
    return np.stack([packed >> 4, packed & 15], axis=1).reshape(-1)


def block_scale(weights, linear, block):
    return weights.scales(linear, weights.linears[linear])[block]


def block_values(weights, codes, scale):
    return weights.wide("nf4_levels")[codes] * scale


def nested_scale(weights, code, nested, offset):
    return weights.wide("dynamic_map")[code] * nested + offset


def subtract(weights, a, b):
    return a - b


def largest(weights, x):
    return np.abs(x).max()


BESIDE = {function.__name__: function for function in (
    without_tokens, of_rows, slope, factors, spectrum, factor_spectra, block_packed, block_codes, block_scale,
    block_values, nested_scale, subtract, largest)}
