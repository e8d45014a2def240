"""Second moments of the inputs that really arrive at each linear, collected by hooks from outside the model.

    M = 1/T sum_t x_t x_t^T,    (in, in) float64

The sum is over the tokens on which the posts' labels depend, counted as if each post went through the model alone: a
token of the prefix that the posts share is computed once per batch here, and counts for each of its posts; in the last
block only the answer's position has a query, goes through `o_proj` and through the MLP. Batches are not filled up.

A model whose moments do not fit into `BUDGET` at once is run several times, for some of its linears each time.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch

from audit.subject import Subject
from data.batching import make_batch, plan, shared_prefix

BUDGET = 10**9  # bytes of moments in memory at once
READS_ALL = ("k_proj", "v_proj")  # of the last block: its other linears see the answer's position only


def moments(subject: Subject, names: list[str], done: Callable[[], object] = lambda: None
            ) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, M) for each linear in `names`, in their order; `done` is called after each run over the posts."""
    for group in _groups(subject.model, names):
        found = {name: torch.zeros(size, size, dtype=torch.float64, device=subject.model.device)
                 for name in group if (size := subject.model.get_submodule(name).in_features)}
        counts = dict.fromkeys(group, 0)
        _collect(subject, found, counts)
        done()
        for name in group:
            yield name, found.pop(name) / max(counts[name], 1)


def _groups(model, names: list[str]) -> list[list[str]]:
    groups, size = [], BUDGET
    for name in names:
        own = 8 * model.get_submodule(name).in_features ** 2
        if size + own > BUDGET:
            groups.append([])
            size = 0
        groups[-1].append(name)
        size += own
    return groups


@torch.inference_mode()
def _collect(subject: Subject, found: dict[str, torch.Tensor], counts: dict[str, int]) -> None:
    model, rows, prefix = subject.model, subject.rows, subject.prompt.prefix_ids
    last = f"model.layers.{model.config.num_hidden_layers - 1}."
    weights = answers = None  # of the batch at hand

    def add(name: str, _module, inputs) -> None:
        x = inputs[0].double()
        of_answers = name.startswith(last) and name.rpartition(".")[2] not in READS_ALL
        if of_answers:
            x = x[:answers]  # behind them the last one is repeated, to fill up
        scaled = x if of_answers else x * weights[:, None]
        found[name] += scaled.T @ x
        counts[name] += answers if of_answers else int(weights.sum())

    hooks = [model.get_submodule(name).register_forward_pre_hook(partial(add, name)) for name in found]
    try:
        for indices in plan(rows, subject.micro_tokens, prefix=prefix):
            shared = shared_prefix(prefix, [rows[index] for index in indices])
            batch = make_batch(rows, indices, shared).to(model.device)
            answers = len(indices)
            weights = torch.ones(len(batch.tokens), dtype=torch.float64, device=model.device)
            weights[:shared] = answers
            model.eval().answer_hidden(batch)
    finally:
        for hook in hooks:
            hook.remove()
