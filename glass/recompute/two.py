"""Two beside each other: traces and where they part, adapters and their angles; one sentence in many languages."""

import numpy as np


def same(weights, x):
    return x


def pair(weights, a, b):
    return np.concatenate([a, b])


def difference(weights, both):
    return both[1] - both[0]


def shared_ends(weights, a, b):
    """How many ids two rows both begin with, and how many, behind those, both end with."""
    least, first, last = min(len(a), len(b)), 0, 0
    while first < least and a[first] == b[first]:
        first += 1
    while first + last < least and a[-1 - last] == b[-1 - last]:
        last += 1
    return np.array([first, last])


def distances(weights, *rows):
    """|a - b| / |a| of a_0, b_0, a_1, b_1, ..., whatever their shapes."""
    return np.array([np.linalg.norm(a - b) / max(np.linalg.norm(a), 1e-30)
                     for a, b in zip(rows[::2], rows[1::2], strict=True)])


def tokens_apart(weights, a, b, shared):
    """The same of each token that both rows have."""
    a, b = (np.concatenate([x[: shared[0]], x[len(x) - shared[1] :]]) for x in (a, b))
    return np.linalg.norm(a - b, axis=-1) / np.maximum(np.linalg.norm(a, axis=-1), 1e-30)


def heads_apart(weights, a, b, shared):
    """sum |a - b| / 2 of the answer's weights (H, Q, T), those between the shared tokens as one."""
    def as_one(x):
        first, last = shared[0], x.shape[-1] - shared[1]
        return np.concatenate([x[:, -1, :first], x[:, -1, first:last].sum(-1, keepdims=True), x[:, -1, last:]], axis=-1)

    return np.abs(as_one(a) - as_one(b)).sum(-1) / 2


def first_true(found):
    return int(np.argmax(found)) if np.any(found) else -1


def first_difference(weights, *layers):
    """(layer, place) of the first distance above 0."""
    found = np.stack(layers) > 0
    place = first_true(found)
    return np.array(np.unravel_index(place, found.shape) if place >= 0 else (-1, -1))


def first_apart(weights, *layers, share):
    """The first layer whose last distance, the residual stream's, is above `share`."""
    return np.array(first_true([layer[-1] > share for layer in layers]))


def first_other_reading(weights, *readings):
    """The first layer behind which another label has the largest probability."""
    return np.array(first_true([a.argmax() != b.argmax() for a, b in readings]))


def parts_of(factors, scalings):
    """left, values, right of s B A for each B, A in turn, without directions that are rounding alone."""
    for b, a, scaling in zip(factors[::2], factors[1::2], scalings, strict=True):
        (q_b, r_b), (q_a, r_a) = np.linalg.qr(b), np.linalg.qr(a.T)
        left, values, right = np.linalg.svd(scaling * r_b @ r_a.T)
        kept = values > 1e-10 * values.max() if values.max() else values > 0
        yield (q_b @ left)[:, kept], values[kept], (q_a @ right.T)[:, kept]


def padded(values, rank, filling):
    return np.pad(values, (0, rank - len(values)), constant_values=filling)


def both_spectra(weights, *factors, scalings, rank):
    """Singular values (2, n, r) of the updates of both."""
    values = [padded(values, rank, 0.0) for _, values, _ in parts_of(factors, scalings)]
    return np.stack([np.stack(values[0::2]), np.stack(values[1::2])])


def update_angles(weights, *factors, side, rank):
    """Degrees between the spaces that the updates of both write into, or read from (n, r)."""
    parts = list(parts_of(factors, [1.0] * (len(factors) // 2)))
    place, rows = 0 if side == "writes" else 2, []
    for one, two in zip(parts[::2], parts[1::2], strict=True):
        empty = not len(one[1]) or not len(two[1])
        found = np.zeros(0) if empty else np.linalg.svd(one[place].T @ two[place], compute_uv=False)
        found = np.where(found > 1 - 1e-12, 1.0, found)  # else the arccosine would turn rounding into angles
        rows.append(padded(np.degrees(np.arccos(found)), rank, -np.inf))
    return np.stack(rows)


def cosines(weights, *factors, scalings):
    """<U, V> / (|U| |V|) of the updates (n,)."""
    found = list(parts_of(factors, scalings))
    return np.array([(((one[0] * one[1]).T @ (two[0] * two[1])) * (one[2].T @ two[2])).sum()
                     / max(np.linalg.norm(one[1]) * np.linalg.norm(two[1]), 1e-30)
                     for one, two in zip(found[::2], found[1::2], strict=True)])


def count_tokens(weights, ids):
    """How many ids each row has; -1 stands behind the last."""
    return (ids >= 0).sum(-1)


def count_bytes(weights, texts):
    return np.array([len(text.encode("utf-8")) for text in texts])


def count_characters(weights, texts):
    return np.array([len(text) for text in texts])


def tax(weights, tokens):
    return tokens / tokens[0]


TWO = {function.__name__: function for function in (
    same, pair, difference, shared_ends, distances, tokens_apart, heads_apart, first_difference, first_apart,
    first_other_reading, both_spectra, update_angles, cosines, count_tokens, count_bytes, count_characters, tax)}
