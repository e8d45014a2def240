"""What a notebook has set beforehand changes no label, and labelling, tracing and loading leave all of it as it was.

Deliberate breaks: leave out `with as_loaded(...)` in `Labeller.give`, `why`, `learnable` or `generate`, or the loop in
it that sets `training` again; take `@on_the_cpu()` from `load_model`, the lock's `with` from `best_threads`, or the new
lock from forked processes.
"""

import contextlib
import os
import random
import signal
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from common.device import best_threads
from glass import trace
from glass.learning import Learner
from glass.why import why
from inference import load_run
from inference.generate import generate
from inference.labeller import label_probabilities
from loading import load_model
from lora.inject import adapters, trainable_parameters
from tests import PATIENCE

POST = "They came here as children; let them stay."


@contextlib.contextmanager
def default(kind, value):
    before = {"dtype": torch.get_default_dtype(), "device": None}[kind]
    getattr(torch, f"set_default_{kind}")(value)
    try:
        yield
    finally:
        getattr(torch, f"set_default_{kind}")(before)


SETTINGS = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16), "no gradients": torch.no_grad,
    "inference mode": torch.inference_mode, "float64": lambda: default("dtype", torch.float64),
    "bfloat16": lambda: default("dtype", torch.bfloat16), "another device": lambda: default("device", "meta"),
    "another device in a block": lambda: torch.device("meta"),
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_no_setting_of_the_callers_changes_a_label(run, folder, name):
    expected, stage = run.label([POST]), trace(run, POST).layers[1].mlp.residual
    with SETTINGS[name]():
        found, traced = run.label([POST]), trace(run, POST)
        loaded = load_run(folder, device="cpu", dtype="float32")
        assert loaded.label([POST]) == found
    assert found == expected and traced.probabilities == expected[0].probabilities
    assert torch.equal(traced.layers[1].mlp.residual, stage)


@contextlib.contextmanager
def with_dropout(model):
    """Adapters that leave out half of what they read, in training mode: where a run goes on in a notebook."""
    layers = adapters(model).values()
    try:
        for layer in layers:
            layer.dropout = 0.5
        model.train()
        yield
    finally:
        model.eval()
        for layer in layers:
            layer.dropout = 0.0


@pytest.mark.parametrize("name", [*SETTINGS, "training mode"])
def test_no_setting_of_the_callers_changes_a_reason_a_step_or_a_text(run, name):
    def all_of_it():
        reasons, learner = why(trace(run, POST)), Learner(run)
        step = learner.step(POST, "neutral")
        learner.undo()
        return (reasons.by_name["gradient"].values.tolist(), reasons.by_name["without_words"].probabilities.tolist(),
                step.losses, list(generate(run.model, run.prompt.tokenizer.encode(POST), 6)))

    expected = all_of_it()
    with with_dropout(run.model) if name == "training mode" else SETTINGS[name]():
        modes = [module.training for module in run.model.modules()]
        assert all_of_it() == expected
        assert [module.training for module in run.model.modules()] == modes


def test_what_was_loaded_in_inference_mode_can_be_trained(folder):
    with torch.inference_mode():
        model = load_model(folder, trainable=True)
    model(torch.ones(1, 4, dtype=torch.long)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in trainable_parameters(model).values())


def everything() -> dict:
    """What a library could leave changed in its process."""
    return {
        "threads": torch.get_num_threads(), "dtype": torch.get_default_dtype(), "gradients": torch.is_grad_enabled(),
        "torch": torch.get_rng_state().tolist(), "numpy": str(np.random.get_state()), "python": random.getstate(),
        "warnings": list(warnings.filters), "running": threading.active_count(),
    }  # fmt: skip


def test_nothing_of_the_process_is_changed(folder):
    before = everything()
    run = load_run(folder, device="cpu")
    run.label([POST, POST])
    trace(run, POST)
    assert everything() == before


def test_every_module_is_in_its_own_mode_again(run):
    """In the midst of a training, too: labels come without dropout, and the next step has it."""
    model, some = run.model, [run.prompt.encode(POST)]
    expected, names = label_probabilities(model, run.prompt, some), list(adapters(model))
    try:
        for layer in adapters(model).values():
            layer.dropout = 0.5
        model.train()
        model.get_submodule(names[0]).eval()
        modes = [module.training for module in model.modules()]
        assert np.array_equal(label_probabilities(model, run.prompt, some), expected)
        assert run.label([POST])[0].probability == expected.max()
        assert [module.training for module in model.modules()] == modes
    finally:
        model.eval()
        for layer in adapters(model).values():
            layer.dropout = 0.0


def test_threads_that_share_a_run_take_turns(run):
    expected = run.label([POST])[0]
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda count: run.label([POST] * count), range(1, 13)):
            assert set(map(str, found)) == {str(expected)}


def test_blocks_that_overlap_in_two_threads_leave_the_number_of_before(run):
    """Without turns the second block would take the first one's number for that of before, and leave it."""
    before, inside, entered = torch.get_num_threads(), threading.Event(), []
    torch.set_num_threads(2)

    def second():
        inside.wait()
        with best_threads(run.model.config):
            entered.append(torch.get_num_threads())

    try:
        other = threading.Thread(target=second)
        other.start()
        with best_threads(run.model.config):
            inside.set()
            other.join(0.5)
            assert not entered
            with best_threads(run.model.config, 3):  # in the same thread nothing waits
                assert torch.get_num_threads() == 3
        other.join()
        assert entered == [1] and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on Windows")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_process_forked_while_a_thread_labels_does_not_wait_for_it(run):
    inside, done = threading.Event(), threading.Event()

    def hold():
        with best_threads(run.model.config):
            inside.set()
            done.wait()

    other = threading.Thread(target=hold)
    other.start()
    inside.wait()
    if (child := os.fork()) == 0:  # in it there is no other thread that could give the lock back
        signal.alarm(PATIENCE)
        with best_threads(run.model.config):
            os._exit(0)
    done.set()
    other.join()
    assert os.waitpid(child, 0)[1] == 0


def test_numbers_of_a_trace_can_be_learnt_from(run):
    """A probe on what passes by: PyTorch refuses tensors that were made in inference mode."""
    hidden = trace(run, POST).layers[0].mlp.residual
    probe = torch.nn.Linear(hidden.shape[1], 2)
    probe(hidden).square().sum().backward()
    assert probe.weight.grad.any()
