"""The way from ids to the labels' probabilities: one function for each kind of step, and all of them in a row."""

import numpy as np


def rows(weights, table, row_ids, ids):
    """x = E[ids], of a table that holds the rows of `row_ids` (rising) alone."""
    return table[np.searchsorted(row_ids, ids)]


def frequencies(weights, theta, size, scaling):
    """f_i = theta^(-2 i / h); slow ones divided by `factor`, with a passage in between (Llama 3)."""
    plain = theta ** (-np.arange(0, size, 2) / size)
    if scaling is None:
        return plain
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = scaling["original_max_position_embeddings"] * plain / (2 * np.pi)  # within the original window
    share = np.clip((turns - low) / (high - low), 0, 1)
    return (1 - share) * plain / scaling["factor"] + share * plain


def angles(positions, f):
    """p f_i, rounded to float32 as the model does: far into a text that decides the fifth digit of its cosine."""
    return (positions.astype(np.float32)[:, None] * f.astype(np.float32)).astype(np.float64)


def cosine(weights, positions, f):
    return np.cos(angles(positions, f))


def sine(weights, positions, f):
    return np.sin(angles(positions, f))


def rms_norm(weights, x, gain, eps):
    return gain * x / np.sqrt((x * x).mean(-1, keepdims=True) + eps)


def linear(weights, x, linear):
    return weights.product(x.reshape(len(x), -1), linear)


def heads(weights, x, cos=None, sin=None, *, linear, heads):
    """x W^T in heads (T, heads, h), every pair (y[i], y[i + h/2]) turned by its position's angle if there is one."""
    y = weights.product(x, linear).reshape(len(x), heads, -1)
    if cos is None:
        return y
    cos, sin = cos[:, None], sin[:, None]
    a, b = np.split(y, 2, axis=-1)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def scores(weights, q, k):
    """q k^T / sqrt(h), the last Q tokens of one row; head j reads key head j // (H / K): (H, Q, T)."""
    keys = np.repeat(k, q.shape[1] // k.shape[1], axis=1)
    found = q.transpose(1, 0, 2) @ keys.transpose(1, 2, 0) / np.sqrt(q.shape[-1])
    later = np.arange(len(k)) > np.arange(len(k) - len(q), len(k))[:, None]
    return np.where(later, -np.inf, found)


def softmax(weights, x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def mix(weights, w, v):
    values = np.repeat(v, w.shape[0] // v.shape[1], axis=1).transpose(1, 0, 2)  # (H, T, h)
    return (w @ values).transpose(1, 0, 2)


def swiglu(weights, gate, up):
    return gate / (1 + np.exp(-gate)) * up


def add(weights, a, b):
    return a + b


def length(weights, x):
    return np.sqrt((x * x).sum(-1))


def dot(weights, hidden, label_rows):
    return hidden @ label_rows.T


OPS = {function.__name__: function for function in
       (rows, frequencies, cosine, sine, rms_norm, linear, heads, scores, softmax, mix, swiglu, add, length, dot)}


def run(step, values, weights, ops=OPS):
    """One step on `values` (name -> array); `NAME@answer` is one row of NAME."""
    def value(name):
        whole = values[name.removesuffix("@answer")]
        if name.endswith("@answer"):
            whole = whole[-1:]  # the answer's row is the last
        return whole.astype(np.float64) if whole.dtype == np.float32 else whole

    return ops[step["op"]](weights, *map(value, step["args"]), **step["settings"])


def whole_way(weights, ids, factors=1.0):
    """Every tensor from the ids alone: (T,) int64 -> name -> array; the embeddings times `factors` (T,)."""
    tensors = weights.tensors
    values = {name: tensor for name, tensor in tensors.items() if name.startswith("weights.")}
    values |= {"tokens.ids": ids, "tokens.positions": np.arange(len(ids)),
               "rotation.frequencies": tensors["rotation.frequencies"]}
    for step in steps_of(weights):
        values[step["out"]] = run(step, values, weights)
        if step["out"] == "embedding.x":
            values["embedding.x"] = values["embedding.x"] * np.reshape(factors, (-1, 1))
    return values


def steps_of(weights):
    """The steps of the way from the ids to the labels' probabilities, in their order."""
    beside = [stage["name"].endswith(".lens") or stage["name"].startswith("learning.")  # nothing else is made of it
              for stage in weights.trace["stages"]]
    return [step for stage, left in zip(weights.trace["stages"], beside, strict=True) if not left
            for step in stage["steps"] if step["op"] in OPS and step["op"] != "frequencies"]  # float32 in every model


def answer(weights, ids, factors=1.0):
    """The labels' probabilities of a row: (1, C)."""
    return whole_way(weights, ids, factors)["probabilities.probabilities"]
