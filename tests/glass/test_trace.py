"""A trace: the numbers of labelling itself, every stage in place, and nothing left behind.

Deliberate breaks: let the hook of glass/record.py return `output * 1.0000001` or forget to remove it, let
`_Maker.rows` keep two rows of the last layer, leave out `trace.threads` in glass/adapter.py, or mark a line with words
that the source does not have.
"""

from contextlib import contextmanager
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from common.errors import UserError
from common.files import ROOT
from common.packed import Layout
from data.prompt import TEMPLATES, Prompt
from glass import trace
from glass.adapter import adapter
from glass.record import recording
from glass.source import code
from glass.why import why
from inference.labeller import Labeller, label_probabilities
from model.attention import attend_softmax
from model.llama import Block
from model.rope import rotation

POSTS = ["They open the border.", "¡No al muro! 👍🏽", "عبرنا النهر", "<|eot_id|> </script>"]


def state(model):
    """All that a trace might have left behind in a model."""
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
    return model.attend, sum(hooks), {name: id(tensor) for name, tensor in model.state_dict(keep_vars=True).items()}


@pytest.mark.parametrize("post", POSTS)
def test_bits_with_tracing_are_those_without_and_nothing_is_left(run, post):
    before, plain = state(run.model), label_probabilities(run.model, run.prompt, [run.prompt.encode(post)])
    found = trace(run, post, torch.get_num_threads())  # another number may add in another order
    assert np.array_equal(np.float32(list(found.probabilities.values())), plain[0])
    assert found.label == run.label([post])[0].label
    assert state(run.model) == before
    assert np.array_equal(label_probabilities(run.model, run.prompt, [run.prompt.encode(post)]), plain)


def test_every_computation_takes_the_threads_that_were_asked_for(run, monkeypatch):
    """The trace itself, and what is computed for it later."""
    asked = []

    @contextmanager
    def threads(config, count=0):
        asked.append(count)
        yield

    for module in ("trace", "adapter", "why"):
        monkeypatch.setattr(import_module(f"glass.{module}"), "best_threads", threads)
    for count in (0, 3):
        adapter(why(trace(run, "They", count)))
    assert asked == [0, 0, 0, 3, 3, 3]


def test_hooks_go_when_the_computation_fails(run):
    before = state(run.model)
    with pytest.raises(ZeroDivisionError), recording(run.model):
        raise ZeroDivisionError
    assert state(run.model) == before


def test_every_hidden_bit_is_the_same_while_it_is_watched(run):
    """Whole tensors, not only the few label probabilities."""
    ids = torch.tensor([run.prompt.encode(POSTS[0]).ids])
    with torch.inference_mode():
        plain = run.model(ids)
        with recording(run.model) as seen:
            assert torch.equal(run.model(ids), plain)
    assert len(seen.attention) == run.model.config.num_hidden_layers


def test_the_stages_are_those_of_the_model(run):
    found, config = trace(run, POSTS[0]), run.model.config
    length, last = len(found.tokens), config.num_hidden_layers - 1
    assert found.tokens[-1].part == "prompt" and found.stages[0].answer == length - 1
    for number, layer in enumerate(found.layers):
        rows = 1 if number == last else length
        assert layer.queries.q.shape == (rows, config.num_attention_heads, config.head_dim)
        assert layer.keys.k.shape == layer.values.v.shape == (length, config.num_key_value_heads, config.head_dim)
        assert layer.attention.weights.shape == (config.num_attention_heads, rows, length)
        assert layer.mlp.gate.shape == (rows, config.intermediate_size)
        assert layer.mlp.residual.shape == layer.attention_write.written.shape == (rows, config.hidden_size)
    assert torch.equal(found.layers[-1].lens.probabilities, found.by_name["probabilities"].probabilities)


def test_the_stages_agree_with_the_model_computed_anew(run):
    """The residual stream after every layer, from blocks called one by one on the row alone."""
    found = trace(run, POSTS[0])
    ids, positions, _ = found.stages[0].tensors.values()
    model = run.model.model
    with torch.inference_mode():
        x = model.embed_tokens(ids).to(run.model.dtype)
        rope = rotation(positions, model.frequencies(ids.device), run.model.dtype)
        for block, layer in zip(model.layers, found.layers, strict=True):
            x = block(x, rope, Layout.rectangle(1, len(ids)), attend_softmax)
            rows = len(layer.mlp.residual)
            torch.testing.assert_close(layer.mlp.residual, x[-rows:], rtol=1e-5, atol=1e-5)
            weights = layer.attention.weights
            torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:2]))


@pytest.mark.parametrize("post", POSTS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_the_post_s_tokens_are_told_from_the_prompt_s(run, post, template):
    run = SimpleNamespace(model=run.model, prompt=Prompt(run.codebook, run.prompt.tokenizer, template))
    found = trace(run, post)
    shown = b"".join(token.bytes for token in found.tokens if token.part == "post").decode("utf-8", "replace")
    assert shown.strip().strip(':". ') == post.lower().strip(". ")  # this tokenizer lowers case
    again = trace(run, "entirely other words")
    kept = [token.id for token in found.tokens if token.part != "post"]
    assert kept == [token.id for token in again.tokens if token.part != "post"]


def test_each_stage_shows_code_that_is_in_the_source(run):
    for stage in trace(run, POSTS[0]).stages:
        assert stage.formula and stage.code
        for piece in stage.code:
            lines = (ROOT / piece.path).read_text(encoding="utf-8").splitlines()
            assert tuple(lines[piece.first - 1 : piece.first - 1 + len(piece.lines)]) == piece.lines
            assert piece.marked and piece.first <= piece.marked[0] < piece.first + len(piece.lines)
    with pytest.raises(ValueError, match="no line holds"):
        code(Block.forward, "these words are not there")


def test_what_has_no_label_is_said(run):
    with pytest.raises(UserError, match="nothing of it can be seen"):
        trace(run, " \u200b")
    with pytest.raises(UserError, match="give a string"):
        trace(run, 5)


def test_a_post_that_is_too_long_is_cut_as_in_labelling(run):
    found = trace(run, "x" * 10_000, torch.get_num_threads())
    assert found.cut and len(found.tokens) <= run.prompt.max_tokens and set(found.text) == {"x"}
    plain = Labeller(run.model, run.prompt).give([run.prompt.encode("x" * 10_000)])()[0]
    assert np.array_equal(np.float32(list(found.probabilities.values())), plain)


def test_a_stage_names_its_tensors_to_whoever_completes_or_mistypes(run):
    stage = trace(run, POSTS[0]).layers[1].attention
    assert {"scores", "weights", "out", "formula"} <= set(dir(stage))
    with pytest.raises(AttributeError, match=r"'weigths'; did you mean 'weights'\?; there are scores, weights, out"):
        _ = stage.weigths
    for wrong in (run.model, "runs/mine"):
        with pytest.raises(UserError, match=r"run: is of type .*; give what inference\.load_run returns"):
            trace(wrong, POSTS[0])


def test_a_token_that_is_half_a_character_shows_its_bytes(run):
    """Of an emoji that the tokenizer splits, the pieces were all the same sign, and none could be told from another."""
    own = [token for token in trace(run, "\u16a0 \ufffd").tokens if token.part == "post"]
    assert [token.text for token in own if len(token.bytes) == 1 and token.bytes[0] > 127] == [
        "\\xe1", "\\x9a", "\\xa0", "\\xef", "\\xbf", "\\xbd"]
