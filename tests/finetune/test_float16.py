"""Training in float16: a scaled loss keeps small gradients, what overflows changes nothing, and runs go on to the bit.

Deliberate break: in finetune/loop.py leave `self.scaler.scale` out of `_accumulate`, call `self.optimizer.step()`
instead of `self.scaler.step`, or leave "scaler" out of `state`; in finetune/graphs.py leave `self.scale` out; in
finetune/run_folder.py let `_log_line` refuse a `grad_norm` of None.
"""

import copy
import json
import math

import pytest
import torch

from common.errors import UserError
from finetune import loop
from finetune.fit import NotFinite, Watch, figures, fit, overflowed
from finetune.loop import batch_loss
from finetune.run_folder import RunFolder
from tests.finetune.test_fit import parameters
from tests.finetune.test_loop import gradients, make_model, make_rows, trainer

# Eleven bits, and some twenty roundings one after another on the way back.
ROUNDED = 2e-2


def half(dtype=torch.float16, **more):
    """A trainer in float16, or another dtype."""
    rows, prefix = make_rows(4)
    return trainer(make_model(dtype), rows, prefix, 60, **more)


def times(monkeypatch, factors) -> None:
    """Multiply the loss of each batch of tokens by a factor, the last one from then on."""
    factors = list(factors)

    def multiplied(*args):
        return batch_loss(*args) * (factors.pop(0) if len(factors) > 1 else factors[0])

    monkeypatch.setattr(loop, "batch_loss", multiplied)


def apart(found: dict, wanted: dict) -> float:
    """The distance of all gradients, relative to the wanted ones' size."""
    return math.sqrt(sum((found[name] - wanted[name]).square().sum() for name in wanted)
                     / sum(wanted[name].square().sum() for name in wanted))


def test_small_gradients_are_those_of_float32(monkeypatch):
    times(monkeypatch, [1e-7])
    rows, prefix = make_rows(4)
    found = {}
    for dtype in (torch.float32, torch.float16):
        some = trainer(make_model(dtype), rows, prefix, 60, clip=0.0)
        loss = some.step()["loss"]
        assert loss.dtype == torch.float32 and 1e-8 < loss < 1e-5  # that of the posts, not the scaled one
        found[dtype] = gradients(some.model)
    assert apart(found[torch.float16], found[torch.float32]) < ROUNDED
    unscaled = half(clip=0.0)
    unscaled.scaler.update(1.0)
    unscaled.step()
    assert apart(gradients(unscaled.model), found[torch.float32]) > 0.5


def test_gradients_are_nearer_than_those_of_bfloat16():
    rows, prefix = make_rows(4)
    found = {}
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        some = trainer(make_model(dtype), rows, prefix, 60)
        some.step()
        found[dtype] = gradients(some.model)
    wanted = found.pop(torch.float32)
    assert apart(found[torch.float16], wanted) < apart(found[torch.bfloat16], wanted) / 3  # three bits more


def test_a_float32_step_has_no_scale():
    rows, prefix = make_rows(4)
    line = trainer(make_model(torch.float32), rows, prefix).step()
    assert "scale" not in line and "scaler" not in trainer(make_model(torch.float32), rows, prefix).state()


def test_the_first_scale_is_found_on_the_first_posts(monkeypatch):
    times(monkeypatch, [3e3])
    some = half()
    before = parameters(some)
    line = figures(some.step())
    assert line["step"] == 1 and line["grad_norm"] > 0 and line["scale"] in [2.0**power for power in range(1, 16)]
    assert any(not torch.equal(before[name], value) for name, value in parameters(some).items())


def test_a_step_that_overflows_changes_nothing_but_the_scale(monkeypatch):
    some = half()
    first = figures(some.step())
    before, moments = parameters(some), copy.deepcopy(some.optimizer.state_dict()["state"])
    times(monkeypatch, [1e9])
    line = figures(some.step())
    assert line["step"] == 2 and line["grad_norm"] is None and math.isfinite(line["loss"])
    assert all(torch.equal(before[name], value) for name, value in parameters(some).items())
    after = some.optimizer.state_dict()["state"]
    assert all(torch.equal(after[number][name], part) for number, state in moments.items()
               for name, part in state.items())
    times(monkeypatch, [1.0])
    third = figures(some.step())
    assert third["scale"] == first["scale"] / 2 and third["grad_norm"] > 0
    assert any(not torch.equal(before[name], value) for name, value in parameters(some).items())
    assert overflowed([first, line, third])[0].startswith("1 step changed nothing, since a gradient was too large")
    assert overflowed([first, third, {"step": 3, "validation": {}}]) == []


