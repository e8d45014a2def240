"""Training steps: what one step computes, in which order posts come, and what is saved so that a run can be resumed.

One step takes `batch_size` posts, computes their mean loss and updates the adapter once. The posts go through the model
in micro-batches of at most `micro_tokens` packed tokens; every micro-batch adds its share of the *whole* step's mean,

    loss = sum_i w_i l_i / sum_i w_i        over all posts i of the step,

so the gradient does not depend on how the step was cut up. Which posts belong to step s follows from the seed and s
alone. So to end in the same bits, a resumed run needs only the adapter, the optimiser's moments and the state of the
random generator.

Three losses: `label` (softmax over the label tokens at the answer position), `vocabulary` (softmax over the whole
vocabulary there) and `text` (next-token loss over the whole row, the paper's; it also teaches the model to write such
posts). In the last one every token counts, with its row's weight: the sums run over the tokens of all rows.

In float16, whose smallest number is 6e-8, small gradients would become 0, so the loss is multiplied by a scale before
they are computed and its gradients are divided by it (Micikevicius et al. 2018, arXiv 1710.03740; PyTorch's
`GradScaler`). A step in which one of them overflows changes nothing but the scale, which is halved.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from common.device import is_recorded, or_halve
from common.packed import Layout, PackedBatch, sent
from data.batching import even_plan, make_batch, shared_prefix
from finetune.checkpoint import check_trainer
from finetune.graphs import Graphs
from finetune.recipe import Recipe, learning_rate, shares_of, steps_per_epoch
from lora.inject import cast_once, trainable_parameters

LOSSES = ("label", "vocabulary", "text")
LOGIT_CHUNK = 256  # positions whose full-vocabulary logits exist at the same time


def token_losses(model, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy over the whole vocabulary, (M, D) and (M,) -> (M,), in at least float32.

    At most `LOGIT_CHUNK` rows of logits exist at a time: forward drops each chunk, backward recomputes it.
    """

    def chunk(part, wanted):
        logits = model.logits(part)  # (chunk, V)
        return F.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), wanted, reduction="none")

    random = not is_recorded(hidden.device)  # a CUDA graph cannot ask for the state of random numbers
    pairs = zip(hidden.split(LOGIT_CHUNK), targets.split(LOGIT_CHUNK), strict=True)
    return torch.cat([checkpoint(chunk, part, wanted, use_reentrant=False, preserve_rng_state=random)
                      for part, wanted in pairs])


def label_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """-log softmax(logits)[label] of each post: (R, C) in at least float32 and (R,) int64 -> (R,).

    Ordinal labels, or other costs, change this and `inference.decide.decide` and nothing else. Several labels a post
    also change what a post's gold label is (`data.posts`), the softmax in `Labeller.give`, and `report.metrics`.
    """
    return F.cross_entropy(logits, labels, reduction="none")


def followed(layout: Layout) -> torch.Tensor:
    """The tokens behind the shared prefix that another one of their row follows: (N - P - R,) int64."""
    has_next = torch.ones(layout.tokens, dtype=torch.bool)
    has_next[: layout.prefix_len] = False
    has_next[torch.tensor(layout.row_start[1:]) - 1] = False
    return has_next.nonzero()[:, 0]


def batch_loss(model, batch: PackedBatch, labels, weights, label_ids, loss: str, checkpointing: bool) -> torch.Tensor:
    """The weighted sum of the losses of one packed batch (the caller takes the mean over the whole step).

    labels (R,) int64 indices in `label_ids` (C,); weights (R,). Returns a scalar in at least float32. The text loss
    needs batches without a shared prefix: each row has losses on its prefix too.
    """
    if loss == "text":
        hidden = model.hidden(batch, checkpointing)  # (N, D)
        follows, own = sent(hidden.device, followed(batch.layout), torch.tensor(batch.layout.lengths) - 1)
        losses = token_losses(model, hidden[follows], batch.tokens[follows + 1])
        weights = weights.repeat_interleave(own, output_size=len(follows))  # (N - R,)
        return (losses * weights.to(losses.dtype)).sum()
    answers = model.answer_hidden(batch, checkpointing)  # (R, D)
    if loss == "vocabulary":
        losses = token_losses(model, answers, label_ids[labels])
    else:
        losses = label_loss(model.label_logits(answers, label_ids), labels)
    return (losses * weights.to(losses.dtype)).sum()


