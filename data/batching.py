"""Which posts go through the model together, and in which order.

A batch is packed (common/packed.py): its rows lie end to end without padding, and the prefix that they share is stored
once. So a batch costs `prefix + sum(len(row) - prefix)` tokens, whatever the lengths of its rows, and the budget is
given in tokens. Rows of similar length still go together, because the attention kernels work on rectangles internally.
"""

from collections.abc import Callable, Sequence

import numpy as np

from common.packed import PackedBatch, pack
from data.prompt import EncodedPost, common_prefix

BATCHES_PER_GROUP = 50


def shared_prefix(prompt_prefix: Sequence[int], rows: Sequence[EncodedPost]) -> int:
    """How many ids the rows share with each other and with `prompt_prefix`; at most each row's `answer_index`.

    It is bounded by the prompt's own prefix, so that posts that happen to begin alike do not change how a row is
    computed. The answer position stays in every row's own part, even if a row consists of the prefix alone.
    """
    if not rows:
        return 0
    prefix = list(prompt_prefix)
    whole = all(row.ids[: len(prefix)] == prefix for row in rows)  # nearly always
    shared = len(prefix) if whole else common_prefix([prefix, *(row.ids for row in rows)])
    return min(shared, min(row.answer_index for row in rows))


def plan(
    rows: Sequence[EncodedPost], max_tokens: int, window: int | None = None, max_rows: int | None = None,
    prefix: Sequence[int] = (),
) -> list[list[int]]:
    """Indices into `rows`, in batches of at most `max_rows` rows and `max_tokens` packed tokens (the prefix once).

    Within each `window` of consecutive rows (None: all of them) the longest come first, ties in input order, so that
    memory peaks in the first batch and results come window by window. A row over the budget is alone in its batch. Rows
    that share less of `prefix` than others get batches of their own: how a row is computed must not depend on its
    neighbours.
    `plan(rows of lengths [3, 9, 4], 8) -> [[1], [2, 0]]`.
    """
    window = max(1, len(rows)) if window is None else window
    if min(window, max_tokens, 1 if max_rows is None else max_rows) < 1:
        raise ValueError(f"window {window}, max_tokens {max_tokens} and max_rows {max_rows} must be 1 or more")
    batches: list[list[int]] = []
    for start in range(0, len(rows), window):
        indices = range(start, min(start + window, len(rows)))
        shared = {index: shared_prefix(prefix, [rows[index]]) for index in indices}
        tokens, batch = 0, []
        for index in sorted(indices, key=lambda index: (-shared[index], -len(rows[index].ids))):
            own = len(rows[index].ids) - shared[index]
            if batch and (tokens + own > max_tokens or len(batch) == max_rows or shared[index] != shared[batch[0]]):
                batches.append(batch)
                batch = []
            tokens = own + (tokens if batch else shared[index])
            batch.append(index)
        batches.append(batch)
    return batches


def even_plan(rows: Sequence[EncodedPost], max_tokens: int, prefix: Sequence[int] = ()) -> list[list[int]]:
    """`plan` with the same number of batches but the smallest budget that suffices, so that they are evenly full.

    The fullest micro-batch decides how much memory a training step needs for backward, and a last batch of a few posts
    would dequantise every weight for little. The budget is found by bisection between an equal share of the tokens and
    `max_tokens`.
    """
    batches = plan(rows, max_tokens, prefix=prefix)
    if len(batches) < 2:
        return batches
    low, high = max_tokens // len(batches), max_tokens
    while high - low > 1:
        middle = (low + high) // 2
        found = plan(rows, middle, prefix=prefix)
        if len(found) == len(batches):
            batches, high = found, middle
        else:
            low = middle
    return batches


def make_batch(rows: Sequence[EncodedPost], indices: Sequence[int], prefix_len: int = 0, multiple: int = 1
               ) -> PackedBatch:
    """Pack `rows[index]` for each of `indices`, with the first `prefix_len` ids once; `batch.indices` is `indices`."""
    chosen = [rows[index] for index in indices]
    return pack([row.ids for row in chosen], [row.answer_index for row in chosen], list(indices), prefix_len, multiple)


def group_by_length(lengths: Sequence[int], batch_size: int, generator: np.random.Generator) -> list[int]:
    """An epoch's order, drawn from `generator`, in which each `batch_size` consecutive posts have similar lengths.

    The posts are shuffled, cut into groups of `BATCHES_PER_GROUP` batches (fewer if there are few posts), sorted by
    length inside each group and cut into batches; then the batches are shuffled. transformers' `group_by_length` does
    the same but leaves each group's batches in order of decreasing length, so that its gradients go from long posts to
    short ones over and over; shuffling the batches costs nothing. A batch that is not full stays last.
    """
    order = generator.permutation(len(lengths)).tolist()
    # At least four groups, as in transformers: with one group the batches would hold the same posts in every epoch.
    group = batch_size * max(1, min(BATCHES_PER_GROUP, len(lengths) // (batch_size * 4)))
    groups = [order[start : start + group] for start in range(0, len(order), group)]
    order = [index for part in groups for index in sorted(part, key=lambda index: -lengths[index])]
    full, rest = divmod(len(order), batch_size)
    batches = [order[start : start + batch_size] for start in range(0, full * batch_size, batch_size)]
    return [index for number in generator.permutation(full) for index in batches[number]] + order[len(order) - rest :]


def order_by_length(lengths: Sequence[int], batch_size: int, seed: int) -> Callable[[int], list[int]]:
    """`order(epoch) -> indices` by `group_by_length`; it does not depend on earlier draws, as in `order_by_epoch`."""
    return lambda epoch: group_by_length(lengths, batch_size, np.random.default_rng([seed, epoch]))
