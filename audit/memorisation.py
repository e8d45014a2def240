"""What a run remembers of its training posts: whether its losses tell them from unseen ones, and, if it was taught
whole texts, whether it continues them.

Of every run, `audit.membership` has losses of training posts and of unseen ones in the same languages. A run with the
loss `text` learned every token of its posts. A post is then cut in two by tokens; the model reads the prompt and the
first half, and for the second half (n tokens)

    loss       mean of -ln p(token | all before it), float64 of float32 logits
    continued  whether greedy decoding writes the next `WORDS` tokens (or all n) as they stand: the likeliest token at
               each place is the true one
    exposure   log2(m + 1) - log2(rank), the rank of its loss among those of m unseen posts, 1 for the smallest, ties
               counting half (after Carlini et al. 2019, USENIX Security, 267-284, whose candidates are made up)

Of an unseen post the rank is among the m - 1 others, so unseen posts show what exposure is by chance. All this with the
adapter and without it: the base alone cannot remember, so what it continues are posts that anybody could, and `gained`
are the posts that the run continues and its base does not.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from audit.adapter import switched_off
from audit.membership import SIDES, membership
from audit.subject import Subject
from common.packed import pack
from data.checks import TrainingTexts
from data.groups import counted_together
from data.posts import Post
from finetune.loop import token_losses
from lora.inject import adapters
from report.clusters import worth_of
from report.intervals import rate_difference, wilson

WORDS = 10  # tokens that a continuation must have right
SHORTEST = 6  # tokens of a post that can be cut in two
MOST = 300  # training posts that are asked about


def memorisation(subject: Subject, training: Sequence[Post], loss: str, *, draws: int = 2000, seed: int = 0,
                 progress: Callable[[int], object] = lambda total: lambda: None) -> dict:
    """The section for audit.json: the figures of the module for `training` posts and for the audit's own, unseen ones.

    loss: what the run was trained by: "label", "vocabulary" or "text". `why` says why nothing was measured, and is None
    otherwise.
    """
    held, spoken = TrainingTexts.of(training), {post.language for post in training}
    unseen = [post for post in subject.posts if post.language in spoken and not held.hold(post.text)]
    spoken = {post.language for post in unseen}
    training = [post for post in training if post.language in spoken]
    stream = np.random.default_rng([seed, 0x3E])
    chosen = sorted(stream.permutation(len(training))[:MOST].tolist())
    sets, groups = {"training": [training[index] for index in chosen], "unseen": unseen}, {}
    whole = loss == "text"
    for name, posts in sets.items():
        sets[name] = posts = [post for post in posts if not whole or split(subject, post.text)]
        column = subject.group_by if any(subject.group_by in post.extra for post in posts) else None
        groups[name] = np.array(counted_together(posts, column)[0])
    if min(map(len, sets.values())) < 2:
        long = f" and have {SHORTEST} tokens or more" if whole else ""
        return {"why": f"fewer than two training posts or unseen ones are in one language{long}"}
    done = progress(4)
    ask = _halves if whole else _labels
    run = {name: ask(subject, posts, done) for name, posts in sets.items()}
    with switched_off(subject.model, adapters(subject.model)):
        base = {name: ask(subject, posts, done) for name, posts in sets.items()}
    losses = [[side[name][0] for name in SIDES] for side in (run, base)]
    found = {"why": None, "loss": loss, "languages": sorted(spoken), "asked": len(chosen),
             "posts": {name: len(posts) for name, posts in sets.items()},
             **membership(*losses, [groups[name] for name in SIDES], draws, seed)}
    if not whole:
        return found
    found["words"] = WORDS
    for key, side in (("with_adapter", run), ("without", base)):
        found[key] |= _continued({name: side[name][1] for name in SIDES}, groups) | _exposure(
            *(side[name][0] for name in SIDES))
    gained = {name: run[name][1] & ~base[name][1] for name in SIDES}
    return found | {"gained": _continued(gained, groups)}


def _labels(subject: Subject, posts: Sequence[Post], done) -> tuple[np.ndarray]:
    """Losses (n,) float64 of the true labels among the labels."""
    found = subject.probabilities([subject.prompt.encode(post.text) for post in posts]).astype(np.float64)
    true = found[np.arange(len(posts)), [subject.labels.index(post.label) for post in posts]]
    done()
    return (-np.log(np.maximum(true, np.finfo(np.float32).tiny)),)


def _halves(subject: Subject, posts: Sequence[Post], done) -> tuple[np.ndarray, np.ndarray]:
    """`continuation` of the posts' halves."""
    found = continuation(subject, [split(subject, post.text) for post in posts])
    done()
    return found


def split(subject: Subject, text: str) -> tuple[list[int], int, int] | None:
    """Ids of the whole row, where the post's second half begins, and where it ends; None for a short post.

    The post's own ids are those between what the row shares with a row without text, at its start and at its end.
    """
    row, bare = subject.prompt.encode(text), subject.prompt.encode("")
    start = next((k for k, (a, b) in enumerate(zip(row.ids, bare.ids, strict=False)) if a != b), len(bare.ids))
    end = 0
    while end < len(bare.ids) - start and row.ids[-1 - end] == bare.ids[-1 - end]:
        end += 1
    stop = len(row.ids) - end
    return None if stop - start < SHORTEST else (row.ids[:stop], start + (stop - start) // 2, stop)


@torch.no_grad()
def continuation(subject: Subject, halves: Sequence[tuple[list[int], int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Losses (n,) float64 of the second halves, and whether each is continued word for word, (n,) bool."""
    losses, right = [], []
    model = subject.model.eval()
    for ids, middle, stop in halves:
        hidden = model.hidden(pack([ids], [stop - 1], [0]).to(model.device))[middle - 1 : stop - 1]  # (n, D)
        wanted = torch.tensor(ids[middle:stop], device=model.device)
        losses.append(float(token_losses(model, hidden, wanted).double().mean()))
        first = hidden[:WORDS]
        right.append(bool((model.logits(first).argmax(-1) == wanted[:WORDS]).all()))
    return np.array(losses), np.array(right)


def exposures(losses: np.ndarray, others: np.ndarray, own: bool = False) -> np.ndarray:
    """log2(m + 1) - log2(rank) of each loss among `others` (m,); own: the losses are the others, each without itself.
    """
    below = (others[None, :] < losses[:, None]).sum(1) + ((others[None, :] == losses[:, None]).sum(1) - own) / 2
    return np.log2(len(others) - own + 1) - np.log2(1 + below)


def _exposure(training: np.ndarray, unseen: np.ndarray) -> dict:
    return {"exposure": {"training": float(exposures(training, unseen).mean()),
                         "unseen": float(exposures(unseen, unseen, own=True).mean()),
                         "largest_possible": math.log2(len(unseen) + 1)}}


def _continued(right: dict[str, np.ndarray], groups: dict[str, np.ndarray]) -> dict:
    """Counts and rates of posts that are continued, and the difference of the two rates with its interval."""
    counts = {name: (int(part.sum()), len(part)) for name, part in right.items()}
    sides = {name: worth_of(right[name], groups[name]) for name in SIDES}
    return {"continued": {name: {"posts": k, "rate": k / n, "rate_ci": list(wilson(*sides[name]))}
                          for name, (k, n) in counts.items()},
            "continued_difference": list(rate_difference(*(sides[name] for name in SIDES)))}
