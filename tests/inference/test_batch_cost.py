"""What a batch costs beyond its posts' own tokens: pairs of padded queries and keys, and shapes of the last sum.

Deliberate break: in inference/labeller.py let `_few_sizes` be True everywhere (the padded pairs break their budget),
or leave `filled=True` out (the sums have as many rows as there are posts).
"""

import random

import pytest
import torch

from data.codebook import load_codebook
from data.prompt import EncodedPost, Prompt
from inference.exact import tile_products
from inference.labeller import Labeller
from model.tokenizer import load_tokenizer
from tests.small import random_model, write_base

# Tokens of a prompt's shared beginning, and of a post with what follows it: about what Llama 3's tokenizer gives.
TEMPLATES = {"paper": (30, (110, 200)), "instruction-first": (110, (12, 90))}


@pytest.fixture(scope="module")
def prompt(tmp_path_factory):
    return Prompt(load_codebook(), load_tokenizer(write_base(tmp_path_factory.mktemp("base"))))


def rows_of(template: str, count: int) -> list[EncodedPost]:
    draw, (prefix, own) = random.Random(7), TEMPLATES[template]
    lengths = [draw.randint(*own) for _ in range(count)]
    return [EncodedPost([*range(prefix), *(draw.randrange(prefix, 600) for _ in range(length))], prefix + length - 1,
                        False) for length in lengths]


def pairs_of(labeller: Labeller, rows, prefix: int) -> tuple[int, int]:
    """Pairs of a query and a key in the rows of all batches, as they are and filled up to the longest row."""
    own = padded = 0

    def answers(batch, **_):
        nonlocal own, padded
        layout = batch.layout
        own += sum(length * (prefix + length) for length in layout.lengths)
        longest = max(layout.lengths)
        padded += layout.rows * longest * (prefix + longest)
        return torch.zeros(len(batch.answer_tokens), 32)

    labeller.model.answer_hidden = answers
    labeller.prompt.prefix_ids = list(range(prefix))
    labeller.give(rows)()
    return own, padded


@pytest.mark.parametrize("micro_tokens", [4096, 16384])
@pytest.mark.parametrize("template", TEMPLATES)
def test_a_gpus_attention_pads_few_keys(prompt, template, micro_tokens):
    rows = rows_of(template, 875)
    assert not Labeller(random_model().to("meta"), prompt)._few_sizes  # as any device but the CPU
    labeller = Labeller(random_model(), prompt, micro_tokens)
    labeller._few_sizes = False
    prefix = TEMPLATES[template][0]
    own, padded = pairs_of(labeller, rows, prefix)
    needed = sum((len(row.ids) - prefix) * len(row.ids) for row in rows)
    assert needed <= own < 1.02 * needed  # nothing but a few filling tokens
    assert padded < 1.4 * needed  # a long filling row made it 2 to 33 times as many


def test_the_sum_behind_a_label_has_one_shape_for_any_number_of_posts(prompt, monkeypatch):
    """CUDA chooses a sum's order by its number of rows; with --exact that must not depend on who else is there."""
    model, rows, sums = random_model(), rows_of("paper", 40), []
    tile_products(model, 64)
    whole = torch.Tensor.sum

    def recorded(x, *words, **more):
        sums.append(tuple(x.shape))
        return whole(x, *words, **more)

    labeller = Labeller(model, prompt, 100_000)
    prompt.prefix_ids = list(range(30))
    monkeypatch.setattr(torch.Tensor, "sum", recorded)
    parts = [labeller.give(rows[:count])() for count in (1, 2, 15, 40)]
    assert set(sums) == {(64, 4, 32)}
    assert all((part == parts[-1][: len(part)]).all() for part in parts)
