"""Batches and losses of pre-training: what the answer position is asked to know.

A step draws items of one or two documents. Each item is shown twice, in two languages where it has them, in two
different prompts. With a_i the hidden state at the answer position of row i, E the tied embedding table, and w_i the
idf-weighted bag of words of row i's documents in all their languages, at sum 1:

    words     mean_i of  - sum_t w_it log softmax(E a_i)_t
    contrast  InfoNCE (van den Oord et al. 2018, arXiv 1807.03748) between the two showings, cosine / temperature
    next      next-token loss on a sample of positions, so that the model remains a language model

Every draw comes from (seed, step), so a step is the same whether or not the run was interrupted before it.
"""

import random
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from common.packed import Layout, PackedBatch, pack
from model.llama import LlamaForCausalLM
from model.rope import inverse_frequencies, rotate, rotation
from tools.pretrain_prompts import draw_wrapper, roughen, thin
from tools.pretrain_text import Document


@dataclass(frozen=True)
class Showing:
    """One half of a step: batches with a prompt each, whose rows in order are the step's items."""

    batches: list[PackedBatch]


class Sampler:
    """Draws the rows of a step: parallel documents, and now and then a text that stands alone."""

    def __init__(self, parallel: list[Document], alone: list[Document], tokenizer, special: dict[str, int], options):
        self.parallel, self.alone, self.tokenizer, self.special, self.options = (
            parallel, alone, tokenizer, special, options)

    def draw(self, step: int) -> tuple[list[tuple[int, ...]], list[Showing]]:
        """The items of a step, as places in parallel + alone, and their two showings."""
        o = self.options
        rng = random.Random(f"{o.seed}:{step}")
        items = []
        for _ in range(o.items):
            if self.alone and rng.random() < o.alone_share:
                items.append((len(self.parallel) + rng.randrange(len(self.alone)),))
            else:
                items.append(tuple(rng.sample(range(len(self.parallel)), 2 if rng.random() < o.join_share else 1)))
        languages = [self._two_languages(rng, item) for item in items]
        return items, [self._showing(rng, items, [pair[side] for pair in languages]) for side in (0, 1)]

    def _two_languages(self, rng: random.Random, item: tuple[int, ...]) -> list[str | None]:
        known = [{language for language, _ in self.document(place).texts} for place in item]
        shared = sorted(set.intersection(*known))
        return rng.sample(shared, 2) if len(shared) > 1 else [None, None]

    def document(self, place: int) -> Document:
        """The document at a place: parallel ones first, then those that stand alone."""
        return self.parallel[place] if place < len(self.parallel) else self.alone[place - len(self.parallel)]

    def _showing(self, rng: random.Random, items, languages) -> Showing:
        o, batches = self.options, []
        for start in range(0, len(items), o.rows):
            wrapper = draw_wrapper(rng, self.tokenizer.encode, self.special, o.post_first)
            rows = []
            for item, language in zip(items[start : start + o.rows], languages[start : start + o.rows], strict=True):
                known = [self.document(place).texts for place in item]
                parts = [rng.choice([t for name, t in texts if language in (None, name)]) for texts in known]
                rng.shuffle(parts)
                text = " ".join(roughen(rng, part) for part in parts)
                ids = thin(rng, self.tokenizer.encode(text), o.drop, o.longest)
                rows.append([*wrapper.before, *ids, *wrapper.after])
            answers = [len(row) - 1 for row in rows]
            batches.append(pack(rows, answers, list(range(start, start + len(rows))), len(wrapper.before)))
        return Showing(batches)


class Bags:
    """The target of every document: its idf-weighted words, at sum 1; what stands in one document only is left out."""

    def __init__(self, weights: torch.Tensor, idf: torch.Tensor, alone: torch.Tensor | None):
        parts = [_seen_twice(weights)]
        if alone is not None:  # texts without translations use the idf of the parallel ones
            column = alone.indices()[1]
            parts.append(torch.sparse_coo_tensor(alone.indices(), idf[column], alone.shape))
        joined = torch.cat(parts).coalesce()
        row, self.column = joined.indices()
        total = torch.zeros(joined.shape[0]).index_add_(0, row, joined.values()).clamp_min(1e-9)
        self.value, self.size = joined.values() / total[row], joined.shape[1]
        self.start = torch.searchsorted(row.contiguous(), torch.arange(joined.shape[0] + 1)).tolist()

    def rows(self, items: list[tuple[int, ...]]) -> torch.Tensor:
        """The mean target of each item's documents: (items, V) float32."""
        out = torch.zeros(len(items), self.size)
        for row, item in enumerate(items):
            for place in item:
                span = slice(self.start[place], self.start[place + 1])
                out[row].index_add_(0, self.column[span], self.value[span] / len(item))
        return out


