"""A step of learning: the recipe's own step, every number of it recomputed, and taken back bit by bit.

Deliberate breaks: in glass/learning.py leave `copy.deepcopy` out, or the `parameter.copy_` of `undo`; in
glass/recompute/learning.py swap `a` and `b`, forget a correction, or let `learned` leave the adapter as it is; in
glass/recompute/backward.py leave `along` out, or turn by the angle itself; in glass/learning_stages.py let `rows` keep
what filled up a batch.
"""

import copy
import hashlib
from itertools import pairwise
from types import SimpleNamespace

import numpy
import pytest
import torch
from safetensors.numpy import load_file, save_file

from common.device import best_threads
from common.errors import UserError
from finetune.loop import Trainer
from glass import recompute, trace
from glass.learning import AHEAD, KEPT, MOST, Learner, with_steps
from glass.recompute.learning import learned, loss
from glass.recompute.weights import Weights
from glass.stages import Trace
from glass.verify import stored, write_verification
from lora.inject import adapters, inject, trainable_parameters
from quant.convert import replace_linears
from tests.small import random_model

POST, LABEL = "They came here as children; let them stay.", "neutral"


@pytest.fixture
def learner(run):
    """Steps on the shared model, all taken back behind the test."""
    learner = Learner(run)
    yield learner
    while learner.taken:
        learner.undo()


@pytest.fixture(scope="module")
def found(run):
    return trace(run, POST)


@pytest.fixture(scope="module")
def folder(run, found, tmp_path_factory):
    folder = tmp_path_factory.mktemp("learning") / "check"
    write_verification(with_steps(run, found, LABEL), folder)
    return folder


def bits(model) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in [*model.named_parameters(), *model.named_buffers()]}


def same(before: dict, after: dict) -> bool:
    return before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_a_step_is_the_trainers_own_bit_for_bit(run, learner):
    before = bits(run.model)
    for text, label in ((POST, LABEL), ("Close the border.", "unrelated")):
        learner.step(text, label)
    after = bits(run.model)
    while learner.taken:
        learner.undo()
    model, labels = run.model, run.prompt.codebook.labels
    layers = adapters(model).values()
    for layer in layers:
        layer.lora_A.requires_grad_(), layer.lora_B.requires_grad_()
    rows = [run.prompt.encode(text) for text in (POST, "Close the border.")]
    wanted = [labels.index(LABEL), labels.index("unrelated")]
    trainer = Trainer(model, rows, wanted, [1.0, 1.0], run.prompt.label_ids, lambda epoch: [0, 1],
                      run.prompt.prefix_ids, learner.recipe, 2, 4096)
    try:
        with best_threads(model.config, learner.threads):  # the order of a sum is theirs
            trainer.step(), trainer.step()
        assert same(bits(model), after)
    finally:
        for name, parameter in trainable_parameters(model).items():
            parameter.data.copy_(before[name])
            parameter.grad = None
            parameter.requires_grad_(False)
        model.eval()


def test_undo_restores_every_bit_and_the_next_step_is_the_same_again(run, found, learner):
    states, losses = [bits(run.model)], []
    random = torch.get_rng_state()
    for label in (LABEL, "unrelated", LABEL):
        losses.append(learner.step(POST, label).losses)
        states.append(bits(run.model))
    assert not any(same(one, other) for one, other in pairwise(states))
    for state in states[-2::-1]:
        learner.undo()
        assert same(bits(run.model), state)
    again = trace(run, POST).tensors()
    assert all(torch.equal(again[name], tensor) for name, tensor in found.tensors().items())
    assert learner.step(POST, LABEL).losses == losses[0] and same(bits(run.model), states[1])
    learner.undo()
    learner.step(POST, LABEL), learner.step(POST, "unrelated")
    learner.undo()
    assert learner.step(POST, "unrelated").losses == losses[1] and same(bits(run.model), states[2])
    assert torch.equal(torch.get_rng_state(), random)
    assert not run.model.training and not any(p.requires_grad or p.grad is not None for p in run.model.parameters())


def test_the_loss_falls_and_the_label_comes(run, learner):
    first = learner.step(POST, LABEL)
    second = learner.step(POST, LABEL)
    assert first.losses[0] > first.losses[1] > second.losses[1]
    assert second.losses[0] == pytest.approx(first.losses[1], rel=1e-6)
    assert second.after[LABEL] > 0.9 and second.before == pytest.approx(first.after, rel=1e-5)
    assert run.label([POST])[0].probabilities == pytest.approx(second.after, rel=1e-4, abs=1e-6)
    assert first.before == pytest.approx(trace_probabilities(first), rel=1e-6)


