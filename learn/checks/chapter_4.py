"""Checks of chapter 4: what `model/layers.py` gives is right, and the two lines of `Block.forward`."""

import torch

from learn.check import Task, Wrong
from model.layers import RMSNorm


def trials_norm() -> list[tuple]:
    draw = torch.Generator().manual_seed(4)
    return [(torch.randn(t, d, generator=draw) * size + size, torch.rand(d, generator=draw) + 0.5, eps)
            for t, d, size, eps in ((3, 8, 1.0, 0.1), (1, 5, 3.0, 1e-5), (4, 6, 0.02, 1e-3))]


def right_norm(x, gain, eps):
    norm = RMSNorm(len(gain), eps)
    norm.load_dense("weight", gain)
    return norm.plain(x)


def normed(x, eps, inside=True):
    square = (x**2).mean(-1, keepdim=True)
    return x / ((square + eps).sqrt() if inside else square.sqrt() + eps)


def of_columns(x, gain, eps):
    return gain * x / torch.sqrt((x**2).mean(0) + eps)


def layer_norm(x, gain, eps):
    return gain * normed(x - x.mean(-1, keepdim=True), eps)


def trials_block() -> list[tuple]:
    """Parts that are easy to tell apart and do not forgive another order."""
    draw = torch.Generator().manual_seed(44)

    def mixing(x):
        return x.cumsum(0) * 0.5 + 1

    def alone(x):
        return x**2 - 2 * x

    return [(torch.randn(4, 3, generator=draw), mixing, alone, lambda x: x / 2 + 0.1, lambda x: 3 * x - 0.2),
            (torch.randn(2, 5, generator=draw), alone, mixing, torch.tanh, lambda x: x / (1 + x.abs()))]


def right_block(x, attention, mlp, norm_1, norm_2):
    h = x + attention(norm_1(x))
    return h + mlp(norm_2(h))


def without_residual(x, attention, mlp, norm_1, norm_2):
    return mlp(norm_2(attention(norm_1(x))))


def norm_behind(x, attention, mlp, norm_1, norm_2):
    h = norm_1(x + attention(x))
    return norm_2(h + mlp(h))


def side_by_side(x, attention, mlp, norm_1, norm_2):
    return x + attention(norm_1(x)) + mlp(norm_2(x))


def adding_the_normed(x, attention, mlp, norm_1, norm_2):
    a = norm_1(x)
    b = norm_2(a + attention(a))
    return b + mlp(b)


def from_the_start(x, attention, mlp, norm_1, norm_2):
    return x + mlp(norm_2(x + attention(norm_1(x))))


def mlp_replaces(x, attention, mlp, norm_1, norm_2):
    return mlp(norm_2(x + attention(norm_1(x))))


def norms_on_results(x, attention, mlp, norm_1, norm_2):
    h = x + norm_1(attention(x))
    return h + norm_2(mlp(h))


def without_norms(x, attention, mlp, norm_1, norm_2):
    h = x + attention(x)
    return h + mlp(h)


def exchanged(x, attention, mlp, norm_1, norm_2):
    return right_block(x, attention, mlp, norm_2, norm_1)


def first_norm_twice(x, attention, mlp, norm_1, norm_2):
    return right_block(x, attention, mlp, norm_1, norm_1)


def mlp_first(x, attention, mlp, norm_1, norm_2):
    return right_block(x, mlp, attention, norm_1, norm_2)


TASKS = (
    Task("rms_norm", trials_norm, right_norm, (
        Wrong(layer_norm, "the mean is subtracted first. That is another norm, LayerNorm; RMSNorm leaves the mean "
                          "where it is"),
        Wrong(lambda x, gain, eps: gain * normed(x, eps, inside=False),
              "eps is added to the root. It belongs under it, to the mean of the squares"),
        Wrong(lambda x, gain, eps: gain * x / torch.sqrt((x**2).sum(-1, keepdim=True) + eps),
              "the squares are summed, not averaged; then a wide vector becomes small numbers"),
        Wrong(lambda x, gain, eps: gain * x / ((x**2).mean(-1, keepdim=True) + eps),
              "the root is missing: this divides by the mean of the squares"),
        Wrong(lambda x, gain, eps: normed(x, eps), "the gain is missing; it is multiplied in at the end, after the "
                                                   "division"),
        Wrong(lambda x, gain, eps: normed(gain * x, eps), "the gain is multiplied in before the norm, which takes part "
                                                          "of it away again; it comes after"),
        Wrong(lambda x, gain, eps: gain * x / torch.sqrt((x**2).mean() + eps),
              "one mean is taken over the whole table. Each token has its own, over its D numbers"),
        Wrong(of_columns, "the mean is taken over the tokens. Each token has its own, over its D numbers"),
        Wrong(lambda x, gain, eps: gain * normed(x, 0.0), "eps is left out; then a vector of zeros would be divided by "
                                                          "zero"),
    ), tolerance=1e-5),
    Task("block", trials_block, right_block, (
        Wrong(without_residual, "what came in is not added; each part replaces the vector where it should pour "
                                "into it"),
        Wrong(norm_behind, "the norms stand behind the sums, as in the first transformers. Here each part reads a "
                           "normed copy, and the stream itself is never normed"),
        Wrong(side_by_side, "the MLP reads x. It should read h, which has what attention found"),
        Wrong(adding_the_normed, "the parts are added to the normed copy; they are added to the vector as it came in"),
        Wrong(from_the_start, "the MLP's result is added to x, so what attention found is lost from the stream; add it "
                              "to h"),
        Wrong(mlp_replaces, "what attention found is added, but the MLP's result replaces h; it has to be added "
                            "to it as well"),
        Wrong(norms_on_results, "the norms are applied to what each part gives. They are applied to what it reads"),
        Wrong(without_norms, "neither part reads a normed copy; the norms are not used"),
        Wrong(exchanged, "the two norms are exchanged: the first belongs to attention, the second to the MLP"),
        Wrong(first_norm_twice, "the MLP reads through the first norm as well; each part has a norm of its own, and "
                                "the MLP's is the second"),
        Wrong(mlp_first, "the MLP comes first. Attention does, and the MLP thinks about what it found"),
    ), tolerance=1e-5),
)
