"""Names on the Hugging Face Hub: the local cache first, then exactly the files that are read; every "no" is one line.

There is no network here: the cache is laid out as `huggingface_hub` does it and found by `huggingface_hub` itself; the
Hub's answers are its own error classes, raised by a stand-in for `snapshot_download`.

Deliberate break: in `hub.snapshot` leave out `cached()`, or give `_SMALL` the pattern "*"; cases below turn red.
"""

import builtins
import json
import shutil
import socket
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from common.errors import UserError
from loading import hub, load_model
from loading.cache import weights_sha256
from loading.sources import find_source
from lora.adapter import save_adapter
from lora.inject import inject
from tests.loading.meta import PARAMS, meta_state, write_meta
from tests.small import here, posts, write_base, write_jsonl
from tests.tiny import reference_model, write_checkpoint

huggingface_hub = pytest.importorskip("huggingface_hub")
constants, E = (pytest.importorskip(f"huggingface_hub.{name}") for name in ("constants", "errors"))
NAME, REVISION = "some-org/Tiny-1", "0123456789abcdef0123456789abcdef01234567"
IDS = torch.arange(30).view(2, 15)


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """An empty cache and an empty working folder, and no network: whoever tries to use one hears that there is none."""
    def no(*_, **__):
        raise OSError("there is no network")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, no)
    monkeypatch.setattr(socket, "getaddrinfo", no)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def put_into_cache(folder: Path, cache: Path, name: str = NAME, revision: str = REVISION) -> Path:
    """`folder` as a snapshot: files among the blobs, links to them in the snapshot, the commit in refs/main."""
    root = cache / f"models--{name.replace('/', '--')}"
    snapshot = root / "snapshots" / revision
    for part in (root / "blobs", root / "refs", snapshot):
        part.mkdir(parents=True, exist_ok=True)
    (root / "refs" / "main").write_text(revision)
    for path in folder.iterdir():
        shutil.copy(path, root / "blobs" / path.name)
        (snapshot / path.name).symlink_to(Path("../../blobs") / path.name)
    return snapshot


def failing(kind, status=None):
    """A stand-in for `snapshot_download` that has nothing in its cache and raises an error of the Hub's."""
    def download(*_, local_files_only=False, **__):
        if local_files_only:
            raise E.LocalEntryNotFoundError("not there")
        error = kind.__new__(kind)
        Exception.__init__(error, "first line\nsecond line")
        error.response = SimpleNamespace(status_code=status)
        raise error

    return download


def test_a_whole_snapshot_in_the_cache_is_used_without_a_network(tmp_path):
    base = write_base(tmp_path / "base")
    snapshot = put_into_cache(base, tmp_path / "hub")
    assert hub.snapshot(NAME) == snapshot == find_source(NAME).base == find_source(NAME).tokenizer
    with torch.no_grad():
        assert torch.equal(load_model(NAME)(IDS), load_model(base)(IDS))


def test_programs_take_a_name_and_a_run_remembers_it(tmp_path):
    base, cwd = write_base(tmp_path / "base"), Path.cwd()
    put_into_cache(base, tmp_path / "hub")
    write_jsonl(cwd / "posts.jsonl", posts(24, seed=1))
    quick = ("--max-steps", 1, "--batch-size", 4, "--rank", 2, "--micro-tokens", 4096, "--dtype", "float32")
    here("train.py", "--model", NAME, "--data", "posts.jsonl", "--out", "run", *quick, cwd=cwd)
    facts = json.loads((cwd / "run/run.json").read_text())
    assert facts["options"]["model"] == NAME and facts["hashes"]["weights"] == weights_sha256(base)
    assert json.loads((cwd / "run/adapter/adapter_config.json").read_text())["base_model_name_or_path"] == NAME
    here("classify.py", "--run", "run", "--input", "posts.jsonl", "--output", "labels.jsonl", cwd=cwd)
    assert find_source("run").base == find_source("run/adapter").base == hub.snapshot(NAME)
    shutil.rmtree(tmp_path / "hub")
    assert NAME in here("classify.py", "--run", "run", "--input", "posts.jsonl", "--output", "l.csv", cwd=cwd, code=2)


