"""Recorded steps done again, equal to the bit or the first difference named; and the adapter that is audited compared.

Deliberate break: leave `torch.manual_seed` out of `replay` (dropout draws otherwise), compare losses with a tolerance,
or let `same_adapter` compare A and B alone, or adapter-last/.
"""

import json
import math
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from audit import origin
from audit.replay import chosen_step, elsewhere, plain, replay
from audit.trained import Trained
from finetune.run_folder import RunFolder, environment
from tests.audit.conftest import make, subject_of


@pytest.fixture(scope="module")
def recorded(place):
    """A run with dropout, validation posts and steps cut into pieces; programs look for its files where it was made."""
    return make(place, "recorded", "--quantize", "nf4", "--dropout", "0.1", "--validation", "0.2", "--eval-every", "2",
                "--batch-size", "5", "--micro-tokens", "300")


@pytest.fixture
def copied(recorded, tmp_path, place, monkeypatch):
    monkeypatch.chdir(place)
    shutil.copytree(recorded, tmp_path / "run")
    return tmp_path / "run"


def again(path, place, steps=10**6):
    """`replay` of the run in `path`, whose adapter is read as an audit reads it."""
    subject = subject_of(path, place)
    return replay(subject.run, subject.model, Trained.of(subject.run, str(place / "tiny")), steps)


def change(path, **keys):
    facts = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps(facts | keys))


def test_steps_done_again_come_to_the_adapter_that_is_audited(copied, place):
    facts = json.loads((copied / "run.json").read_text())
    found = again(copied, place)
    assert found["why"] is found["difference"] is None and found["steps"] == found["equal"] == facts["step"] > 5
    assert found["chosen"] == facts["best"]["step"] <= facts["step"] == found["recorded"]
    assert found["adapter"] == {"same": True, "what": None, "largest_difference": 0.0}
    assert found["posts"]["done"] == found["posts"]["all"] > 15
    assert [words for words in found["elsewhere"] if "commit" not in words] == []  # files may change while tests run
    said = origin.said_of_steps(found)
    assert f"Of {facts['step']} recorded steps, {facts['step']} were done again, all equal to the bit." in said
    assert f"adapter/, is to the bit that of step {found['chosen']}." in said and "not tested" not in said


def test_of_some_steps_no_more_is_claimed(copied, place):
    change(copied, best={"macro_f1": 0.5, "step": 3})
    found = again(copied, place, 1)
    assert found["equal"] == 1 and found["adapter"] is None and found["posts"]["done"] == 5
    said, left = origin.said_of_steps(found), found["posts"]["all"] - 5
    assert "1 was done again, equal to the bit." in said and "was not compared: it is that of step 3." in said
    assert f"{left} of {left + 5} training posts are in none of these steps, and were not tested." in said
    assert "No step was done again" in origin.said_of_steps(None)


def test_the_first_difference_is_named(copied, place):
    lines = (copied / "log.jsonl").read_text().splitlines()
    line = json.loads(lines[1])
    changed = line["grad_norm"] * (1 + 2**-23)  # the last bit of a float32
    lines[1] = json.dumps(line | {"grad_norm": changed})
    (copied / "log.jsonl").write_text("\n".join(lines) + "\n")
    found = again(copied, place, 3)
    assert found["equal"] == 1 and found["steps"] == 3
    assert found["difference"] == {"step": 2, "figure": "grad_norm", "recorded": changed, "found": line["grad_norm"]}
    assert "of which 1 is equal to the bit before the first difference: step 2, grad_norm" in \
        origin.said_of_steps(found)


def test_steps_with_other_numbers_are_not_these_steps(copied, place):
    lines = (copied / "log.jsonl").read_text().splitlines()
    lines[0] = json.dumps(json.loads(lines[0]) | {"step": 10**18})
    (copied / "log.jsonl").write_text("\n".join(lines) + "\n")
    found = again(copied, place, 2)
    assert found["equal"] == 0 and found["difference"]["figure"] == "step" and found["difference"]["found"] == 1


def test_a_poisoned_adapter_is_not_certified(copied, place):
    """adapter/ is what is loaded; adapter-last/ beside it is left as it was."""
    path = copied / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file({name: -tensor if "lora_B" in name else tensor for name, tensor in tensors.items()}, path,
              metadata={"format": "pt"})
    found = again(copied, place)
    assert found["difference"] is None and not found["adapter"]["same"] and "lora_B" in found["adapter"]["what"]
    assert found["adapter"]["largest_difference"] > 0
    assert "adapter/, is not that of step" in origin.said_of_steps(found)


