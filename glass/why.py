"""Why this label: what happens without each token and each word, beside what the gradient says.

    without a token or a word    p(labels | the row without it), computed exactly, not approximated
    gradient times input         x_i . d log p(label) / d x_i, with x_i the token's embedding

All rows of deletions go through the model in batches that share the prompt's prefix, as in labelling. A token is taken
out of the row's ids; a word out of the post, which is then encoded anew, so that its neighbours' tokens may change. The
second figure is the slope of log p(label) as the embedding grows: exact for a small change, and often no guide to a
large one like a deletion (Sundararajan et al. 2017, arXiv 1703.01365, section 2), which is why both are shown.
"""

import re

import torch

from common.device import as_loaded, best_threads
from data.batching import make_batch
from data.prompt import EncodedPost
from data.visible import is_empty
from glass.source import code
from glass.stages import Stage, Step, Trace
from inference.labeller import label_probabilities

WORD = re.compile(r"\S+")
MOST = 256  # tokens and words that are tried, each


def why(trace: Trace) -> Trace:
    """The same trace with the stages `without_tokens`, `without_words` and `gradient` at its end.

    Posts with more than `MOST` tokens or words have the first ones tried. Gradients are in the model's dtype.
    """
    places = trace.post_tokens()[:MOST]
    if not places:  # the post's tokens are those that every row has
        return trace
    with best_threads(trace.model.config, trace.threads), as_loaded(trace.model), torch.inference_mode(False):
        stages = [without_tokens(trace, places), without_words(trace), gradient(trace, places)]
    return trace.extended([stage for stage in stages if stage is not None])


def without_tokens(trace: Trace, places: list[int]) -> Stage:
    """Probabilities without each of the tokens at `places`: (n, C)."""
    ids = [token.id for token in trace.tokens]
    rows = [ids[:place] + ids[place + 1 :] for place in places]
    return Stage("without_tokens", "Without each token", "p(labels | ids without the one at this place)",
                 {"places": torch.tensor(places), "probabilities": probabilities(trace, rows)},
                 (code(without_tokens, "rows ="), code(label_probabilities, "labeller.give")),
                 (Step("without_tokens", "without_tokens.probabilities", ("tokens.ids", "without_tokens.places")),))


def without_words(trace: Trace) -> Stage | None:
    """Probabilities without each word, the post encoded anew: (m, C); `starts` and `ends` are places in the text."""
    found = [word for word in WORD.finditer(trace.text)][:MOST]
    texts = [trace.text[: word.start()] + trace.text[word.end() :].lstrip() for word in found]
    kept = [(word, text) for word, text in zip(found, texts, strict=True) if not is_empty(text)]
    if not kept:
        return None
    rows = [trace.prompt.encode(text).ids for _, text in kept]
    return Stage("without_words", "Without each word", "p(labels | the post without this word, encoded anew)",
                 {"starts": torch.tensor([word.start() for word, _ in kept]),
                  "ends": torch.tensor([word.end() for word, _ in kept]),
                  "ids": torch.tensor([id for row in rows for id in row]),
                  "lengths": torch.tensor([len(row) for row in rows]), "probabilities": probabilities(trace, rows)},
                 (code(without_words, "texts =", "rows ="), code(label_probabilities, "labeller.give")),
                 (Step("of_rows", "without_words.probabilities", ("without_words.ids", "without_words.lengths")),))


def probabilities(trace: Trace, rows: list[list[int]]) -> torch.Tensor:
    """Of rows of ids, the label read at the last: (n, C)."""
    encoded = [EncodedPost(row, len(row) - 1, False) for row in rows]
    return torch.from_numpy(label_probabilities(trace.model, trace.prompt, encoded))


def gradient(trace: Trace, places: list[int]) -> Stage:
    """x_i . d log p(label) / d x_i of the tokens at `places`: (n,)."""
    label = list(trace.probabilities).index(trace.label)
    values = gradient_times_input(trace.model, trace.prompt, [token.id for token in trace.tokens], label)
    return Stage("gradient", "Gradient times input", "x_i . d log p(label) / d x_i",
                 {"places": torch.tensor(places), "label": torch.tensor(label), "values": values[places]},
                 (code(gradient_times_input, "log_softmax", "(x * "),),
                 (Step("slope", "gradient.values", ("tokens.ids", "gradient.places", "gradient.label")),))


@torch.inference_mode(False)
@torch.enable_grad()
def gradient_times_input(model, prompt, ids: list[int], label: int) -> torch.Tensor:
    """x_i . d log p(label) / d x_i of every token: (T,) in the logits' dtype; no parameter's gradient changes.

    A hook puts a leaf in the place of the embedding's output; the rest of the way is the model's own.
    """
    leaves = []

    def hook(module, inputs, output):
        leaves.append(output.detach().to(model.dtype).requires_grad_())
        return leaves[0]

    batch = make_batch([EncodedPost(ids, len(ids) - 1, False)], [0], 0, model.fill_to).to(model.device)
    handle = model.model.embed_tokens.register_forward_hook(hook)
    try:
        logits = model.label_logits(model.answer_hidden(batch), torch.tensor(prompt.label_ids, device=model.device))
    finally:
        handle.remove()
    x = leaves[0]
    slope = torch.autograd.grad(logits.log_softmax(-1)[0, label], x)[0]
    return (x * slope).detach().to(logits.dtype).sum(-1)[: len(ids)]
