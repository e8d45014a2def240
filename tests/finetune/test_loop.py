"""Training steps against a plain row-by-row reference: losses, gradients of any cut, rates, clipping, AdamW.

Deliberate break: in `loop.Trainer._accumulate` divide each micro-batch by its own weights instead of the step's
`total`; the gradients of many micro-batches turn red.
"""

import math

import pytest
import torch
import torch.nn.functional as F

from common.packed import PackedBatch
from data.batching import make_batch
from data.prompt import EncodedPost
from finetune import loop
from finetune.loop import LOSSES, Recipe, Trainer, batch_loss, learning_rate, token_losses
from lora.inject import inject, trainable_parameters
from quant.convert import replace_linears
from tests.small import random_model

LABEL_IDS = [7, 300, 41, 599]
PREFIXES = {"long": 30, "short": 4, "none": 0}


def recipe(**changes) -> Recipe:
    values = dict(learning_rate=1e-2, schedule="linear", warmup=0.1, weight_decay=0.01, clip=1.0, batch_size=9,
                  loss="label")
    return Recipe(**(values | changes))


def make_rows(prefix_len: int, count: int = 9, whole: bool = False) -> tuple[list[EncodedPost], list[int]]:
    """Rows of one prefix and 3 to 24 ids of their own; two of them begin alike behind it, one is as short as can be."""
    draw = torch.Generator().manual_seed(3)
    prefix = torch.randint(0, 600, (prefix_len,), generator=draw).tolist()
    rows = []
    for number in range(count):
        own = torch.randint(0, 600, (1 if number == 4 else 3 + 5 * number % 22,), generator=draw).tolist()
        own = rows[0].ids[prefix_len : prefix_len + 2] + own if number == 1 else own
        tail = [LABEL_IDS[number % 4], 5, 2] if whole else []
        rows.append(EncodedPost(prefix + own + tail, prefix_len + len(own) - 1, False))
    return rows, prefix


def make_model(dtype, quantize=False, dropout=0.0, targets="all-linear", **overrides):
    model = random_model(1, dtype, **overrides)
    if quantize:
        replace_linears(model)
    inject(model, targets, 4, 8, dropout, generator=torch.Generator().manual_seed(5))
    draw = torch.Generator().manual_seed(6)
    for name, parameter in trainable_parameters(model).items():
        if dtype == torch.float64:  # masters of the same width, or the tolerance would be float32's
            module, _, leaf = name.rpartition(".")
            parameter = torch.nn.Parameter(parameter.detach().double())
            setattr(model.get_submodule(module), leaf, parameter)
        with torch.no_grad():  # B not at zero, or A would have no gradient
            parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.1)
    return model


def trainer(model, rows, prefix=(), micro_tokens=10_000, weights=None, checkpointing=False, order=None, steps=10,
            **changes) -> Trainer:
    weights = [1.0] * len(rows) if weights is None else weights
    labels = [number % len(LABEL_IDS) for number in range(len(rows))]
    return Trainer(model, rows, labels, weights, LABEL_IDS, order or (lambda epoch: list(range(len(rows)))),
                   list(prefix), recipe(**changes), steps, micro_tokens, checkpointing)


def gradients(model) -> dict[str, torch.Tensor]:
    return {name: parameter.grad.clone() for name, parameter in trainable_parameters(model).items()}


def plain(model, rows, weights, kind) -> torch.Tensor:
    """The step's mean loss, one whole row after the other, with full logits of every position."""
    total, norm = 0.0, 0.0
    for number, (row, weight) in enumerate(zip(rows, weights, strict=True)):
        logits = model(torch.tensor([row.ids]))[0]
        label = number % len(LABEL_IDS)
        if kind == "text":
            losses = F.cross_entropy(logits[:-1], torch.tensor(row.ids[1:]), reduction="none")
        elif kind == "vocabulary":
            losses = F.cross_entropy(logits[row.answer_index][None], torch.tensor([LABEL_IDS[label]]), reduction="none")
        else:
            losses = F.cross_entropy(logits[row.answer_index, LABEL_IDS][None], torch.tensor([label]), reduction="none")
        total, norm = total + weight * losses.sum(), norm + weight * len(losses)
    return total / norm


def close(found: dict, expected: dict, tolerance: float) -> None:
    """Every number within `tolerance` times the largest of all: what an optimiser sees of a rounding error."""
    assert found.keys() == expected.keys()
    size = max(value.abs().max().item() for value in expected.values())
    for name, value in expected.items():
        assert (found[name] - value).abs().max().item() <= tolerance * size, name