def test_the_log_of_a_step_that_overflowed_is_read_again(monkeypatch, tmp_path):
    """By the end of the run, by a run that goes on, by an evaluation and by an audit."""
    some, run = half(), RunFolder(tmp_path, {})
    lines = []
    for factor in (1.0, 1e9, 1.0):
        times(monkeypatch, [factor])
        lines.append(figures(some.step()))
        run.append_log(lines[-1])
    assert [line["grad_norm"] is None for line in run.read_log()] == [False, True, False]
    run.cut_log(2)
    assert run.read_log() == lines[:2] and len(overflowed(run.read_log())) == 1
    for wrong in ({"loss": None}, {"grad_norm": None, "scale": None}, {"grad_norm": "x"}):
        run.append_log(lines[1] | wrong)
        with pytest.raises(UserError, match="line 3: is not a log's"):
            run.read_log()
        run.log_path.write_text("".join(json.dumps(line) + "\n" for line in lines[:2]))
    run.append_log({key: value for key, value in lines[1].items() if key != "scale"})
    with pytest.raises(UserError, match="line 3: is not a log's"):  # only a step with a scale can overflow
        run.read_log()


def ended(some, scale: float | None = None) -> list[dict]:
    """`fit` to its end; what it logged."""
    if scale is not None:
        some.scaler.update(scale)
    logged = []
    fit(some, Watch(), evaluate=None, on_best=None, save=lambda: None, log=logged.append, show=lambda line: None,
        eval_every=5, save_every=5, patience=0)
    return logged


def test_what_no_scale_makes_finite_ends_the_run(monkeypatch):
    times(monkeypatch, [float("nan")])
    with pytest.raises(NotFinite, match="step 1: the loss is nan"):
        ended(half(steps=2))
    times(monkeypatch, [1e30])
    with pytest.raises(NotFinite, match=r"step 1: the loss is .* norm (inf|nan); .*--dtype float32"):
        ended(half(steps=2))
    with pytest.raises(NotFinite, match=r"smaller --learning-rate$"):  # float32 is told nothing wider
        ended(half(steps=2, dtype=torch.float32))


def test_a_resumed_run_goes_on_to_the_bit():
    whole, again = half(steps=6), half(steps=6)
    for _ in range(2):
        whole.step()
    whole.scaler.update(2.0**9)
    state = copy.deepcopy(whole.state())
    assert state["scaler"]["scale"] == 2.0**9 and state["scaler"]["_growth_tracker"] == 2
    again.load_state(state)
    rest = [figures(again.step()) for _ in range(4)]
    assert rest == [figures(whole.step()) for _ in range(4)] and [line["step"] for line in rest] == [3, 4, 5, 6]
    assert all(torch.equal(value, parameters(again)[name]) for name, value in parameters(whole).items())


def test_a_run_of_another_dtype_goes_on():
    """On another card: the checkpoint knows no scale, or one that is not needed."""
    rows, prefix = make_rows(4)
    single, some = trainer(make_model(torch.float32), rows, prefix, 60), half()
    single.step()
    some.load_state(single.state())
    assert figures(some.step())["grad_norm"] > 0 and some.step_count == 2
    single.load_state(some.state())
    assert figures(single.step())["step"] == 3


@pytest.mark.parametrize("change", [{"scale": 0.0}, {"scale": math.inf}, {"scale": "x"}, {"_growth_tracker": -1},
                                    {"growth_factor": 3.0}, {"more": 1}, {"growth_interval": 10**12}])
def test_a_scale_that_cannot_be_is_refused(change):
    some = half()
    state = some.state()
    state["scaler"] |= change
    with pytest.raises(ValueError, match="scale of the loss is of another kind"):
        some.load_state(state)
    some.load_state(half().state())
