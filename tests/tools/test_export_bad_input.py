"""What can be wrong with an export: one line, exit 2, and nothing half-written.

Deliberate break: write into --out itself instead of `atomic_folder`, or let `check_options` allow a folder that is not
empty; the full disks, and the folder that was there before, turn red.
"""

import json
import os
import re
import shutil
import subprocess

import pytest

from tests.programs.hostile import World, call, in_an_empty_folder, listing, refused, shared_world, world  # noqa: F401
from tests.programs.test_bad_input_stops import full_disk
from tests.tools.exports import KINDS
from tools.export import __main__ as export


def words(world: World, kind: str = "merged", out="out", **more) -> list[str]:  # noqa: F811
    given = {"run": world.run, "to": kind, "out": out} | more
    return [word for name, value in given.items() for word in ([f"--{name.replace('_', '-')}", value])]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_wrong(world: World, tmp_path, kind):  # noqa: F811
    ended = call(export.main, *words(world, kind))
    assert ended.code == 0 and ended.err == "" and not list(tmp_path.glob(".*"))
    (tmp_path / "empty").mkdir()
    assert call(export.main, *words(world, kind, "empty")).code == 0
    assert listing(tmp_path / "empty").keys() == listing(tmp_path / "out").keys()


def test_options(world: World):  # noqa: F811
    run = world.run
    refused(export.main, "--run", run, "--to", "merged", says=("--out", "missing"))
    refused(export.main, "--run", run, "--out", "out", says=("--to", "missing", "gguf-q8_0"))
    refused(export.main, *words(world, "onnx"), says=("onnx", "peft, merged, bnb-4bit"))
    refused(export.main, *words(world), "--shard-size", "big", says=("--shard-size", "big", "5GB"))
    refused(export.main, *words(world), "--shard-size", "0MB", says="--shard-size")
    refused(export.main, *words(world), "--dtype", "int8", says=("int8", "bfloat16"))
    refused(export.main, *words(world), "--sharding", "5GB", says=("--sharding", "--shard-size"))
    for kind, option in (("peft", "--dtype=float32"), ("peft", "--base=nf4"), ("bnb-4bit", "--shard-size=1GB"),
                         ("merged", "--double"), ("gguf-f16", "--dtype=float16")):  # fmt: skip
        refused(export.main, *words(world, kind), option, says=(option.split("=")[0], "means nothing", kind))


def test_places(world: World, tmp_path):  # noqa: F811
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("a file")
    refused(export.main, *words(world, out="full"), says=("--out full", "not empty"))
    refused(export.main, *words(world, out="file"), says=("--out file", "is a file"))
    refused(export.main, *words(world, out="file/out"), says=("--out", "is a file"))


def test_runs(world: World, tmp_path):  # noqa: F811
    refused(export.main, *words(world, run="none"), says=("none", "no such run folder"))
    refused(export.main, *words(world, run=world.base), says="has no run.json")
    run = world.copy(world.run, tmp_path)
    facts = json.loads((run / "run.json").read_text())

    def write(**change):
        (run / "run.json").write_text(json.dumps(facts | change))

    write(finished=False)
    refused(export.main, *words(world, run=run), says=("stopped early", "--resume"))
    write(options=facts["options"] | {"model": "gone"})
    refused(export.main, *words(world, run=run), says=("gone", "--model"))
    write(hashes=facts["hashes"] | {"weights": {"config.json": "0" * 64}})
    refused(export.main, *words(world, run=run), says=("is not the file", "--model"))
    write(prompt=facts["prompt"] | {"tokenizer": "0" * 64})
    refused(export.main, *words(world, run=run), says=("another prompt", "tokenizer"))
    for key in ("rows", "step", "run_hash", "posts_seen"):
        (run / "run.json").write_text(json.dumps({name: value for name, value in facts.items() if name != key}))
        refused(export.main, *words(world, run=run), says=("run.json", key))
    write()
    shutil.rmtree(run / "adapter")
    refused(export.main, *words(world, run=run), says="has no adapter/")


def test_bases_that_are_not_there(world: World, tmp_path):  # noqa: F811
    run = world.copy(world.run, tmp_path)
    facts = json.loads((run / "run.json").read_text())
    facts["options"]["quantize"] = "none"
    (run / "run.json").write_text(json.dumps(facts))
    refused(export.main, *words(world, run=run, base="nf4"), says=("--base nf4", "--base original"))
    assert call(export.main, *words(world, run=run, base="original")).code == 0


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_adapters(world: World, tmp_path, kind):  # noqa: F811
    run = world.copy(world.run, tmp_path)
    path = run / "adapter" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refused(export.main, *words(world, kind, run=run), says=("adapter_model.safetensors", "not a whole"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("room", [100, 2_000, 8_000, 20_000])
def test_full_disk(world: World, tmp_path, kind, room):  # noqa: F811
    """Whichever file is the first that does not fit: a config, the weights, the vocabulary, the card."""
    with full_disk(room):
        refused(export.main, *words(world, kind), says=("File too large", "nothing was left behind"))
    assert listing(tmp_path) == {}


@pytest.mark.parametrize("room, says", [(2_000, "File too large"), (50_000, r"\d+ requested and \d+ written")])
def test_full_disk_and_a_gguf_file(world: World, tmp_path, room, says):  # noqa: F811
    """In its head, and in a tensor, which numpy writes: it says how much, and not why."""
    pytest.importorskip("gguf")
    with full_disk(room):
        ended = call(export.main, *words(world, "gguf-f16"))
    assert ended.code == 2 and re.search(rf"whole \({says}\); nothing was left behind\n", ended.err)
    assert listing(tmp_path) == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")
@pytest.mark.parametrize("kind", KINDS)
def test_a_disk_that_is_really_full(world: World, tmp_path, kind):  # noqa: F811
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount a small file system")
    try:
        ended = call(export.main, *words(world, kind, disk / "out"))
        assert ended.code == 2 and "No space left on device" in ended.err and ended.err.count("\n") == 1
        assert not list(disk.iterdir())
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_ctrl_c_leaves_nothing(world: World, tmp_path, monkeypatch):  # noqa: F811
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("tools.export.tensors.MergedTensors._read", interrupted)
    ended = call(export.main, *words(world))
    assert ended.code == 130 and ended.err == "stopped\n" and listing(tmp_path) == {}
