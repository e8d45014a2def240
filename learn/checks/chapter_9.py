"""Checks of chapter 9: what `torch.optim.AdamW`, `report/metrics.py` and `report/intervals.py` give is right."""

import math

import torch

from learn.check import Task, Wrong
from report import intervals
from report.metrics import Scored, score


def trials_adamw() -> list[tuple]:
    draw = torch.Generator().manual_seed(9)
    return [(*(torch.randn(3, 4, generator=draw) for _ in range(3)), torch.rand(3, 4, generator=draw), step, 0.05,
             decay, 0.8, 0.95, 0.01) for step, decay in ((2, 0.0), (3, 0.5), (10, 2.0))]


def right_adamw(p, grad, m, v, step, rate, decay, beta_1, beta_2, eps):
    part = torch.nn.Parameter(p)
    part.grad = grad
    optimizer = torch.optim.AdamW([part], lr=rate, betas=(beta_1, beta_2), eps=eps, weight_decay=decay)
    optimizer.state[part] = {"step": torch.tensor(step - 1.0), "exp_avg": m, "exp_avg_sq": v}
    optimizer.step()
    return part.detach(), m, v


def adamw(corrected=True, shift=0, inside=False, square=True, same_beta=False, into_gradient=False, sign=1, root=True,
          decays=True):
    """The step, with one of its parts changed."""
    def answer(p, grad, m, v, step, rate, decay, beta_1, beta_2, eps):
        if into_gradient:
            grad = grad + decay * p
        m = beta_1 * m + (1 - beta_1) * grad
        beta_v = beta_1 if same_beta else beta_2
        v = beta_v * v + (1 - beta_v) * (grad**2 if square else grad.abs())
        first = m / (1 - beta_1 ** (step + shift)) if corrected else m
        second = v / (1 - beta_v ** (step + shift)) if corrected else v
        below = second if not root else (second + eps).sqrt() if inside else second.sqrt()
        kept = 1 if into_gradient or not decays else 1 - rate * decay
        return p * kept - sign * rate * first / (below if inside else below + eps), m, v
    return answer


LABELS = ["pro", "anti", "neutral"]


def trials_f1() -> list[tuple]:
    p, a, n = LABELS
    return [([p, p, p, p, a, a, n], [p, p, a, p, a, p, a], LABELS), ([p, a, a, n, n, n], [p, p, a, n, a, n], LABELS),
            ([p] * 6 + [a, n], [p] * 5 + [a, a, n], LABELS)]


def right_f1(gold, predicted, labels):
    places = [str(number) for number in range(len(gold))]
    return score(Scored(places, gold, predicted, ["en"] * len(gold), tuple(labels)), draws=0)["macro_f1"]


def counts(gold, predicted, labels):
    """For each label: right, given, wanted."""
    return [(sum(a == b == label for a, b in zip(gold, predicted, strict=True)), predicted.count(label),
             gold.count(label)) for label in labels]


def mean(values) -> float:
    return sum(values) / len(values)


def accuracy(gold, predicted, labels):
    return mean([a == b for a, b in zip(gold, predicted, strict=True)])


def weighted(*given):
    found = counts(*given)
    return sum(2 * right / (g + w) * w for right, g, w in found) / sum(w for *_, w in found)


def recall(*given):
    return mean([right / wanted for right, _, wanted in counts(*given)])


def precision(*given):
    return mean([right / max(1, chosen) for right, chosen, _ in counts(*given)])


def of_means(*given):
    return 2 * precision(*given) * recall(*given) / (precision(*given) + recall(*given))


def only_predicted(*given):
    return mean([2 * right / (chosen + wanted) for right, chosen, wanted in counts(*given) if chosen])


def interval(z=1.959964, square=True, centred=True):
    def answer(k, n):
        inside = k * (n - k) / n + z * z / 4
        half = z * (math.sqrt(inside) if square else inside) / (n + z * z)
        middle = (k + z * z / 2) / (n + z * z) if centred else k / n
        return middle - half, middle + half
    return answer


def textbook(k, n, z=1.959964):
    half = z * math.sqrt(k / n * (1 - k / n) / n)
    return k / n - half, k / n + half


TASKS = (
    Task("adamw_step", trials_adamw, right_adamw, (
        Wrong(adamw(corrected=False), "the two means are used as they are. They begin at zero and are too small at "
                                      "first; divide each by 1 - beta^step"),
        Wrong(adamw(shift=-1), "the correction takes step - 1. The first step is 1, or it would divide by zero"),
        Wrong(adamw(into_gradient=True), "weight decay is added to the gradient. That is the older Adam; in AdamW it "
                                         "makes p smaller by itself, apart from the two means"),
        Wrong(adamw(decays=False), "weight decay is left out: p also has to become smaller by itself"),
        Wrong(adamw(inside=True), "eps is added under the root; it is added to the root"),
        Wrong(adamw(root=False), "the root of v is missing: v is a mean of squares"),
        Wrong(adamw(square=False), "v is the mean of the gradient's magnitudes; it is that of its squares"),
        Wrong(adamw(same_beta=True), "both means run with beta_1; v has its own, beta_2"),
        Wrong(lambda p, grad, m, v, step, rate, decay, beta_1, beta_2, eps: adamw()(
            p, grad, m, v, step, rate, decay, beta_2, beta_1, eps),
              "the two betas are exchanged: beta_1 belongs to the mean of the gradient, beta_2 to that of its square"),
        Wrong(adamw(sign=-1), "p goes along the gradient, to where the loss rises; go against it"),
    ), tolerance=1e-5),
    Task("macro_f1", trials_f1, right_f1, (
        Wrong(accuracy, "this is the accuracy, in which frequent labels count more. Take each label's F1, then the "
                        "mean"),
        Wrong(weighted, "the labels' F1 are weighted by how often they occur; here each label counts the same"),
        Wrong(recall, "this is the mean of the recalls: of the posts that should have a label, the share that has it. "
                      "Labels given wrongly have to count as well"),
        Wrong(precision, "this is the mean of the precisions: of the posts that got a label, the share that should "
                         "have. Posts that were missed have to count as well"),
        Wrong(of_means, "precision and recall are averaged over the labels first, and F1 is made of the means. Make "
                        "each label's F1 first"),
        Wrong(only_predicted, "labels that are never predicted are left out; their F1 is 0, and it counts"),
    ), tolerance=1e-6),
    Task("wilson", lambda: [(7, 13), (1, 10), (0, 8), (20, 20)], intervals.wilson, (
        Wrong(textbook, "this is the textbook's interval. With k of 0 or n it has no width at all, and with few posts "
                        "it promises more than it keeps"),
        Wrong(interval(z=1.644854), "z is that of a 90 % interval, so the interval is too narrow"),
        Wrong(interval(z=2.575829), "z is that of a 99 % interval, so the interval is too wide"),
        Wrong(interval(centred=False), "the width is Wilson's, but around k / n. His interval is pulled towards one "
                                       "half, so it stays between 0 and 1"),
        Wrong(interval(square=False), "the root is missing in the half width, so it is the square of what is wanted"),
        Wrong(lambda k, n: tuple(reversed(interval()(k, n))), "the two ends are in the wrong order: the lower one "
                                                              "comes first"),
    ), tolerance=1e-5),
)
