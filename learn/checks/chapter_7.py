"""Checks of chapter 7: what `lora/layer.py` and autograd give is right."""

import torch

from learn.check import Task, Wrong
from lora.layer import LoRALinear
from model.layers import Linear

ALPHA = 6.0


def trials_forward() -> list[tuple]:
    draw = torch.Generator().manual_seed(7)

    def normal(*shape):
        return torch.randn(*shape, generator=draw)

    return [(normal(n, wide), normal(out, wide), normal(r, wide), normal(out, r), ALPHA)
            for n, wide, out, r in ((5, 8, 6, 2), (1, 12, 12, 4), (7, 6, 9, 3))]


def trials_gradients() -> list[tuple]:
    draw = torch.Generator().manual_seed(77)
    return [(x, torch.randn(len(x), len(W), generator=draw), A, B, alpha / len(A))
            for x, W, A, B, alpha in trials_forward()]


def layer_of(W, A, B, alpha) -> LoRALinear:
    base = Linear(W.shape[1], W.shape[0])
    base.load_dense("weight", W)
    layer = LoRALinear.from_base(base, r=len(A), alpha=alpha)
    with torch.no_grad():
        layer.lora_A.copy_(A)
        layer.lora_B.copy_(B)
    return layer


def right_forward(x, W, A, B, alpha):
    return layer_of(W, A, B, alpha)(x).detach()


def right_gradients(x, dy, A, B, s):
    layer = layer_of(torch.zeros(len(B), x.shape[1]), A, B, s * len(A))
    layer(x).backward(dy)
    return layer.lora_A.grad, layer.lora_B.grad


def scaled_by(factor):
    return lambda x, W, A, B, alpha: x @ W.T + factor(alpha, len(A)) * (x @ A.T @ B.T)


def gradients(of_a: float, of_b: float, mean: bool = False):
    """The gradients, each times s to some power, or as a mean over the inputs."""
    def answer(x, dy, A, B, s):
        by = len(x) if mean else 1
        return s**of_a * (dy @ B).T @ x / by, s**of_b * dy.T @ (x @ A.T) / by
    return answer


TASKS = (
    Task("lora_forward", trials_forward, right_forward, (
        Wrong(scaled_by(lambda alpha, r: 1), "the learned part is not scaled; it is multiplied by alpha / r"),
        Wrong(scaled_by(lambda alpha, r: alpha), "the learned part is multiplied by alpha alone. Divide by the rank, "
                                                 "or a larger rank would mean larger steps"),
        Wrong(scaled_by(lambda alpha, r: alpha * r), "the learned part is multiplied by alpha and by the rank; it is "
                                                     "multiplied by alpha and divided by the rank"),
        Wrong(scaled_by(lambda alpha, r: alpha / r**0.5), "alpha is divided by the root of the rank, as in a variant "
                                                          "(rsLoRA); here it is divided by the rank"),
        Wrong(scaled_by(lambda alpha, r: r / alpha), "the learned part is multiplied by r / alpha; it is the other way "
                                                     "round"),
        Wrong(lambda x, W, A, B, alpha: alpha / len(A) * (x @ W.T + x @ A.T @ B.T),
              "the scale is applied to the frozen layer's output as well; only the learned part is scaled"),
        Wrong(lambda x, W, A, B, alpha: alpha / len(A) * (x @ A.T @ B.T),
              "this is the learned part alone; the frozen layer's own output is missing"),
        Wrong(lambda x, W, A, B, alpha: x @ W.T,
              "this is the frozen layer alone; the learned part is missing"),
        Wrong(lambda x, W, A, B, alpha: x @ W.T + alpha / A.shape[1] * (x @ A.T @ B.T),
              "alpha is divided by the number of A's columns, which is the length of an input. The rank is the number "
              "of its rows"),
        Wrong(lambda x, W, A, B, alpha: x @ W.T + alpha / len(B) * (x @ A.T @ B.T),
              "alpha is divided by the number of B's rows, which is the length of an output. The rank is the number of "
              "its columns"),
        Wrong(lambda x, W, A, B, alpha: x @ W.T + alpha / len(x) * (x @ A.T @ B.T),
              "alpha is divided by the number of inputs; it is to be divided by the rank, the number of A's rows"),
        Wrong(scaled_by(lambda alpha, r: alpha // r), "the scale is rounded down: two strokes, //, leave out what "
                                                      "stands behind the point; one divides"),
        Wrong(scaled_by(lambda alpha, r: -alpha / r), "the learned part is subtracted; it is added to the frozen one"),
    ), tolerance=1e-4),
    Task("lora_gradients", trials_gradients, right_gradients, (
        Wrong(gradients(0, 0), "the scale s is missing in both gradients. The output was multiplied by it, so the "
                               "chain rule brings it back as a factor"),
        Wrong(gradients(0, 1), "the scale s is missing in dA; dB is right"),
        Wrong(gradients(1, 0), "the scale s is missing in dB; dA is right"),
        Wrong(gradients(1, 1, mean=True), "these are means over the inputs. Every input adds its part to the gradient, "
                                          "so sum them; if a mean is wanted, the loss takes it, and dy has it already"),
        Wrong(lambda x, dy, A, B, s: tuple(reversed(gradients(1, 1)(x, dy, A, B, s))),
              "the two gradients are right, but in the wrong order: dA comes first"),
        Wrong(lambda x, dy, A, B, s: tuple(part.T for part in gradients(1, 1)(x, dy, A, B, s)),
              "both gradients are transposed. A gradient has one number for each number of its matrix, so dA has the "
              "shape of A, and dB that of B"),
        Wrong(lambda x, dy, A, B, s: tuple(-part for part in gradients(1, 1)(x, dy, A, B, s)),
              "the signs are turned round. A gradient points to where the loss rises; the minus comes later, when the "
              "numbers are changed"),
    ), tolerance=1e-4),
)
