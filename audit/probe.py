"""What the base's answer state already knew: a linear probe, without any fine-tuning of the base.

The state is the final hidden vector at the answer's position (D,), of the base with its adapters off, in the run's own
prompt. A multinomial logistic regression (`baselines.tfidf.logistic`) learns the posts' labels from it in `FOLDS`
parts, each labelled by a regression on the others; posts that belong together stay in one part. Each column is shifted
and scaled by its mean and standard deviation over the posts that the regression learns from, then by 1 / sqrt(D), so
that a row has a length of about one, for which the regression's fixed strength was chosen.

    learned    posts that the run labels as people did and the base, with its adapters off, does not
    known      those among them that the probe labels as people did: what the adapter learned and the base's state
               already told in a linear form; the rate's interval is Wilson's, of what these posts are worth
               (report/clusters.py)
    missed     posts that the run labels otherwise than people did; and those among them that the probe has right
               (`missed_known`), beside which `known` is to be read: a probe is right about some posts anyhow

The probe learns from labels of these posts, in all their languages; the adapter learned from the run's training posts.
So the two are told side by side, and their difference is not the adapter's merit alone.
"""

import numpy as np
import torch

from audit.adapter import switched_off
from audit.change import macro_f1
from audit.subject import Subject
from baselines.tfidf import logistic, predict
from data.batching import make_batch, plan, shared_prefix
from inference.decide import decide
from lora.inject import adapters
from report.clusters import rate_interval
from report.words import counted
from stats.predictions import Rows

FOLDS = 5
LEAST = 50  # posts: four fifths of fewer are too few to learn from


@torch.inference_mode()
def states(subject: Subject) -> torch.Tensor:
    """The answer's final hidden vector of each post, (n, D) float32 on the CPU, of the model as it is now."""
    found, prefix = {}, subject.prompt.prefix_ids
    for indices in plan(subject.rows, subject.micro_tokens, prefix=prefix):
        shared = shared_prefix(prefix, [subject.rows[index] for index in indices])
        batch = make_batch(subject.rows, indices, shared).to(subject.model.device)
        found |= dict(zip(indices, subject.model.eval().answer_hidden(batch).float().cpu(), strict=True))
    return torch.stack([found[index] for index in range(len(subject.rows))])


def folds(clusters: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The part of each row, (n,) int64 below `count`: whole clusters, dealt out in a drawn order."""
    names, cluster = np.unique(clusters, return_inverse=True)
    return (np.random.default_rng([seed, 0xF0]).permutation(len(names)) % count)[cluster]


def cross_validated(x: torch.Tensor, labels: np.ndarray, part: np.ndarray, classes: int) -> np.ndarray:
    """Probabilities (n, C) float64: for each part, those of a regression that learned from the other parts."""
    result = np.zeros((len(x), classes))
    for number in np.unique(part):
        inside = part == number
        learned = x[torch.from_numpy(~inside)]
        mean, spread = learned.mean(0), learned.std(0, correction=0).clamp(min=1e-6) * x.shape[1] ** 0.5
        weight, bias = logistic((learned - mean) / spread, labels[~inside], classes)
        result[inside] = predict((x[torch.from_numpy(inside)] - mean) / spread, weight, bias)[1]
    return result


def too_few(table: Rows) -> str | None:
    """Why a probe of these posts would say nothing; None where it can be made."""
    if len(table.gold) < LEAST:
        return f"{counted(len(table.gold), 'post')}, and a probe learns from {LEAST} or more"
    if len(np.unique(table.gold)) < 2:
        return "all posts have one label, and a probe learns to tell two or more apart"
    if (groups := len(np.unique(table.clusters))) < FOLDS:
        return f"the posts are from {counted(groups, 'group')}, and a probe needs {FOLDS} to be asked about others"
    return None


def probe(subject: Subject, reference: np.ndarray, seed: int = 0) -> dict:
    """The section for audit.json; `why` says why there is no probe, and is None otherwise."""
    table, classes = subject.table, len(subject.labels)
    if why := too_few(table):
        return {"why": why}
    with switched_off(subject.model, adapters(subject.model)):
        x, alone = states(subject), subject.probabilities()
    # The regression needs gradients of nothing: it has its own, written out.
    found = cross_validated(x, table.gold, folds(table.clusters, FOLDS, seed), classes)
    right = {name: decide(given) == table.gold
             for name, given in (("probe", found), ("run", reference), ("base", alone))}
    return {"why": None, "posts": len(x), "folds": FOLDS, "features": x.shape[1],
            "macro_f1": {"probe": macro_f1(table, found), "run": macro_f1(table, reference),
                         "base": macro_f1(table, alone)},
            "accuracy": {name: float(given.mean()) for name, given in right.items()},
            "accuracy_ci": {name: list(rate_interval(given, table.clusters)) for name, given in right.items()},
            "constant": constant(table),
            **overlap(table.clusters, **right)}


def constant(table: Rows) -> dict:
    """What the answer scores that is always the commonest label: its accuracy, and its macro-F1 over all labels."""
    share = float(np.bincount(table.gold).max() / len(table.gold))
    answer = np.zeros((len(table.gold), len(table.grouping.labels)))
    answer[:, np.bincount(table.gold).argmax()] = 1
    return {"accuracy": share, "macro_f1": macro_f1(table, answer)}


def overlap(clusters: np.ndarray, run: np.ndarray, base: np.ndarray, probe: np.ndarray) -> dict:
    """The module's counts, by whether the run, the base and the probe are right about each post, (n,) bool each; None
    for rates of no post. clusters (n,): equal for posts that belong together.
    """
    learned = run & ~base
    count, known = int(learned.sum()), int((learned & probe).sum())
    return {"learned": count, "known": known, "known_rate": known / count if count else None,
            "known_ci": list(rate_interval(probe[learned], clusters[learned])) if count else None,
            "missed": int((~run).sum()), "missed_known": int((~run & probe).sum())}