def trace_probabilities(step) -> dict:
    return dict(zip(step.before, step.stages[0].probabilities[0].tolist(), strict=True))


def test_the_runs_files_are_not_touched(run, learner):
    def hashes():
        return {path: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
                for path in sorted(run.folder.path.rglob("*")) if path.is_file()}
    before = hashes()
    learner.step(POST, LABEL)
    learner.undo()
    assert hashes() == before


def test_only_the_last_steps_keep_every_tensor(learner):
    for _ in range(KEPT + 1):
        learner.step(POST, LABEL)
    kinds = [{stage.name.split(".")[2] for stage in step.stages} for step in learner.taken]
    assert kinds[0] == {"loss", "clipping", "changes", "after"}
    assert all(kind == kinds[0] | {"gradient", "update"} for kind in kinds[1:])


def test_dropout_is_left_out_of_a_step_and_is_there_again(run, learner):
    plain = learner.step(POST, LABEL).losses
    learner.undo()
    layers = adapters(run.model).values()
    try:
        for layer in layers:
            layer.dropout = 0.5
        assert learner.step(POST, LABEL).losses == plain and all(layer.dropout == 0.5 for layer in layers)
    finally:
        for layer in layers:
            layer.dropout = 0.0


@pytest.mark.parametrize("text, label, said", [
    (POST, "neutrall", "did you mean"), (" ", LABEL, "nothing of it can be seen"), (5, LABEL, "give a string")])
def test_what_cannot_be_learnt_is_said(run, learner, text, label, said):
    before = bits(run.model)
    with pytest.raises(UserError, match=said):
        learner.step(text, label)
    assert same(bits(run.model), before) and not learner.taken


def test_a_step_that_ends_in_no_number_changes_nothing(run, learner, monkeypatch):
    before, good = bits(run.model), learner.step(POST, LABEL).losses
    learner.undo()
    monkeypatch.setattr("glass.learning.label_logits", lambda trainer: torch.full((1, 4), torch.nan))
    with pytest.raises(UserError, match="learning rate is too large"):
        learner.step(POST, LABEL)
    monkeypatch.undo()
    assert same(bits(run.model), before) and learner.step(POST, LABEL).losses == good


def test_no_step_to_undo_too_many_and_no_adapter(run, learner):
    with pytest.raises(UserError, match="no step is taken"):
        learner.undo()
    learner.taken = [None] * MOST
    with pytest.raises(UserError, match="undo some"):
        learner.step(POST, LABEL)
    learner.taken = []
    learner.model = copy.deepcopy(run.model).to(torch.float16)
    with pytest.raises(UserError, match="in float16 the loss is scaled"):
        learner.step(POST, LABEL)
    learner.model = torch.nn.Linear(2, 2)
    with pytest.raises(UserError, match="carries no adapter"):
        learner.step(POST, LABEL)


def test_numpy_alone_recomputes_the_steps(folder, run, capsys):
    assert recompute.main(folder) == 0
    said = [line.split()[1] for line in capsys.readouterr().out.splitlines() if " learning." in line]
    assert len(said) == AHEAD * (4 + 2 * len(adapters(run.model)))


def test_planted_errors_in_steps_are_found_and_named(folder, tmp_path, capsys):
    up, q = "model.layers.1.mlp.up_proj", "model.layers.0.self_attn.q_proj"
    wrong = ["learning.0.loss.loss", f"learning.0.gradient.{up}.slopes", f"learning.0.gradient.{q}.B_place",
             "learning.1.gradient.model.layers.2.mlp.gate_proj.inputs",
             "learning.0.after.logits", "learning.1.clipping.norm", f"learning.1.update.{q}.A_v",
             f"learning.1.update.{up}.B_update", "learning.1.changes.A_changes"]
    tensors = load_file(folder / "trace.safetensors")
    for name in wrong:
        flat = tensors[name].reshape(-1)
        flat[numpy.abs(flat).argmax()] += 1 if flat.dtype == numpy.int64 else numpy.abs(flat).max() / 20
    save_file(tensors, tmp_path / "trace.safetensors")
    (tmp_path / "trace.json").write_bytes((folder / "trace.json").read_bytes())
    assert recompute.main(tmp_path) == 1
    differ = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("DIFFERS")]
    assert set(differ) == {name.rpartition(".")[0] for name in wrong} | {"learning.0.after"}


