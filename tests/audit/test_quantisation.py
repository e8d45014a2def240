"""What four bits cost: arriving inputs against single posts, restoration against a model built that way from scratch.

Deliberate break: leave `x = x[:answers]` or the prefix's weight out of `audit.inputs`; let `swapped` put the module in
the adapter's place; or sort `changed` by flips.
"""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from audit.change import change
from audit.inputs import moments
from audit.quantisation import dense_linear, quantisation, swapped
from audit.subject import base_linears, level_of
from inference.decide import decide
from inference.labeller import label_probabilities
from loading import load_model
from loading.cache import quantised_copy
from loading.weights import read_config
from lora.adapter import load_adapter
from quant.convert import inside_layers, replace_linears
from quant.linear import NF4Linear
from stats.change import divergences, mean_interval
from stats.paired import difference
from tests.audit.conftest import make, subject_of

NAMES = ("model.layers.0.self_attn.v_proj", "model.layers.1.mlp.down_proj")


def from_scratch(subject, place, four_bits) -> np.ndarray:
    """The answers of a model whose linears named by `four_bits(name)` are in NF4 and whose others are dense."""
    model = load_model(place / "tiny", quantize="none")
    replace_linears(model, targets=lambda name: inside_layers(name) and four_bits(name))
    load_adapter(model, subject.run.path / "adapter")
    return label_probabilities(model.eval(), subject.prompt, subject.rows, micro_tokens=subject.micro_tokens)


@pytest.mark.parametrize("name", NAMES)
def test_a_restored_matrix_gives_the_bits_of_a_model_built_that_way(subject, place, name):
    before = subject.probabilities()
    weight = load_model(place / "tiny", quantize="none").get_submodule(name).weight
    part = dense_linear(base_linears(subject.model)[name], weight, torch.float32, torch.device("cpu"))
    with swapped(subject.model, {name: part}):
        restored = subject.probabilities()
    assert np.array_equal(restored, from_scratch(subject, place, lambda other: other != name))
    assert not np.array_equal(restored, before) and np.array_equal(subject.probabilities(), before)


def test_many_matrices_are_changed_layer_by_layer(subject, monkeypatch):
    """A model of thirty layers has 210 of them, and each costs a run over the posts."""
    assert len(base_linears(subject.model)) == 14 and level_of(subject.model) == "matrix"
    monkeypatch.setattr("audit.subject.MOST_MATRICES", 13)
    assert level_of(subject.model) == "layer"


def test_the_section_holds_these_changes_and_sorts_them(subject, place):
    before = subject.probabilities()
    found = quantisation(subject, before, draws=50)
    assert found["state"] == "nf4" and found["level"] == "matrix" and len(found["changed"]) == 14
    for row in found["changed"][:1] + found["changed"][-1:]:
        after = from_scratch(subject, place, lambda other, name=row["name"]: other != name)
        assert {**change(subject.table, before, after, 50), "name": row["name"], "matrices": 1} == row
    assert [row["kl"] for row in found["changed"]] == sorted((row["kl"] for row in found["changed"]), reverse=True)
    for row in found["matrices"]:
        assert row["bits_by_weighted_error"] == pytest.approx(-np.log2(row["weighted_error"]), rel=1e-12)
    everything = from_scratch(subject, place, lambda name: False)
    assert found["all"] == change(subject.table, before, everything, 50)
    assert np.array_equal(subject.probabilities(), before)


def test_a_dense_run_is_told_what_four_bits_would_cost(place):
    subject = subject_of(make(place, "dense", "--quantize", "none"), place)
    before = subject.probabilities()
    found = quantisation(subject, before, level="layer", draws=0)
    assert found["state"] == "dense" and len(found["changed"]) == 2 and len(found["matrices"]) == 14
    row = found["changed"][0]
    after = from_scratch(subject, place, lambda name: name.startswith(row["name"] + "."))
    assert row["kl"] == pytest.approx(divergences(before, after).mean(), rel=1e-12) and row["matrices"] == 7
    assert row["f1_change_ci"] is None and row["kl_ci"] is None


def test_of_a_base_in_four_bits_only_codes_are_told(place):
    subject = subject_of(make(place, "nf4", "--quantize", "nf4"), place)
    packed = quantised_copy(place / "tiny", read_config(place / "tiny"), place / "cache", double=False)
    shutil.copy(place / "tiny" / "tokenizer.model", packed)
    subject.base, subject.model = packed, load_model(packed, adapter=subject.run.path / "adapter")
    found = quantisation(subject, subject.probabilities())
    assert found["state"] == "packed" and found["changed"] == [] and found["all"] is None
    assert all("relative_error" not in row and sum(row["codes"]) == np.prod(row["shape"]) for row in found["matrices"])


