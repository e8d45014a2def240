"""A post's label does not depend on its company: alone, in any batch, order or micro-batch size, with a shared prefix.

Deliberate break: in `predict.label_probabilities` write `result[sorted(places)] = ...`, or in `model.attention.visible`
let a row behind a prefix see the last token of the row before it; the comparisons with each post alone turn red.
"""

import random

import numpy as np
import pytest
import torch

from common.errors import UserError
from data.batching import plan, shared_prefix
from data.codebook import Codebook, load_codebook
from data.prompt import TEMPLATES, Prompt, common_prefix
from inference import labeller
from inference.labeller import label_probabilities
from lora.inject import inject, trainable_parameters
from quant.convert import replace_linears
from tests.data.prompts import NASTY, Letters
from tests.small import posts, random_model, write_base

SIZES = {"small": {}, "wide": dict(hidden_size=256, intermediate_size=688, num_attention_heads=8, head_dim=32)}
MICRO = (1, 150, 400, 10_000)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    from model.tokenizer import load_tokenizer

    return load_tokenizer(write_base(tmp_path_factory.mktemp("base")))


@pytest.fixture(scope="module")
def texts():
    """Posts of 1 to 14 words, the same one three times, an empty one, and such as try to leave their place."""
    some = [row["text"] for row in posts(24, 5)]
    return [some[0], *NASTY, *some, some[0]]


def model_of(size: str, quantize: bool, dtype=torch.float32):
    model = random_model(2, dtype, **SIZES[size])
    if quantize:
        replace_linears(model)
    inject(model, "all-linear", 4, 8, 0.1, generator=torch.Generator().manual_seed(5))  # dropout: off when labelling
    with torch.no_grad():
        for parameter in trainable_parameters(model).values():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(6)) * 0.05)
    return model


def plain(model, prompt, rows) -> np.ndarray:
    """Each row by itself through the whole model: softmax of the last position's logits over the label ids."""
    model.eval()
    with torch.no_grad():
        logits = [model(torch.tensor([row.ids]))[0, -1, prompt.label_ids] for row in rows]
    return torch.stack(logits).softmax(-1).float().numpy()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("quantize", [False, True])
@pytest.mark.parametrize("template", TEMPLATES)
def test_the_same_post_has_the_same_label_in_any_company(tokenizer, texts, size, quantize, template, monkeypatch):
    prompt = Prompt(load_codebook(), tokenizer, template, max_tokens=140)
    rows = [prompt.encode(text) for text in texts]
    model = model_of(size, quantize)
    expected = plain(model, prompt, rows)
    assert expected.std(0).max() > 0.02  # the posts differ, so a mix-up would show
    assert {row.cut for row in rows} == {False, True}
    model.train()  # labelling turns dropout off by itself
    draw = random.Random(1)
    for micro_tokens in MICRO:
        order = list(range(len(rows)))
        draw.shuffle(order)
        monkeypatch.setattr(labeller, "WINDOW", draw.choice([1, 7, 1024]))
        found = label_probabilities(model, prompt, [rows[place] for place in order], micro_tokens=micro_tokens)
        assert found.dtype == np.float32 and found.shape == expected.shape
        # float32 sums in another order: measured 3.6e-7; about nine rows in ten equal to the bit.
        assert np.abs(found - expected[order]).max() < 1e-5
        assert (found.argmax(1) == expected[order].argmax(1)).all()
    some = draw.sample(range(len(rows)), 6)
    alone = np.concatenate([label_probabilities(model, prompt, [rows[place]]) for place in some])
    assert np.abs(alone - expected[some]).max() < 1e-5


def test_in_float64_company_leaves_rounding_alone(tokenizer, texts):
    prompt = Prompt(load_codebook(), tokenizer, "instruction-first")
    rows = [prompt.encode(text) for text in texts]
    model = model_of("small", False, torch.float64)
    expected = plain(model, prompt, rows)
    for micro_tokens in MICRO:  # the results are float32: half a unit in the last place is 6e-8
        assert np.abs(label_probabilities(model, prompt, rows, micro_tokens=micro_tokens) - expected).max() < 7e-8


def test_the_same_input_gives_the_same_bits(tokenizer, texts):
    prompt = Prompt(load_codebook(), tokenizer, "paper")
    rows = [prompt.encode(text) for text in texts]
    model = model_of("wide", True)
    first, second = (label_probabilities(model, prompt, rows, micro_tokens=300) for _ in range(2))
    assert (first == second).all()


def test_progress_counts_each_post_once_and_no_post_is_no_row(tokenizer, texts):
    prompt = Prompt(load_codebook(), tokenizer, "paper")
    counted = []
    rows = [prompt.encode(text) for text in texts]
    labeller.Labeller(model_of("small", False), prompt, 300, counted.append).give(rows)()
    assert sum(counted) == len(rows) and len(counted) > 3
    assert label_probabilities(model_of("small", False), prompt, []).shape == (0, 4)


def test_a_post_that_merges_with_the_end_of_the_prefix_shortens_what_is_shared():
    """A tokenizer that merges '"' with characters no probe begins with: their rows leave the prompt's own prefix."""
    tokenizer = Letters('"\u1f00', ':"\u0590', 't:"\u10a0')
    book = Codebook.from_dict({"role": "r", "question": "q", "labels": ["a", "b", "c"]})
    for template in TEMPLATES:
        prompt = Prompt(book, tokenizer, template)
        rows = [prompt.encode(text) for text in ["x y", "\u1f00 z", "\u0590", "plain", "\u10a0\u1f00", "\u1f00 zz"]]
        lengths = {common_prefix([prompt.prefix_ids, row.ids]) for row in rows}
        assert len(lengths) == 4
        rows = [type(row)([id if id < 600 else 600 + id % 97 for id in row.ids], row.answer_index, row.cut)
                for row in rows]
        prompt.prefix_ids = [id if id < 600 else 600 + id % 97 for id in prompt.prefix_ids]
        model = random_model(3, vocab_size=700)
        expected = plain(model, prompt, rows)
        for micro_tokens in MICRO:
            found = label_probabilities(model, prompt, rows, micro_tokens=micro_tokens)
            assert np.abs(found - expected).max() < 1e-5
        together = plan(rows, 10_000, prefix=prompt.prefix_ids)
        shared = [{shared_prefix(prompt.prefix_ids, [rows[place]]) for place in places} for places in together]
        assert sorted(shared, key=min) == [{length} for length in sorted(lengths)]


def test_the_model_is_left_without_gradients_and_trainable_again(tokenizer):
    """Labelling between two steps of training leaves nothing behind: buffers made in it may be written to again."""
    prompt = Prompt(load_codebook(), tokenizer, "paper")
    model, rows = model_of("small", True), [prompt.encode("we open the door")]
    label_probabilities(model, prompt, rows)
    model.train()
    model(torch.tensor([rows[0].ids])).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trainable_parameters(model).values())


def test_logits_that_are_no_numbers_are_an_error_and_not_a_post_without_a_label(tokenizer, texts):
    prompt, model = Prompt(load_codebook(), tokenizer), model_of("small", False)
    model.model.norm.weight.fill_(float("inf"))
    with pytest.raises(UserError, match=r"not finite.*--dtype float32"):
        label_probabilities(model, prompt, [prompt.encode(text) for text in texts[:3]])
