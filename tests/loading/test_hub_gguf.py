"""`org/name:Q4_K_M`: the one GGUF file of that quantisation, and nothing else, from a Hub that is a folder here.

Deliberate break: in `hub.gguf_patterns`, let a name end in the quantisation without a sign before it; BF16's file
is then one of F16's, and cases below turn red.
"""

import shutil
from fnmatch import fnmatch
from types import SimpleNamespace

import pytest

from common.errors import UserError
from loading import hub, load_model
from loading.sources import find_source
from tests.loading.test_hub import NAME, E, alone, failing, huggingface_hub  # noqa: F401 - `alone` is a fixture

REMOTE_GGUF = ("m-Q4_K_M.gguf", "m-IQ4_NL.gguf", "m.q8_0.gguf", "m-BF16.gguf", "F16.gguf", "config.json",
               "Q6_K/m-Q6_K-00001-of-00002.gguf", "Q6_K/m-Q6_K-00002-of-00002.gguf", "tokenizer.json",
               "m-Q4_K_M.gguf.txt", "a/m-Q5_0.gguf", "b/m-Q5_0.gguf")  # fmt: skip
KINDS = {"Q4_K_M": ["m-Q4_K_M.gguf"], "q4_k_m": ["m-Q4_K_M.gguf"], "Q8_0": ["m.q8_0.gguf"], "F16": ["F16.gguf"],
         "Q6_K": ["Q6_K/m-Q6_K-00001-of-00002.gguf", "Q6_K/m-Q6_K-00002-of-00002.gguf"]}  # fmt: skip


@pytest.fixture
def ggufs(tmp_path, monkeypatch):
    """A repository of GGUF files; `calls` gets a line for each question."""
    remote, local, calls = tmp_path / "remote", tmp_path / "snapshot", []
    for name in REMOTE_GGUF:
        (remote / name).parent.mkdir(parents=True, exist_ok=True)
        (remote / name).write_bytes(b"GGUF" + name.encode())

    def download(name, *, revision, allow_patterns, local_files_only=False):
        assert name == NAME
        calls.append(local_files_only)
        for path in remote.rglob("*"):
            inside = str(path.relative_to(remote))
            if path.is_file() and not local_files_only and any(fnmatch(inside, wanted) for wanted in allow_patterns):
                (local / inside).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, local / inside)
        if local_files_only and not local.exists():
            raise E.LocalEntryNotFoundError("not there")
        local.mkdir(exist_ok=True)
        return str(local)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return SimpleNamespace(remote=remote, local=local, calls=calls)


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantisation_of_a_repository_is_the_file_of_that_name(ggufs, kind):
    expected = ggufs.local / KINDS[kind][0]
    assert hub.snapshot(f"{NAME}:{kind}") == expected == find_source(f"{NAME}:{kind}").base
    there = sorted(str(path.relative_to(ggufs.local)) for path in ggufs.local.rglob("*") if path.is_file())
    assert there == KINDS[kind] and ggufs.calls == [True, False, True]


def test_a_quantisation_that_is_not_there_or_not_one_file(ggufs):
    for kind in ("Q4_K", "4_K_M", "NL", "Q4_NL", "K_M"):
        with pytest.raises(UserError, match=rf"^{NAME}:{kind}: .* name ends with {kind}; .*{NAME}/tree/main lists"):
            hub.snapshot(f"{NAME}:{kind}")
    with pytest.raises(UserError, match=r"holds 2 GGUF files; give one of them"):
        hub.snapshot(f"{NAME}:Q5_0")
    (ggufs.remote / "Q6_K" / "m-Q6_K-00002-of-00002.gguf").unlink()
    with pytest.raises(UserError, match=r"has no whole GGUF file"):
        hub.snapshot(f"{NAME}:Q6_K")
    with pytest.raises(UserError, match=rf"A GGUF file has a name of its own: {NAME}:Q4_K_M"):
        hub.snapshot(NAME)


def test_a_quantisation_when_the_hub_says_no(monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", failing(E.GatedRepoError, 401))
    with pytest.raises(UserError, match=rf"{NAME}:Q4_0: is gated: .* https://huggingface.co/{NAME}, then log in"):
        load_model(f"{NAME}:Q4_0")
