"""A step of learning: the loss, the gradients of A and B, clipping, AdamW, and the labels after it."""

import numpy as np

from glass.recompute.way import whole_way


def learned(weights, ids, *, step, when):
    """The label logits of a row with the adapter as it was before or after a step, the whole way: (1, C)."""
    weights.adapter = (step, when)
    try:
        return whole_way(weights, ids)["logits.logits"]
    finally:
        weights.adapter = None


def loss(weights, logits, label):
    """-log softmax(logits)[label]."""
    largest = logits.max()
    return largest + np.log(np.exp(logits - largest).sum()) - logits[0, label]


def loss_slopes(weights, p, label):
    """d loss / d logits = p - [label]."""
    return p - (np.arange(p.shape[-1]) == label)


def gradient_a(weights, x, dy, b, *, scaling):
    """dA = s (dy B)^T x: (N, in), (N, out), (out, r) -> (r, in)."""
    return scaling * (dy @ b).T @ x


def gradient_b(weights, x, dy, a, *, scaling):
    """dB = s dy^T (x A^T): (N, in), (N, out), (r, in) -> (out, r)."""
    return scaling * dy.T @ (x @ a.T)


def place(weights, x):
    """Row and column of the entry that is farthest from zero."""
    return np.array(np.unravel_index(np.abs(x).argmax(), x.shape))


def sizes(weights, *tensors):
    return np.array([np.sqrt((x * x).sum()) for x in tensors])


def joint(weights, a, b):
    return np.sqrt((a * a).sum() + (b * b).sum())


def clip_factor(weights, norm, *, clip, epsilon):
    """min(1, clip / (norm + epsilon)); a clip of 0 means none."""
    return np.minimum(1.0, clip / (norm + epsilon)) if clip else np.ones(())


def corrections(weights, *, betas, number):
    """1 - b1^t and 1 - b2^t of step t: what moments that began at zero lack."""
    return 1 - np.array(betas) ** number


def given(weights, *, value):
    """A setting of the recipe."""
    return np.array(value)


def first_moment(weights, factor, gradient, before=0.0, *, beta):
    return beta * before + (1 - beta) * factor * gradient


def second_moment(weights, factor, gradient, before=0.0, *, beta):
    return beta * before + (1 - beta) * (factor * gradient) ** 2


def adamw(weights, before, m, v, corrections, *, rate, decay, epsilon):
    """The weights after the step; the decay is decoupled from the moments."""
    return before - rate * decay * before - rate * (m / corrections[0]) / (np.sqrt(v / corrections[1]) + epsilon)


LEARNING = {function.__name__: function for function in (
    learned, loss, loss_slopes, gradient_a, gradient_b, place, sizes, joint, clip_factor, corrections, given,
    first_moment, second_moment, adamw)}
