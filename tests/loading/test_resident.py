"""When the dense copy of 4-bit weights is made: the option in its three forms, by room, and what is said.

Deliberate break: in `loading/resident.py` leave `beside` out of the sum, or drop its test for "cuda".
"""

from types import SimpleNamespace

import pytest
import torch

from common.errors import UserError
from common.options import parse_options
from finetune.memory import MemoryPlan
from finetune.options import TrainOptions
from inference import labeller
from inference.labeller import LARGE, MICRO_TOKENS, beside_bytes, choose_micro_tokens
from inference.options import LabelOptions
from loading import resident
from loading.choice import SHARE
from loading.resident import ResidentOptions
from quant.convert import replace_linears, resident_bytes
from tests.small import random_model

GPU = torch.device("cuda")


class OnGpu:
    """A model that says it is on a GPU."""

    def __init__(self, model):
        self.model, self.device, self.dtype, self.config = model, GPU, model.dtype, model.config

    def modules(self):
        return self.model.modules()


@pytest.fixture
def model():
    model = random_model()
    replace_linears(model)
    return model


def is_kept(model) -> bool:
    return any(getattr(module, "resident", None) is not None for module in model.modules())


@pytest.mark.parametrize("options", [TrainOptions, LabelOptions])
@pytest.mark.parametrize(("words", "value"), [
    ([], "auto"), (["--resident"], "on"), (["--no-resident"], "off"), (["--resident", "auto"], "auto"),
    (["--resident", "on"], "on"), (["--resident", "off"], "off"), (["--resident", "--threads", "1"], "on"),
])  # fmt: skip
def test_a_bare_flag_means_on(options, words, value):
    if "--threads" in words and options is LabelOptions:
        words = ["--resident", "--exact"]
    assert parse_options(options, words, program="x", description="").resident == value


@pytest.mark.parametrize(("line", "value"), [("true", "on"), ("false", "off"), ('"auto"', "auto")])
def test_a_file_may_say_true_or_false(tmp_path, line, value):
    (tmp_path / "o.toml").write_text(f"resident = {line}\n")
    words = ["--config", str(tmp_path / "o.toml")]
    assert parse_options(LabelOptions, words, program="x", description="").resident == value
    with pytest.raises(UserError, match="'maybe' is not one of auto, on, off"):
        parse_options(LabelOptions, ["--resident", "maybe"], program="x", description="")


@pytest.mark.parametrize("beside", [0, 10_000])
def test_auto_keeps_it_on_a_gpu_with_room_for_what_is_beside_it(model, beside, monkeypatch, capsys):
    size = resident_bytes(model, torch.float32)
    enough = int((size + beside) / SHARE) + 1
    for free, kept in ((enough - 10, False), (enough, True)):
        monkeypatch.setattr(resident, "available_memory", lambda device, free=free: free)
        assert ResidentOptions().keep_dense(OnGpu(model), beside) == (size if kept else 0)
        assert is_kept(model) == kept
        said = capsys.readouterr().out
        assert said.startswith("  no dense copy") != kept and "free" in said and said.count("\n") == 1


def test_on_a_cpu_auto_is_off_and_silent(model, capsys):
    assert ResidentOptions().keep_dense(model) == ResidentOptions("off").keep_dense(OnGpu(model)) == 0
    assert ResidentOptions().keep_dense(OnGpu(random_model())) == 0  # nothing is in 4 bits
    assert not is_kept(model) and capsys.readouterr().out == ""
    assert ResidentOptions("on").keep_dense(model) == resident_bytes(model, torch.float32) and is_kept(model)
    assert "for a dense copy" in capsys.readouterr().out


def test_on_without_room_is_one_line(model, monkeypatch):
    monkeypatch.setattr(resident, "available_memory", lambda device: 1000)
    with pytest.raises(UserError, match="--resident: the dense copy takes"):
        ResidentOptions("on").keep_dense(model)


def test_a_plan_with_a_copy_beside_it():
    plan = MemoryPlan(512, False, 100, 20, 30, 400)
    after = plan.beside(50)
    assert (after.model, after.available, after.total) == (150, 350, plan.total + 50) and plan.beside(0) == plan


def test_a_gpu_with_room_labels_more_at_once(monkeypatch):
    model = SimpleNamespace(device=GPU, dtype=torch.bfloat16, config=random_model().config)
    for size in (LARGE, LARGE // 2, MICRO_TOKENS):
        need = int(beside_bytes(model, size) / SHARE)
        monkeypatch.setattr(labeller, "available_memory", lambda device, free=need + 10: free)
        assert choose_micro_tokens(model) == size
    monkeypatch.setattr(labeller, "available_memory", lambda device: 2**40)
    model.device = torch.device("cpu")
    assert choose_micro_tokens(model) == MICRO_TOKENS