class Trainer:
    """The state of one fine-tune, and how it moves from step to step.

    rows: encoded posts (`.ids`, `.answer_index`); labels and weights: one entry per row; order(epoch) -> indices in
    `rows`, the same for the same epoch; prefix: ids that all rows may share (empty if dropout rules out sharing);
    graphs: whether pieces are recorded as CUDA graphs and replayed (`finetune/graphs.py`).
    """

    def __init__(self, model, rows, labels, weights, label_ids, order: Callable[[int], list[int]], prefix,
                 recipe: Recipe, total_steps: int, micro_tokens: int, checkpointing: bool = False,
                 graphs: bool = False):
        self.model, self.rows, self.order, self.prefix, self.recipe = model, rows, order, prefix, recipe
        self.total_steps, self.micro_tokens, self.checkpointing = total_steps, micro_tokens, checkpointing
        device = model.device
        self.labels = torch.tensor(labels)
        self.weights = torch.tensor(weights, dtype=torch.float64)
        self.label_ids = torch.tensor(label_ids, device=device)
        self.named = trainable_parameters(model)
        self.optimizer = torch.optim.AdamW(
            list(self.named.values()), lr=recipe.learning_rate, betas=recipe.betas, eps=recipe.epsilon,
            weight_decay=recipe.weight_decay, fused=device.type in ("cpu", "cuda"),
        )  # fmt: skip
        self.scaler = torch.amp.GradScaler(device.type, enabled=model.dtype == torch.float16)
        self.one = torch.ones((), device=device)
        self.scaler.scale(self.one)  # makes the scale, whose place in memory a graph records
        self.graphs = Graphs(model, self._loss, self.scaler.scale) if graphs else None
        self.step_count = 0
        self.halvings = 0
        self._epoch, self._places = 0, order(0)
        # What a constant answer, each label's share of an epoch, gets on each row (see `learning`); of the text loss,
        # whose tokens are not labels, there is none. A row that this epoch's draw left out counts as half a row.
        self.shares = shares_of(labels, weights, self._places, len(label_ids))
        least = 0.5 / len(self._places)
        self.constant = None if recipe.loss == "text" else torch.tensor(
            [-math.log(max(self.shares[label], least)) for label in labels], dtype=torch.float64)
        self.steps_per_epoch = steps_per_epoch(len(self._places), recipe.batch_size)

    def indices(self, step: int) -> list[int]:
        """Which rows step `step` learns from; depends only on the seed and the step."""
        size = self.recipe.batch_size
        if self._epoch != step // self.steps_per_epoch:
            self._epoch = step // self.steps_per_epoch
            self._places = self.order(self._epoch)
        first = step % self.steps_per_epoch * size
        return self._places[first : first + size]

    def step(self) -> dict:
        """One optimiser step; returns what to log. Loss and gradient norm stay tensors, so that nothing waits."""
        rate = learning_rate(self.step_count, self.total_steps, self.recipe)
        indices = self.indices(self.step_count)
        self.model.train()
        longest = max(len(self.rows[index].ids) for index in indices)
        failed = (f"step {self.step_count + 1}: one post of {longest} tokens does not fit into the device's memory; "
                  "try --checkpointing on, --quantize nf4 or a smaller --max-tokens")
        loss, norm = self._gradients(indices, longest, failed)
        # A float16 run looks for its first scale on its first posts, so that none of them are lost.
        while self.step_count == 0 and self.scaler.is_enabled() and self.scaler.get_scale() > 1 and not norm.isfinite():
            self.scaler.update()
            loss, norm = self._gradients(indices, longest, failed)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.scaler.step(self.optimizer)  # of which gradients that are not finite make nothing, without a host's read
        self.step_count += 1
        tokens = sum(len(self.rows[index].ids) for index in indices)
        line = {"step": self.step_count, "loss": loss, "grad_norm": norm, "lr": rate, "posts": len(indices),
                "tokens": tokens}
        if self.scaler.is_enabled():
            line["scale"] = self.scaler.scale(self.one)
            self.scaler.update()
        if self.constant is not None:
            weights = self.weights[indices]
            line["constant"] = ((self.constant[indices] * weights).sum() / weights.sum()).item()
        return line

    def _gradients(self, indices: list[int], longest: int, failed: str) -> tuple[torch.Tensor, torch.Tensor]:
        """The step's mean loss, and the norm of its gradients, which are clipped."""
        # If memory runs out, the same step again with half the micro-tokens: the same mean, so the same mathematics.
        with cast_once(self.model, self.model.dtype) if self.graphs is None else nullcontext():
            while (loss := or_halve(self, lambda: self._accumulate(indices), longest, failed)) is None:
                pass
        self.scaler.unscale_(self.optimizer)
        return loss, torch.nn.utils.clip_grad_norm_(list(self.named.values()), self.recipe.clip or float("inf"))

    def _accumulate(self, indices: list[int], whole: list[int] | None = None) -> torch.Tensor:
        """Gradients of the step's mean loss, times the scale, summed over its micro-batches; returns that loss (a
        scalar tensor). The mean is over `whole`, the step's posts where `indices` are some of them."""
        self.optimizer.zero_grad(set_to_none=True)
        whole_text = self.recipe.loss == "text"
        prefix = [] if whole_text else self.prefix  # each row has losses on the prefix, so it cannot be shared
        everything = indices if whole is None else whole
        counts = torch.tensor([len(self.rows[index].ids) - 1 if whole_text else 1 for index in everything])
        total = (self.weights[everything] * counts).sum().item()
        compute_dtype = torch.promote_types(self.model.dtype, torch.float32)
        loss = torch.zeros((), dtype=compute_dtype, device=self.model.device)
        rows = [self.rows[index] for index in indices]
        if self.graphs is not None:
            self.graphs.begin()
        for group in even_plan(rows, self.micro_tokens, prefix=prefix):
            chosen = [indices[i] for i in group]
            shared = shared_prefix(prefix, [self.rows[index] for index in chosen])
            if self.graphs is not None:
                loss += self.graphs.add(self.rows, chosen, shared, self.labels[chosen],
                                        self.weights[chosen].to(compute_dtype), total)
                continue
            batch = make_batch(self.rows, chosen, shared).to(self.model.device)
            labels, weights = sent(self.model.device, self.labels[chosen], self.weights[chosen].to(compute_dtype))
            part = self._loss(batch, labels, weights) / total
            self.scaler.scale(part).backward()
            loss += part.detach()
        return loss

    def _loss(self, batch: PackedBatch, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return batch_loss(self.model, batch, labels, weights, self.label_ids, self.recipe.loss, self.checkpointing)

    def state(self) -> dict:
        """Everything that a resumed run needs, as tensors and plain values; to be written before the next step.

        The optimiser's tensors are the live ones: a copy would take as much memory again.
        """
        return {
            "step": self.step_count, "micro_tokens": self.micro_tokens, "halvings": self.halvings,
            "checkpointing": self.checkpointing,
            "parameters": {name: p.detach().cpu().clone() for name, p in self.named.items()},
            "optimizer": self.optimizer.state_dict(), "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            **({"scaler": self.scaler.state_dict()} if self.scaler.is_enabled() else {}),
        }  # fmt: skip

    def load_state(self, state: dict) -> None:
        """Continue from what `state()` gave. Raises `ValueError` for what it cannot have given."""
        check_trainer(state, self.state(), self.total_steps)
        with torch.no_grad():
            for name, parameter in self.named.items():
                parameter.copy_(state["parameters"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        if "scaler" in state:
            self.scaler.load_state_dict(state["scaler"])
        self.step_count, self.micro_tokens, self.halvings = state["step"], state["micro_tokens"], state["halvings"]
        self.checkpointing = state["checkpointing"]
        torch.set_rng_state(state["rng"])
        if len(state["cuda_rng"]) == torch.cuda.device_count():  # else it is another machine: the bits differ anyway
            torch.cuda.set_rng_state_all(state["cuda_rng"])
