"""CUDA graphs without a card: a tape of PyTorch's operations stands in for the graph (tests/finetune/tape.py), so a
replayed step has the bits of a computed one only if all that differs between steps lies in memory that stays.

Deliberate break: in finetune/graphs.py keep `total` as a number in `add` and divide by it in the place of `* share`,
leave the layouts' `keep` out, or give the rows that fill up a weight; in model/varlen.py give `_scattered` the places
as a list.
"""

import contextlib
from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import pytest
import torch

from common.errors import UserError
from data.batching import make_batch
from data.prompt import EncodedPost
from finetune.build import choose_graphs
from finetune.graphs import Graphs, filled, refused, size_of
from finetune.loop import Recipe, Trainer
from finetune.memory import MemoryPlan
from lora.inject import inject, trainable_parameters
from model import varlen
from model.attention import attend_padded, attend_sdpa
from model.varlen import attend_varlen
from quant.convert import make_resident, replace_linears
from tests.finetune.tape import Tape, kernel, taped
from tests.small import random_model

PREFIX = [7, 8, 9, 10, 11]


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch):
    monkeypatch.setattr(varlen, "kernel", lambda: kernel)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Tape)
    monkeypatch.setattr(torch.cuda, "graph", taped)
    monkeypatch.setattr(Tape, "replays", 0)


