"""Merged tensors one by one: the bits of a merge in memory, transformers' shards, and the memory of one tensor.

Deliberate break: let `MergedTensors.items` be `dict(...)` of all (the memory test), give a tensor that is larger than a
shard no file of its own in `plan_shards`, or merge in the dtype asked for instead of float32; cases below turn red.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.exports import merge
from common.errors import UserError
from common.files import ROOT
from loading import load_model
from loading.weights import INDEX
from tests.small import random_model, write_base
from tests.tiny import reference_model, write_checkpoint
from tests.tools.exports import ODD, PARITY, logits, make_run, train_run
from tools.export.options import shard_bytes
from tools.export.tensors import MergedTensors, build_model, plan_shards, write_shards


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on a base of odd shape with an adapter that shows."""
    root = tmp_path_factory.mktemp("run")
    return make_run(root / "made", train_run(root, **ODD), root / "base")


@pytest.mark.parametrize("quantize", ["none", "nf4", "nf4-double"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bits_of_a_merge_in_memory(run, quantize, dtype):
    base = run.parent / "base"
    model = load_model(base, quantize=quantize, adapter=run / "adapter", dtype=torch.float32)
    merge(model, dtype)
    tensors = MergedTensors(base, adapter=run / "adapter", quantize=quantize, dtype=dtype)
    exact = dict(model.named_parameters())
    assert list(tensors) == list(tensors.layout) and set(tensors) == set(exact)
    for name, tensor in tensors.items():
        assert tensors.layout[name] == (dtype, tuple(tensor.shape)) and tensor.dtype == dtype
        assert torch.equal(tensor, exact[name].to(dtype)), name


def test_nothing_is_rounded_unless_asked(tmp_path):
    """dtype None: what was computed is float32, what was read is as in the file."""
    base = write_base(tmp_path / "base", torch_dtype="bfloat16")
    save_file(random_model(dtype=torch.bfloat16).state_dict(), base / "model.safetensors")
    tensors = MergedTensors(base, quantize="nf4")
    for name, tensor in tensors.items():
        assert tensor.dtype == tensors.layout[name][0] == (torch.float32 if name in tensors.linears else torch.bfloat16)
    assert MergedTensors(base, dtype="stored").dtype == torch.bfloat16


def test_a_model_built_from_tensors_is_the_merged_one(run):
    base = run.parent / "base"
    tensors = MergedTensors(base, adapter=run / "adapter", quantize="nf4", dtype=torch.float32)
    model = load_model(base, quantize="nf4", adapter=run / "adapter", dtype=torch.float32)
    merge(model, torch.float32)
    built, exact = build_model(tensors.config, tensors.items()), dict(model.named_parameters())
    assert all(torch.equal(parameter, exact[name]) for name, parameter in built.named_parameters())
    torch.testing.assert_close(logits(built), logits(model), **PARITY)


def test_values_that_float16_cannot_hold(run, tmp_path):
    base = write_base(tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = 7e4
    save_file(tensors, base / "model.safetensors")
    found = MergedTensors(base, dtype=torch.float16)
    with pytest.raises(UserError, match=r"model.safetensors: tensor model.layers.1.mlp.up_proj.weight .* float16"):
        dict(found.items())
    dict(MergedTensors(base, dtype=torch.bfloat16).items())


@pytest.mark.parametrize("size", ["10GB", "150KB", "40KB", "30KB", "1KB"])
@pytest.mark.parametrize("tied", [True, False])
def test_shards_are_those_of_transformers(tmp_path, size, tied):
    """The embedding is 25 kB, each linear of the MLP 15 kB: shards of one, of many, and tensors that fit in none.

    Given transformers' order of tensors (norms behind the linears of a layer) every tensor is in the same file.
    """
    model = reference_model(tie_word_embeddings=tied)
    right = write_checkpoint(tmp_path / "theirs", model, max_shard_size=size)
    tensors = MergedTensors(right, dtype=torch.float32)
    order = [name for name in model.state_dict() if name in tensors]
    shards = plan_shards({name: tensors.layout[name] for name in order}, shard_bytes(size))
    files = sorted(right.glob("*.safetensors"))
    assert [set(load_file(file)) for file in files] == [set(names) for names in shards]
    count = write_shards(tmp_path / "ours", tensors, shard_bytes(size))
    assert count == len(list((tmp_path / "ours").glob("*.safetensors")))
    assert (count > 1) == (tmp_path / "ours" / INDEX).exists()
    if count > 1:
        ours, theirs = (json.loads((tmp_path / name / INDEX).read_text()) for name in ("ours", "theirs"))
        assert ours["metadata"] == theirs["metadata"] and list(ours["weight_map"]) == list(theirs["weight_map"])
        for name, file in ours["weight_map"].items():
            found = load_file(tmp_path / "ours" / file)
            assert torch.equal(found[name], tensors[name])
            assert len(found) == 1 or sum(x.numel() * x.itemsize for x in found.values()) <= shard_bytes(size)


def test_shards_by_hand():
    layout = {name: (torch.float16, (size,)) for name, size in [("a", 2), ("b", 9), ("c", 2), ("d", 2), ("e", 1)]}
    assert plan_shards(layout, 10) == [["b"], ["a", "c"], ["d", "e"]]
    assert plan_shards(layout, 100) == [["a", "b", "c", "d", "e"]]
    assert plan_shards({"b": layout["b"]}, 10) == [["b"]]


def test_sizes():
    assert [shard_bytes(text) for text in ("5GB", "200MB", "1.5 kb", "2TB")] == [5 * 10**9, 2 * 10**8, 1500, 2 * 10**12]
    for text in ("", "5", "0GB", "-1GB", "5 gigabytes", "5GiB", "nanGB"):
        with pytest.raises(UserError, match="--shard-size"):
            shard_bytes(text)


# ---- memory

CHILD = """
import json, sys, threading
import torch
from tools.export.__main__ import main

def anonymous():
    with open("/proc/self/status") as handle:
        return next(int(line.split()[1]) * 1024 for line in handle if line.startswith("RssAnon"))

torch.ones(512, 512) @ torch.ones(512, 512)   # start the thread pool before counting
peak, done = 0, threading.Event()
def watch():
    global peak
    while not done.wait(0.001):
        peak = max(peak, anonymous())
thread = threading.Thread(target=watch)
before = anonymous()
thread.start()
try:
    main(sys.argv[1:])
finally:
    done.set()
thread.join()
print(json.dumps({"taken": peak - before}))
"""
SLACK = 25e6  # interpreter, tokenizer, allocator, thread stacks; far less than the model


@pytest.fixture(scope="module")
def large(run, tmp_path_factory):
    """A run on a base of 120 MB in bfloat16, whose largest tensor is a twelfth of it."""
    root = tmp_path_factory.mktemp("large")
    model = reference_model(vocab_size=8000, hidden_size=768, intermediate_size=2048, num_hidden_layers=9,
                            num_attention_heads=12, num_key_value_heads=4, head_dim=64)
    base = write_checkpoint(root / "base", model.to(torch.bfloat16), max_shard_size="40MB")
    (base / "tokenizer.model").write_bytes((run.parent / "base" / "tokenizer.model").read_bytes())
    return make_run(root / "run", run, base, "nf4")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="/proc is not there to read memory from")
@pytest.mark.parametrize("kind", ["merged", *(pytest.param(kind, marks=pytest.mark.slow)
                                              for kind in ("bnb-4bit", "peft"))])
def test_an_export_takes_the_memory_of_its_largest_tensors(large, tmp_path, kind):
    words = ["--run", str(large), "--to", kind, "--out", str(tmp_path / "out")]
    child = subprocess.run([sys.executable, "-c", CHILD, *words], capture_output=True, text=True,
                           cwd=ROOT)
    assert child.returncode == 0, child.stderr
    taken = json.loads(child.stdout.splitlines()[-1])["taken"]
    linear = 768 * 2048 * 4  # base, update and sum in float32, the bits of its nearest 4-bit places
    adapter = (large / "adapter" / "adapter_model.safetensors").stat().st_size
    whole = sum(path.stat().st_size for path in (large.parent / "base").glob("*.safetensors"))
    assert whole > 120e6 and taken <= 4 * linear + 2 * adapter + SLACK < 0.5 * whole, taken