def test_moments_are_those_of_posts_that_go_through_alone(subject):
    names = list(base_linears(subject.model))
    sums = {name: 0.0 for name in names}
    counts = dict.fromkeys(names, 0)
    seen = {}
    hooks = [subject.model.get_submodule(name).register_forward_pre_hook(
        lambda _, inputs, name=name: seen.update({name: inputs[0].double()})) for name in names]
    from data.batching import make_batch

    for index, row in enumerate(subject.rows):
        with torch.inference_mode():
            subject.model.hidden(make_batch(subject.rows, [index]))
        for name, x in seen.items():
            at_answer = ".layers.1." in name and not name.endswith(("k_proj", "v_proj"))
            x = x[[row.answer_index]] if at_answer else x
            sums[name], counts[name] = sums[name] + x.T @ x, counts[name] + len(x)
    for hook in hooks:
        hook.remove()
    for name, moment in moments(subject, names):
        torch.testing.assert_close(moment, sums[name] / counts[name], rtol=1e-4, atol=1e-5)
    assert not any(module._forward_pre_hooks for module in subject.model.modules())


def test_moments_that_do_not_fit_at_once_are_the_same(subject, monkeypatch):
    names = list(base_linears(subject.model))
    whole = dict(moments(subject, names))
    monkeypatch.setattr("audit.inputs.BUDGET", 20_000)
    passes = []
    parts = dict(moments(subject, names, lambda: passes.append(1)))
    assert len(passes) > 1 and all(torch.equal(whole[name], parts[name]) for name in names)


def test_a_change_is_what_its_formulas_say(subject):
    draw = np.random.default_rng(0)
    p, q = (draw.dirichlet([0.5] * 4, len(subject.rows)).astype(np.float32) for _ in range(2))
    found = change(subject.table, p, q, draws=200)
    assert found["flips"] == sum(a != b for a, b in zip(p.argmax(1), q.argmax(1), strict=True))
    kl = np.mean([sum(float(a) * np.log(float(a) / float(b)) for a, b in zip(x, y, strict=True) if a)
                  for x, y in zip(p, q, strict=True)])
    assert found["kl"] == pytest.approx(kl, rel=1e-5)
    assert found["kl_ci"][0] < found["kl"] < found["kl_ci"][1]
    language = subject.table.language.copy()
    language[0] = "xx"  # a language of a single post
    single = replace(subject.table, language=language)
    assert mean_interval(p[:, 0], single, 200, 0) is None
    gold = subject.table.gold
    by_hand = []
    for chosen in (decide(q), decide(p)):
        by_hand.append(np.mean([2 * np.sum((chosen == c) & (gold == c)) / (np.sum(chosen == c) + np.sum(gold == c))
                                for c in range(4)]))
    assert found["f1_change"] == pytest.approx(by_hand[0] - by_hand[1])
    assert found["f1_change_ci"] is None  # five posts a label are too few


def test_intervals_of_means_cover_and_keep_clusters_together(subject):
    values = np.arange(len(subject.rows), dtype=float)
    low, high = mean_interval(values, subject.table, 4000, 0)
    parts = [values[subject.table.language == code] for code in subject.table.languages]
    spread = np.sqrt(sum(len(part) * part.var() for part in parts)) / len(values)
    assert (high - low) / (2 * 1.96 * spread) == pytest.approx(1, abs=0.06)
    assert mean_interval(values, subject.table, 0, 0) is None


def test_enough_posts_give_f1_an_interval(subject):
    from stats.predictions import Predictions, Rows

    draw = np.random.default_rng(1)
    gold = np.repeat(np.arange(4), 15)
    table = Rows(np.arange(60).astype(str), np.array(["en"] * 60), gold, np.arange(60), subject.table.grouping)
    p, q = (draw.dirichlet([0.5] * 4, 60).astype(np.float32) for _ in range(2))
    expected = difference(Predictions(table, q.argmax(1), q.astype(float)),
                          Predictions(table, p.argmax(1), p.astype(float)), "macro_f1", draws=100)
    assert change(table, p, q, draws=100)["f1_change_ci"] == [expected["low"], expected["high"]]


def test_no_interval_of_no_width_where_no_label_differs(subject):
    from stats.predictions import Rows

    draw, gold = np.random.default_rng(1), np.repeat(np.arange(4), 15)
    table = Rows(np.arange(60).astype(str), np.array(["en"] * 60), gold, np.arange(60), subject.table.grouping)
    p = draw.dirichlet([0.5] * 4, 60).astype(np.float32)
    found = change(table, p, p, draws=100)
    assert (found["flips"], found["f1_change"], found["f1_change_ci"]) == (0, 0.0, None)
    assert found["flip_rate_ci"][1] > 0.05  # three in a hundred could still differ


def test_what_is_swapped_comes_back_after_an_error(subject):
    layer = base_linears(subject.model)[NAMES[0]]
    with pytest.raises(RuntimeError), swapped(subject.model, {NAMES[0]: torch.nn.Identity()}):
        raise RuntimeError
    assert base_linears(subject.model)[NAMES[0]] is layer and isinstance(layer, NF4Linear)
