"""The usual stack in turns with ours, on the same weights: transformers + peft, with bitsandbytes' 4 bits where that is
installed, and dense in 16 bits where not.

Its batches are padded as its users pad them. To train, the logits of every position are made, as a model's forward
gives them unless told otherwise; to label, a few tokens are generated for each batch, as the paper's authors did, or
the last position's logits alone are read.
"""

import importlib.util
from functools import partial

import torch
import torch.nn.functional as F

from benchmarks.card.peer import peer
from benchmarks.card.speed import POSTS, epoch, held, label
from benchmarks.card.state import FIRST, LABELS, FixedPrompt, State, make_trainer
from benchmarks.worker import padded
from inference.labeller import Labeller

NEW_TOKENS = 3  # that are generated for a label, as in the paper
GOALS = {("train", "paper"): 4, ("train", "instruction-first"): 8, ("label", "paper"): 6,
         ("label", "instruction-first"): 15}


def in_turns(state: State) -> None:
    """Seconds of ours and of theirs, A B A B, and their ratio; first, whether both compute the same."""
    four = importlib.util.find_spec("bitsandbytes") is not None
    missing = [name for name in ("transformers", "peft") if importlib.util.find_spec(name) is None]
    if missing:
        state.note("left out", f"{' and '.join(missing)} not installed")
        return
    kind = "bitsandbytes' NF4" if four else "dense weights"
    theirs = peer(state.large, four)
    check_same(state, theirs, 4 if state.rehearse else 16)
    for work in (labelling, training, partial(labelling, generated=False)):
        for template in FIRST:
            if not state.has(15):
                return
            work(state, theirs, template, kind)


def labelling(state: State, theirs, template: str, kind: str, generated: bool = True) -> None:
    """Beside generating, or beside reading the last position's logits."""
    # Every second one: the first are shorter than the rest, and too few to fill a batch of ours.
    rows, size = state.rows(template, 32 if state.rehearse else POSTS)[::2], 8 if state.rehearse else 32
    labeller = Labeller(state.large, FixedPrompt(state.prefix(template)), 16384)
    name = f"label, {template}, {'generating' if generated else 'last logits'}"
    goal = GOALS["label", template] if generated else None
    with held(state, "resident"):
        label(labeller, rows)
        their_labels(state, theirs, rows[:size], size, generated)
        seconds, slow = in_alternation(state, partial(label, labeller, rows),
                                       partial(their_labels, state, theirs, rows, size, generated), 0)
    compare(state, name, "resident", len(rows), seconds, slow, kind, goal)
    if generated:
        with held(state, "merged"):  # a tenth of their time, so not worth another turn of theirs
            seconds = state.time(partial(label, labeller, rows), 2, 1)
        compare(state, name, "merged", len(rows), seconds, slow, kind, goal)


def training(state: State, theirs, template: str, kind: str) -> None:
    """Steps of 16 posts, ours recorded, with and without resident weights."""
    size = 4 if state.rehearse else 16
    rows, prefix = state.rows(template, 4 * size), state.prefix(template)
    optimiser = torch.optim.AdamW([p for p in theirs.parameters() if p.requires_grad], lr=2e-4, weight_decay=0.0,
                                  fused=True)
    found = {}
    for weights in ("resident", "NF4"):
        with held(state, weights):
            ours = make_trainer(state.large, rows, prefix, size, 1000, 16384, graphs=not state.rehearse)
            for _ in range(0 if state.rehearse else 2):  # each size is computed, then recorded
                epoch(ours)
            found[weights] = in_alternation(state, partial(epoch, ours),
                                            partial(their_epoch, state, theirs, optimiser, rows, size))
            del ours
            state.collect()
    best = min(seconds for _, seconds in found.values())  # theirs is the same work both times
    for weights, (seconds, _) in found.items():
        compare(state, f"train, {template}, {size} posts a step", weights, 4 * size, seconds, best, kind,
                GOALS["train", template] if weights == "resident" else None)


def in_alternation(state: State, ours, theirs, warm: int = 1) -> tuple[float, float]:
    """The better of two rounds of each, in turns, after `warm` that do not count."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(1 if state.rehearse else warm + 2):
        for found, work in zip(times, (ours, theirs), strict=True):
            found.append(state.time(work, 1, 0))
    return tuple(min(found[warm:] or found) for found in times)


def compare(state: State, what: str, weights: str, posts: int, ours: float, theirs: float, kind: str,
            goal: float | None) -> None:
    """Note posts a second of both, and the ratio."""
    state.note(f"{what}: ours, {weights}", posts / ours, "posts/s")
    state.note(f"{what}: transformers + peft, {kind}", posts / theirs, "posts/s")
    state.note("  times as fast", theirs / ours, "", f"{goal}" if goal else "",
               theirs / ours >= goal if goal and not state.rehearse else None)


def check_same(state: State, theirs, size: int) -> None:
    """The label probabilities of both on a few posts."""
    rows, prefix = state.rows("paper", size), state.prefix("paper")
    mine = torch.from_numpy(Labeller(state.large, FixedPrompt(prefix), 4096).give(rows)())
    found = their_labels(state, theirs, rows, size, False)
    worst = (found.cpu() - mine).abs().max().item()
    limit = 1e-2 if state.rehearse else 0.1  # on some CPUs bitsandbytes computes in bfloat16 whatever is asked for
    state.note("probabilities, largest difference from theirs", f"{worst:.1e}", "", f"at most {limit:g}",
               worst <= limit, check=True)


def their_epoch(state: State, model, optimiser, rows, size: int) -> None:
    """Steps of `size` posts over all rows, in their order."""
    for start in range(0, len(rows), size):
        their_step(state, model, optimiser, rows[start : start + size], size)


def their_step(state: State, model, optimiser, rows, size: int) -> None:
    """A step of the first `size` posts: padded on the right, logits of all positions, loss at the answers."""
    model.train()
    optimiser.zero_grad(set_to_none=True)
    batch = padded([row.ids for row in rows[:size]], "right", state.device)
    del batch["position_ids"]  # on the right they are counted from 0 anyway
    logits = model(**batch, use_cache=False).logits  # (B, T, V)
    answers = torch.tensor([row.answer_index for row in rows[:size]], device=state.device)
    logits = logits[torch.arange(size, device=state.device), answers][:, 3 : 3 + LABELS]
    labels = torch.arange(size, device=state.device) % LABELS
    F.cross_entropy(logits.float(), labels).backward()
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
    optimiser.step()


@torch.inference_mode()
def their_labels(state: State, model, rows, size: int, generated: bool) -> torch.Tensor:
    """Label probabilities (n, C), batch after batch, by generation or from the last position's logits."""
    from transformers import GenerationConfig

    model.eval()
    parts = []
    for start in range(0, len(rows), size):
        batch = padded([row.ids for row in rows[start : start + size]], "left", state.device)
        if generated:
            del batch["position_ids"]  # generate makes them from the mask
            config = GenerationConfig(max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, do_sample=False,
                                      pad_token_id=0, eos_token_id=None, output_logits=True,
                                      return_dict_in_generate=True)
            logits = model.generate(**batch, generation_config=config).logits[0]
        else:
            logits = model(**batch, use_cache=False, logits_to_keep=1).logits[:, -1]
        parts.append(logits[:, 3 : 3 + LABELS].float().softmax(-1))
    return torch.cat(parts)
