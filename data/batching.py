"""Which posts go through the model together, and in which order.

A batch is packed (common/packed.py): its rows lie end to end without padding, and what they share at the beginning is
there once. So a batch costs `prefix + sum(len(row) - prefix)` tokens, whatever the lengths of its rows, and the budget
is given in tokens. Rows of like length still go together, because the attention kernels work on rectangles inside.
"""

from collections.abc import Sequence

import numpy as np

from common.packed import PackedBatch, pack
from data.prompt import EncodedPost, common_prefix


def shared_prefix(prompt_prefix: Sequence[int], rows: Sequence[EncodedPost]) -> int:
    """How many ids the rows share with each other and with `prompt.prefix_ids`; at most each row's `answer`.

    Bounded by the prompt's own prefix, so that posts that happen to begin alike do not change how a row is computed.
    The answer position stays in every row's own part, even where a row is nothing but prefix.
    """
    if not rows:
        return 0
    return min(common_prefix([list(prompt_prefix), *(row.ids for row in rows)]), min(row.answer_index for row in rows))


def plan(
    rows: Sequence[EncodedPost], max_tokens: int, window: int | None = None, max_rows: int | None = None,
    prefix: Sequence[int] = (),
) -> list[list[int]]:
    """Places of `rows` in batches of at most `max_tokens` packed tokens (what they share counted once) and `max_rows`.

    Within each `window` of consecutive rows (None: all of them) the longest come first, ties in input order, so that
    memory is highest at once and results come window by window. A row over the budget is alone in its batch. Rows that
    share less of `prefix` than others are not put with them: how a row is computed must not depend on its neighbours.
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
    """`plan`, with no more batches than it needs but the fullest of them as empty as can be.

    What a training step keeps for backward follows its fullest micro-batch, and a last batch of a few posts would
    dequantise every weight for little. By bisection over the budget, between the tokens of an equal share and
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
    """Pack `rows[index]` for each of `indices`, the first `prefix_len` ids once; `batch.indices` are these indices."""
    chosen = [rows[index] for index in indices]
    return pack([row.ids for row in chosen], [row.answer_index for row in chosen], list(indices), prefix_len, multiple)


def group_by_length(lengths: Sequence[int], batch_size: int, generator: np.random.Generator,
                    batches_per_group: int = 50) -> list[int]:
    """An epoch's order in which each `batch_size` consecutive posts are of like length, drawn from `generator`.

    The posts are shuffled, cut into groups of `batches_per_group` batches (fewer where there are few posts), sorted by
    length inside each group and cut into batches; then the batches are shuffled. transformers' `group_by_length` does
    the same but leaves each group's batches in falling order, so that its gradients run from long posts to short ones
    over and over; shuffling the batches costs nothing. The batch that is not full stays last.
    """
    order = generator.permutation(len(lengths)).tolist()
    # At least four groups, as in transformers: with one group the batches would hold the same posts in every epoch.
    group = batch_size * max(1, min(batches_per_group, len(lengths) // (batch_size * 4)))
    groups = [order[start : start + group] for start in range(0, len(order), group)]
    order = [index for part in groups for index in sorted(part, key=lambda index: -lengths[index])]
    full, rest = divmod(len(order), batch_size)
    batches = [order[start : start + batch_size] for start in range(0, full * batch_size, batch_size)]
    return [index for number in generator.permutation(full) for index in batches[number]] + order[len(order) - rest :]