WEIGHTS = {"equal": [1.0] * 9, "classes": [(2 / 3, 0.4, 3.1, 1.0)[n % 4] for n in range(9)],
           "rows": [0.3 + n / 7 for n in range(9)]}


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("prefix_kind", PREFIXES)
@pytest.mark.parametrize("weighting", WEIGHTS)
def test_loss_and_every_gradient_equal_plain_rows_however_the_step_is_cut(kind, prefix_kind, weighting):
    weights = WEIGHTS[weighting]
    rows, prefix = make_rows(PREFIXES[prefix_kind], whole=kind == "text")
    model = make_model(torch.float64)
    expected = plain(model, rows, weights, kind)
    expected.backward()
    truth = gradients(model)
    assert all(gradient.abs().max() > 0 for gradient in truth.values())
    for micro_tokens in (1, 64, 10_000):  # a row a batch; a few batches; all at once
        for shared in (prefix, []):
            some = trainer(model, rows, shared, micro_tokens, weights, loss=kind)
            loss = some._accumulate(list(range(9)))
            assert loss.dtype == torch.float64 and abs(loss.item() - expected.item()) < 1e-10
            close(gradients(model), truth, 1e-10)


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("quantize", [False, True])
def test_the_same_in_float32_and_on_four_bits(kind, quantize):
    rows, prefix = make_rows(PREFIXES["long"], whole=kind == "text")
    model = make_model(torch.float32, quantize, hidden_size=64, intermediate_size=128, head_dim=16)
    plain(model, rows, WEIGHTS["rows"], kind).backward()
    truth = gradients(model)
    for micro_tokens in (1, 64, 10_000):
        for shared in (prefix, []):
            trainer(model, rows, shared, micro_tokens, WEIGHTS["rows"], loss=kind)._accumulate(list(range(9)))
            close(gradients(model), truth, 1e-5)


def test_a_shared_prefix_is_computed_once(monkeypatch):
    """Shared and not shared give the same gradients (above); here: the shared one really is the shorter batch."""
    rows, prefix = make_rows(PREFIXES["long"])
    seen = []
    monkeypatch.setattr(loop, "make_batch", lambda *a: seen.append(make_batch(*a)) or seen[-1])
    for shared in (prefix, []):
        trainer(make_model(torch.float32), rows, shared)._accumulate(list(range(9)))
    own = sum(len(row.ids) - len(prefix) for row in rows)
    assert [len(batch.tokens) for batch in seen] == [own + len(prefix), own + 9 * len(prefix)]
    assert [batch.layout.prefix_len for batch in seen] == [len(prefix), 0]


def test_micro_batches_hold_no_more_than_their_budget_and_each_post_once(monkeypatch):
    rows, prefix = make_rows(PREFIXES["short"])
    seen: list[PackedBatch] = []
    monkeypatch.setattr(loop, "make_batch", lambda *a: seen.append(make_batch(*a)) or seen[-1])
    trainer(make_model(torch.float32), rows, prefix, 40)._accumulate([8, 2, 5, 4, 1])
    assert sorted(place for batch in seen for place in batch.indices) == [1, 2, 4, 5, 8]
    assert all(len(batch.tokens) <= 40 or batch.layout.rows == 1 for batch in seen) and len(seen) > 1