def test_what_passes_through_every_linear_hangs_on_the_losses_slopes(folder, tmp_path, capsys):
    """Another slope of the loss makes every linear's differ, in its own step alone."""
    tensors = load_file(folder / "trace.safetensors")
    tensors["learning.0.loss.slopes"] = tensors["learning.0.loss.slopes"][:, ::-1].copy()
    save_file(tensors, tmp_path / "trace.safetensors")
    (tmp_path / "trace.json").write_bytes((folder / "trace.json").read_bytes())
    assert recompute.main(tmp_path) == 1
    differ = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("DIFFERS")]
    names = [name.removesuffix(".slopes") for name in tensors if name.startswith("learning.0.gradient")
             and name.endswith(".slopes")]
    assert set(differ) == {"learning.0.loss", *names} and len(names) == 21


def test_the_last_layers_numbers_are_the_answers(folder):
    """Not those that fill up a batch, through which no slope passes."""
    tensors = load_file(folder / "trace.safetensors")
    for part in ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj"):
        slopes = tensors[f"learning.0.gradient.model.layers.2.{part}.slopes"]
        assert len(slopes) == 1 and numpy.abs(slopes).max() > 0
    assert len(tensors["learning.0.gradient.model.layers.2.self_attn.k_proj.slopes"]) == len(tensors["tokens.ids"])


def of_another_kind(kind: str):
    """A model with an adapter, and options of its run: 16 bits; weight decay, no clipping, doubly quantised scales."""
    dtype = torch.bfloat16 if kind == "bfloat16" else torch.float32
    model = random_model(4, dtype, vocab_size=44_000, num_hidden_layers=2, hidden_size=64, intermediate_size=70)
    if kind == "double":
        replace_linears(model, double=True)
    inject(model, ["q_proj", "down_proj"], r=3, alpha=5, rslora=True)
    model.requires_grad_(False)
    for layer in adapters(model).values():
        layer.lora_B.normal_(std=0.1)
    decays = {"weight_decay": 0.1, "clip": 0.0} if kind == "double" else {"weight_decay": 0.0, "clip": 0.3}
    return model.eval(), {"learning_rate": 0.01} | decays


@pytest.mark.parametrize("kind", ["bfloat16", "double"])
def test_steps_of_other_kinds_of_model_and_recipe_agree_too(run, tmp_path, capsys, kind):
    model, options = of_another_kind(kind)
    other = SimpleNamespace(model=model, prompt=run.prompt, folder=SimpleNamespace(facts={"options": options}))
    write_verification(with_steps(other, trace(other, POST), LABEL), tmp_path / "check")
    assert recompute.main(tmp_path / "check") == 0, capsys.readouterr().out


@pytest.mark.parametrize("module", ["layers.0.self_attn.v_proj", "layers.1.mlp.down_proj", "layers.2.self_attn.q_proj"])
@pytest.mark.parametrize("part", "AB")
def test_gradients_are_slopes_of_the_loss_in_float64(run, found, folder, module, part):
    """By a central difference through the numpy program's whole way, at the entry that the page shows."""
    tensors = load_file(folder / "trace.safetensors")
    weights = Weights(stored_facts(found), tensors)
    name = f"learning.0.update.model.{module}.{part}_before"
    gradient = tensors[f"learning.0.gradient.model.{module}.{part}_gradient"]
    place = tuple(tensors[f"learning.0.gradient.model.{module}.{part}_place"])
    before, losses = tensors[name].astype(numpy.float64), []
    for change in (1e-4, -1e-4):
        tensors[name] = before.copy()
        tensors[name][place] += change
        logits = learned(weights, tensors["learning.0.loss.ids"], step="learning.0", when="before")
        losses.append(loss(weights, logits, tensors["learning.0.loss.label"]))
    assert (losses[0] - losses[1]) / 2e-4 == pytest.approx(gradient[place], rel=1e-4)
    assert abs(gradient[place]) == numpy.abs(gradient).max()


def stored_facts(found) -> dict:
    return stored(found)[1]


def test_a_large_adapter_gets_the_steps_towards_one_label(run, found, monkeypatch):
    monkeypatch.setattr("glass.learning.SMALL", 10)
    stages = with_steps(run, found).stages[len(found.stages) :]
    second = sorted(found.probabilities, key=found.probabilities.get)[-2]
    labels = {int(stage.label) for stage in stages if stage.name.endswith(".loss")}
    assert labels == {list(found.probabilities).index(second)}


def test_a_model_without_an_adapter_has_no_steps(found):
    bare = Trace(found.text, False, found.tokens, found.label, found.probabilities, [], torch.nn.Linear(2, 2),
                 found.prompt)
    assert with_steps(SimpleNamespace(), bare) is bare
