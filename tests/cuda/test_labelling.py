"""Labelling and generation on a card: a window is given without waiting, in 16 bits, in batches that fit.

Deliberate break: in inference/labeller.py leave out `non_blocking` where the logits are copied, read
`logits.isfinite().all()` in `give`, or record the event without naming a stream; in inference/generate.py read the
prompt's last token with `.item()`.
"""

from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch

from inference.exact import make_exact
from inference.generate import generate
from inference.labeller import Labeller
from model.kv_cache import KVCache
from tests.cuda.models import load, posts, some_prompt

KINDS = {"dense": {"quantize": "none"}, "nf4": {}, "nf4-double": {"quantize": "nf4-double"},
         "resident": {"resident": True}, "merged": {"merged": True}}


@pytest.fixture(scope="module")
def model_of(one):
    """kind -> a model with adapters, made once."""
    made = {}

    def make(kind: str):
        if kind not in made:
            made[kind] = load(one, layers=2, adapter=True, **{"quantize": "nf4", "resident": False} | KINDS[kind])
        return made[kind]

    return make


def window(prompt, count: int = 4) -> list:
    return [prompt.encode(text) for text in posts(count)]


@pytest.mark.parametrize("kind", ["nf4, instruction first", *KINDS])
def test_a_window_is_given_without_waiting(one, model_of, kind):
    kind, _, first = kind.partition(", ")
    prompt = some_prompt("instruction-first" if first else "paper")
    labeller = Labeller(model_of(kind), prompt)
    rows = window(prompt)
    with one.inside(strict=False) as seen:
        waiting = labeller.give(rows)
    assert not seen.reads and not seen.pageable
    assert seen.total > 50 and seen.products == {torch.bfloat16}
    assert {dtype for operation, dtype, _ in seen.sums if operation in ("mean", "sum")} == {torch.float32}
    found = waiting()
    assert found.shape == (len(rows), len(prompt.label_ids)) and found.dtype == np.float32
    assert labeller.halvings == 0


def test_what_is_waited_for_is_the_models_own_card(one, model_of):
    """A model on cuda:1 computes there while cuda:0 is the current device."""
    if one.is_real:
        pytest.skip("the events of a real card do not say which stream they mark")
    prompt, model = some_prompt("paper"), model_of("nf4")
    Labeller(model, prompt).give(window(prompt))()
    assert torch.cuda.Event().recorded[-1] == ("stream of", model.device)


def test_exact_waits_for_nothing_either(exact):
    seen, _ = exact
    assert not seen.reads and not seen.pageable


def test_in_exact_labelling_every_product_is_a_tile(exact):
    _, sizes = exact
    assert sizes == {64}


@pytest.fixture(scope="module")
def exact(one):
    """What is seen in a window of a model whose products are tiles of 64 tokens, and how many each product got."""
    prompt, sizes = some_prompt("paper"), set()
    model = load(one, fresh=True, layers=2, quantize="none", adapter=True)
    with mock.patch("inference.exact.TILE", 64):
        make_exact(model)
    for module in [module for module in model.modules() if hasattr(module, "rows")]:
        module.base.register_forward_pre_hook(lambda module, args: sizes.add(len(args[0])))
    labeller = Labeller(model, prompt)
    with one.inside(strict=False) as seen:
        waiting = labeller.give(window(prompt, 3))
    assert waiting().shape == (3, len(prompt.label_ids))
    return seen, sizes


def test_memory_that_runs_out_halves_the_batches(one, model_of):
    prompt, model = some_prompt("paper"), model_of("nf4")

    def full(module, args):
        if len(args[0]) > 400:
            raise torch.OutOfMemoryError("CUDA out of memory")

    whole = model.model.layers[0].mlp.gate_proj.register_forward_pre_hook(full)
    labeller = Labeller(model, prompt, 1024)
    with one.inside(strict=False) as seen:
        waiting = labeller.give(window(prompt))
    whole.remove()
    assert labeller.halvings >= 1 and labeller.micro_tokens == 1024 >> labeller.halvings and not seen.reads
    assert waiting().shape == (4, len(prompt.label_ids))


def test_label_windows_one_after_another(one, model_of):
    """The whole pipeline: encoding ahead, one window given before the last is taken back."""
    texts = [SimpleNamespace(text=text) for text in posts(4) * 5]
    texts[3].text = " "
    labeller = Labeller(model_of("nf4"), some_prompt("instruction-first"))
    labeller._rate = 0.5  # posts a second, so that a window has the least posts that it may
    found = list(labeller.label(texts))
    assert sum(len(part.posts) for part in found) == 20 and len(found) > 1
    assert np.isnan(found[0].probabilities[3]).all()


def test_generation_waits_only_to_choose(one, model_of):
    """A token must come back before the next one: it is read in `choose`, and nowhere in the model."""
    model, ids = model_of("nf4"), some_prompt("paper").encode(posts(1)[0]).ids[:30]
    with one.inside(strict=False) as seen:
        new = list(generate(model, ids, 2))
        list(generate(model, ids, 2, temperature=0.7, top_p=0.9))
    assert len(new) == 2 and seen.products == {torch.bfloat16}
    assert {read.partition(":")[0] for read in seen.reads} == {"inference/generate.py"}


@torch.inference_mode()
def test_the_model_with_a_cache_waits_for_nothing(one, model_of):
    model = model_of("nf4")
    cache = KVCache(model.config, 1, 40, dtype=model.dtype, device=one.device)
    first, second = (torch.zeros(1, count, dtype=torch.int64, device=one.device) for count in (30, 1))
    with one.inside() as seen:
        model(first, cache)
        logits = model(second, cache)
    assert logits.shape == (1, 1, model.config.vocab_size) and logits.dtype == torch.bfloat16
    assert cache.length == 31 and seen.products == {torch.bfloat16}
