"""Hashes beside what was recorded: of the base, the data, the adapter, the list of training texts, the code.

Deliberate break: leave `MADE` out of `hashes`, take `trained.stored` for `trained.texts`, or let `base_of` fetch.
"""

import contextlib
import json
import os
import shutil

import pytest

from audit import origin
from audit.provenance import KEPT, code_sha256, hashes
from audit.trained import Trained, base_of
from common.errors import UserError
from common.files import sha256_file
from finetune.recorded import recorded_data
from finetune.run_folder import MADE, RunFolder
from tests.audit.conftest import make, subject_of
from tests.small import here


@pytest.fixture(scope="module")
def recorded(place):
    return make(place, "nf4", "--quantize", "nf4")


@pytest.fixture
def copied(recorded, tmp_path, place, monkeypatch):
    monkeypatch.chdir(place)
    shutil.copytree(recorded, tmp_path / "run")
    return tmp_path / "run"


def hashed(subject, place, base=None):
    """Rows by kind and name."""
    trained = Trained.of(subject.run, str(base or place / "tiny"))
    return {(row["what"], row["name"]): row for row in hashes(subject, trained)}


def said(rows) -> str:
    return origin.said_of_provenance({"hashes": list(rows.values()), "replay": None})


def test_hashes_stand_beside_what_was_recorded(recorded, place, tmp_path):
    with contextlib.chdir(place):
        rows = hashed(subject_of(recorded, place), place)
    assert rows["weights", "model.safetensors"]["found"] == sha256_file(place / "tiny" / "model.safetensors")
    same = {key: row["same"] for key, row in rows.items()}
    assert same["weights", "model.safetensors"] and same["weights", "config.json"] and same["data", "train.jsonl"]
    assert same["question", "codebook"] and same["question", "prompt"] and same["run", "options and hashes"]
    assert same["code", "training and labelling"] is None
    assert all(same["run", name] for name in MADE) and same["run", "training_texts.json, made again from the data"]
    assert "was not checked" not in said(rows)
    subject = subject_of(recorded, place)
    subject.run.facts["hashes"]["data"]["train.jsonl"] = "0" * 64
    with contextlib.chdir(place):
        changed = {key: row["same"] for key, row in hashed(subject, place).items()}
    assert changed["data", "train.jsonl"] is False and changed["run", "options and hashes"] is False
    with contextlib.chdir(tmp_path):
        absent = hashed(subject, place)
    assert absent["data", "train.jsonl"]["found"] is None and absent["data", "train.jsonl"]["same"] is None


def test_a_changed_adapter_log_or_list_differs_from_its_recorded_hash(copied, place):
    path = copied / "adapter" / "adapter_model.safetensors"
    whole = bytearray(path.read_bytes())
    whole[-1000] ^= 1
    path.write_bytes(whole)
    with open(copied / "log.jsonl", "a") as log:
        log.write('{"step": 99, "loss": 0.1}\n')
    rows = hashed(subject_of(copied, place), place)
    wrong = [name for (_, name), row in rows.items() if row["same"] is False and "commit" not in name]
    assert wrong == ["adapter/adapter_model.safetensors", "log.jsonl"]
    words = said(rows)
    assert "adapter/adapter_model.safetensors, log.jsonl" in words and "differ from what was recorded" in words


def test_a_run_of_an_earlier_version_says_what_was_not_checked(copied, place):
    subject = subject_of(copied, place)
    for files in (None, ["x"]):
        subject.run.facts["files"] = files
        rows = hashed(subject, place)
        assert rows["run", MADE[0]]["recorded"] is None and rows["run", MADE[0]]["same"] is None
        assert "the adapter's file itself was not checked" in said(rows)


def test_an_emptied_list_of_training_texts_is_seen_and_not_used(copied, place):
    path = copied / "training_texts.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"exact": [], "same": []}))
    subject = subject_of(copied, place)
    subject.run.facts["files"]["training_texts.json"] = sha256_file(path)  # whoever empties it can write that, too
    rows = hashed(subject, place)
    assert rows["run", "training_texts.json"]["same"]
    assert rows["run", "training_texts.json, made again from the data"]["same"] is False
    trained = Trained.of(subject.run, str(place / "tiny"))
    assert not trained.stored.exact and len(trained.texts.exact) == 24
    told = here("audit", "--run", copied, "--model", "tiny", "--data", "train.jsonl", "--out", copied / "out",
                "--threads", 1, cwd=place, code=2)
    assert "all 24 test posts were trained on" in told
    path.write_text("[" * 10**6)
    assert hashed(subject, place)["run", "training_texts.json, made again from the data"]["same"] is False


def test_without_its_data_the_list_in_the_folder_is_taken(copied, place):
    run = RunFolder.open(copied)
    run.facts["hashes"]["data"] = {"gone.jsonl": "0" * 64}
    trained = Trained.of(run, str(place / "tiny"))
    assert trained.prepared is trained.posts is None and "gone.jsonl: is not there" in trained.why
    assert len(trained.texts.exact) == 24
    (copied / "training_texts.json").write_text("{")
    with pytest.raises(UserError, match="training_texts"):
        Trained.of(run, str(place / "tiny"))


def test_recorded_weights_that_are_gone_are_listed(copied, place):
    subject = subject_of(copied, place)
    subject.run.facts["hashes"]["weights"]["model-00002.safetensors"] = "f" * 64
    rows = hashed(subject, place)
    row = rows["weights", "model-00002.safetensors"]
    assert row["found"] is None and row["same"] is None and row["recorded"] == "f" * 64
    assert "model-00002.safetensors could not be checked" in said(rows)


def test_a_file_that_cannot_be_read_is_no_reason_to_lose_the_audit(copied, place):
    (copied / "log.jsonl").unlink()
    os.mkfifo(copied / "log.jsonl")
    subject = subject_of(copied, place)
    subject.run.facts["hashes"]["data"]["/dev/zero"] = "0" * 64
    rows = hashed(subject, place)
    assert rows["run", "log.jsonl"]["found"] is None and rows["data", "/dev/zero"]["found"] is None


def test_a_stranger_s_base_is_not_fetched(copied, monkeypatch):
    asked = []

    def fetched(*_, local_files_only=False, **__):
        from huggingface_hub.errors import LocalEntryNotFoundError

        asked.append(local_files_only)
        raise LocalEntryNotFoundError("none")

    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub, "snapshot_download", fetched)
    run = RunFolder.open(copied)
    run.facts["options"]["model"] = "attacker/evil"
    with pytest.raises(UserError, match="fetches nothing that a run's file names; if you trust it, --model attacker"):
        base_of(run, None)
    assert asked == [True]  # the local cache alone
    assert base_of(run, "attacker/evil") == "attacker/evil" and base_of(RunFolder.open(copied), None) == "tiny"


def test_a_recorded_hash_that_is_none_is_shown_as_it_is(recorded, place):
    subject = subject_of(recorded, place)
    subject.run.facts["environment"]["commit"] = -1
    subject.run.facts["hashes"]["prompt"] = ["x"]
    with contextlib.chdir(place):
        rows = {row["name"]: (row["recorded"], row["same"]) for row in hashed(subject, place).values()}
    assert rows["commit of the code"] == ("-1", False) and rows["prompt"] == ("['x']", False)


def test_the_page_says_what_equal_hashes_do_not_show(recorded, place):
    with contextlib.chdir(place):
        rows = hashed(subject_of(recorded, place), place)
    shown = " ".join(map(str, origin.provenance({"hashes": list(rows.values()), "replay": None})))
    assert "can write their new hashes into run.json" in KEPT
    assert KEPT.replace("'", "&#x27;") in shown


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
