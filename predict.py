"""Labels for posts: probabilities over the codebook's labels, read at the answer position, in the input's order."""

import numpy as np
import torch

from common.errors import UserError
from data.batching import make_batch, plan, shared_prefix

MICRO_TOKENS = 4096  # packed tokens that go through the model at once where nobody says otherwise


@torch.inference_mode()
def label_probabilities(model, prompt, rows, *, micro_tokens: int = 0, window: int = 1024, show=None) -> np.ndarray:
    """Probabilities (n, C) float32 of each encoded post, softmax over the label tokens alone.

    rows: what `prompt.encode` gave, in any order; results come back in that order. The ids that all prompts begin with
    go through the model once per batch. micro_tokens: 0 means MICRO_TOKENS. show(count) is told how many posts each
    batch has finished. Raises `UserError` where a logit is not finite: such a post has no label, and none is made up.
    """
    model.eval()
    label_ids = torch.tensor(prompt.label_ids, device=model.device)
    result = np.empty((len(rows), len(prompt.label_ids)), dtype=np.float32)
    for places in plan(rows, micro_tokens or MICRO_TOKENS, window=window, prefix_len=len(prompt.prefix_ids)):
        shared = shared_prefix(prompt.prefix_ids, [rows[place] for place in places])
        batch = make_batch(rows, places, shared).to(model.device)
        logits = model.label_logits(model.hidden(batch)[batch.answer_index], label_ids)  # (R, C)
        if not torch.isfinite(logits).all():
            raise UserError("the model's logits are not finite; its weights are damaged, or float16 is too narrow for "
                            "them (try --dtype float32)")
        result[places] = logits.softmax(-1).float().cpu().numpy()
        if show is not None:
            show(len(places))
    return result
