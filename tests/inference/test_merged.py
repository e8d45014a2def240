"""Labelling with the adapter added to the weights: the same function, its price, its memory, posts in any company.

Deliberate breaks: in `inference.merged.merged` leave the bias out, or take `layer.base.dense_weight`; in `added_bytes`
forget what is held; in `change` go through the adapters without letting go of them; in `LabelOptions.make_quicker` keep
no dense copy of what carries no adapter.
"""

import copy
import re
import weakref

import numpy as np
import pytest
import torch

from common.errors import UserError
from data.codebook import load_codebook
from data.prompt import TEMPLATES, Prompt
from glass import trace
from inference import load_run, merged, quicker
from inference.labeller import label_probabilities
from inference.merged import MERGED, added_bytes
from inference.options import LabelOptions
from inference.quicker import price
from lora.inject import adapters, inject
from model.layers import Linear
from model.tokenizer import load_tokenizer
from quant.convert import model_bytes, replace_linears
from quant.linear import NF4Linear
from tests.data.prompts import NASTY
from tests.inference.test_invariance import adapted
from tests.small import posts, random_model, write_base


@pytest.fixture(scope="module")
def prompt(tmp_path_factory):
    return Prompt(load_codebook(), load_tokenizer(write_base(tmp_path_factory.mktemp("base"))), TEMPLATES[1],
                  max_tokens=140)


def with_bias(quantize: bool):
    """A random model with biases of linears and an adapter that adds something."""
    model = random_model(2, attention_bias=True, mlp_bias=True)
    if quantize:
        replace_linears(model)
    inject(model, "all-linear", 4, 8, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        for number, layer in enumerate(adapters(model).values()):
            layer.lora_B.normal_(0, 0.1, generator=torch.Generator().manual_seed(number))
            if layer.bias is not None:
                layer.base.bias = torch.nn.Parameter(torch.full_like(layer.base.bias, 0.1 * number), False)
    return model


@pytest.mark.parametrize("quantize", [False, True])
@torch.no_grad()
def test_each_linear_computes_the_same(quantize):
    model = with_bias(quantize).double()  # so that nothing but the order of additions differs
    apart = copy.deepcopy(model)
    MERGED.change(model)
    assert not adapters(model) and len(adapters(apart)) == 14
    x = torch.randn(5, max(layer.in_features for layer in adapters(apart).values()), dtype=torch.float64)
    for name, layer in adapters(apart).items():
        one = model.get_submodule(name)
        assert type(one) is Linear and (one.bias is None) == (layer.bias is None)
        torch.testing.assert_close(one(x[:, : layer.in_features]), layer(x[:, : layer.in_features]), rtol=0, atol=1e-12)
        assert not one.weight.requires_grad and one.weight.dtype == torch.float64


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
@pytest.mark.parametrize("quantize", [False, True])
def test_its_price_is_measured_on_the_first_posts(prompt, quantize, dtype, most, monkeypatch, capsys):
    monkeypatch.setattr(quicker, "POSTS", 6)
    model = adapted("wide", quantize).to(dtype)
    texts = ["", *(row["text"] for row in posts(9, 5))]
    rows = [prompt.encode(text) for text in texts[1:7]]
    before = label_probabilities(model, prompt, rows)
    found = LabelOptions(merge=True).make_quicker(model, prompt, texts)["merge"]
    after = label_probabilities(model, prompt, rows)
    assert found == vars(price(before, after)) and found["posts"] == 6
    assert 0 < np.abs(before - after).max() < most
    said = re.escape(f"  price of a merged adapter {price(before, after)}; ") + r"\d+\.\d times as fast.*\n"
    assert re.fullmatch(said, capsys.readouterr().out)


@pytest.mark.parametrize("size", ["wide", "odd"])
def test_a_posts_probabilities_are_the_same_bits_in_any_company(prompt, size):
    rows = [prompt.encode(text) for text in [*NASTY[::3], *(row["text"] for row in posts(4, 5))]]
    model = adapted(size, quantize=size == "wide")
    MERGED.change(model)
    alone = np.concatenate([label_probabilities(model, prompt, [row]) for row in rows])
    assert len({row.tobytes() for row in alone}) > 5
    for order, micro_tokens in (range(len(rows))[::-1], 400), (range(1, len(rows), 2), 100_000):
        found = label_probabilities(model, prompt, [rows[place] for place in order], micro_tokens=micro_tokens)
        assert found.tobytes() == alone[list(order)].tobytes()


@pytest.mark.parametrize("quantize", [False, True])
def test_its_memory_is_counted_and_refused_where_it_is_not_there(prompt, quantize, monkeypatch):
    model = adapted("wide", quantize)
    layers = adapters(model).values()
    of_adapters = sum(part.nbytes for layer in layers for part in (layer.lora_A, layer.lora_B))
    of_a_layer = 8 * max(layer.in_features * layer.out_features for layer in layers)  # the sum, and what is added
    expected, before = added_bytes(model), model_bytes(model)
    monkeypatch.setattr(merged, "available_memory", lambda device: expected - 1)
    with pytest.raises(UserError, match=r"--merge: dense weights take .* more than these, and .* is free"):
        MERGED.make(model, prompt, [])
    assert len(adapters(model)) == 14
    monkeypatch.setattr(merged, "available_memory", lambda device: expected)
    assert MERGED.make(model, prompt, ["", " "]) is None
    assert model_bytes(model) - before == expected - of_a_layer - of_adapters and (expected > of_a_layer) == quantize


def test_no_more_than_one_base_is_kept_beside_its_sum(monkeypatch):
    model, there = adapted("small", True), []
    bases = [weakref.ref(layer.base) for layer in adapters(model).values()]
    one = merged.merged
    monkeypatch.setattr(merged, "merged", lambda *given: there.append(sum(base() is not None for base in bases))
                        or one(*given))
    MERGED.change(model)
    assert there == list(range(14, 0, -1))


def test_linears_without_an_adapter_are_kept_dense_beside_their_bits_where_that_was_asked_for(prompt, capsys):
    model = random_model(2)
    replace_linears(model)
    inject(model, ["q_proj", "v_proj"], 4, 8)
    options = LabelOptions(merge=True, resident="on")
    options.apply(model)
    assert capsys.readouterr().out == ""  # not yet: what is merged needs no copy
    options.make_quicker(model, prompt, [])
    left = [module for module in model.modules() if isinstance(module, NF4Linear)]
    assert len(left) == 10 and all(layer.resident is not None for layer in left)
    assert "for a dense copy of the 4-bit weights" in capsys.readouterr().out


def test_it_does_not_go_with_eight_bits():
    with pytest.raises(UserError, match=r"--int8 and --merge: .* leave one out"):
        LabelOptions(merge=True, int8=True).check_quicker(torch.device("cpu"), torch.float32)


def test_a_merged_run_shows_what_it_computes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # where the shipped run is copied to
    run, text = load_run(device="cpu", merge=True), "Depuis que les familles de réfugiés sont là."
    apart = load_run(device="cpu").label([text])[0]
    label, = run.label([text])
    assert label.label == apart.label and label.probability == pytest.approx(apart.probability, abs=1e-4)
    assert re.search(r"price of a merged adapter on the first post: label KL \S+ nats, 0 labels changed\n",
                     capsys.readouterr().out)  # and no ratio of two times that are over too soon
    assert trace(run, text).probabilities == label.probabilities
