"""train.py in float16: a killed run goes on to the bit, and a step that overflows is told and ends nothing.

Deliberate break: in finetune/loop.py leave "scaler" out of `state`; in finetune/run_folder.py let `_log_line` refuse a
`grad_norm` of None.
"""

import pytest

from common.errors import UserError
from finetune import loop
from tests.programs.test_train import adapter, log, train
from tests.small import here, posts, write_base, write_jsonl


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("float16")
    write_base(folder / "tiny")
    write_jsonl(folder / "train.jsonl", posts(60, 1))
    return folder


def test_a_run_in_float16_has_a_scale_and_goes_on_to_the_bit(place):
    words = ("--dtype", "float16", "--max-steps", "6", "--save-every", "2", "--validation", "0")
    train(place, "half", *words)
    lines = log(place / "half")
    assert {line["scale"] for line in lines} in ({2.0**16}, {2.0**15}, {2.0**14})
    assert all(line["grad_norm"] > 0 for line in lines)
    step = loop.Trainer.step

    def killed(self):
        if self.step_count == 3:
            raise UserError("stopped")
        return step(self)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop.Trainer, "step", killed)
        train(place, "stopped", *words, code=2)
    here("train.py", "--resume", "--out", "stopped", cwd=place)
    assert log(place / "stopped") == lines and adapter(place / "stopped") == adapter(place / "half")


def test_a_float16_step_that_overflows_is_told_and_does_not_end_the_run(place, monkeypatch):
    found, calls = loop.batch_loss, []

    def large(*args):
        calls.append(args)
        return found(*args) * (1e9 if len(calls) in (3, 4) else 1)

    monkeypatch.setattr(loop, "batch_loss", large)
    said = train(place, "large", "--dtype", "float16", "--max-steps", "9", "--validation", "0")
    steps = log(place / "large")
    skipped = [line["step"] for line in steps if line["grad_norm"] is None]
    assert len(steps) == 9 and 1 <= len(skipped) <= 2
    assert f"  {len(skipped)} step{'s' * (len(skipped) > 1)} changed nothing, since a gradient was too large" in said
    assert steps[-1]["scale"] == steps[0]["scale"] / 2 ** len(skipped)
