"""Checks of chapter 3: what `model/attention.py` gives is right."""

import torch

from common.packed import Layout
from learn.check import Task, Wrong
from model.attention import attend_softmax


def trials_shares() -> list[tuple]:
    draw = torch.Generator().manual_seed(3)
    return [tuple(torch.randn(t, h, generator=draw) for _ in range(2)) for t, h in ((4, 9), (6, 4), (2, 16))]


def right_shares(q, k):
    """With the identity as values, what attention gives is its shares."""
    t, h = q.shape
    wide = max(t, h)
    fill = torch.zeros(t, wide - h)
    grown = torch.cat([q * (wide / h) ** 0.5, fill], dim=1), torch.cat([k, fill], dim=1)  # the same scores
    values = torch.eye(t, wide)
    out = attend_softmax(*(x[:, None] for x in (*grown, values)), Layout.rectangle(1, t))
    return out[:, 0, :t]


def shares(scale=lambda q: q.shape[-1] ** -0.5, seen=0, dim=-1, after=False):
    """The shares with another scale, diagonal of the mask, direction of the softmax, or the mask behind it."""
    def answer(q, k):
        scores = q @ k.T * scale(q)
        later = torch.ones_like(scores).triu(seen + 1).bool() if seen is not None else torch.zeros_like(scores).bool()
        if after:
            return scores.softmax(dim).masked_fill(later, 0)
        return scores.masked_fill(later, float("-inf")).softmax(dim)
    return answer


def zeros_before(q, k):
    return (q @ k.T * q.shape[-1] ** -0.5).tril().softmax(-1)


def no_softmax(q, k):
    return (q @ k.T * q.shape[-1] ** -0.5).masked_fill(torch.ones(len(q), len(q)).triu(1).bool(), float("-inf"))


def no_softmax_zeros(q, k):
    return (q @ k.T * q.shape[-1] ** -0.5).tril()


def backwards(q, k):
    return (q @ k.T * q.shape[-1] ** -0.5).masked_fill(torch.ones(len(q), len(q)).tril(-1).bool(), float("-inf")
                                                       ).softmax(-1)


def earlier_hidden(q, k):
    return (q @ k.T * q.shape[-1] ** -0.5).masked_fill(torch.ones(len(q), len(q)).tril().bool(), float("-inf")
                                                       ).softmax(-1)


def trials_heads() -> list[tuple]:
    draw = torch.Generator().manual_seed(33)
    return [(torch.randn(t, kept, h, generator=draw), heads)
            for t, kept, h, heads in ((3, 2, 4, 6), (2, 3, 5, 6), (1, 2, 2, 8))]


def trials_newest() -> list[tuple]:
    draw = torch.Generator().manual_seed(333)
    sizes = (5, 6, 2, 4), (3, 4, 4, 9), (7, 9, 3, 2)
    return [tuple(torch.randn(*shape, generator=draw) for shape in ((H, h), (t, K, h), (t, K, h)))
            for t, H, K, h in sizes]


def right_newest(q, k, v):
    """Of a whole text whose last query is `q`; what the other tokens ask does not matter."""
    whole = torch.cat([torch.zeros(len(k) - 1, *q.shape), q[None]])
    return attend_softmax(whole, k, v, Layout.rectangle(1, len(k)))[-1]


def newest(head=lambda j, H, K: j // (H // K), scale=lambda h: h**-0.5, keep=slice(None),
           blend=lambda scores, v: scores.softmax(0) @ v):
    """The newest token's mixtures with another choice of heads, scale, kept tokens or way of mixing."""
    def answer(q, k, v):
        heads = [head(j, len(q), k.shape[1]) for j in range(len(q))]
        return torch.stack([blend(k[keep, of] @ q[j] * scale(q.shape[1]), v[keep, of]) for j, of in enumerate(heads)])
    return answer


