"""Labelling in 8 bits: its price, what it leaves alone, and posts whose bits depend on no other post.

Deliberate breaks: in `inference.quicker.price` exchange p and q; in `Quicker.make` measure `before` behind `change`; in
`quant.int8.quantize_tokens` take the largest number of all tokens (the posts in company turn red).
"""

import re

import numpy as np
import pytest
import torch

from common.errors import UserError
from data.codebook import load_codebook
from data.prompt import TEMPLATES, Prompt
from inference import int8, quicker
from inference.int8 import INT8, check_int8
from inference.labeller import label_probabilities
from inference.quicker import Price, price
from model.tokenizer import load_tokenizer
from quant.int8 import Int8Linear
from tests.data.prompts import NASTY
from tests.inference.test_invariance import adapted
from tests.int8 import take_int8
from tests.small import posts, write_base


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(write_base(tmp_path_factory.mktemp("base")))


def test_the_price_is_the_mean_divergence_and_the_changed_labels():
    before = np.array([[0.5, 0.3, 0.2], [0.6, 0.4, 0.0], [0.2, 0.5, 0.3]], np.float32)
    after = np.array([[0.25, 0.5, 0.25], [0.6, 0.4, 0.0], [0.2, 0.5, 0.3]], np.float32)
    expected = (0.5 * np.log(2) + 0.3 * np.log(0.6) + 0.2 * np.log(0.8)) / 3
    found = price(before, after)
    assert found == Price(3, pytest.approx(expected, rel=1e-6), 1)
    assert "first 3 posts: label KL 5.0e-02 nats, 1 label changed" in str(found)
    assert price(before * 1.001, before) == Price(3, pytest.approx(0, abs=1e-15), 0)  # what does not sum to one
    assert price(before, before) == Price(3, 0.0, 0) and "0 labels changed" in str(price(before, before))


@pytest.mark.parametrize("quantize", [False, True])
def test_it_is_measured_on_the_first_posts_against_the_same_model(tokenizer, quantize, monkeypatch, capsys):
    take_int8(monkeypatch)
    monkeypatch.setattr(quicker, "POSTS", 6)
    model, prompt = adapted("wide", quantize), Prompt(load_codebook(), tokenizer)
    texts = ["", *(row["text"] for row in posts(9, 5))]
    rows = [prompt.encode(text) for text in texts[1:7]]
    before = label_probabilities(model, prompt, rows)
    found = INT8.make(model, prompt, texts)
    after = label_probabilities(model, prompt, rows)
    assert found == price(before, after) and found.posts == 6 and 0 < found.label_kl < 1e-2
    said = re.escape(f"  price of 8-bit products {found}; ") + r"\d+\.\d times as fast(: leave --int8 out)?\n"
    assert re.fullmatch(said, capsys.readouterr().out)
    assert sum(isinstance(module, Int8Linear) for module in model.modules()) == 14
    assert np.abs(before - after).max() < 0.05
    model = adapted("small", quantize)
    assert INT8.make(model, prompt, ["", " "]) is None and any(isinstance(m, Int8Linear) for m in model.modules())


@pytest.mark.parametrize("size", ["wide", "odd"])
def test_a_posts_probabilities_are_the_same_bits_in_any_company(tokenizer, size, monkeypatch):
    take_int8(monkeypatch)
    prompt = Prompt(load_codebook(), tokenizer, TEMPLATES[size == "odd"], max_tokens=140)
    rows = [prompt.encode(text) for text in [*NASTY[::3], *(row["text"] for row in posts(4, 5))]]
    model = adapted(size, quantize=size == "wide")
    INT8.make(model, prompt, [])
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            alone = np.concatenate([label_probabilities(model, prompt, [row]) for row in rows])
            assert len({row.tobytes() for row in alone}) > 5
            for order, micro_tokens in (range(len(rows))[::-1], 400), (range(1, len(rows), 2), 100_000):
                found = label_probabilities(model, prompt, [rows[place] for place in order], micro_tokens=micro_tokens)
                assert found.tobytes() == alone[list(order)].tobytes()
    finally:
        torch.set_num_threads(threads)


def test_where_it_cannot_be_it_is_refused(tokenizer, monkeypatch):
    take_int8(monkeypatch)
    check_int8(torch.device("cpu"), torch.float32)
    with pytest.raises(UserError, match="--int8: is for CPUs, and the device is cuda:1"):
        check_int8(torch.device("cuda:1"), torch.float32)
    with pytest.raises(UserError, match=r"--int8: goes with --dtype float32.* not with bfloat16; leave one out"):
        check_int8(torch.device("cpu"), torch.bfloat16)
    monkeypatch.setattr(int8, "available_memory", lambda device: 100)
    with pytest.raises(UserError, match=r"--int8: the weights in 8 bits take .* and 100 B is free"):
        INT8.make(adapted("small", False), Prompt(load_codebook(), tokenizer), [])