def test_full_logits_exist_for_a_chunk_at_a_time(monkeypatch):
    monkeypatch.setattr(loop, "LOGIT_CHUNK", 16)
    model = random_model(1, torch.float64)
    hidden = torch.randn(50, 32, dtype=torch.float64, requires_grad=True)
    targets = torch.arange(50)
    seen, logits = [], model.logits
    monkeypatch.setattr(model, "logits", lambda part: seen.append(tuple(part.shape)) or logits(part))
    losses = token_losses(model, hidden, targets)
    losses.sum().backward()
    # 16, 16, 16 and 2 positions, each made once in forward and once more in backward.
    assert sorted(seen) == sorted([(16, 32), (16, 32), (16, 32), (2, 32)] * 2)
    expected = F.cross_entropy(logits(hidden), targets, reduction="none")
    torch.testing.assert_close(losses, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(hidden.grad, torch.autograd.grad(expected.sum(), hidden)[0], atol=1e-12, rtol=0)


def test_losses_of_a_16_bit_model_are_taken_in_float32():
    rows, _ = make_rows(0)
    model = make_model(torch.bfloat16)
    for kind in LOSSES:
        batch = make_batch(rows, [0, 1, 2])
        loss = batch_loss(model, batch, torch.tensor([0, 1, 2]), torch.ones(3), torch.tensor(LABEL_IDS), kind, False)
        assert loss.dtype == torch.float32


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("kind", LOSSES)
def test_checkpointing_changes_no_gradient(kind, dropout):
    rows, prefix = make_rows(PREFIXES["long"], whole=kind == "text")
    model = make_model(torch.float64, dropout=dropout)
    model.train()
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(4)  # the same dropout masks; recomputing must draw them again, not new ones
        some = trainer(model, rows, [] if dropout else prefix, 64, checkpointing=checkpointing, loss=kind)
        found.append((some._accumulate(list(range(9))).item(), gradients(model)))
    assert found[0][0] == found[1][0]
    close(found[0][1], found[1][1], 1e-12)
    if dropout:  # and the masks are there at all
        torch.manual_seed(5)
        assert trainer(model, rows, [], 64, loss=kind)._accumulate(list(range(9))).item() != found[0][0]


def test_clipping_scales_the_whole_gradient_to_its_limit():
    rows, prefix = make_rows(4)
    norms, steps = {}, {}
    for clip in (0, 1e-3, 1e6):
        model = make_model(torch.float64)
        some = trainer(model, rows, prefix, clip=clip)
        norms[clip] = some.step()["grad_norm"].item()
        steps[clip] = torch.cat([g.flatten() for g in gradients(model).values()])
    assert norms[0] == pytest.approx(steps[0].norm().item(), rel=1e-12)  # what is logged is the norm before clipping
    assert norms[1e-3] == norms[0] == norms[1e6] and norms[0] > 1e-3
    torch.testing.assert_close(steps[1e-3], steps[0] * 1e-3 / norms[0], rtol=1e-5, atol=0)  # PyTorch adds 1e-6 below
    assert torch.equal(steps[1e6], steps[0])


def test_schedules_step_by_step():
    flat = recipe(learning_rate=1.0, warmup=0.0, schedule="constant")
    assert [learning_rate(step, 4, flat) for step in range(4)] == [1, 1, 1, 1]
    line = recipe(learning_rate=0.8, warmup=0.0, schedule="linear")
    assert [learning_rate(step, 4, line) for step in range(4)] == pytest.approx([0.8, 0.6, 0.4, 0.2])
    warm = recipe(learning_rate=1.2, warmup=0.2, schedule="linear")  # 2 of 10 steps: 1/3, 2/3, then 8 steps down
    expected = [0.4, 0.8] + [1.2 * k / 8 for k in range(8, 0, -1)]
    assert [learning_rate(step, 10, warm) for step in range(10)] == pytest.approx(expected)
    cosine = recipe(learning_rate=2.0, warmup=0.0, schedule="cosine")
    expected = [2, 1 + math.sqrt(0.5), 1, 1 - math.sqrt(0.5)]
    assert [learning_rate(step, 4, cosine) for step in range(4)] == pytest.approx(expected)
    whole = recipe(learning_rate=1.0, warmup=1.0, schedule="cosine")
    assert [learning_rate(step, 3, whole) for step in range(3)] == pytest.approx([0.25, 0.5, 0.75])


def test_the_rate_reaches_the_optimiser():
    rows, prefix = make_rows(4)
    some = trainer(make_model(torch.float32), rows, prefix, learning_rate=1.2, warmup=0.2, steps=10)
    lines = [some.step() for _ in range(3)]
    assert [line["lr"] for line in lines] == pytest.approx([0.4, 0.8, 1.2])
    assert some.optimizer.param_groups[0]["lr"] == lines[-1]["lr"]
    assert [line["step"] for line in lines] == [1, 2, 3] and lines[0]["posts"] == 9
    assert lines[0]["tokens"] == sum(len(row.ids) for row in rows)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_five_steps_equal_plain_adamw_on_plain_rows(weight_decay):
    rows, prefix = make_rows(4)
    ours, theirs = make_model(torch.float64), make_model(torch.float64)
    some = trainer(ours, rows, prefix, 64, schedule="constant", warmup=0.0, weight_decay=weight_decay, clip=0.5)
    parameters = list(trainable_parameters(theirs).values())
    optimiser = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=weight_decay, foreach=False, fused=False)
    for _ in range(5):
        some.step()
        optimiser.zero_grad()
        plain(theirs, rows, [1.0] * 9, "label").backward()
        torch.nn.utils.clip_grad_norm_(parameters, 0.5)
        optimiser.step()
    for name, parameter in trainable_parameters(ours).items():
        assert (parameter - trainable_parameters(theirs)[name]).abs().max() < 1e-8, name  # measured: 3e-13


def test_the_optimiser_has_the_adapters_and_each_once():
    model = make_model(torch.float32)
    some = trainer(model, make_rows(4)[0], weight_decay=0.25)
    owned = [id(p) for group in some.optimizer.param_groups for p in group["params"]]
    assert len(owned) == len(set(owned)) and set(owned) == {id(p) for p in model.parameters() if p.requires_grad}
    assert all(".lora_" in name for name in some.named) and len(owned) == 2 * 2 * 7  # A and B, 2 layers, 7 linears
    assert {group["weight_decay"] for group in some.optimizer.param_groups} == {0.25}
