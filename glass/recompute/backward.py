"""Backwards, by the chain rule: from g = d loss / d (what a step makes) to d loss / d (what it was given)."""

import numpy as np

from glass.recompute.way import softmax, steps_of, whole_way


def back_rms_norm(weights, g, x, gain, *, eps):
    scale = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + eps)
    along = (g * gain * x).mean(-1, keepdims=True)
    return [scale * gain * g - scale**3 * along * x]


def unturned(g, cos=None, sin=None):
    """What a turning of the heads (T, heads, h) by an angle passes back: turned by the opposite one."""
    if cos is None:
        return g
    a, b = np.split(g, 2, axis=-1)
    cos, sin = cos[:, None], sin[:, None]
    return np.concatenate([a * cos + b * sin, b * cos - a * sin], axis=-1)


def back_scores(weights, g, q, k):
    """The heads that read one key head add up: (H, Q, T) -> (Q, H, h), (T, K, h)."""
    size = np.sqrt(q.shape[-1])
    keys = np.repeat(k, q.shape[1] // k.shape[1], axis=1)
    to_q = (g @ keys.transpose(1, 0, 2)).transpose(1, 0, 2) / size
    to_k = (g.transpose(0, 2, 1) @ q.transpose(1, 0, 2)).transpose(1, 0, 2) / size  # (T, H, h)
    return [to_q, to_k.reshape(*k.shape[:2], -1, k.shape[-1]).sum(2)]


def back_softmax(weights, g, x):
    p = softmax(weights, x)
    return [p * (g - (g * p).sum(-1, keepdims=True))]


def back_mix(weights, g, w, v):
    g = g.transpose(1, 0, 2)  # (H, Q, h)
    values = np.repeat(v, w.shape[0] // v.shape[1], axis=1).transpose(1, 0, 2)
    to_v = (w.transpose(0, 2, 1) @ g).transpose(1, 0, 2)  # (T, H, h)
    return [g @ values.transpose(0, 2, 1), to_v.reshape(*v.shape[:2], -1, v.shape[-1]).sum(2)]


def back_swiglu(weights, g, gate, up):
    sigmoid = 1 / (1 + np.exp(-gate))
    return [g * up * sigmoid * (1 + gate * (1 - sigmoid)), g * gate * sigmoid]


def back_add(weights, g, a, b):
    return [g, g]


def back_dot(weights, g, hidden, label_rows):
    return [g @ label_rows]


BACK = {function.__name__.removeprefix("back_"): function for function in (
    back_rms_norm, back_scores, back_softmax, back_mix, back_swiglu, back_add, back_dot)}


def backwards(weights, ids, slopes):
    """What goes into every linear, and d loss / d (what comes out of it): name -> ((N, in), (N, out)).

    slopes: d loss / d logits (1, C).
    """
    values, to, found = whole_way(weights, ids), {"logits.logits": slopes}, {}
    for step in reversed(steps_of(weights)):
        g = to.get(step["out"])
        if g is None or step["op"] == "rows":  # nothing of the loss hangs on it; or the way begins here
            continue
        args = [values[name.removesuffix("@answer")] for name in step["args"]]
        args = [x[-1:] if name.endswith("@answer") else x for x, name in zip(args, step["args"], strict=True)]
        name = step["settings"].get("linear")
        if name:
            x, dy = args[0].reshape(len(g), -1), unturned(g, *args[1:]).reshape(len(g), -1)
            found[name] = x, dy
            parts = [weights.back(dy, name).reshape(args[0].shape)]
        else:
            parts = BACK[step["op"]](weights, g, *args, **step["settings"])
        for name, part in zip(step["args"], parts, strict=False):  # what comes behind is no number of the way
            whole = name.removesuffix("@answer")
            to.setdefault(whole, np.zeros(values[whole].shape))
            to[whole][-len(part) :] += part
    return found


def passed(weights, ids, slopes, *, step, linear, what):
    """What went into a linear in a step of learning ("inputs"), or d loss / d (what came out of it) ("slopes")."""
    if weights.passed[0] != step:  # of one step at a time: it is large
        weights.adapter = (step, "before")
        try:
            weights.passed = (step, backwards(weights, ids, slopes))
        finally:
            weights.adapter = None
    return weights.passed[1][linear][("inputs", "slopes").index(what)]


BACKWARD = {"passed": passed}