def test_an_adapter_in_the_cache_brings_its_base_of_a_certain_revision(tmp_path):
    base = write_base(tmp_path / "base")
    put_into_cache(write_base(tmp_path / "other", seed=1), tmp_path / "hub", "some-org/base", "f" * 40)  # refs/main
    model = load_model(base)
    inject(model, "q_proj", 2, 4)
    save_adapter(model, tmp_path / "adapter", "some-org/base")
    old = put_into_cache(base, tmp_path / "hub", "some-org/base", "a" * 40)
    (old.parent.parent / "refs" / "main").write_text("f" * 40)
    put_into_cache(tmp_path / "adapter", tmp_path / "hub")
    assert find_source(NAME).base.name == "f" * 40
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"revision": "a" * 40}))
    assert find_source(tmp_path / "adapter").base == old


REMOTE = {"tokenizer.model": b"1", "tokenizer_config.json": b"{}", "generation_config.json": b"{}", "README.md": b"",
          "original/consolidated.00.pth": b"", "original/params.json": b"{}", "pytorch_model.bin": b"",
          "onnx/model.onnx": b"", "onnx/config.json": b"{}", "LICENSE.txt": b"", "training_args.bin": b""}


def remote_folder(kind: str, folder: Path) -> set[str]:
    """What the Hub has of a model of this kind; returns what is needed of it."""
    if kind == "meta":
        write_meta(folder, PARAMS, meta_state(PARAMS), files=2)
        needed = {"params.json", "consolidated.00.pth", "consolidated.01.pth"}
    else:
        write_checkpoint(folder, reference_model(), max_shard_size="50GB" if kind == "one" else "50KB")
        needed = {path.name for path in folder.glob("model*")} | {"config.json"}
    for name, data in REMOTE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    if kind == "adapter":
        model = load_model(folder)
        inject(model, "q_proj", 2, 4)
        for path in folder.glob("model*"):
            path.unlink()
        (folder / "config.json").unlink()
        save_adapter(model, folder / "adapter", "base")
        for path in (folder / "adapter").iterdir():
            shutil.move(path, folder / path.name)
        needed = {"adapter_config.json", "adapter_model.safetensors"}
    return needed | {"tokenizer.model", "tokenizer_config.json", "generation_config.json"}


@pytest.mark.parametrize("there", ["nothing", "small files", "no tokenizer"])
@pytest.mark.parametrize("kind", ["one", "shards", "meta", "adapter"])
def test_exactly_the_needed_files_are_downloaded(tmp_path, monkeypatch, kind, there):
    remote, local = tmp_path / "remote", tmp_path / "snapshot"
    needed = remote_folder(kind, remote)
    if there == "small files":  # as other programs leave them
        local.mkdir()
        for path in remote.glob("*.json"):
            shutil.copy(path, local)
    elif there == "no tokenizer" and kind != "adapter":  # which seldom has one
        shutil.copytree(remote, local, ignore=lambda folder, names: set(names) - needed | {"tokenizer.model"})
    calls = []

    def download(name, *, revision, allow_patterns, local_files_only=False):
        assert (name, revision) == (NAME, None)
        calls.append(local_files_only)
        if local_files_only and not local.exists():
            raise E.LocalEntryNotFoundError("not there")
        for path in remote.rglob("*"):
            inside = str(path.relative_to(remote))
            if path.is_file() and not local_files_only and any(fnmatch(inside, wanted) for wanted in allow_patterns):
                (local / inside).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, local / inside)
        return str(local)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert hub.snapshot(NAME) == local
    assert {str(path.relative_to(local)) for path in local.rglob("*") if path.is_file()} == needed
    assert calls == [True, False, False]
    assert hub.snapshot(NAME, weights=False) == local and calls.pop()
    assert hub.snapshot(NAME) == local and calls == [True, False, False, True]