@pytest.mark.parametrize("key, value, words", [
    ("lora_alpha", 320, "alpha of layers.0.self_attn.q_proj is 320"), ("use_rslora", True, "rslora of")])
def test_settings_that_scale_the_adapter_are_compared(copied, place, key, value, words):
    path = copied / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    found = again(copied, place)["adapter"]
    assert not found["same"] and found["what"].startswith(words) and "in training" in found["what"]


def test_linears_without_an_adapter_are_named(copied, place):
    path = copied / "adapter" / "adapter_config.json"
    config = json.loads(path.read_text())
    left = [name for name in config["target_modules"] if name != "q_proj"]
    path.write_text(json.dumps(config | {"target_modules": left}))
    tensors = load_file(copied / "adapter" / "adapter_model.safetensors")
    save_file({name: tensor for name, tensor in tensors.items() if "q_proj" not in name},
              copied / "adapter" / "adapter_model.safetensors")
    assert again(copied, place)["adapter"]["what"] == "layers.0.self_attn.q_proj carries one in training alone"


@pytest.mark.parametrize("what", ["garbage", "empty", "pipe", "gone"])
def test_a_hostile_adapter_last_is_not_even_read(copied, place, what):
    folder = copied / "adapter-last"
    if what == "garbage":
        (folder / "adapter_model.safetensors").write_bytes(b"garbage")
    else:
        shutil.rmtree(folder)
    if what == "empty":
        folder.mkdir()
    elif what == "pipe":
        folder.mkdir()
        os.mkfifo(folder / "adapter_model.safetensors")
    found = again(copied, place)
    assert found["why"] is None and found["adapter"]["same"]


@pytest.mark.parametrize("what", ["data", "gpu", "log", "torn", "pipe", "memory", "kind", "dtype", "huge"])
def test_what_cannot_be_done_again_says_why(copied, what, place, monkeypatch):
    facts = json.loads((copied / "run.json").read_text())
    words = {"data": "is not there with the bytes", "gpu": "cuda:0", "log": "no step", "memory": "memory_expected",
             "kind": "memory_expected", "torn": "line 1: is not a log's", "pipe": "a pipe or a device",
             "dtype": "float99", "huge": "not enough memory"}
    if what == "gpu":
        facts["environment"]["device"] = "cuda:0"
    elif what == "memory":
        del facts["memory_expected"]
    elif what == "kind":
        facts["memory_expected"]["micro_tokens"] = "many"
    elif what == "dtype":
        facts["environment"]["dtype"] = "float99"
    elif what == "huge":
        def no_room(*_, **__):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

        monkeypatch.setattr("audit.replay.load_model", no_room)
    elif what == "pipe":
        (copied / "log.jsonl").unlink()
        os.mkfifo(copied / "log.jsonl")
    elif what in ("log", "torn"):
        (copied / "log.jsonl").write_text("" if what == "log" else "[]\n")
    else:
        facts["hashes"]["data"] = dict.fromkeys(facts["hashes"]["data"], "0" * 64)
    (copied / "run.json").write_text(json.dumps(facts))
    found = again(copied, place, 2)
    assert words[what] in found["why"] and found["steps"] == 0
    assert "No step could be done again" in origin.said_of_steps(found)


def test_the_step_that_chose_the_adapter(copied):
    run = RunFolder.open(copied)
    run.facts |= {"best": None, "step": 7}
    assert chosen_step(run) == 7
    run.facts["best"] = {"step": "x"}
    assert chosen_step(run) is None


def test_a_figure_without_a_number_can_be_written():
    assert [plain(value) for value in (0.5, 3, None, math.inf, math.nan)] == [0.5, 3, None, "inf", "nan"]


def test_what_is_not_as_recorded_is_named(copied):
    run = RunFolder.open(copied)
    run.facts["environment"] |= {"commit": "0123456789abcdef+", "platform": "other"}
    run.facts["environment"]["packages"]["torch"] = "1.0"
    found = elsewhere(run)
    assert found[0].startswith("torch 1.0 then, ") and found[1].startswith("platform other then, Linux")
    assert found[2].startswith("commit of the code 012345678+ then, ") and len(found) == 3


def test_several_processes_explain_other_bits():
    """Deliberate break: in audit/replay.py leave "processes" out of `elsewhere`."""
    facts = {"environment": environment(torch.device("cpu")) | {"processes": 3}}
    assert elsewhere(RunFolder(Path("run"), facts)) == ["3 processes then, 1 now"], facts