def _seen_twice(weights: torch.Tensor) -> torch.Tensor:
    column = weights.indices()[1]
    kept = torch.bincount(column, minlength=weights.shape[1])[column] > 1
    return torch.sparse_coo_tensor(weights.indices()[:, kept], weights.values()[kept], weights.shape).coalesce()


def attend_padded(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Attention of a packed batch with all rows at once, (N, H, h): rows padded to the longest, one call per batch.

    The same function of its inputs as `model.attention.attend_softmax`; keys behind a row's end are never seen by that
    row's own tokens, because attention is causal. Worth its padding where rows are many and short.
    """
    prefix, rows, longest = layout.prefix_len, layout.rows, max(layout.lengths)
    inside = _inside(layout)
    group = q.shape[1] // k.shape[1]
    keys, values = (_by_row(x, layout, inside).repeat_interleave(group, dim=1) for x in (k, v))
    queries = q.new_zeros(rows, longest, *q.shape[1:]).index_put((inside,), q[prefix:]).transpose(1, 2)
    seen = torch.ones(longest, prefix + longest, dtype=torch.bool).tril(prefix)
    own = F.scaled_dot_product_attention(queries, keys, values, attn_mask=seen).transpose(1, 2)[inside]
    if not prefix:
        return own
    shared = [x[None, :prefix].transpose(1, 2) for x in (q, k, v)]
    first = F.scaled_dot_product_attention(*shared, is_causal=True, enable_gqa=group > 1)[0].transpose(0, 1)
    return torch.cat([first, own])  # (N, H, h)


def _inside(layout: Layout) -> torch.Tensor:
    """Which places of the padded rectangle hold a token: (R, longest)."""
    return torch.arange(max(layout.lengths))[None] < torch.tensor(layout.lengths)[:, None]


def _by_row(x: torch.Tensor, layout: Layout, inside: torch.Tensor) -> torch.Tensor:
    """Keys or values as each row sees them, prefix first: (N, K, h) -> (R, K, prefix + longest, h)."""
    prefix, rows = layout.prefix_len, layout.rows
    own = x.new_zeros(*inside.shape, *x.shape[1:]).index_put((inside,), x[prefix:])
    return torch.cat([x[None, :prefix].expand(rows, -1, -1, -1), own], dim=1).transpose(1, 2)


def answer_states(model: LlamaForCausalLM, batch: PackedBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """`model.hidden(batch)[batch.answer_index]`, (R, D), and the states (N, D) that enter the last layer.

    The last layer is computed at the answer positions only; nothing else of it is ever read.
    """
    rope = rotation(batch.positions, inverse_frequencies(model.config), model.dtype)
    x = model.model.embed_tokens(batch.tokens).to(model.dtype)  # (N, D)
    for layer in model.model.layers[:-1]:
        x = layer(x, rope, batch.layout, attend_padded)
    last, index = model.model.layers[-1], batch.answer_index
    attention, normed = last.self_attn, last.input_layernorm(x)
    q = attention.q_proj(normed[index]).view(len(index), -1, attention.head_dim)
    k = attention.k_proj(normed).view(len(x), -1, attention.head_dim)
    v = attention.v_proj(normed).view(len(x), -1, attention.head_dim)
    q, k = rotate(q, tuple(part[index] for part in rope)), rotate(k, rope)
    inside = _inside(batch.layout)
    keys, values = (_by_row(part, batch.layout, inside) for part in (k, v))
    place = index - torch.tensor(batch.layout.row_start[:-1]) + batch.layout.prefix_len  # in the row, prefix counted
    seen = torch.arange(keys.shape[2])[None] <= place[:, None]  # (R, S)
    grouped = q.shape[1] != k.shape[1]
    out = F.scaled_dot_product_attention(q[:, :, None], keys, values, attn_mask=seen[:, None, None], enable_gqa=grouped)
    h = x[index] + attention.o_proj(out.reshape(len(index), -1))
    return model.model.norm(h + last.mlp(last.post_attention_layernorm(h))), x


def step_losses(model: LlamaForCausalLM, items, showings: list[Showing], bags: Bags, options):
    """The weighted sum of the losses and each of them by name; float32."""
    answers = [torch.cat([answer_states(model, batch)[0] for batch in showing.batches]) for showing in showings]
    target = bags.rows(items)  # (items, V)
    words = torch.stack([-(target * model.logits(a).log_softmax(-1)).sum(-1).mean() for a in answers]).mean()
    first, second = (F.normalize(a, dim=-1) for a in answers)  # (items, D)
    similarity = first @ second.t() / options.temperature
    same = torch.arange(len(items))
    contrast = (F.cross_entropy(similarity, same) + F.cross_entropy(similarity.t(), same)) / 2
    losses = {"words": words, "contrast": contrast}
    weights = {"words": options.words_weight, "contrast": options.contrast_weight}
    return sum(weights[name] * loss for name, loss in losses.items()), losses
