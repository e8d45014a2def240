"""What loading takes: the finished model and one tensor, never the checkpoint twice; from a kept copy next to nothing.

A child process loads a large checkpoint while a thread reads its anonymous memory (RssAnon in /proc,
which does not count the mapped files) a thousand times a second; a second copy would stay for far longer than that.

Deliberate break: let `loading/weights.py: read_weights` collect all tensors, cloned, in a list before it yields them;
most cases turn red. Or let `assemble.load_model` pass `copy=True` to `place`: the last one does.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common.files import ROOT
from model.config import LlamaConfig
from model.llama import LlamaForCausalLM
from tests.loading.gguf import write_llama
from tests.loading.meta import PARAMS, meta_state, write_meta
from tests.tiny import reference_model, write_checkpoint

CHILD = """
import json, sys, threading
import torch
from loading import load_model

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
model = load_model(sys.argv[1], quantize=sys.argv[2], cache=sys.argv[3] if len(sys.argv) > 3 else None)
done.set()
thread.join()
size = sum(x.numel() * x.element_size() for x in [*model.parameters(), *model.buffers()])
print(json.dumps({"taken": peak - before, "model": size}))
"""
pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="/proc is not there to read memory from")
# The interpreter, thread stacks and what the allocator keeps, more on a busy machine; far less than a second copy.
SLACK = 40e6


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    model = reference_model(vocab_size=8000, hidden_size=768, intermediate_size=2048, num_hidden_layers=9,
                            num_attention_heads=12, num_key_value_heads=4, head_dim=64)
    return write_checkpoint(tmp_path_factory.mktemp("memory") / "m", model.to(torch.bfloat16), max_shard_size="40MB")


@pytest.fixture(scope="module")
def metas(tmp_path_factory):
    """The same size in two of Meta's files."""
    params = PARAMS | {"vocab_size": 8000, "dim": 768, "n_layers": 9, "n_heads": 12, "n_kv_heads": 4}
    state = {name: tensor.bfloat16() for name, tensor in meta_state(params).items()}
    return write_meta(tmp_path_factory.mktemp("metas"), params, state, files=2)


def load_in_a_child(*words) -> dict:
    child = subprocess.run([sys.executable, "-c", CHILD, *map(str, words)], capture_output=True, text=True,
                           cwd=ROOT)
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout.splitlines()[-1])


@pytest.mark.parametrize("quantize", ["none", "nf4"])
def test_peak_is_the_model_and_one_tensor(checkpoint, quantize):
    found = load_in_a_child(checkpoint, quantize)
    largest = 8000 * 768 * 4
    whole = sum(path.stat().st_size for path in checkpoint.glob("*.safetensors"))
    assert whole > 100e6
    assert found["taken"] <= found["model"] + largest + SLACK
    if quantize == "nf4":
        assert found["model"] < 0.4 * whole


@pytest.mark.parametrize("quantize", ["none", "nf4"])
def test_metas_files_are_joined_one_tensor_at_a_time(metas, quantize):
    found = load_in_a_child(metas, quantize)
    whole = sum(path.stat().st_size for path in metas.glob("*.pth"))
    assert whole > 100e6 and found["taken"] <= found["model"] + 2 * 8000 * 768 * 4 + SLACK


def test_blocks_are_dequantised_one_tensor_at_a_time(tmp_path):
    """A GGUF file whose dense float32 would be five times the model in 4 bits."""
    config = LlamaConfig.from_dict({
        "model_type": "llama", "vocab_size": 8000, "hidden_size": 768, "intermediate_size": 2048, "head_dim": 64,
        "num_hidden_layers": 9, "num_attention_heads": 12, "num_key_value_heads": 4, "tie_word_embeddings": True})
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter.data, std=0.1)
    found = load_in_a_child(write_llama(tmp_path / "m.gguf", model, "Q4_K"), "nf4")
    dense = 4 * sum(parameter.numel() for parameter in model.parameters())
    assert found["taken"] <= found["model"] + 8000 * 768 * 4 + SLACK and dense > 5 * found["model"] > 200e6


@pytest.mark.parametrize("quantize", ["nf4", "nf4-double"])
def test_a_kept_copy_takes_no_memory_of_its_own(checkpoint, tmp_path, quantize):
    """Making it takes a tensor at a time; loading it takes norms; loading it as a folder takes the 4-bit model."""
    making = load_in_a_child(checkpoint, quantize, tmp_path)
    assert making["taken"] <= 8000 * 768 * 4 + SLACK < making["model"] + 8000 * 768 * 4
    again = load_in_a_child(checkpoint, quantize, tmp_path)
    assert again["model"] > 40e6 and again["taken"] < 10e6
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert load_in_a_child(folder, "stored")["taken"] <= again["model"] + 10e6