def a_model(kind: str = "nf4"):
    model = random_model(dtype=torch.float16 if kind == "float16" else torch.float32)
    model.attend = attend_varlen
    if kind not in ("dense", "float16"):
        replace_linears(model, double=kind == "double")
    inject(model, "all-linear", 4, 8, generator=torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(1)
    for name, parameter in trainable_parameters(model).items():
        if name.endswith("lora_B"):
            parameter.data.normal_(std=0.1, generator=draw)
    if kind == "resident":
        make_resident(model, model.dtype)
    return model


def some_rows(count: int, prefix=PREFIX) -> list[EncodedPost]:
    """Rows of 3 to 20 tokens of their own."""
    draw = torch.Generator().manual_seed(2)
    rows = []
    for length in torch.randint(3, 21, (count,), generator=draw).tolist():
        ids = [*prefix, *torch.randint(20, 600, (length,), generator=draw).tolist()]
        rows.append(EncodedPost(ids, len(ids) - 1, False))
    return rows


def trained(kind: str = "nf4", *, graphs: bool = True, loss: str = "label", checkpointing: bool = False, prefix=PREFIX,
            micro_tokens: int = 4096, steps: int = 7):
    """Losses of some steps of 6 posts whose weights differ, the adapter after them, and the trainer."""
    model, rows = a_model(kind), some_rows(6 * 7, prefix or [7])
    trainer = Trainer(model, rows, [n % 4 for n in range(len(rows))], [1 + n % 5 / 3 for n in range(len(rows))],
                      [3, 4, 5, 6], lambda epoch: list(range(len(rows))), prefix,
                      Recipe(1e-2, "constant", 0.0, 0.0, 1.0, 6, loss), 100, micro_tokens, checkpointing, graphs)
    lines = [trainer.step() for _ in range(steps)]
    if not lines:
        return None, trainer
    numbers = torch.stack([torch.stack([line["loss"], line["grad_norm"]]) for line in lines])
    return [numbers, *trainable_parameters(model).values()], trainer


@pytest.mark.parametrize("kind, more", [
    ("nf4", {}), ("double", {}), ("dense", {"loss": "vocabulary"}), ("resident", {}), ("nf4", {"checkpointing": True}),
    ("nf4", {"prefix": []}), ("nf4", {"micro_tokens": 60}), ("nf4", {"loss": "vocabulary", "checkpointing": True}),
    ("float16", {})])
def test_replayed_steps_have_the_bits_of_computed_ones(kind, more, monkeypatch):
    found, trainer = trained(kind, **more)
    assert Tape.replays >= 5 and 1 <= len(trainer.graphs.pieces) <= 3

    monkeypatch.setattr(Graphs, "_replay", lambda graphs, piece: setattr(piece, "loss", graphs._computed(piece)))
    for one, two in zip(found, trained(kind, **more)[0], strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0, equal_nan=True)  # a norm in float16 may overflow


def test_a_replayed_step_has_the_scale_of_now():
    """Which lies in memory that stays: a smaller one gives the same gradients, up to the rounding of small ones."""
    norms = []
    for scale in (2.0**16, 2.0**13):
        _, trainer = trained("float16", steps=4)
        trainer.scaler.update(scale)
        line = trainer.step()
        assert line["scale"] == scale
        norms.append(line["grad_norm"])
    assert Tape.replays >= 4 and torch.allclose(*norms, rtol=1e-3)


def test_steps_with_graphs_learn_what_steps_without_learn():
    for one, two in zip(trained()[0], trained(graphs=False)[0], strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prefix", [PREFIX, []])
def test_filling_changes_no_answer_and_adds_exact_zeros_to_the_gradients(prefix):
    """Answers to the bit beside a batch filled up as in labelling; every gradient of a filled row's token is 0."""
    rows, model, labels = some_rows(11, prefix or [7]), a_model(), torch.arange(11) % 4
    model.attend = attend_sdpa
    full = filled(rows, range(11), len(prefix))
    assert len(full.tokens) == size_of(len(full.tokens)) and full.indices == (*range(11), *[-1] * 6)
    plain = make_batch(rows, range(11), len(prefix), multiple=16)
    kept, first = [], full.layout.row_start[11]
    with torch.no_grad():
        assert torch.equal(model.answer_hidden(full)[:11], model.answer_hidden(plain))

    def watch(module, args, out):
        if len(out) == len(full.tokens):
            out.register_hook(lambda grad: kept.append(grad[first:]))

    for module in model.modules():
        if hasattr(module, "lora_A"):
            module.register_forward_hook(watch)
    logits = model.label_logits(model.answer_hidden(full), torch.tensor([3, 4, 5, 6]))
    weights = torch.cat([torch.ones(11), torch.zeros(6)])
    losses = torch.nn.functional.cross_entropy(logits, torch.cat([labels, labels[:6]]), reduction="none")
    (losses * weights).sum().backward()
    assert len(kept) >= 7 and all((grad == 0).all() for grad in kept)


def test_sizes_are_few_and_near():
    sizes = [size_of(tokens) for tokens in range(1, 16385)]
    assert len(set(sizes)) == 40 and sizes[0] == 128 and sizes[1024] == 1152
    assert all(tokens <= size < max(1.125 * tokens, tokens + 128) for tokens, size in enumerate(sizes, 1))


@pytest.mark.parametrize("where", ["record", "replay", "compute", "inputs"])
def test_memory_that_runs_out_beside_graphs_frees_them_and_the_step_goes_on(where, monkeypatch):
    """Wherever it runs out; with two pieces a step, the first piece's gradients are not lost."""
    wanted, calls = trained(micro_tokens=60)[0], []

    def failing(original, when=lambda graphs: True):
        def once(graphs, *given, **more):
            if when(graphs) and not calls:
                calls.append(1)
                raise torch.OutOfMemoryError("planned")
            return original(graphs, *given, **more)
        return once

    if where == "record":
        monkeypatch.setattr(torch.cuda, "graph", failing(taped))
    elif where == "replay":
        monkeypatch.setattr(Tape, "replays", 0)
        monkeypatch.setattr(Tape, "replay", failing(Tape.replay, lambda tape: Tape.replays == 3))
    else:
        name = {"compute": "_computed", "inputs": "_piece"}[where]
        monkeypatch.setattr(Graphs, name, failing(getattr(Graphs, name), lambda graphs: graphs.pool is not None))
    with pytest.warns(UserWarning, match="memory ran out while steps were recorded as CUDA graphs"):
        found, trainer = trained(micro_tokens=60)
    assert trainer.graphs.given_up and all(piece.graph is None for piece in trainer.graphs.pieces.values())
    assert trainer.halvings == 0
    for one, two in zip(found, wanted, strict=True):
        assert torch.equal(one, two)


def test_a_piece_that_does_not_fit_with_nothing_recorded_is_cut(monkeypatch):
    def computed(graphs, piece, original=Graphs._computed):
        if sum(index >= 0 for index in piece.batch.indices) > 4:
            raise torch.OutOfMemoryError("planned")
        return original(graphs, piece)

    monkeypatch.setattr(Graphs, "_computed", computed)
    _, trainer = trained(prefix=[], steps=3, micro_tokens=160)
    assert trainer.halvings == 2 and not trainer.graphs.given_up


def test_a_run_that_gave_up_has_the_bits_of_one_that_records():
    wanted, trainer = trained()[0], trained(steps=0)[1]
    trainer.graphs.given_up = True
    lines = [trainer.step() for _ in range(7)]
    assert torch.equal(torch.stack([torch.stack([line["loss"], line["grad_norm"]]) for line in lines]), wanted[0])


@pytest.mark.parametrize("broken", ["graph", "replay"])
def test_a_card_that_cannot_record_ends_in_one_line_that_says_how_to_go_on(broken, monkeypatch):
    @contextlib.contextmanager
    def graph(*given, **more):
        yield
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nand more lines")

    def replay(tape):
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nand more lines")

    monkeypatch.setattr(*{"graph": (torch.cuda, "graph", graph), "replay": (Tape, "replay", replay)}[broken])
    with pytest.raises(UserError, match=r"on this card \(CUDA error: [a-z ]+\); go on with --resume --graphs off"):
        trained()


def test_what_cannot_be_recorded_is_named(monkeypatch, capsys):
    model = a_model()
    memory = MemoryPlan(4096, False, 0, 4_000, 10_000, 60_000, tokens=4096)

    def chosen(way="auto", team=None, before=None, loss="label", memory=memory):
        run = None if before is None else SimpleNamespace(facts={"memory_expected": {"graphs": before}})
        return choose_graphs(SimpleNamespace(graphs=way, loss=loss), model, memory, team, run).graphs

    assert not chosen() and not chosen("off") and not capsys.readouterr().out
    with pytest.raises(UserError, match="--graphs: a CPU has no launches to save; leave it out"):
        chosen("on")
    with mock.patch.object(type(model), "device", torch.device("cuda")):
        assert refused(model, "label") == ("", "") and chosen() and chosen("on") and not chosen("off")
        assert "steps are recorded" in capsys.readouterr().out
        assert chosen(before=True) and not chosen(before=False) and chosen("on", before=False)
        assert "not recorded as CUDA graphs: this run began without" in capsys.readouterr().out
        # 4,104 tokens are filled up to 4,608: activations twice, each 1.125 times as large, and gradients once more
        scarce = replace(memory, available=40_000)
        assert replace(memory, graphs=True).needed == 4_000 + 2_000 + int(2 * 1.125 * 10_000) > 0.7 * 40_000
        assert not chosen(memory=scarce) and chosen(memory=scarce, before=True) and chosen("on", memory=scarce)
        assert "not recorded as CUDA graphs: that would need 28.5 kB beside the model" in capsys.readouterr().out
        with pytest.raises(UserError, match="--graphs: with --loss text"):
            chosen("on", loss="text")
        with pytest.raises(UserError, match="--graphs: only the steps of a single process"):
            chosen("on", team=object())
        assert not chosen(team=object())
        monkeypatch.setattr(torch.version, "hip", "6.3")
        with pytest.raises(UserError, match="--graphs: never tried on a card that is not NVIDIA's"):
            chosen("on")
        monkeypatch.setattr(torch.version, "hip", None)
        model.attend = attend_padded
        with pytest.raises(UserError, match="--graphs: attention of all rows in one call is needed"):
            chosen("on", loss="vocabulary")
        next(module for module in model.modules() if hasattr(module, "lora_A")).dropout = 0.1
        with pytest.raises(UserError, match="--graphs: dropout would repeat the masks"):
            chosen("on")
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    with mock.patch.object(type(model), "device", torch.device("cuda:1")):
        assert refused(model, "label")[0] == "cuda:1 is not PyTorch's current device"