TASKS = (
    Task("attention_shares", trials_shares, right_shares, (
        Wrong(shares(seen=None), "every token sees all others, the later ones too: the causal mask is missing"),
        Wrong(shares(scale=lambda q: 1.0), "the scores are not divided by the root of h. With long vectors they grow "
                                           "so large that one token gets nearly everything"),
        Wrong(shares(scale=lambda q: 1 / q.shape[-1]), "the scores are divided by h, not by its root"),
        Wrong(shares(scale=lambda q: len(q) ** -0.5), "the scores are divided by the root of the number of tokens; it "
                                                      "is the root of the vectors' length, h"),
        Wrong(shares(seen=1), "each token also sees the one after it: the mask begins one place too late"),
        Wrong(shares(dim=0), "the shares sum to one in the columns, over those who ask; they have to in the rows, over "
                             "those who answer"),
        Wrong(shares(after=True), "later tokens are set to zero after the softmax. What they had taken is then "
                                  "missing, and the rows no longer sum to one; mask the scores before"),
        Wrong(lambda q, k: shares()(k, q), "queries and keys are exchanged: the rows belong to those who ask"),
        Wrong(shares(seen=-1), "the mask covers the diagonal as well, so no token sees itself. The first one then sees "
                               "nothing at all, and its row is NaN"),
        Wrong(earlier_hidden, "minus infinity is put where the scores have to stay: on each token itself and those "
                              "before it. The last one then sees nothing, and its row is NaN"),
        Wrong(zeros_before, "the scores of later tokens are set to zero before the softmax. But e to 0 is 1, so they "
                            "still get a share; it takes minus infinity to get none"),
        Wrong(backwards, "the mask is turned round: each token sees itself and those after it, not those before"),
        Wrong(no_softmax, "these are masked scores, not shares: the softmax is missing"),
        Wrong(no_softmax_zeros, "these are scores, not shares: the softmax is missing"),
        Wrong(shares(scale=lambda q: q.shape[-1] ** 0.5), "the scores are multiplied by the root of h, not divided"),
    ), tolerance=1e-5),
    Task("repeat_heads", trials_heads, lambda k, heads: torch.stack(
        [k[:, j // (heads // k.shape[1])] for j in range(heads)], dim=1), (
        Wrong(lambda k, heads: k.repeat(1, heads // k.shape[1], 1),
              "the heads come in turn, 0, 1, 0, 1. Neighbours share: 0, 0, 1, 1"),
        Wrong(lambda k, heads: k[:, :1].expand(-1, heads, -1).clone(),
              "every query head reads the first key/value head; the others are never used"),
        Wrong(lambda k, heads: k.mean(1, keepdim=True).expand(-1, heads, -1).clone(),
              "every query head reads the mean of all key/value heads; each has to read its own group's"),
        Wrong(lambda k, heads: k.flip(1).repeat_interleave(heads // k.shape[1], dim=1),
              "neighbours share, but in the wrong order: the first query heads read the first key/value head"),
    )),
    Task("newest_token", trials_newest, right_newest, (
        Wrong(newest(head=lambda j, H, K: j % K), "query heads take key/value heads in turn, 0, 1, 0, 1; neighbours "
                                                  "share one"),
        Wrong(newest(head=lambda j, H, K: 0), "every query head reads the first key/value head"),
        Wrong(newest(scale=lambda h: 1.0), "the scores are not divided by the root of h"),
        Wrong(newest(keep=slice(0, 1)), "the mask lets the newest token see the first one alone. It is the last, so it "
                                        "may see all that is kept, and no mask is needed"),
        Wrong(newest(keep=slice(0, -1)), "the newest token does not see itself: its own key and value are the last of "
                                         "those given"),
        Wrong(newest(blend=lambda scores, v: v.mean(0)), "the values are averaged evenly; each counts by its share"),
        Wrong(newest(blend=lambda scores, v: scores @ v), "the values are mixed by the scores; the softmax makes "
                                                          "shares of them first"),
        Wrong(newest(blend=lambda scores, v: v[scores.argmax()]), "only the value with the largest score is taken; the "
                                                                  "others have their shares as well"),
    ), tolerance=1e-5),
)
