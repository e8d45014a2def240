"""Hashes beside what was recorded; steps done again, equal to the bit, or the first difference named.

Deliberate break: leave `torch.manual_seed(options.seed)` out of `replay` (dropout draws otherwise), or compare losses
with a tolerance.
"""

import contextlib
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from audit.provenance import code_sha256, elsewhere, hashes, plain, replay
from common.errors import UserError
from common.files import sha256_file
from finetune.recorded import recorded_data
from finetune.run_folder import RunFolder
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


def test_all_steps_done_again_end_in_the_adapter_that_was_kept(copied):
    steps = json.loads((copied / "run.json").read_text())["step"]
    found = replay(RunFolder.open(copied), 10**6)
    assert found["why"] is found["difference"] is None and found["steps"] == found["equal"] == steps > 5
    assert found["adapter"]["same"]
    assert [words for words in found["elsewhere"] if "commit" not in words] == []  # files may change while tests run
    some = replay(RunFolder.open(copied), 2)
    assert some["equal"] == 2 and some["adapter"] is None


def test_the_first_difference_is_named(copied):
    lines = (copied / "log.jsonl").read_text().splitlines()
    line = json.loads(lines[1])
    changed = line["grad_norm"] * (1 + 2**-23)  # the last bit of a float32
    lines[1] = json.dumps(line | {"grad_norm": changed})
    (copied / "log.jsonl").write_text("\n".join(lines) + "\n")
    found = replay(RunFolder.open(copied), 3)
    assert found["equal"] == 1 and found["steps"] == 3
    assert found["difference"] == {"step": 2, "figure": "grad_norm", "recorded": changed, "found": line["grad_norm"]}


def test_an_adapter_that_is_not_of_these_steps_is_named(copied):
    path = copied / "adapter-last" / "adapter_model.safetensors"
    tensors = load_file(path)
    name = sorted(tensors)[0]
    tensors[name][0, 0] += 0.5
    save_file(tensors, path)
    found = replay(RunFolder.open(copied), 10**6)["adapter"]
    assert not found["same"] and found["tensor"] in name and found["largest_difference"] == pytest.approx(0.5)


@pytest.mark.parametrize("what", ["data", "gpu", "log", "torn", "memory", "kind"])
def test_what_cannot_be_done_again_says_why(copied, what, tmp_path, place):
    facts = json.loads((copied / "run.json").read_text())
    words = {"data": "is not there with the bytes", "gpu": "cuda:0", "log": "no step", "memory": "memory_expected",
             "kind": "memory_expected", "torn": "line 1: is not a log's"}
    if what == "gpu":
        facts["environment"]["device"] = "cuda:0"
    elif what == "memory":
        del facts["memory_expected"]
    elif what == "kind":
        facts["memory_expected"]["micro_tokens"] = "many"
    elif what in ("log", "torn"):
        (copied / "log.jsonl").write_text("" if what == "log" else "[]\n")
    else:
        facts["hashes"]["data"] = dict.fromkeys(facts["hashes"]["data"], "0" * 64)
    (copied / "run.json").write_text(json.dumps(facts))
    found = replay(RunFolder.open(copied), 2)
    assert words[what] in found["why"] and found["steps"] == 0


def test_a_figure_without_a_number_can_be_written():
    assert [plain(value) for value in (torch.tensor(0.5), 3, float("inf"), torch.tensor(torch.nan))] == \
        [0.5, 3, "inf", "nan"]


def test_what_is_not_as_recorded_is_named(copied):
    run = RunFolder.open(copied)
    run.facts["environment"] |= {"commit": "0123456789abcdef+", "platform": "other"}
    run.facts["environment"]["packages"]["torch"] = "1.0"
    found = elsewhere(run)
    assert found[0].startswith("torch 1.0 then, ") and found[1].startswith("platform other then, Linux")
    assert found[2].startswith("commit of the code 012345678+ then, ") and len(found) == 3


def test_hashes_stand_beside_what_was_recorded(recorded, place, tmp_path):
    with contextlib.chdir(place):
        rows = {(row["what"], row["name"]): row for row in hashes(subject_of(recorded, place))}
    assert rows["weights", "model.safetensors"]["found"] == sha256_file(place / "tiny" / "model.safetensors")
    same = {key: row["same"] for key, row in rows.items()}
    assert same["weights", "model.safetensors"] and same["weights", "config.json"] and same["data", "train.jsonl"]
    assert same["question", "codebook"] and same["question", "prompt"] and same["run", "options and hashes"]
    assert same["code", "training and labelling"] is None
    assert rows["run", "adapter/adapter_model.safetensors"]["found"] == \
        sha256_file(recorded / "adapter" / "adapter_model.safetensors")
    subject = subject_of(recorded, place)
    subject.run.facts["hashes"]["data"]["train.jsonl"] = "0" * 64
    with contextlib.chdir(place):
        changed = {(row["what"], row["name"]): row["same"] for row in hashes(subject)}
    assert changed["data", "train.jsonl"] is False and changed["run", "options and hashes"] is False
    with contextlib.chdir(tmp_path):
        absent = {(row["what"], row["name"]): row for row in hashes(subject)}
    assert absent["data", "train.jsonl"]["found"] is None and absent["data", "train.jsonl"]["same"] is None


def test_a_recorded_hash_that_is_none_is_shown_as_it_is(recorded, place):
    subject = subject_of(recorded, place)
    subject.run.facts["environment"]["commit"] = -1
    subject.run.facts["hashes"]["prompt"] = ["x"]
    with contextlib.chdir(place):
        rows = {row["name"]: (row["recorded"], row["same"]) for row in hashes(subject)}
    assert rows["commit of the code"] == ("-1", False) and rows["prompt"] == ("['x']", False)


def test_data_that_train_never_wrote_are_refused(copied):
    run = RunFolder.open(copied)
    run.facts["hashes"]["data"] = ["train.jsonl"]
    with pytest.raises(UserError, match="hashes: data: is not what train"):
        recorded_data(run)


def test_the_code_is_hashed_by_name_and_bytes(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    for name in ("a/x.py", "a/y.py", "one.py"):
        (tmp_path / name).write_text(name)
    monkeypatch.setattr("audit.provenance.ROOT", tmp_path)
    monkeypatch.setattr("audit.provenance.CODE", ("a", "one.py"))
    first = code_sha256()
    assert first == code_sha256()
    (tmp_path / "a/y.py").rename(tmp_path / "a/z.py")
    assert code_sha256() != first
