"""Checks of chapter 8: what `data/prompt.py`, `model/attention.py` and `model/llama.py` give is right."""

from itertools import pairwise

import torch

from common.packed import Layout
from data.prompt import common_prefix
from learn.check import Task, Wrong
from model.attention import attend_softmax

ROWS = [([[1, 2, 3], [1, 2, 4, 3]],), ([[5, 6, 7, 8], [5, 6, 9, 8], [5, 1, 7, 8]],), ([[1, 2], [1, 2, 3]],),
        ([[1, 2, 3], [1, 2]],), ([[4, 4], [3, 4]],), ([[1, 2, 3], [1, 5, 3], [1, 2, 4]],),
        ([[7, 8, 9, 1], [7, 8, 9, 1], [7, 8, 2, 1]],)]
LINES = [((3, 5, 8), 3), ((2, 3, 7, 9), 2), ((0, 4, 6), 0)]


def along_the_first(rows):
    """Every place of the first row, whether another row has it or not."""
    return next((place for place, id in enumerate(rows[0]) if any(row[place] != id for row in rows)), len(rows[0]))


def of_one_length(rows):
    return next((place for place, ids in enumerate(zip(*rows, strict=True)) if len(set(ids)) > 1), len(rows[0]))


def first_length(rows):
    return next((place for place, ids in enumerate(zip(*rows, strict=False)) if len(set(ids)) > 1), len(rows[0]))


def equal_places(rows):
    return sum(len(set(ids)) == 1 for ids in zip(*rows, strict=False))


def right_see(starts, prefix):
    """Which values reach a token: attention with equal scores, and the identity as values."""
    n = starts[-1]
    zero = torch.zeros(n, 1, n)
    return attend_softmax(zero, zero, torch.eye(n)[:, None], Layout(starts, prefix))[:, 0] > 0


def see(starts, prefix, own=True, ahead=False, later=0, prefix_seen=True):
    """The mask, with parts of the rule changed."""
    n = starts[-1]
    seen = torch.zeros(n, n, dtype=torch.bool)
    for start, end in pairwise((0, *starts) if prefix else starts):
        seen[start:end, start if own else 0 : end] = True
        seen[start:end, :prefix] |= prefix_seen or start < prefix
    return seen if ahead else seen & torch.ones(n, n).tril(later).bool()


def trials_shares() -> list[tuple]:
    draw = torch.Generator().manual_seed(8)
    return [(torch.randn(r, 6, generator=draw), torch.randn(20, 6, generator=draw), torch.tensor(ids))
            for r, ids in ((3, [7, 2, 11, 19]), (4, [5, 6, 0, 13]), (1, [9, 3]))]


def after_all(hidden, table, label_ids):
    return (hidden @ table.T).softmax(-1)[:, label_ids]


def sigmoid(hidden, table, label_ids):
    return (hidden @ table[label_ids].T).sigmoid()


TASKS = (
    Task("common_prefix", lambda: ROWS, common_prefix, (
        Wrong(lambda rows: common_prefix(rows[:2]), "only the first two rows are compared; a later one may differ "
                                                    "earlier"),
        *(Wrong(answer, "a later row may be shorter than the first one; what they share ends where it ends")
          for answer in (along_the_first, of_one_length, first_length)),
        Wrong(equal_places, "all places with equal ids are counted, those behind the first difference too. What comes "
                            "behind a difference has seen it, and cannot be shared"),
        Wrong(lambda rows: common_prefix(rows) + 1, "one too many: the place of the first difference is counted as "
                                                    "shared"),
        Wrong(lambda rows: max(0, common_prefix(rows) - 1), "one too few: the last id that is equal in all rows "
                                                            "belongs to the prefix"),
        Wrong(lambda rows: common_prefix([rows[0], rows[-1]]), "only the first and the last row are compared; the rows "
                                                               "are in no order, so all of them count"),
    )),
    Task("may_see", lambda: LINES, right_see, (
        Wrong(lambda starts, prefix: see(starts, prefix, own=False), "tokens see other rows: with a plain causal mask, "
                                                                     "a post reads the posts before it"),
        Wrong(lambda starts, prefix: see(starts, prefix, prefix_seen=False), "the rows do not see the prefix, so no "
                                                                             "post has an instruction"),
        Wrong(lambda starts, prefix: see(starts, prefix, ahead=True), "within a row, and in the prefix, tokens see "
                                                                      "later ones as well; nobody looks ahead"),
        Wrong(lambda starts, prefix: see(starts, prefix, later=-1), "no token sees itself; the first of all would then "
                                                                    "see nothing"),
        Wrong(lambda starts, prefix: see(starts, prefix).T, "rows and columns are exchanged: the row is the token that "
                                                            "looks"),
        Wrong(lambda starts, prefix: ~see(starts, prefix), "true and false are exchanged; true means: may see"),
    ), typed=True),
    Task("label_shares", trials_shares, lambda hidden, table, ids: (hidden @ table[ids].T).softmax(-1), (
        Wrong(after_all, "the softmax is taken over all pieces, and the labels picked afterwards. Their shares no "
                         "longer sum to one, and pieces that cannot be an answer take part"),
        Wrong(lambda hidden, table, ids: (hidden @ table[ids].T).softmax(0), "the shares sum to one over the posts; "
                                                                             "they have to over the labels"),
        Wrong(sigmoid, "each label gets a probability of its own between 0 and 1 (a sigmoid). A post has one label, so "
                       "the shares have to sum to one"),
        Wrong(lambda hidden, table, ids: (hidden @ table[: len(ids)].T).softmax(-1),
              "the first rows of the table are used; the labels' rows are those with their ids"),
        Wrong(lambda hidden, table, ids: hidden @ table[ids].T, "these are the scores; the softmax is missing"),
        Wrong(lambda hidden, table, ids: (hidden @ table[ids].T).log_softmax(-1),
              "these are the logarithms of the probabilities"),
    ), tolerance=1e-5),
)