def test_what_fits_is_told_without_the_weights(tmp_path, monkeypatch):
    base, local = write_base(tmp_path / "base"), tmp_path / "snapshot"

    def download(name, *, revision, allow_patterns, local_files_only=False):
        if local_files_only:
            raise E.LocalEntryNotFoundError("not there")
        assert not any(fnmatch("model.safetensors", wanted) for wanted in allow_patterns)
        local.mkdir(exist_ok=True)
        shutil.copy(base / "config.json", local)
        return str(local)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert here("tools.memory", "--model", NAME, cwd=Path.cwd()) == here("tools.memory", "--model", base,
                                                                                 cwd=Path.cwd())


ANSWERS = {
    "is gated: accept its licence at https://huggingface.co/some-org/Tiny-1, then log in": (E.GatedRepoError, 401),
    "accept its licence at https://huggingface.co/some-org/Tiny-1 and wait": (E.GatedRepoError, 403),
    "no such model on the Hugging Face Hub; check the spelling": (E.RepositoryNotFoundError, 404),
    "has no such revision": (E.RevisionNotFoundError, 404),
    "was disabled": (E.DisabledRepoError, 403),
    "cannot be reached; with a network, `hf download some-org/Tiny-1`": (E.LocalEntryNotFoundError, None),
    "the Hugging Face Hub cannot be reached": (E.OfflineModeIsEnabled, None),
    "Hub cannot be reached": (ConnectionResetError, None),
    "could not be fetched from the Hugging Face Hub (HfHubHTTPError: first line)": (E.HfHubHTTPError, 500),
    "could not be fetched from the Hugging Face Hub (OSError: first line)": (OSError, None),
}


@pytest.mark.parametrize("line", ANSWERS)
def test_what_the_hub_answers_is_one_line(monkeypatch, line):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", failing(*ANSWERS[line]))
    with pytest.raises(UserError) as caught:
        load_model(NAME)
    assert str(caught.value).startswith(f"{NAME}: ") and line in str(caught.value)
    assert "second" not in str(caught.value)


def test_a_whole_model_without_a_tokenizer_is_taken_where_there_is_no_network(tmp_path):
    base = write_base(tmp_path / "base")
    (base / "tokenizer.model").unlink()
    snapshot = put_into_cache(base, tmp_path / "hub")
    assert find_source(NAME).base == snapshot


def test_without_network_and_cache(monkeypatch):
    """The real `huggingface_hub`, which finds no network; the programs end in one line."""
    error = here("train.py", "--model", NAME, "--out", "run", cwd=Path.cwd(), code=2)
    assert "Hub cannot be reached" in error and not list(Path.cwd().iterdir())


def test_a_part_in_the_cache_is_not_taken_for_the_whole(tmp_path):
    snapshot = put_into_cache(write_base(tmp_path / "base"), tmp_path / "hub")
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"Tiny-1: (.* is not complete: the|.*cannot be reached)"):
        load_model(NAME)


def test_without_the_extra(monkeypatch):
    real = builtins.__import__

    def missing(name, *words):
        if name.startswith("huggingface_hub"):
            raise ImportError(name)
        return real(name, *words)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UserError, match=r"Tiny-1: there is no such folder; .* pip install huggingface_hub"):
        load_model(NAME)


def test_paths_are_never_asked_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", failing(AssertionError))
    (Path.cwd() / "runs").mkdir()
    for path in ("nowhere", "runs/mine", "./a/b", "../a", "a/b/c", "/no/such", "~/x", tmp_path / "gone" / "x"):
        with pytest.raises(UserError, match="there is no such folder; give a checkpoint folder"):
            load_model(path)
    for name in ("a--b/c", "a/b."):
        assert hub.is_name(name) and not hub.is_name(f"/{name}")
