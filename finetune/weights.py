"""What train.py's `--quantize auto` becomes, and what four bits would cost this base on these posts.

The choice is that of `loading.choice`, with the adapter, its optimiser and the activations of these posts beside the
dense model. Its price is measured where that takes seconds, on the first `POSTS` training posts, with the bare base
once in 4 bits and once dense:

    label KL          mean over posts of sum_c p_c ln (p_c / q_c), in nats; p dense, q in 4 bits, over the label tokens
    next-token loss   mean over the posts' own tokens of -ln P(next token), in nats, both ways
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch

from common.device import available_memory
from data.batching import make_batch, plan, shared_prefix
from finetune.kept import Piece
from finetune.loop import followed, token_losses
from finetune.memory import expected_plan
from finetune.prepare import Prepared
from finetune.team import Team
from loading import load_model
from loading.assemble import choose_attend
from loading.choice import Choice, choose_weights
from model.config import LlamaConfig

POSTS = 64  # whose price is measured
PIECE = 4096  # packed tokens that go through the model at once there


@dataclass(frozen=True)
class Price:
    """Of four bits, on `posts` posts: the label KL, and the next-token losses of both ways; nats."""

    posts: int
    label_kl: float
    dense_loss: float
    nf4_loss: float

    def __str__(self) -> str:
        return (f"price of 4 bits on the first {self.posts} posts: label KL {self.label_kl:.3f} nats, next-token loss "
                f"{self.nf4_loss:.3f} instead of {self.dense_loss:.3f}")


def resolve(options, config: LlamaConfig, device: torch.device, dtype: torch.dtype,
            piece: Callable[[int], Piece], team: Team | None = None) -> Choice | None:
    """Put what "auto" means here into `options.quantize`; `None` if the options say it themselves.

    piece: micro_tokens -> the fullest piece that the posts make (`memory.fullest`). team: of several processes the
    first one decides, since each finds another amount of free memory.
    """
    if options.quantize != "auto":
        return None
    if team is not None:
        choice, options.quantize = team.first_says(
            lambda: (resolve(options, config, device, dtype, piece), options.quantize))
        return choice
    free = available_memory(device)
    memory = expected_plan(config, dtype, "none", options.lora_targets, options.rank, free, dropout=options.dropout,
                           gpu=device.type == "cuda", attend=choose_attend(device, dtype, config.head_dim)[0],
                           micro_tokens=options.micro_tokens or None,
                           checkpointing=options.recompute, loss=options.loss, piece=piece)
    found = choose_weights(config, dtype, free, beside=memory.adapter + memory.activations)
    options.quantize = "nf4" if found.quantize == "stored" else found.quantize  # packed bytes stay as they are
    return found


def read_both(model, prepared: Prepared) -> tuple[torch.Tensor, float]:
    """Log probabilities of the labels, (n, C) float32 on the CPU, and the mean next-token loss, of the first posts."""
    rows, prefix = prepared.rows[:POSTS], prepared.prompt.prefix_ids
    label_ids = torch.tensor(prepared.prompt.label_ids, device=model.device)
    found, losses = torch.empty(len(rows), len(label_ids)), []
    with torch.no_grad():
        for indices in plan(rows, PIECE, prefix=prefix):
            shared = shared_prefix(prefix, [rows[index] for index in indices])
            batch = make_batch(rows, indices, shared).to(model.device)
            hidden = model.hidden(batch)  # (N, D)
            answers = hidden[batch.answer_index]  # (R, D)
            found[indices] = model.label_logits(answers, label_ids).float().log_softmax(-1).cpu()
            follows = followed(batch.layout).to(model.device)
            losses.append(token_losses(model, hidden[follows], batch.tokens[follows + 1]).float().cpu())
    return found, torch.cat(losses).mean().item()


def price(options, prepared: Prepared, dense) -> Price:
    """What 4 bits would cost `dense`, a bare dense base; a second copy is loaded in 4 bits for it, and dropped."""
    exact, dense_loss = read_both(dense, prepared)
    rounded, nf4_loss = read_both(load_model(prepared.base, device=dense.device, dtype=dense.dtype,
                                             quantize="nf4", cache=options.cache), prepared)
    kl = (exact.exp() * (exact - rounded)).sum(-1).mean().item()
    return Price(len(exact), kl, dense_loss, nf4_loss)


def show_price(options, prepared: Prepared, choice: Choice | None, model) -> dict | None:
    """Print the price of 4 bits, or why it is not measured; for run.json. Nothing where the user chose."""
    if choice is None:
        return None
    why = {"stored": "its weights are in 4 bits already", "nf4": "the dense weights do not fit"}.get(choice.quantize)
    if why is None and not choice.small:
        why = "it would take long for a model of this size"
    if why:
        print(f"  price of 4 bits: not measured, since {why}")
        return None
    found = price(options, prepared, model)
    print(f"  {found}")
    return asdict(found)
