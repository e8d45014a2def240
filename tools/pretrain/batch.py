"""Batches and losses of pre-training: what the answer position is asked to know.

A step draws items of one or two documents. Each item is shown twice, in two languages if it has them, in two
different prompts. With a_i the hidden state at the answer position of row i, E the tied embedding table, and w_i the
idf-weighted bag of words of row i's documents in all their languages, scaled to sum 1:

    words     mean_i of  - sum_t w_it log softmax(E a_i)_t
    contrast  InfoNCE (van den Oord et al. 2018, arXiv 1807.03748) between the two showings, cosine / temperature

and, where a teacher's vectors are given, with t_i the target of row i (`taught.py`) and b_i the coordinates of a_i that
carry meaning, scaled to length 1:

    taught    mean_i of  1 - b_i . t_i  (Reimers & Gurevych 2020, arXiv 2004.09813, with the cosine for the distance)
    nearest   InfoNCE between b_i and the targets of the step: its own must be nearer to it than the others'

Every draw comes from (seed, step), so a step is the same whether or not the run was interrupted before it.
"""

import random
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from common.packed import PackedBatch, pack
from model.llama import LlamaForCausalLM
from tools.pretrain.prompts import draw_bare, draw_wrapper, roughen, thin
from tools.pretrain.text import Document


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
        """The items of a step, as indices in parallel + alone, and their two showings."""
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
        known = [{language for language, _ in self.document(index).texts} for index in item]
        shared = sorted(set.intersection(*known))
        return rng.sample(shared, 2) if len(shared) > 1 else [None, None]

    def document(self, index: int) -> Document:
        """The document at an index: parallel ones first, then those that stand alone."""
        return self.parallel[index] if index < len(self.parallel) else self.alone[index - len(self.parallel)]

    def _showing(self, rng: random.Random, items, languages) -> Showing:
        o, batches = self.options, []
        for start in range(0, len(items), o.rows):
            is_bare = o.bare_share > 0 and rng.random() < o.bare_share
            wrapper = draw_bare(rng, self.tokenizer.encode, self.special) if is_bare else draw_wrapper(
                rng, self.tokenizer.encode, self.special, o.post_first)
            rows = []
            for item, language in zip(items[start : start + o.rows], languages[start : start + o.rows], strict=True):
                known = [self.document(index).texts for index in item]
                parts = [rng.choice([t for name, t in texts if language in (None, name)]) for texts in known]
                rng.shuffle(parts)
                text = " ".join(roughen(rng, part, o.crop_share) for part in parts)
                ids = thin(rng, self.tokenizer.encode(text), o.drop, o.longest)
                rows.append([*wrapper.before, *ids, *wrapper.after])
            answers = [len(row) - 1 for row in rows]
            batches.append(pack(rows, answers, list(range(start, start + len(rows))), len(wrapper.before)))
        return Showing(batches)


class Bags:
    """The target of every document: its idf-weighted words, scaled to sum 1, without those of one document only."""

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
            for index in item:
                span = slice(self.start[index], self.start[index + 1])
                out[row].index_add_(0, self.column[span], self.value[span] / len(item))
        return out


def _seen_twice(weights: torch.Tensor) -> torch.Tensor:
    column = weights.indices()[1]
    kept = torch.bincount(column, minlength=weights.shape[1])[column] > 1
    return torch.sparse_coo_tensor(weights.indices()[:, kept], weights.values()[kept], weights.shape).coalesce()


def step_losses(model: LlamaForCausalLM, items, showings: list[Showing], goals: tuple, options):
    """The weighted sum of the losses and each of them by name; float32, whatever the model computes in.

    `goals`: `Bags` and `taught.Targets`, each with `rows(items)`, or None for those that are not asked for.
    """
    bags, targets = goals
    device = model.device
    answers = [torch.cat([model.answer_hidden(batch.to(device)) for batch in showing.batches]) for showing in showings]
    same, losses = torch.arange(len(items), device=device), {}

    def nce(first, second):  # (items, D) twice, rows of length 1
        similarity = first @ second.t() / options.temperature
        return (F.cross_entropy(similarity, same) + F.cross_entropy(similarity.t(), same)) / 2

    if bags is not None:
        target = bags.rows(items).to(device)  # (items, V)
        losses["words"] = torch.stack(
            [-(target * model.logits(a).float().log_softmax(-1)).sum(-1).mean() for a in answers]).mean()
    losses["contrast"] = nce(*(F.normalize(a.float(), dim=-1) for a in answers))
    if targets is not None:
        target = targets.rows(items).to(device)  # (items, c)
        own = [F.normalize(a.float()[:, : target.shape[1]], dim=-1) for a in answers]
        losses["taught"] = torch.stack([1 - (b * target).sum(-1).mean() for b in own]).mean()
        losses["nearest"] = torch.stack([nce(b, target) for b in own]).mean()
    return sum(getattr(options, f"{name}_weight") * loss for name, loss in losses.items()), losses
