"""Why this label, and the adapter: against recomputation post by post, finite differences, and models built that way.

Deliberate breaks: in glass/why.py take out the token behind the place, leave out `x *`, or strip the text ahead of a
word, too; in glass/adapter.py forget to put the scales back, or turn the whole adapter for a part.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from common.packed import Layout
from data.prompt import EncodedPost
from glass import recompute, trace
from glass.adapter import FACTORS, PART_FACTORS, adapter, factor_spectra, parts_of, spectra, strengths
from glass.verify import write_verification
from glass.whole import whole_trace
from glass.why import gradient_times_input, why
from inference.labeller import label_probabilities
from lora.inject import adapters, inject
from tests.small import random_model

POST = "They open the  border, عبرنا"


@pytest.fixture(scope="module")
def whole(run):
    return whole_trace(trace(run, POST))


def test_deletions_are_those_computed_post_by_post(run, whole):
    tokens, words = whole.by_name["without_tokens"], whole.by_name["without_words"]
    ids = [token.id for token in whole.tokens]
    assert tokens.places.tolist() == whole.post_tokens()
    for place, found in zip(tokens.places.tolist(), tokens.probabilities.numpy(), strict=True):
        row = [id for other, id in enumerate(ids) if other != place]
        alone = label_probabilities(run.model, run.prompt, [EncodedPost(row, len(row) - 1, False)])[0]
        np.testing.assert_allclose(found, alone, rtol=1e-5, atol=1e-6)
    left_over = ["open the  border, عبرنا", "They the  border, عبرنا", "They open border, عبرنا",
                 "They open the  عبرنا", "They open the  border, "]
    for left, found in zip(left_over, words.probabilities.numpy(), strict=True):
        alone = list(run.label([left])[0].probabilities.values())
        np.testing.assert_allclose(found, alone, rtol=1e-5, atol=1e-6)
    assert [POST[a:b] for a, b in zip(words.starts, words.ends, strict=True)] == POST.split()


def test_gradient_times_input_is_the_slope_by_finite_differences(run):
    """In float64: the embedding of each token a little larger and a little smaller."""
    model = random_model(5, torch.float64, vocab_size=44_000).eval()
    inject(model, ["all-linear"], r=2, alpha=4)
    with torch.no_grad():
        for layer in adapters(model).values():
            layer.lora_B.normal_(std=0.1)
    model.double()
    ids, step = run.prompt.encode("They open").ids[-24:], 1e-5
    found = gradient_times_input(model, run.prompt, ids, 2)
    assert found.dtype == torch.float64 and len(found) == len(ids)
    for place in range(0, len(ids), 5):
        values = []
        for sign in (1, -1):
            def grown(module, inputs, output, place=place, sign=sign):
                factors = torch.ones(len(output), 1, dtype=output.dtype)
                factors[place] += sign * step
                return output * factors

            handle = model.model.embed_tokens.register_forward_hook(grown)
            with torch.no_grad():
                layout = Layout.rectangle(1, len(ids))
                hidden = model.model(torch.tensor(ids), torch.arange(len(ids)), layout, model.attend)[-1:]
                values.append(model.label_logits(hidden, torch.tensor(run.prompt.label_ids)).log_softmax(-1)[0, 2])
            handle.remove()
        assert found[place].item() == pytest.approx(((values[0] - values[1]) / (2 * step)).item(), rel=1e-5, abs=1e-8)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_adapter_s_strengths(run, whole):
    factors = whole.by_name["factors"]
    at = {factor: row for factor, row in zip(FACTORS, factors.probabilities, strict=True)}
    assert at[1.0].tolist() == pytest.approx(list(whole.probabilities.values()), abs=1e-7)
    kept = {name: layer.lora_B.data.clone() for name, layer in adapters(run.model).items()}
    scales = {name: layer.scaling for name, layer in adapters(run.model).items()}
    for factor in (0.0, 2.0):  # a model whose B itself is that much larger
        for name, layer in adapters(run.model).items():
            layer.lora_B.data = factor * kept[name]
        row = list(run.label([POST])[0].probabilities.values())
        np.testing.assert_allclose(at[factor], row, rtol=1e-4, atol=1e-6)
        for name, layer in adapters(run.model).items():
            layer.lora_B.data = kept[name]
    assert {name: layer.scaling for name, layer in adapters(run.model).items()} == scales


@pytest.mark.parametrize("part", ["layers.1", "v_proj", "layers.2.mlp.down_proj"])
def test_a_part_s_strengths_are_those_of_a_model_with_that_part_so_much_larger(run, part):
    stage = strengths(trace(run, POST), part)
    inside = parts_of(adapters(run.model))[part]
    assert inside == [name for name in adapters(run.model) if f".{part}." in f"{name}."]
    kept = {name: adapters(run.model)[name].lora_B.data.clone() for name in inside}
    for factor, row in zip(PART_FACTORS, stage.probabilities, strict=True):
        for name, before in kept.items():
            adapters(run.model)[name].lora_B.data = factor * before
        np.testing.assert_allclose(row, list(run.label([POST])[0].probabilities.values()), rtol=1e-4, atol=1e-6)
    for name, before in kept.items():
        adapters(run.model)[name].lora_B.data = before
    assert stage.probabilities[PART_FACTORS.index(1.0)].tolist() == pytest.approx(
        list(run.label([POST])[0].probabilities.values()), abs=1e-7)


def test_spectra_are_those_of_the_whole_updates(run):
    layers = adapters(run.model)
    for part in ("lora_A", "lora_B"):
        for row, layer in zip(factor_spectra(layers, part), layers.values(), strict=True):
            x = getattr(layer, part).detach().double()
            x = x if x.shape[0] < x.shape[1] else x.T
            squares = torch.linalg.eigvalsh(x @ x.T).flip(0)
            torch.testing.assert_close(row.double().square(), squares, rtol=1e-5, atol=1e-9)
    for row, layer in zip(spectra(layers), layers.values(), strict=True):
        update = layer.scaling * layer.lora_B.double() @ layer.lora_A.double()
        torch.testing.assert_close(row.double(), torch.linalg.svdvals(update)[: len(row)], rtol=1e-5, atol=1e-6)


def test_numpy_alone_agrees_and_a_planted_error_is_named(run, tmp_path, capsys):
    short = whole_trace(trace(run, "open borders"))
    write_verification(short, tmp_path / "check")
    assert recompute.main(tmp_path / "check") == 0
    short.by_name["gradient"].values[1] += 1e-3
    write_verification(short, tmp_path / "wrong")
    capsys.readouterr()
    assert recompute.main(tmp_path / "wrong") == 1
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("DIFF")] == ["gradient"]


def test_one_word_and_a_model_without_an_adapter(run):
    one = why(trace(run, "They"))
    assert "without_words" not in one.by_name and one.by_name["without_tokens"].places.tolist() == one.post_tokens()
    bare = SimpleNamespace(model=random_model(0, vocab_size=44_000).eval(), prompt=run.prompt)
    found = trace(bare, "They open")
    assert adapter(found) is found
